"""Compiled layers for training: the same numbers with a half of the memory traffic, where torch.compile can."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fast_jukebox.models.prior import FastJukeboxPrior

logger = logging.getLogger(__name__)


def random_batch(prior: FastJukeboxPrior, batch_size: int) -> dict[str, Tensor]:
    """Arguments of a prior's forward pass for complete windows of random codes, with labels."""
    config = prior.config
    codes = torch.randint(config.codebook_size, (batch_size, config.n_ctx), device=prior.device)
    batch = {"codes": codes, "labels": codes}
    if config.has_upper_level:
        batch["upper_codes"] = codes[:, :: config.upper_ratio] % (config.upper_codebook_size or config.codebook_size)
    if config.has_labels:
        window = config.n_ctx * config.hop_length
        total = round(config.min_duration * config.sampling_rate) + window
        labels = torch.tensor([total, 0, window, 0] + [0] * config.max_genres, device=prior.device)
        batch["metadata"] = labels.expand(batch_size, -1).contiguous()
    return batch


def compile_blocks(prior: FastJukeboxPrior, batch_size: int, dtype: torch.dtype | None = None) -> bool:
    """Compile the layers of a prior, trying them forwards and backwards on [`random_batch`]; leave them as they are on
    failure.

    Layers of one attention pattern have the same code, so that three are compiled and not twelve.

    Args:
        prior: on its device, in training mode.
        batch_size: windows in a step.
        dtype: of autocast; `None` for none.

    Returns:
        The layers are compiled.
    """
    batch = random_batch(prior, batch_size)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in prior.blocks:
        block.compile(dynamic=False)
    try:
        with torch.autocast(prior.device.type, dtype=dtype, enabled=dtype is not None):
            loss = prior(**batch).loss
        loss.backward()
        with torch.no_grad(), torch.autocast(prior.device.type, dtype=dtype, enabled=dtype is not None):
            prior.eval()(**batch)  # evaluations compile separate code
        good = bool(torch.isfinite(loss))
    except Exception as error:  # compilers fail in many ways, and training goes on without them
        logger.warning("the layers are not compiled: %s: %s", type(error).__name__, str(error)[:500])
        good = False
    prior.train().zero_grad(set_to_none=True)
    if not good:
        for block in prior.blocks:
            block._compiled_call_impl = None
    return good
