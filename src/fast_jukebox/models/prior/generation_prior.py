"""The `generate` method of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fast_jukebox.generation.config_loading import GenerationConfigLoading
from fast_jukebox.models.prior.conditioning import check_upper_codes
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.sampling.checks import (
    MOST_SONGS,
    SamplingSettings,
    check_codes,
    check_count,
    check_metadata,
    common_batch,
    resolve_seeds,
)
from fast_jukebox.sampling.drawing import uniform_noise
from fast_jukebox.sampling.engine import WindowSampling, check_engine, sampling_mode
from fast_jukebox.sampling.machine import device_of, rows
from fast_jukebox.sampling.protocols import SamplingPrior
from fast_jukebox.sampling.weights import check_adapters


class PriorGenerationMixin(GenerationConfigLoading):
    """The `generate` of a prior: one window of codes.

    The prior has the sampling protocol: `config`, `new_cache(batch_size)`, `condition(batch_size, length, upper_codes,
    metadata, after_song)`, `prefill(codes, conditioning, cache)`, `step(code, position, conditioning, cache)`.
    """

    config: FastJukeboxPriorConfig

    def generate(
        self,
        batch_size: int = 1,
        length: int | None = None,
        prompt: Tensor | None = None,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | Sequence[int] | None = None,
        engine: str = "auto",
    ) -> Tensor:
        """Sample one window of codes; a step's cost does not depend on its position.

        Args:
            batch_size: songs, N; where it is 1, as many as the inputs have rows. Inputs with one row serve all songs.
            length: codes of the window, the prompt included, from 1 to `config.n_ctx`. By default the context, or
                what `upper_codes` cover if that is shorter.
            prompt: int64 (N or 1, P) codes that the window begins with, P from 0 to `length`.
            upper_codes: int64 (N or 1, `length` / `config.upper_ratio`) codes of the level above for the window's span.
                For priors that have a level above, and no others.
            metadata: int64 (N or 1, `config.metadata_length`) label vectors. For labelled priors.
            do_sample: draw codes; if `False`, take the most probable.
            temperature: what logits are divided by, above 0.
            top_k: keep only so many of the most probable codes; 0 keeps all.
            top_p: keep only the most probable codes that sum to this probability, in (0, 1].
            seed: integer in [0, 2**63); `None` draws one. Row i is song i of the seed. A list gives each row its own
                seed, of which the row is song 0.
            engine: what runs a step, one of [`~fast_jukebox.sampling.engine.ENGINES`].

        Returns:
            int64 (N, `length`), the prompt included, on the prior's device.

        Raises:
            ValueError: naming the argument, its value and what is allowed, before anything is sampled.
        """
        config, prior = self.config, cast("SamplingPrior[object, object]", self)
        settings = SamplingSettings(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p)
        check_count("batch_size", batch_size, 1, MOST_SONGS)
        check_engine(engine)
        if isinstance(self, nn.Module):
            check_adapters([self])
        length = _window_length(config, length, upper_codes)
        if prompt is not None and check_codes("prompt", prompt, config.codebook_size).shape[1] > length:
            raise ValueError(f"`prompt` must be at most `length` {length} codes long, got {prompt.shape[1]}")
        _check_conditions(config, length, upper_codes, metadata)
        inputs = {"prompt": prompt, "upper_codes": upper_codes, "metadata": metadata}
        sizes = {name: value.shape[0] for name, value in inputs.items() if value is not None}
        if isinstance(seed, list | tuple):
            sizes["seed"] = max(len(seed), 1)
        batch = common_batch({"batch_size": batch_size, **sizes})
        _, seeds, songs = resolve_seeds(seed, None, batch)

        device = device_of(prior)
        known = rows(torch.empty((1, 0), dtype=torch.int64) if prompt is None else prompt, batch, device)
        if known.shape[1] == length:
            return known.clone()
        new = length - known.shape[1]
        noise = uniform_noise(seeds, songs, config.level, known.shape[1], new, device)
        above, labels = rows(upper_codes, batch, device), rows(metadata, batch, device)
        with sampling_mode(self):
            codes = WindowSampling(prior, length, known, above, labels, settings, noise, engine).sample()
        return codes.clone()  # outside inference mode, so that it may be trained on


def _window_length(config: FastJukeboxPriorConfig, length: object, upper_codes: Tensor | None) -> int:
    """Codes of a prior's window, by default its context or what `upper_codes` cover."""
    if length is not None:
        return check_count("length", length, 1, config.n_ctx)
    if not isinstance(upper_codes, Tensor) or upper_codes.dim() != 2:
        return config.n_ctx
    return max(min(config.n_ctx, upper_codes.shape[1] * config.upper_ratio), 1)


def _check_conditions(
    config: FastJukeboxPriorConfig, length: int, upper_codes: Tensor | None, metadata: Tensor | None
) -> None:
    """Raise a `ValueError` unless a prior gets the upper codes and the metadata that it is conditioned on."""
    check_upper_codes(upper_codes, config, None, length)
    if metadata is not None:
        check_metadata("metadata", metadata, config.metadata_length)
    elif config.metadata_length:
        raise ValueError("`metadata` must be given: this prior is conditioned on artist, genre or timing; got None")
