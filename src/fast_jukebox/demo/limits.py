"""Bounds on what a visitor of the studio may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass

TEMPERATURES = (0.1, 2.0)
"""Smallest and largest temperature that a page takes."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the studio; all are checked on the server, whatever the browser sends.

    Attributes:
        duration: seconds of a song.
        recording: seconds of a recording that are read.
        upload_bytes: of an uploaded file.
        variants: songs or branches made at once.
        waiting: works that wait or run at once, of all visitors; the next one is refused.
        takes: versions that one song may have.
        songs: songs kept in the studio's folder.
        sounds: sound files kept; the oldest go first and are made again when asked for.
        sound_bytes: of all of them, and of all uploads.
        lyrics: characters of lyrics.
        trials: pairs of a listening test.
    """

    duration: float = 120.0
    recording: float = 120.0
    upload_bytes: int = 50 * 2**20
    variants: int = 4
    waiting: int = 16
    takes: int = 200
    songs: int = 1000
    sounds: int = 400
    sound_bytes: int = 4 * 2**30
    lyrics: int = 20_000
    trials: int = 20


def within(name: str, value: object, least: float, most: float, unit: str = "") -> float:
    """A number from `least` to `most`, as the browser sent it: text counts too.

    Raises:
        ValueError: it is none; says the name that the page calls it, and the unit, such as `" s"`.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}{unit}, got {str(value)[:40]!r}")
    return number


def whole_within(name: str, value: object, least: int, most: int) -> int:
    """An integer from `least` to `most`; see [`within`]."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {str(value)[:40]!r}")
    return value
