"""Windows to sample in benchmarks: priors and models of random weights, inputs, and the seconds of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.report import clock
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import uniform_noise
from fast_jukebox.sampling.engine import open_decoder, sample_window
from fast_jukebox.sampling.protocols import Decoder


def random_prior(config: FastJukeboxPriorConfig, device: str, dtype: torch.dtype) -> FastJukeboxPrior:
    """A prior of random weights, made on the device."""
    with _made_on(device, dtype):
        return FastJukeboxPrior(config).to(device).eval()


def random_model(config: FastJukeboxConfig, device: str, dtype: torch.dtype) -> FastJukeboxModel:
    """A complete model of random weights, made on the device, its VQ-VAE in float32 as it is loaded."""
    with _made_on(device, dtype):
        model = FastJukeboxModel(config)
    model.vqvae.float()
    return model.to(device).eval()


@contextmanager
def _made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def upper_codes(prior: FastJukeboxPrior, batch: int, length: int) -> Tensor | None:
    """Codes of the level above windows of so many codes; `None` at the top."""
    if not prior.config.has_upper_level:
        return None
    size = prior.config.upper_codebook_size or prior.config.codebook_size
    return torch.randint(size, (batch, length // prior.config.upper_ratio), device=prior.device)


def any_labels(prior: FastJukeboxPrior, batch: int) -> Tensor | None:
    """Labels of unknown songs, as long as the prior allows at least; `None` for a prior without labels."""
    config = prior.config
    if not config.metadata_length:
        return None
    labels = torch.zeros((batch, config.metadata_length), dtype=torch.int64, device=prior.device)
    labels[:, 0] = int(config.min_duration * config.sampling_rate) + 1
    return labels


def window_inputs(prior: FastJukeboxPrior, batch: int, steps: int) -> tuple[PriorConditioning, Tensor]:
    """Conditioning and noise of windows of so many codes."""
    conditioning = prior.condition(batch, steps, upper_codes(prior, batch, steps), any_labels(prior, batch))
    return conditioning, uniform_noise(0, range(batch), prior.config.level, 0, steps, prior.device)


def window_sampler(
    prior: FastJukeboxPrior, batch: int, steps: int, engine: str, conditioning: PriorConditioning | None = None
) -> Callable[[], tuple[Tensor, Decoder]]:
    """A function that samples the same windows of so many codes again and again; it returns codes and decoder."""
    drawn, uniform = window_inputs(prior, batch, steps)
    conditioning = drawn if conditioning is None else conditioning
    prompt = torch.zeros(batch, 0, dtype=torch.int64, device=prior.device)

    def run() -> tuple[Tensor, Decoder]:
        decoder = open_decoder(prior, conditioning, batch, SamplingSettings(), engine)
        return sample_window(decoder, prompt, uniform), decoder

    return run


def window_seconds(prior: FastJukeboxPrior, batch: int, steps: int, engine: str, runs: int = 4) -> tuple[float, float]:
    """Seconds of the fastest of some windows after the first, and what the first one took beyond that."""
    run = window_sampler(prior, batch, steps, engine)
    first, *others = (clock(run, prior.device.type) for _ in range(runs))
    return min(others), max(first - min(others), 0.0)


def weight_bytes(prior: FastJukeboxPrior) -> int:
    """Bytes of the weights that a step reads."""
    return sum(weight.nbytes for weight in prior.blocks.parameters()) + prior.code_embedding.weight.nbytes


def stream_seconds(model: FastJukeboxModel, **options: object) -> tuple[float, float]:
    """Seconds to the first sound of a stream, and seconds of compute a second of audio after it."""
    begin = time.perf_counter()
    first = heard = 0.0
    for chunk in model.stream(**options):
        chunk.cpu()
        if first:
            heard += chunk.shape[-1] / model.config.sampling_rate
        else:
            first = time.perf_counter() - begin
    rest = time.perf_counter() - begin - first
    return first, rest / heard if heard else 0.0
