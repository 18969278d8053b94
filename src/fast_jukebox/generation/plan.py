"""From the arguments of `generate` to a plan: everything that can be refused is refused here, before any sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.checks import (
    check_codes_by_level,
    check_count,
    check_levels,
    check_metadata,
    check_prompt_audio,
    common_batch,
    device_of,
    resolve_seeds,
)
from fast_jukebox.generation.configuration import (
    FastJukeboxGenerationConfig,
    check_duration,
    default_hop_fractions,
    per_level,
)
from fast_jukebox.generation.progress import level_name
from fast_jukebox.generation.sampling import SamplingSettings
from fast_jukebox.generation.windows import Window, sampled_codes, sequential_windows

_SETTINGS = ("do_sample", "temperature", "top_k", "top_p")


@dataclass(frozen=True)
class SongPlan:
    """What one call of `generate` does. Lists have an entry a level, bottom first.

    Attributes:
        samples: audio samples of the result, T.
        lengths: codes of the whole song.
        given: int64 (1 or N, codes) known at the song's beginning, or `None`.
        windows: windows to sample, in order; none at a level that is not sampled.
        settings: how codes are drawn.
        metadata: int64 (1 or N, width) label vectors, or `None` where the prior takes none.
        start_level: the highest level to sample.
        stop_level: the lowest level to sample, from which audio is decoded.
        num_samples: songs, N.
        max_batch_size: songs that are sampled at once.
        seed: what to report: the seed, or one for each song.
        seeds: each song's seed.
        songs: which song of its seed each one is.
    """

    samples: int
    lengths: list[int]
    given: list[Tensor | None]
    windows: list[list[Window]]
    settings: list[SamplingSettings]
    metadata: list[Tensor | None]
    start_level: int
    stop_level: int
    num_samples: int
    max_batch_size: int
    seed: int | list[int]
    seeds: list[int]
    songs: list[int]

    def batches(self) -> list[slice]:
        """Rows that are sampled together."""
        starts = range(0, self.num_samples, self.max_batch_size)
        return [slice(start, min(start + self.max_batch_size, self.num_samples)) for start in starts]

    def codes_to_sample(self) -> list[int]:
        """How many codes each level samples, counted once for songs that are sampled together."""
        return [sampled_codes(windows) * len(self.batches()) for windows in self.windows]


def resolve_generation_config(own: Any, given: Any, settings: dict[str, Any]) -> FastJukeboxGenerationConfig:
    """Settings of a call: those that were named, on top of those of `given`, or where it is `None` of the model's
    `own`.

    Neither is changed.
    """
    base = own if given is None else given
    values = {} if base is None else base.to_dict()
    values.update({name: value for name, value in settings.items() if value is not None})
    return FastJukeboxGenerationConfig.from_dict(values)


def encode_prompt(vqvae: Any, prompt: Any, prompt_duration: float | None) -> list[Tensor]:
    """Codes of the first `prompt_duration` seconds of a recording at each level, bottom first, each (songs, length).

    The recording is encoded as a whole, so that its last codes are those that it would have if it went on.

    Raises:
        ValueError: the recording is no audio, or shorter than one code of the top level, or than `prompt_duration`.
    """
    audio = check_prompt_audio(prompt)
    rate, hops = vqvae.config.sampling_rate, vqvae.config.hop_lengths
    available = audio.shape[1]
    wanted = available
    if prompt_duration is not None:
        check_duration("prompt_duration", prompt_duration)
        wanted = round(prompt_duration * rate)
        if wanted > available:
            raise ValueError(
                f"`prompt_duration` must be at most the prompt's {available / rate:g} seconds, got {prompt_duration!r}"
            )
    top_codes = wanted // hops[-1]
    if top_codes == 0:
        name = "prompt" if prompt_duration is None else "prompt_duration"
        raise ValueError(
            f"`{name}` must be at least one top code long, {hops[-1]} samples ({hops[-1] / rate:g} seconds), got "
            f"{wanted} samples"
        )
    device = device_of(vqvae)
    whole = audio[:, : available // hops[-1] * hops[-1]].to(device=device, dtype=torch.float32)
    songs = [vqvae.encode(song) for song in whole.split(1)]  # one by one: the same codes in any batch
    return [
        torch.cat([song[level] for song in songs])[:, : top_codes * (hops[-1] // hop)] for level, hop in enumerate(hops)
    ]


def plan_song(
    vqvae: Any,
    priors: Sequence[Any],
    config: FastJukeboxGenerationConfig,
    *,
    duration: float | None,
    num_samples: int,
    prompt: Any,
    prompt_duration: float | None,
    codes: Any,
    start_level: int | None,
    stop_level: int,
    metadata: Any,
    seed: Any,
    song_ids: Any,
    max_batch_size: int | None,
) -> SongPlan:
    """Check the arguments of [`FastJukeboxGenerationMixin.generate`], which explains them, and lay out the work.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    hops, rate, num_levels = vqvae.config.hop_lengths, vqvae.config.sampling_rate, len(priors)
    check_count("num_samples", num_samples)
    if max_batch_size is not None:
        check_count("max_batch_size", max_batch_size)
    start_level, stop_level = check_levels(start_level, stop_level, num_levels)
    settings, hop_fractions = level_settings(config, num_levels)
    if duration is not None:
        check_duration("duration", duration)
    if prompt is not None and codes is not None:
        raise ValueError("`prompt` and `codes` must not both be given: `codes` may begin with those of a recording")
    if prompt is None and prompt_duration is not None:
        raise ValueError(f"`prompt_duration` must not be given without `prompt`, got {prompt_duration!r}")

    given: list[Tensor | None] = [None] * num_levels
    if codes is not None:
        given = check_codes_by_level(codes, vqvae.config.codebook_size, hops)
    labels = level_metadata(metadata, priors)
    if prompt is not None:
        given = list(encode_prompt(vqvae, prompt, prompt_duration))
    samples, lengths = song_lengths(duration if codes is not None else duration or config.duration, given, hops, rate)
    check_given(given, lengths, start_level, "codes" if prompt is None else "prompt", [hop / rate for hop in hops])

    sizes = {"num_samples": num_samples}
    sizes.update({f"codes[{level}]": own.shape[0] for level, own in enumerate(given) if own is not None})
    sizes.update({f"metadata[{level}]": own.shape[0] for level, own in enumerate(labels) if own is not None})
    if isinstance(seed, list | tuple):
        sizes["seed"] = max(len(seed), 1)
    batch = common_batch(sizes)
    reported, seeds, songs = resolve_seeds(seed, song_ids, batch)
    windows: list[list[Window]] = [[] for _ in priors]
    for level in range(stop_level, start_level + 1):
        known = given[level]
        windows[level] = sequential_windows(
            level,
            lengths[level],
            priors[level].config.n_ctx,
            hop_fractions[level],
            upper_ratio=hops[level + 1] // hops[level] if level + 1 < num_levels else 1,
            given=0 if known is None else known.shape[1],
        )
    check_labels(priors, labels, windows, hops, samples)
    return SongPlan(
        samples=samples,
        lengths=lengths,
        given=given,
        windows=windows,
        settings=settings,
        metadata=labels,
        start_level=start_level,
        stop_level=stop_level,
        num_samples=batch,
        max_batch_size=batch if max_batch_size is None else max_batch_size,
        seed=reported,
        seeds=seeds,
        songs=songs,
    )


