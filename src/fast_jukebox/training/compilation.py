"""Compiled layers for training: the same numbers with a half of the memory traffic, where torch.compile can."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from fast_jukebox.models.prior import FastJukeboxPrior

logger = logging.getLogger(__name__)


def compile_blocks(prior: FastJukeboxPrior, batch: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> bool:
    """Compile the layers of a prior, trying them forwards and backwards on a batch; leave them as they are on failure.

    Layers of one attention pattern have the same code, so that three are compiled and not twelve.

    Args:
        prior: on its device, in training mode.
        batch: arguments of `prior.forward` with labels, of the size that will be trained on.
        dtype: of autocast; `None` for none.

    Returns:
        The layers are compiled.
    """
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
