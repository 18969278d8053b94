"""The `generate` methods of the models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, ModelOutput, cached_file

from fast_jukebox.generation.checks import (
    check_codes,
    check_count,
    check_metadata,
    common_batch,
    device_of,
    resolve_seeds,
    rows,
)
from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig
from fast_jukebox.generation.engine import EagerStep, sample_window, sampling_mode, suited_threads
from fast_jukebox.generation.plan import SongPlan, plan_song, resolve_generation_config, window_metadata
from fast_jukebox.generation.progress import ProgressCallback, ProgressClock
from fast_jukebox.generation.sampling import SamplingSettings, uniform_noise
from fast_jukebox.generation.windows import Window

if TYPE_CHECKING:
    import numpy as np

_DOWNLOAD_ARGUMENTS = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")


@dataclass
class FastJukeboxGenerationOutput(ModelOutput):
    """What [`FastJukeboxGenerationMixin.generate`] returns.

    Args:
        audio (float32 `Tensor` (N, T)): the songs, decoded from the lowest level made; at about [-1, 1], not clipped.
        codes (`list` of int64 `Tensor` (N, length) or `None`): of every level, bottom first; `None` for levels not
            made. They cover whole top codes, so up to one top hop more than the audio.
        sampling_rate (`int`): samples a second.
        seed (`int`, or `list[int]` where a list was given): with the same settings it makes the same songs again.
    """

    audio: Tensor | None = None
    codes: list[Tensor | None] | None = None
    sampling_rate: int | None = None
    seed: int | list[int] | None = None


class _GenerationConfigLoading:
    """What `from_pretrained` asks of a model that can generate: to find its `generation_config.json`."""

    generation_config_class: type[GenerationConfig] = GenerationConfig

    def adjust_generation_fn(
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        **kwargs: Any,
    ) -> None:
        """Take `generation_config`, or else the repository's own; where it has none, keep the defaults."""
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            download = {key: kwargs[key] for key in _DOWNLOAD_ARGUMENTS if kwargs.get(key) is not None}
            found = cached_file(
                pretrained_model_name_or_path,
                GENERATION_CONFIG_NAME,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **download,
            )
            if found is not None:
                folder, name = os.path.split(found)
                self.generation_config = self.generation_config_class.from_pretrained(folder, config_file_name=name)


class PriorGenerationMixin(_GenerationConfigLoading):
    """Gives a prior its `generate`: one window of codes.

    The prior has the sampling protocol: `config`, `new_cache(batch_size)`, `condition(batch_size, length, upper_codes,
    metadata)`, `prefill(codes, conditioning, cache)`, `step(code, position, conditioning, cache)`.
    """

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
    ) -> Tensor:
        """Sample one window of codes; a step's cost does not depend on its position.

        Args:
            batch_size: songs, N. Inputs with one row serve all of them; 1 gives way to the rows of the inputs.
            length: codes of the window, the prompt included, from 1 to `config.n_ctx`. By default the whole context, or
                what `upper_codes` cover if that is shorter.
            prompt: int64 (N or 1, P) codes that the window begins with, P from 0 to `length`.
            upper_codes: int64 (N or 1, `length` / `config.upper_ratio`) codes of the level above for the window's span.
                For priors that have a level above, and no others.
            metadata: int64 (N or 1, `config.metadata_length`) label vectors. For labelled priors.
            do_sample: draw codes; if `False`, take the likeliest.
            temperature: what logits are divided by, above 0.
            top_k: keep only so many of the likeliest codes; 0 keeps all.
            top_p: keep only the likeliest codes that sum to this probability, in (0, 1].
            seed: integer in [0, 2**63); `None` draws one. Row i is song i of the seed. A list gives each row its own
                seed, of which the row is song 0.

        Returns:
            int64 (N, `length`), the prompt included, on the prior's device.

        Raises:
            ValueError: naming the argument, its value and what is allowed, before anything is sampled.
        """
        config: Any = self.config  # type: ignore[attr-defined]
        settings = SamplingSettings(do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p)
        check_count("batch_size", batch_size)
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

        device = device_of(self)  # type: ignore[arg-type]
        known = rows(torch.empty((1, 0), dtype=torch.int64) if prompt is None else prompt, batch, device)
        if known.shape[1] == length:
            return known.clone()
        window = Window(level=config.level, start=0, prompt_length=known.shape[1], length=length)
        with sampling_mode(self):
            codes = _sample(
                self,
                window,
                known,
                rows(upper_codes, batch, device),
                rows(metadata, batch, device),
                settings,
                seeds,
                songs,
            )
        return codes.clone()  # outside inference mode, so that it may be trained on


