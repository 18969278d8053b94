"""From what people write of songs to what each window is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.lyrics import window_lyrics
from fast_jukebox.processing.songs import MAX_TOTAL_DURATION


def encode_metadata(model: Any, metadata: Any, quiet: bool = False) -> tuple[Any, list[str] | None]:
    """Label vectors of what is written of one song or of several; label vectors are left as they are.

    Args:
        model: its `processor` knows the names; without one a model is told no names, but lyrics and lengths.
        metadata: a dictionary or a list of them, see [`~fast_jukebox.processing.FastJukeboxProcessor.__call__`]; or
            label vectors.
        quiet: no warning of what is dropped of lyrics.

    Returns:
        What [`level_metadata`] takes, and of dictionaries what was dropped of each song's lyrics.

    Raises:
        ValueError: the model has no labels, or names are told that it has no vocabularies for, or what the processor
            refuses.
    """
    several = isinstance(metadata, list | tuple) and any(isinstance(song, Mapping) for song in metadata)
    if not isinstance(metadata, Mapping) and not several:
        return metadata, None
    processor = getattr(model, "processor", None)
    if not any(prior.config.metadata_length for prior in model.priors):
        raise ValueError("`metadata` must be left out where no prior has labels, got what is written of songs")
    if processor is None:
        for song in [metadata] if isinstance(metadata, Mapping) else metadata:
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
        digest = hashlib.sha256(f"labels/{seed}/{song}".encode()).digest()
        artist, genre = pairs[int.from_bytes(digest[:8], "big") % len(pairs)]
        drawn.append({"artist": artist, "genre": genre})
        if endless and any(config.use_timing for config in configs):
            longest = min(config.max_duration for config in configs)
            context = max(config.n_ctx * config.hop_length / config.sampling_rate for config in configs)
            whole = min(longest - context - 1, MAX_TOTAL_DURATION)
            drawn[-1] |= {"total_duration": whole, "offset": whole // 2}
    return drawn


def _check_no_names(song: Any) -> None:
    """Raise a `ValueError` where a song tells names, and does not take them as unknown ones."""
    told = {} if not isinstance(song, Mapping) or song.get("unknown") else song
    names = [str(told[kind]) for kind in ("artist", "genre") if told.get(kind)]
    if names:
        raise ValueError(
            "`metadata` must name no artist and no genre where the model has no vocabularies of them: give it some "
            "(`model.processor = FastJukeboxProcessor.from_vocabulary_files(...)`), or take names as unknown ones with "
            f"`unknown`; got {', '.join(names)}"
        )


def lyric_length_of(config: Any) -> int:
    """Characters that a window of a prior is told; priors of other makes know of none."""
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
