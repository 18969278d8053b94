"""The parts of a sound file that libsndfile is to read, and what of the file is missing or left out."""

from __future__ import annotations

from dataclasses import dataclass

MOST_PARTS = 10_000
"""Parts, chunks or joined files that are read at most."""
_NEGLIGIBLE = 4096
"""Bytes that are not reported: padding, or the tag of a format that is not known here."""


@dataclass(frozen=True)
class Part:
    """A sound that libsndfile can read by itself.

    Attributes:
        ranges: (start, stop) of its bytes in the file, in order.
        prefix: bytes to put before them.
        exact_until: up to where seeking is exact, in samples of each channel; None where it is up to the end.
        has_gaps: some of it is lost, so that what its end states is more than can be read.
        lead: samples that must be decoded before the one that is wanted, as frames of MP3 use the bits of others.
    """

    ranges: tuple[tuple[int, int], ...]
    prefix: bytes = b""
    exact_until: int | None = None
    lead: int = 0
    has_gaps: bool = False


@dataclass(frozen=True)
class Layout:
    """The parts of a file, in order.

    Attributes:
        missing: what its header states and the file lacks, in words; None where all is there.
        left_out: what the file holds and is not read, in words; None where all is read.
        quiet: its decoder writes to the terminal, and must not.
    """

    parts: tuple[Part, ...]
    missing: str | None = None
    left_out: str | None = None
    quiet: bool = False


def one_part(
    start: int, stop: int, prefix: bytes = b"", missing: str | None = None, left_out: str | None = None
) -> Layout:
    """The layout of a file with one range of sound."""
    return Layout((Part(((start, stop),), prefix),), missing, left_out)


def is_unknown(size: int) -> bool:
    """True for a size that was not known: programs write the most that they can, or nearly so."""
    return size >= 0xFFFF0000 or 0x7FFF0000 <= size <= 0x80010000


def missing_bytes(stated: int, there: int) -> str:
    """Message: a header states more bytes of sound than the file holds."""
    return f"its header states {stated} bytes of sound, and {max(there, 0)} are there"


def left_bytes(count: int, words: str = "stand behind its stated end") -> str | None:
    """Message: bytes are not read; None for few."""
    return f"{count} bytes {words}" if count > _NEGLIGIBLE else None