def level_settings(config: FastJukeboxGenerationConfig, num_levels: int) -> tuple[list[SamplingSettings], list[float]]:
    """How codes are drawn, and the hop fraction, at each level.

    Raises:
        ValueError: a list in `config` has another number of levels.
    """
    columns = [per_level(name, getattr(config, name), num_levels) for name in _SETTINGS]
    settings = [SamplingSettings(**dict(zip(_SETTINGS, row, strict=True))) for row in zip(*columns, strict=True)]
    published = default_hop_fractions(num_levels)
    chosen = per_level("hop_fractions", config.hop_fractions, num_levels)
    return settings, [default if own is None else own for own, default in zip(chosen, published, strict=True)]


def song_lengths(
    duration: float | None, given: Sequence[Tensor | None], hops: Sequence[int], rate: int
) -> tuple[int, list[int]]:
    """Audio samples of the result and codes of each level: of `duration`, or where it is `None` of the given top codes.

    Raises:
        ValueError: the duration is shorter than one sample, or the given top codes are longer than a song can be.
    """
    top_hop = hops[-1]
    top_given = given[-1]
    if duration is None:
        top_codes = 0 if top_given is None else top_given.shape[1]
        if top_codes == 0:
            raise ValueError(
                "`codes` must hold at least one code of the top level where `duration` is not given, got none"
            )
        check_duration("codes", top_codes * top_hop / rate)
        samples = top_codes * top_hop
    else:
        samples = round(duration * rate)
        if samples == 0:
            raise ValueError(f"`duration` must be at least one sample, {1 / rate:g} seconds, got {duration!r}")
        top_codes = math.ceil(samples / top_hop)
    return samples, [top_codes * (top_hop // hop) for hop in hops]


def check_given(
    given: Sequence[Tensor | None], lengths: Sequence[int], start_level: int, name: str, seconds: Sequence[float]
) -> None:
    """Raise a `ValueError` unless the given codes fit into the song and are whole above `start_level`.

    `seconds` is how long a code of each level lasts.
    """
    num_levels = len(lengths)
    for level in reversed(range(num_levels)):
        own, length = given[level], lengths[level]
        count = 0 if own is None else own.shape[1]
        where = f"of the {level_name(level, num_levels)} level"
        if count > length:
            raise ValueError(
                f"`{name}` must not be longer than the song, whose `duration` is {length * seconds[level]:g} seconds, "
                f"{length} codes {where}; got {count * seconds[level]:g} seconds, {count} codes"
            )
        if level > start_level and count != length:
            raise ValueError(
                f"`{name}` must hold all {length} codes {where}, above `start_level` {start_level}; got {count}"
            )


def level_metadata(metadata: Any, priors: Sequence[Any]) -> list[Tensor | None]:
    """Label vectors of each level, bottom first: the same for all, or a list with an entry a level.

    A prior takes as many columns as it knows; a prior without labels takes none.

    Raises:
        ValueError: no metadata for a prior that needs it, metadata where none is taken, or of another type, width or
            number of levels.
    """
    entries = metadata if isinstance(metadata, list | tuple) else [metadata] * len(priors)
    if len(entries) != len(priors):
        raise ValueError(f"`metadata` must have one entry for each of {len(priors)} levels, got {len(entries)}")
    shared = not isinstance(metadata, list | tuple)
    widths = [prior.config.metadata_length for prior in priors]
    labels: list[Tensor | None] = []
    for level, (entry, width) in enumerate(zip(entries, widths, strict=True)):
        name = "metadata" if shared else f"metadata[{level}]"
        if entry is not None:
            check_metadata(name, entry, max(widths) if shared else width)
        if width and entry is None:
            raise ValueError(
                f"`{name}` must be given: the {level_name(level, len(priors))} prior is conditioned on artist, genre "
                "or timing; got None"
            )
        labels.append(entry[:, :width] if width and entry is not None else None)
    return labels


def check_labels(
    priors: Sequence[Any],
    labels: Sequence[Tensor | None],
    windows: Sequence[Sequence[Window]],
    hops: Sequence[int],
    samples: int,
) -> None:
    """Let each labelled prior see its label vectors at its first and last window, of which one upper code is enough,
    before any level is sampled.

    Raises:
        ValueError: the prior refuses an artist, a genre or a length.
    """
    for prior, own, its_windows, hop in zip(priors, labels, windows, hops, strict=True):
        if own is None or not its_windows:
            continue
        device, ratio = device_of(prior), prior.config.upper_ratio
        upper = torch.zeros((own.shape[0], 1), dtype=torch.int64, device=device) if prior.config.upper_downs else None
        for window in [*its_windows[:1], *its_windows[1:][-1:]]:
            seen = window_metadata(own.to(device), window, prior.config.n_ctx, hop, samples)
            prior.condition(own.shape[0], ratio, upper_codes=upper, metadata=seen)


def window_metadata(labels: Tensor | None, window: Window, n_ctx: int, hop_length: int, samples: int) -> Tensor | None:
    """`labels` (N, width) with the window's offset and a context's length, and the song's where it is 0, in samples.

    The length is that of a whole context for shorter windows too: the prior spreads it over its `n_ctx` positions.
    """
    if labels is None:
        return None
    labels = labels.clone()
    labels[:, 0].masked_fill_(labels[:, 0] == 0, samples)
    labels[:, 1] = window.start * hop_length
    labels[:, 2] = n_ctx * hop_length
    return labels


__all__ = [
    "SongPlan",
    "check_labels",
    "encode_prompt",
    "level_metadata",
    "level_settings",
    "plan_song",
    "resolve_generation_config",
    "song_lengths",
    "window_metadata",
]
