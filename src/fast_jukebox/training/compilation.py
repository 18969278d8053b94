"""Compiled layers for training: the same numbers with a half of the memory traffic, where torch.compile can."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from fast_jukebox.models.prior import FastJukeboxPrior

logger = logging.getLogger(__name__)


def random_batch(prior: FastJukeboxPrior, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
    """Arguments of a prior's forward pass for windows of `length` random codes, by default the context, with labels."""
    config = prior.config
    codes = torch.randint(config.codebook_size, (batch_size, length or config.n_ctx), device=prior.device)
    batch = {"codes": codes, "labels": codes}
    if config.has_upper_level:
        batch["upper_codes"] = codes[:, :: config.upper_ratio] % (config.upper_codebook_size or config.codebook_size)
    if config.has_labels:
        window = config.n_ctx * config.hop_length
        total = round(config.min_duration * config.sampling_rate) + window
        labels = torch.tensor([total, 0, window, 0] + [0] * config.max_genres, device=prior.device)
        batch["metadata"] = labels.expand(batch_size, -1).contiguous()
    return batch


def compile_blocks(
    prior: FastJukeboxPrior, batch_size: int, dtype: torch.dtype | None = None, window_parts: Sequence[int] = (1,)
) -> bool:
    """Compile the layers of a prior, trying them forwards and backwards on [`random_batch`]; leave them as they are on
    failure.

    Layers of one attention pattern have the same code, so that three are compiled and not twelve.

    Args:
        prior: on its device, in training mode.
        batch_size: windows in a step.
        dtype: of autocast; `None` for none.
        window_parts: of [`~fast_jukebox.data.device_codes.DeviceCodeBatches`], each of which is compiled.

    Returns:
        The layers are compiled.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for block in prior.blocks:
        block.compile(dynamic=False)
    try:
        good = True
        for part in window_parts:
            batch = random_batch(prior, batch_size * part, prior.config.n_ctx // part)
            with torch.autocast(prior.device.type, dtype=dtype, enabled=dtype is not None):
                loss = prior(**batch).loss
            loss.backward()
            good = good and bool(torch.isfinite(loss))
        with torch.no_grad(), torch.autocast(prior.device.type, dtype=dtype, enabled=dtype is not None):
            prior.eval()(**random_batch(prior, batch_size))  # evaluations compile separate code
    except Exception as error:  # compilers fail in many ways, and training goes on without them
        logger.warning("the layers are not compiled: %s: %s", type(error).__name__, str(error)[:500])
        good = False
    prior.train().zero_grad(set_to_none=True)
    if not good:
        for block in prior.blocks:
            block._compiled_call_impl = None
    return good
