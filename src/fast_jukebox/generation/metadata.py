"""Metadata: from words to label vectors, and from those of a song to those of each window and level."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.windows import Layout, Window
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.vocabulary import MAX_TOTAL_DURATION, check_song, window_lyrics
from fast_jukebox.sampling.checks import check_metadata, level_name
from fast_jukebox.sampling.machine import device_of

_KINDS = ("artist", "genre")
"""The names of a song, in the order of the pairs that are known."""


def encode_metadata(model: Any, metadata: Any, quiet: bool = False) -> tuple[Any, list[str] | None]:
    """Label vectors of what is written of one song or of several; label vectors are left as they are.

    Args:
        model: its `processor` knows the names; without one a model receives no names, but lyrics and lengths.
        metadata: a dictionary or a list of them, see [`~fast_jukebox.processing.FastJukeboxProcessor.__call__`]; or
            label vectors.
        quiet: no warning of what is dropped of lyrics.

    Returns:
        What [`level_metadata`] takes, and of dictionaries what was dropped of each song's lyrics.

    Raises:
        ValueError: the model has no labels, or there are names that it has no vocabularies for, or what the processor
            refuses.
    """
    if isinstance(metadata, str):
        raise ValueError(
            f"`metadata` must be a dictionary for each song, such as {{'genre': {metadata!r:.80}}}, or label vectors, "
            "got a text"
        )
    several = isinstance(metadata, list | tuple) and any(isinstance(song, Mapping) for song in metadata)
    if not isinstance(metadata, Mapping) and not several:
        return metadata, None
    processor = getattr(model, "processor", None)
    if not any(prior.config.metadata_length for prior in model.priors):
        raise ValueError("`metadata` must be left out where no prior has labels, got what is written of songs")
    songs = [metadata] if isinstance(metadata, Mapping) else metadata
    sings = any(lyric_length_of(prior.config) for prior in model.priors)
    if not sings and any(isinstance(song, Mapping) and song.get("lyrics") for song in songs):
        raise ValueError("`lyrics` must be left out where no prior is conditioned on lyrics: the model does not sing")
    if processor is None:
        for song in songs:
            _check_no_names(song)
        processor = FastJukeboxProcessor.without_names(model.config)
    processor.check(model.config)
    labels = processor.encode(metadata) if quiet else processor(metadata)
    return labels.metadata, labels.dropped


def draw_metadata(
    model: Any, seeds: Sequence[int], songs: Sequence[int], endless: bool = False
) -> list[dict[str, Any]] | None:
    """An artist and a genre that the model's songs had together for each of several songs, where nothing is asked for.

    What a song gets is a function of its seed and its number alone. A song without end is also given a length, the
    longest that the priors take, of which it begins in the middle.

    Args:
        model: its `processor` knows the pairs.
        seeds: of each song.
        songs: which song of its seed each one is.
        endless: whether the songs have no end.

    Returns:
        A dictionary in words a song; `None` where no prior has labels, or no pairs are known.
    """
    pairs = getattr(getattr(model, "processor", None), "pairs", ())
    configs = [prior.config for prior in model.priors if prior.config.metadata_length]
    if not configs or not pairs:
        return None
    drawn: list[dict[str, Any]] = []
    for seed, song in zip(seeds, songs, strict=True):
        drawn.append(dict(zip(_KINDS, _drawn(pairs, seed, song), strict=True)))
        if endless and any(config.use_timing for config in configs):
            longest = min(config.max_duration for config in configs)
            context = max(config.n_ctx * config.hop_length / config.sampling_rate for config in configs)
            whole = min(longest - context - 1, MAX_TOTAL_DURATION)
            drawn[-1] |= {"total_duration": whole, "offset": whole // 2}
    return drawn


def complete_metadata(
    model: Any, metadata: Any, seeds: Sequence[int], songs: Sequence[int]
) -> list[dict[str, Any]] | None:
    """What is written of songs, with the artist and the genre drawn where neither is named, and the other one where
    only an artist or only a genre is.

    Both are those of [`draw_metadata`]. The other one is of a pair that the model's songs had together, or where it
    knows none with that name, of any pair; a function of the song's seed and its number too. A song that takes names as
    `unknown` ones is left as it is.

    Args:
        model: its `processor` knows the pairs.
        metadata: as [`encode_metadata`] takes it.
        seeds: of each song.
        songs: which song of its seed each one is.

    Returns:
        A dictionary a song; `None` where nothing is to be drawn.

    Raises:
        ValueError: what is written is not as asked; see [`~fast_jukebox.processing.vocabulary.check_song`].
    """
    processor = getattr(model, "processor", None)
    pairs = getattr(processor, "pairs", ())
    written = [metadata] * len(seeds) if isinstance(metadata, Mapping) else metadata
    if (
        processor is None
        or not pairs
        or not isinstance(written, list | tuple)
        or not all(isinstance(song, Mapping) for song in written)
    ):
        return None
    written = [check_song(song) for song in written]
    if len(written) == 1:
        written = written * len(seeds)
    normalise = processor.vocabularies[-1].normalise
    completed: list[dict[str, object]] = []
    for stated, seed, song in zip(written, seeds, songs, strict=True):
        fitting = pairs
        for place, kind in enumerate(_KINDS):
            if given := stated.get(kind):
                names = [normalise(name) for name in ([given] if isinstance(given, str) else given)]
                fitting = [pair for pair in pairs if pair[place] in names] or pairs
        named = {} if stated.get("unknown") else dict(zip(_KINDS, _drawn(fitting, seed, song), strict=True))
        completed.append({**stated, **{kind: name for kind, name in named.items() if not stated.get(kind)}})
    return completed if completed != written else None


def _drawn(pairs: Sequence[tuple[str, str]], seed: int, song: int) -> tuple[str, str]:
    """The pair that a song of a seed gets."""
    digest = hashlib.sha256(f"labels/{seed}/{song}".encode()).digest()
    return pairs[int.from_bytes(digest[:8], "big") % len(pairs)]


def _check_no_names(song: Any) -> None:
    """Raise a `ValueError` where a song has names, and does not take them as unknown ones."""
    given = {} if not isinstance(song, Mapping) or song.get("unknown") else song
    names = [str(given[kind]) for kind in _KINDS if given.get(kind)]
    if names:
        raise ValueError(
            "`metadata` must name no artist and no genre where the model has no vocabularies of them: give it some "
            "(`model.processor = FastJukeboxProcessor.from_vocabulary_files(...)`), or take names as unknown ones with "
            f"`unknown`; got {', '.join(names)}"
        )


def lyric_length_of(config: Any) -> int:
    """Characters that a window of a prior receives; 0 for priors of other makes."""
    return getattr(config, "lyric_length", 0)


def with_window_lyrics(labels: Tensor | None, config: Any) -> Tensor | None:
    """Label vectors with their own window's part of the song's lyrics, for a prior of a configuration.

    Args:
        labels: int64 (N, label length + any number of characters), filled in for a window.
        config: of the prior.
    """
    lyric_length = lyric_length_of(config)
    if labels is None or lyric_length == 0:
        return labels
    return window_lyrics(labels, config.metadata_length - lyric_length, lyric_length)[0]


def check_song_lyrics(name: str, labels: Tensor, config: Any) -> None:
    """Raise a `ValueError` unless the characters of songs exist, and -1 stands only after them."""
    lyric_length = lyric_length_of(config)
    text = labels[:, config.metadata_length - lyric_length :]
    if lyric_length == 0 or text.numel() == 0:
        return
    low, high = int(text.min()), int(text.max())
    if low < -1 or high >= config.lyric_vocab_size:
        raise ValueError(
            f"`{name}` lyrics must be characters in [0, {config.lyric_vocab_size}), then -1, got {low} to {high}"
        )
    if bool(((text[:, 1:] >= 0) & (text[:, :-1] < 0)).any()):
        raise ValueError(f"`{name}` lyrics must have -1 after their end only, got it before a character")


def level_metadata(metadata: Any, priors: Sequence[Any]) -> list[Tensor | None]:
    """Label vectors of each level, bottom first: the same for all, or a list with an entry a level.

    A prior takes as many columns as it knows; a prior without labels takes none, and one with lyrics takes all, which
    are those of the whole song.

    Raises:
        ValueError: no metadata for a prior that needs it, metadata where none is taken, or of another type, width or
            number of levels.
    """
    shared = not isinstance(metadata, list | tuple)
    entries = [metadata] * len(priors) if shared else metadata
    if len(entries) != len(priors):
        raise ValueError(f"`metadata` must have one entry for each of {len(priors)} levels, got {len(entries)}")
    widths = [prior.config.metadata_length for prior in priors]
    fewest = [width - lyric_length_of(prior.config) for prior, width in zip(priors, widths, strict=True)]
    labels: list[Tensor | None] = []
    for level, (entry, width, own) in enumerate(zip(entries, widths, fewest, strict=True)):
        name = "metadata" if shared else f"metadata[{level}]"
        if entry is not None:
            if shared:
                check_metadata(name, entry, max(widths), max(fewest) if fewest != widths else None)
            else:
                check_metadata(name, entry, width, own if own < width else None)
            check_song_lyrics(name, entry, priors[level].config)
        if width and entry is None:
            raise ValueError(
                f"`{name}` must be given: the {level_name(level, len(priors))} prior is conditioned on artist, genre "
                "or timing, which `{}` does not give; got None"
            )
        labels.append(None if not width or entry is None else entry if own < width else entry[:, :width])
    return labels


def check_labels(
    priors: Sequence[Any],
    labels: Sequence[Tensor | None],
    layouts: Sequence[Layout | None],
    hops: Sequence[int],
    samples: int | None,
) -> None:
    """Let each labelled prior see its label vectors at its first and last window, of which one upper code is enough,
    before any level is sampled.

    Raises:
        ValueError: the prior refuses an artist, a genre or a length; or the song has no end, and the labels of a
            prior that is conditioned on time name no total length, or one that the song would exceed.
    """
    for level, (prior, own, layout, hop) in enumerate(zip(priors, labels, layouts, hops, strict=True)):
        if own is None or layout is None:
            continue
        timed = prior.config.use_timing or lyric_length_of(prior.config)
        if samples is None and timed and bool((own[:, 0] == 0).any()):
            raise ValueError(
                "`metadata` must name a total length (`total_duration` in words) where `duration` is None, as the "
                f"{level_name(level, len(priors))} prior is conditioned on time; got 0"
            )
        device, ratio = device_of(prior), prior.config.upper_ratio
        upper = own.new_zeros((own.shape[0], 1)).to(device) if prior.config.upsampling_strides else None
        windows = list(islice(layout.windows(), 1 if samples is None else None))
        if prior.config.use_timing and samples is not None and windows:
            _check_end(own, windows[-1].start * hop, samples, prior.config)
        for window in [*windows[:1], *windows[1:][-1:]]:
            seen = window_metadata(own.to(device), window, prior.config.n_ctx, hop, samples)
            seen = with_window_lyrics(seen, prior.config)
            prior.condition(own.shape[0], ratio, upper_codes=upper, metadata=seen)


def _check_end(labels: Tensor, last: int, samples: int, config: Any) -> None:
    """Raise a `ValueError` where the last window, so many samples into what is made, begins after the song's end."""
    for total, offset in labels[:, :2].tolist():
        if total and offset + last >= total > offset:
            whole, made, before = (f"{each / config.sampling_rate:g}" for each in (total, samples, offset))
            raise ValueError(
                "`metadata` must name a total length (`total_duration` in words) that holds what is made, got "
                f"{whole} seconds for {made} seconds from {before} on"
            )


def window_metadata(
    labels: Tensor | None, window: Window, n_ctx: int, hop_length: int, samples: int | None
) -> Tensor | None:
    """`labels` (N, width) with the window's offset added to theirs, a context's length, and where the total length is 0
    that of the song, in samples.

    The length is that of a whole context for shorter windows too: the prior spreads it over its `n_ctx` positions. In a
    song without end (`samples` is `None`) windows beyond the labels' total length are given as ending with it.
    """
    if labels is None:
        return None
    labels = labels.clone()
    offset, length = window.start * hop_length, n_ctx * hop_length
    if samples is None:
        labels[:, 1] = torch.minimum((labels[:, 0] - length).clamp(min=0), labels[:, 1] + offset)
    else:
        labels[:, 0] = torch.where(labels[:, 0] == 0, labels[:, 1] + samples, labels[:, 0])
        labels[:, 1] += offset
    labels[:, 2] = length
    return labels