class FastJukeboxGenerationMixin(_GenerationConfigLoading):
    """Gives a whole model its `generate`: songs.

    The model has `vqvae` (`config`, `encode`, `decode`) and `priors`, one a level, bottom first.
    """

    generation_config_class = FastJukeboxGenerationConfig

    def generate(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        prompt: Tensor | np.ndarray | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        start_level: int | None = None,
        stop_level: int = 0,
        metadata: Tensor | Sequence[Tensor | None] | None = None,
        seed: int | Sequence[int] | None = None,
        hop_fractions: float | Sequence[float] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        do_sample: bool | Sequence[bool] | None = None,
        progress: ProgressCallback | None = None,
        song_ids: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        generation_config: GenerationConfig | None = None,
    ) -> FastJukeboxGenerationOutput:
        """Make songs: from nothing, going on from a recording or from codes, or upsampled from the codes of upper
        levels.

        Levels are sampled from the top down, each in windows of one context that overlap. Settings that are `None` come
        from `generation_config`. Those that may differ by level are one value for all or a list, bottom first.

        Args:
            duration: seconds of the result, the prompt included, up to 86400 (a day). By default that of the given
                top codes, else that of `generation_config` (20).
            num_samples: songs, N. Inputs with one row serve all of them; 1 gives way to the rows of the inputs.
            prompt: audio (T,) or (N, T) in [-1, 1] at the model's sampling rate, with which the result begins (as the
                VQ-VAE hears it).
            prompt_duration: seconds of `prompt` to keep, by default all; cut to whole codes of the top level.
            codes: int64 (N or 1, length) for some levels, bottom first; the last entry is the top level's and `None`
                stands for a level not given: `[top]`, `[None, None, top]`, `[bottom, middle, top]`. They are kept; a
                level that is shorter than the song is gone on with, a whole one is only upsampled.
            start_level: the highest level to sample, by default the top; levels above it must be given whole in
                `codes`.
            stop_level: the lowest level to sample, 0 by default; the audio is decoded from it.
            metadata: int64 (N or 1, width) label vectors for every labelled prior, or a list of them, one a level.
                Offset and window length are filled in for each window, the total length where it is 0.
            seed: integer in [0, 2**63); `None` draws one and reports it in the output. Song i of a seed is the same
                whatever the batch. A list gives each song its own seed, of which it is song 0.
            hop_fractions: how much of a context lies between the starts of two windows, in (0, 1].
            temperature: what logits are divided by, above 0.
            top_k: keep only so many of the likeliest codes; 0 keeps all.
            top_p: keep only the likeliest codes that sum to this probability, in (0, 1].
            do_sample: draw codes; if `False`, take the likeliest.
            progress: called with a [`GenerationProgress`] a few times a second and after each window; what it raises
                ends the generation.
            song_ids: which song of the seed each row is, by default 0, 1, 2 ...; so a song of a batch can be made
                alone.
            max_batch_size: how many songs to sample at once, by default all; the codes do not depend on it.
            generation_config: used for this call in place of the model's own.

        Returns:
            A [`FastJukeboxGenerationOutput`] with `audio` (N, T), `codes`, `sampling_rate` and `seed`.

        Raises:
            ValueError: naming the argument, its value and what is allowed, before anything is sampled.
        """
        settings = {
            "hop_fractions": hop_fractions,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "do_sample": do_sample,
        }
        vqvae, priors = self.vqvae, self.priors  # type: ignore[attr-defined]
        with sampling_mode(self):
            plan = plan_song(
                vqvae,
                priors,
                resolve_generation_config(getattr(self, "generation_config", None), generation_config, settings),
                duration=duration,
                num_samples=num_samples,
                prompt=prompt,
                prompt_duration=prompt_duration,
                codes=codes,
                start_level=start_level,
                stop_level=stop_level,
                metadata=metadata,
                seed=seed,
                song_ids=song_ids,
                max_batch_size=max_batch_size,
            )
            made = _sample_song(plan, priors, vqvae.config.hop_lengths, progress)
            audio = _decode(vqvae, made[plan.stop_level :], plan.stop_level)[:, : plan.samples]
        return FastJukeboxGenerationOutput(
            audio=audio.clone(),  # outside inference mode, like the codes
            codes=[None if own is None else own.clone() for own in made],
            sampling_rate=vqvae.config.sampling_rate,
            seed=plan.seed,
        )


