"""What people may write of a song."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

MAX_TOTAL_DURATION = 86400
"""Seconds of the longest song that can be told of, a day."""
FIELDS = ("artist", "genre", "lyrics", "total_duration", "offset", "unknown")
"""See [`~fast_jukebox.processing.FastJukeboxProcessor.__call__`]."""


def check_song(song: Any) -> dict[str, Any]:
    """What is written of a song, without what is `None`.

    Raises:
        ValueError: it is no mapping, or names or values are not as asked.
    """
    if not isinstance(song, Mapping):
        raise ValueError(f"`metadata` must be a dictionary for each song, got {type(song).__name__}")
    for name, value in song.items():
        if name not in FIELDS:
            nearest = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.0)[0]
            raise ValueError(f"`metadata` must tell {', '.join(FIELDS)}; got {name!r}, did you mean `{nearest}`?")
        if value is None:
            continue
        if name in ("artist", "lyrics") and not isinstance(value, str):
            raise ValueError(f"`{name}` must be a text, got {value!r}")
        if name == "genre" and not isinstance(value, str) and not _is_list_of_texts(value):
            raise ValueError(f"`genre` must be a text or a list of texts, got {value!r}")
        if name == "unknown" and not isinstance(value, bool):
            raise ValueError(f"`unknown` must be True or False, got {value!r}")
        if name in ("total_duration", "offset"):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= MAX_TOTAL_DURATION:
                raise ValueError(f"`{name}` must be seconds from 0 to {MAX_TOTAL_DURATION}, got {value!r}")
    told = {name: value for name, value in song.items() if value is not None}
    if told.get("total_duration") and told.get("offset", 0) >= told["total_duration"]:
        raise ValueError(
            f"`offset` must be below `total_duration`, {told['total_duration']:g} seconds, got {told['offset']:g}"
        )
    return told


def text_song(processor: Any, text: str) -> dict[str, Any]:
    """What a text tells of a song: a genre, an artist, `GENRE by ARTIST`, or for models with lyrics anything else as
    the words that are sung.

    Args:
        processor: a model's [`FastJukeboxProcessor`], or `None`.
        text: by a person.

    Raises:
        ValueError: the model takes no words, or not these.
    """
    told = [level for level in reversed(processor.levels if processor is not None else []) if level is not None]
    if not text.strip():
        return {}
    if not told:
        raise ValueError(f"the model takes no words, got {text!r:.80}: call it without")
    vocabulary = processor.vocabularies[told[0].vocabulary]
    genre, by, artist = text.partition(" by ")
    readings = [{"genre": text}, {"artist": text}, *([{"genre": genre, "artist": artist}] if by else [])]
    for song in readings:
        try:
            vocabulary.genre_ids(song.get("genre")), vocabulary.artist_id(song.get("artist"))
        except ValueError:
            continue
        return {name: value.strip() for name, value in song.items()}
    if any(level.lyric_length for level in told):
        return {"lyrics": text}
    raise ValueError(
        f"a text must be a genre, an artist or `GENRE by ARTIST` of those that the model knows, got {text!r:.80}: "
        f"{_some(vocabulary.genres)} by {_some(vocabulary.artists)}"
    )


def _some(names: Mapping[str, int]) -> str:
    """Known names, the first ten of many."""
    known = [name for name in names if names[name]]
    return ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
