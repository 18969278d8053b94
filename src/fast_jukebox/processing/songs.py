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


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