def _sample_song(
    plan: SongPlan, priors: Sequence[Any], hop_lengths: Sequence[int], progress: ProgressCallback | None
) -> list[Tensor | None]:
    """Codes int64 (N, length) of each level that `plan` makes or was given whole, bottom first; `None` below."""
    batches = plan.batches()
    clock = ProgressClock(progress, plan.codes_to_sample(), [len(windows) * len(batches) for windows in plan.windows])
    levels: list[Tensor | None] = [None] * len(priors)
    for level in reversed(range(plan.stop_level, len(priors))):
        prior, device = priors[level], device_of(priors[level])
        codes = torch.zeros((plan.num_samples, plan.lengths[level]), dtype=torch.int64, device=device)
        given = plan.given[level]
        if given is not None:
            codes[:, : given.shape[1]] = given.to(device)
        levels[level] = codes
        upper = levels[level + 1].to(device) if level + 1 < len(priors) else None  # type: ignore[union-attr]
        labels = rows(plan.metadata[level], plan.num_samples, device)
        count = 0
        for window in plan.windows[level]:
            window_labels = window_metadata(labels, window, prior.config.n_ctx, hop_lengths[level], plan.samples)
            for batch in batches:
                count += 1
                codes[batch, window.start : window.end] = _sample(
                    prior,
                    window,
                    codes[batch, window.start : window.new_start],
                    _upper_of(upper, window, batch, plan.lengths[level]),
                    None if window_labels is None else window_labels[batch],
                    plan.settings[level],
                    plan.seeds[batch],
                    plan.songs[batch],
                    clock.window(level, count),
                )
                clock.tell(level, count)
    return levels


def _decode(vqvae: Any, codes: Sequence[Tensor | None], start_level: int) -> Tensor:
    """Audio float32 (N, T) of the levels from `start_level` up, song by song: the same numbers in any batch."""
    device = device_of(vqvae)
    levels = [own.to(device) for own in codes if own is not None]
    songs = [vqvae.decode([own[song : song + 1] for own in levels], start_level) for song in range(len(levels[0]))]
    return torch.cat([song.float() for song in songs])


def _sample(
    prior: Any,
    window: Window,
    prompt: Tensor,
    upper_codes: Tensor | None,
    metadata: Tensor | None,
    settings: SamplingSettings,
    seeds: Sequence[int],
    songs: Sequence[int],
    after_code: Any = None,
) -> Tensor:
    """One window of some songs, int64 (N, window.length), the prompt included."""
    batch = prompt.shape[0]
    conditioning = prior.condition(batch, window.length, upper_codes=upper_codes, metadata=metadata)
    uniform = uniform_noise(seeds, songs, window.level, window.new_start, window.new_length, prompt.device)
    with suited_threads(prior):
        return sample_window(EagerStep(prior, conditioning, batch, settings), prompt, uniform, after_code)


def _upper_of(upper: Tensor | None, window: Window, batch: slice, length: int) -> Tensor | None:
    """The codes of the level above for exactly the window's span of time."""
    if upper is None:
        return None
    ratio = length // upper.shape[1]
    return upper[batch, window.start // ratio : window.end // ratio]


def _window_length(config: Any, length: Any, upper_codes: Tensor | None) -> int:
    """Codes of a prior's window, by default its context or what `upper_codes` cover."""
    if length is not None:
        return check_count("length", length, 1, config.n_ctx)
    if not isinstance(upper_codes, Tensor) or upper_codes.dim() != 2:
        return config.n_ctx
    return max(min(config.n_ctx, upper_codes.shape[1] * config.upper_ratio), 1)


def _check_conditions(config: Any, length: int, upper_codes: Tensor | None, metadata: Tensor | None) -> None:
    """Raise a `ValueError` unless a prior gets the upper codes and the metadata that it is conditioned on."""
    if config.upper_downs is None:
        if upper_codes is not None:
            raise ValueError("`upper_codes` must not be given to the prior of the top level, got codes")
    elif upper_codes is None:
        raise ValueError("`upper_codes` must be given: this prior is conditioned on the level above; got None")
    else:
        check_codes("upper_codes", upper_codes, config.upper_codebook_size or config.codebook_size)
        if upper_codes.shape[1] * config.upper_ratio != length:
            raise ValueError(
                f"`upper_codes` must have `length` / {config.upper_ratio} = {length / config.upper_ratio:g} codes, got "
                f"{upper_codes.shape[1]}"
            )
    if metadata is not None:
        check_metadata("metadata", metadata, config.metadata_length)
    elif config.metadata_length:
        raise ValueError("`metadata` must be given: this prior is conditioned on artist, genre or timing; got None")


__all__ = ["FastJukeboxGenerationMixin", "FastJukeboxGenerationOutput", "PriorGenerationMixin"]
