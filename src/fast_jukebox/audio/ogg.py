"""Ogg by its pages (RFC 3533): files chained to one, streams of video beside the sound, and pages that are lost.

A page whose checksum is wrong is lost, as every decoder takes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.layout import MOST_PARTS, Layout, Part, left_bytes, one_part

_SOUNDS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
"""What the first page of a stream of sound holds."""
_FIRST, _LAST, _HEADER = 2, 4, 27
_INEXACT = 8192
"""Samples before the last page, or a lost one, from which seeking is not exact."""
_MOST_SAMPLES = 2**24
"""Samples of a page at most: 255 packets of the longest that a codec has, FLAC's."""
_CHECKED = 16
"""Bytes whose checksum is computed for each byte of a file at most: more are those of a file made to be slow."""
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    """Place and header of a page; `position` is the sample behind it, -1 where no packet ends in it."""

    start: int
    stop: int
    begins: bool
    ends: bool
    position: int
    serial: int
    number: int
    content: bytes


@dataclass
class _Stream:
    """Pages of one serial number from its beginning on; `exact_until` is as in [`Part`].

    Attributes:
        lost: pages that are not there.
        contradicts: a position that cannot follow the one before.
    """

    is_sound: bool
    number: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    position: int = 0
    before: int | None = None
    lost: int = 0
    contradicts: bool = False
    has_end: bool = False
    exact_until: int | None = None

    def add(self, page: _Page) -> None:
        if self.ranges and self.ranges[-1][1] == page.start:
            self.ranges[-1] = self.ranges[-1][0], page.stop
        else:
            self.ranges.append((page.start, page.stop))
        gap = page.number - self.number - 1
        if gap > 0:
            self._damage()
            self.lost += gap
        self.number, self.has_end = page.number, page.ends
        if page.begins or page.position == -1:
            return
        # A stream may begin at any position, and none is known behind pages that are lost.
        leaps = self.position > 0 and gap <= 0 and page.position - self.position > _MOST_SAMPLES
        if page.position < self.position or leaps:
            self._damage()
            self.contradicts = True
        elif page.position:
            self.before, self.position = self.position or None, page.position

    @property
    def has_gaps(self) -> bool:
        """Whether what its end states may be more than can be read."""
        return self.lost > 0 or self.contradicts

    def part(self) -> Part:
        ranges = tuple(self.ranges)
        if self.has_gaps:
            return Part(ranges, exact_until=self.exact_until, has_gaps=True)
        return Part(ranges, exact_until=None if self.before is None else max(0, self.before - _INEXACT))

    def _damage(self) -> None:
        if not self.has_gaps:
            self.exact_until = max(0, self.position - _INEXACT)


def ogg_layout(data: ByteReader, start: int) -> Layout:
    """Ogg, of which several may be chained, each with one stream of sound and perhaps others beside it."""
    links: list[dict[int, _Stream]] = []
    begins_here, end, count, strays, is_cut = False, start, 0, 0, False
    for page in _pages(data, start):
        streams = links[-1] if links else {}
        is_sound = page.begins and page.content.startswith(_SOUNDS)
        is_cut = page.stop > data.size and page.serial in streams
        if page.stop > data.size:
            continue
        begins = page.begins and (is_sound or page.serial not in streams)
        if begins and count == MOST_PARTS:
            break
        if begins and not begins_here:
            links.append(streams := {})
        if begins and page.serial not in streams:
            streams[page.serial] = _Stream(is_sound, page.number)
            count += 1
        if page.serial in streams:
            streams[page.serial].add(page)
        else:
            strays += 1
        begins_here, end = begins, page.stop
    sounds = [[stream for stream in streams.values() if stream.is_sound] for streams in links]
    read = [own[0] for own in sounds if own]
    lost, others = sum(stream.lost for stream in read), sum(len(own[1:]) for own in sounds)
    behind = f"stand behind its {MOST_PARTS} first streams" if count == MOST_PARTS else "are no Ogg pages"
    left_out = [
        f"{lost} of its pages are lost" if lost else None,
        f"{strays} of its pages are of streams whose beginning is lost" if strays else None,
        "positions of its pages contradict each other" if any(stream.contradicts for stream in read) else None,
        None if is_cut or all(stream.has_end for stream in read) else "the end of a stream is not there",
        f"{others} further streams of sound beside the first" if others else None,
        None if is_cut else left_bytes(data.size - end, behind),
    ]
    words = "; ".join(filter(None, left_out)) or None
    missing = "its last page is cut off" if is_cut else None
    return Layout(tuple(stream.part() for stream in read), missing, words) if read else one_part(start, data.size)


def _pages(data: ByteReader, position: int) -> Iterator[_Page]:
    """Pages whose checksum is right, and what may be one that the file's end cuts."""
    left = _CHECKED * data.size
    while left > 0 and (position := data.find(b"OggS", position, data.size)) >= 0:
        head = data.at(position, _HEADER)
        if len(head) < _HEADER:
            return
        lengths = data.at(position + _HEADER, head[26])
        body = position + _HEADER + head[26]
        stop = body + sum(lengths)
        serial, number, checksum = (int.from_bytes(head[place : place + 4], "little") for place in (14, 18, 22))
        granule = int.from_bytes(head[6:14], "little", signed=True)
        first, last = bool(head[5] & _FIRST), bool(head[5] & _LAST)
        page = _Page(position, stop, first, last, granule, serial, number, data.at(body, 8) if first else b"")
        left -= stop - position
        if stop > data.size:
            yield page
        elif _checksum(data.at(position, stop - position)) == checksum:
            yield page
            position = stop
            continue
        position += 4


def _checksum(page: bytes) -> int:
    """That of a page, with zeros in its place: zlib's over the same bits in the other order, without inversions."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    found = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_MIRRORED), "big")
