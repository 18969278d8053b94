"""From the arguments of `generate` to a plan: everything that can be refused is refused here, before any sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fast_jukebox.generation.decoding import KeptRecording
from fast_jukebox.generation.metadata import (
    check_labels,
    complete_metadata,
    draw_metadata,
    encode_metadata,
    level_metadata,
)
from fast_jukebox.generation.request import FastJukeboxGenerationConfig, SongModel, SongRequest
from fast_jukebox.generation.windows import SETTINGS, Layout, Window, check_duration, draw_settings, song_layouts
from fast_jukebox.sampling.checks import (
    SamplingSettings,
    check_codes_by_level,
    check_levels,
    check_prompt_audio,
    common_batch,
    fresh_seed,
    level_name,
    resolve_seeds,
)
from fast_jukebox.sampling.machine import device_of
from fast_jukebox.sampling.weights import check_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SongPlan:
    """What one call of `generate` or `stream` does. Lists have an entry a level, bottom first.

    Attributes:
        samples: audio samples of the result, T; `None` for a song without end.
        lengths: codes of the whole song; `None` likewise.
        given: int64 (1 or N, codes) known at the song's beginning, or `None`.
        layouts: which windows to sample; `None` for a level that is not sampled.
        ratios: codes that a code of the level above stands for; 1 at the top.
        settings: how codes are drawn.
        metadata: int64 (1 or N, width) label vectors, or `None` where the prior takes none.
        start_level: the highest level to sample.
        stop_level: the lowest level to sample, from which audio is decoded.
        num_samples: songs, N.
        max_batch_size: rows, a window of a song each, that are sampled at once at most; `None` for what memory allows.
        seed: what to report: the seed, or one for each song.
        seeds: each song's seed.
        songs: which song of its seed each one is.
        dropped_lyrics: of each song whose metadata is in words, the characters of its lyrics that the vocabulary cannot
            spell; `None` where the metadata is not in words.
        drawn: the metadata in words that each song got where the request lacks an artist or a genre, see
            `draw_metadata` and `complete_metadata`; else `None`.
        recording: the samples of a recording with which the songs begin; `None` where they do not.
    """

    samples: int | None
    lengths: list[int | None]
    given: list[Tensor | None]
    layouts: list[Layout | None]
    ratios: list[int]
    settings: list[SamplingSettings]
    metadata: list[Tensor | None]
    start_level: int
    stop_level: int
    num_samples: int
    max_batch_size: int | None
    seed: int | list[int]
    seeds: list[int]
    songs: list[int]
    dropped_lyrics: list[str] | None = None
    drawn: list[dict[str, object]] | None = None
    recording: KeptRecording | None = None

    @cached_property
    def windows(self) -> list[list[Window]]:
        """The windows of each level of a song that ends."""
        return [[] if layout is None else list(layout.windows()) for layout in self.layouts]


def resolve_generation_config(model: SongModel, request: SongRequest) -> FastJukeboxGenerationConfig:
    """Settings of a call: those that the request names, on top of those of its `generation_config`, or where it is
    `None` of the model's own.

    None of them is changed.
    """
    base = getattr(model, "generation_config", None) if request.generation_config is None else request.generation_config
    values = {} if base is None else base.to_dict()
    return FastJukeboxGenerationConfig.from_dict({**values, **request.settings})


def encode_prompt(vqvae: PreTrainedModel, prompt: object, prompt_duration: float | None) -> list[Tensor]:
    """Codes of the first `prompt_duration` seconds of a recording at each level, bottom first, each (songs, length).

    The recording is encoded as a whole, so that its last codes are those that it would have if it went on.

    Raises:
        ValueError: the recording is no audio, or shorter than one code of the top level, or than `prompt_duration`.
    """
    audio = check_prompt_audio(prompt)
    rate, hops = vqvae.config.sampling_rate, vqvae.hop_lengths
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


def plan_song(model: SongModel, request: SongRequest, *, endless: bool = False) -> SongPlan:
    """Check a request by the model that is to fulfil it, and lay out the work.

    Args:
        model: a whole model.
        request: what is asked for.
        endless: whether a `duration` of `None` is a song without end where the top level is sampled.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    vqvae, priors = model.vqvae, model.priors
    check_adapters(priors)
    hops, rate, num_levels = vqvae.hop_lengths, vqvae.config.sampling_rate, len(priors)
    start_level, stop_level = check_levels(request.start_level, request.stop_level, num_levels)
    config = resolve_generation_config(model, request)
    chosen = {name: getattr(config, name) for name in SETTINGS}
    settings = draw_settings(chosen, num_levels)

    given: list[Tensor | None] = [None] * num_levels
    recording = None
    if request.codes is not None:
        given = check_codes_by_level(request.codes, vqvae.config.codebook_size, hops)
    if request.prompt is not None:
        encoded = encode_prompt(vqvae, request.prompt, request.prompt_duration)
        given = list(encoded)
        kept = check_prompt_audio(request.prompt)[:, : encoded[-1].shape[1] * hops[-1]]
        recording = KeptRecording.of(kept.to("cpu", torch.float32), rate)
    duration = request.duration
    if duration is None and request.codes is None and not endless:
        duration = config.duration
    samples: int | None = None
    lengths: list[int | None] = [None] * num_levels
    if duration is not None or not endless or start_level < num_levels - 1:
        samples, lengths = song_lengths(duration, given, hops, rate)
    name = "codes" if request.prompt is None else "prompt"
    check_given(given, lengths, start_level, name, [hop / rate for hop in hops])

    sizes = {"num_samples": request.num_samples}
    sizes.update({f"codes[{level}]": own.shape[0] for level, own in enumerate(given) if own is not None})
    if isinstance(request.seed, list | tuple):
        sizes["seed"] = max(len(request.seed), 1)
    drawn = None
    metadata: object = request.metadata
    seed = fresh_seed() if request.seed is None else request.seed
    if metadata is None:
        batch = common_batch(sizes)
        reported, seeds, songs = resolve_seeds(seed, request.song_ids, batch)
        metadata = drawn = draw_metadata(model, seeds, songs, endless=samples is None)
    elif (songs_told := _songs_told(metadata)) is not None:
        _, seeds, songs = resolve_seeds(seed, request.song_ids, common_batch({**sizes, "metadata": songs_told}))
        drawn = complete_metadata(model, metadata, seeds, songs)
        metadata = metadata if drawn is None else drawn
    encoded, dropped_lyrics = encode_metadata(model, metadata)
    labels = level_metadata(encoded, priors)
    if request.metadata is not None:
        sizes.update({f"metadata[{level}]": own.shape[0] for level, own in enumerate(labels) if own is not None})
        batch = common_batch(sizes)
        reported, seeds, songs = resolve_seeds(seed, request.song_ids, batch)
    ratios = [upper // hop for hop, upper in zip(hops, [*hops[1:], hops[-1]], strict=True)]
    known = [0 if own is None else own.shape[1] for own in given]
    layouts: list[Layout | None] = [
        layout if stop_level <= layout.level <= start_level else None
        for layout in song_layouts(chosen, lengths, hops, [prior.config.n_ctx for prior in priors], known)
    ]
    check_labels(priors, labels, layouts, hops, samples)
    return SongPlan(
        samples=samples,
        lengths=lengths,
        given=given,
        layouts=layouts,
        ratios=ratios,
        settings=settings,
        metadata=labels,
        start_level=start_level,
        stop_level=stop_level,
        num_samples=batch,
        max_batch_size=request.max_batch_size,
        seed=reported,
        seeds=seeds,
        songs=songs,
        dropped_lyrics=None if request.metadata is None else dropped_lyrics,
        drawn=drawn,
        recording=recording,
    )


def _songs_told(metadata: Any) -> int | None:
    """Number of songs of metadata in words; `None` for label vectors."""
    if isinstance(metadata, Mapping):
        return 1
    words = isinstance(metadata, list | tuple) and metadata and all(isinstance(song, Mapping) for song in metadata)
    return len(metadata) if words else None


def song_lengths(
    duration: float | None, given: Sequence[Tensor | None], hops: Sequence[int], rate: int
) -> tuple[int, list[int | None]]:
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
    given: Sequence[Tensor | None], lengths: Sequence[int | None], start_level: int, name: str, seconds: Sequence[float]
) -> None:
    """Raise a `ValueError` unless the given codes fit into the song, if it ends, and are whole above `start_level`.

    `seconds` is how long a code of each level lasts.
    """
    num_levels = len(lengths)
    for level in reversed(range(num_levels)):
        own, length = given[level], lengths[level]
        if length is None:
            continue
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
