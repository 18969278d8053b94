"""The choice of a prior's engine: one call of the model a code, recorded or fused steps, or compiled C."""

from __future__ import annotations

import logging

from fast_jukebox.models.prior.engines.cuda_graph import GraphDecoder
from fast_jukebox.models.prior.engines.fused import FusedDecoder
from fast_jukebox.models.prior.engines.fused_trial import trusted_decoder
from fast_jukebox.models.prior.engines.interface import EngineDecoder, EnginePrior
from fast_jukebox.models.prior.engines.native import NativeDecoder, unsupported
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library
from fast_jukebox.sampling.checks import SamplingSettings

logger = logging.getLogger(__name__)

NATIVE_WIDEST = 1024
"""Widest prior that `"auto"` steps in C: that shares out songs between threads, where one song of a wider prior is
quicker with all threads at work on each product.
"""

_told: set[str] = set()


def choose_engine(prior: EnginePrior) -> str:
    """The engine that `"auto"` means for a prior.

    `"graph"` on a GPU, where [`new_decoder`] takes `"fused"` if that has shown itself right and no slower; `"native"`
    on a CPU with a C compiler for priors in float32 up to `NATIVE_WIDEST`; else `"eager"`. On a CPU the batch has no
    say, so that the codes do not depend on it.
    """
    device = prior.position_embedding.device.type
    if device == "cuda":
        return "graph"
    if device != "cpu" or prior.config.hidden_size > NATIVE_WIDEST or unsupported(prior) is not None:
        return "eager"
    try:
        library()
    except NativeUnavailable as error:
        if str(error) not in _told:
            _told.add(str(error))
            logger.warning("sampling falls back to the slower `engine='eager'`: %s", error)
        return "eager"
    return "native"


def new_decoder(
    prior: EnginePrior, batch_size: int, settings: SamplingSettings, engine: str = "auto", threads: int = 1
) -> EngineDecoder | None:
    """A decoder that samples windows of the prior, or None where the eager one is meant.

    Args:
        prior: the prior.
        batch_size: songs.
        settings: how a code is drawn.
        engine: one of [`~fast_jukebox.sampling.engine.ENGINES`].
        threads: that `"native"` may use.

    Raises:
        NativeUnavailable: `"native"` was asked for and could not be built.
        ValueError: `"native"` was asked for and does not know the prior.
    """
    if engine == "auto":
        engine = choose_engine(prior)
        if engine == "graph":
            decoder = trusted_decoder(prior, batch_size, settings)
            if decoder is not None:
                return decoder
    if engine == "native":
        return NativeDecoder(prior, batch_size, settings, threads)
    if engine in ("graph", "compiled"):
        return GraphDecoder(prior, batch_size, settings, compiled=engine == "compiled")
    if engine == "fused":
        return FusedDecoder(prior, batch_size, settings)
    return None
