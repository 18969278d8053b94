"""Ogg by its pages (RFC 3533): files chained to one, streams of video beside the sound, and pages that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.layout import Layout, Part, left_bytes, one_part

_SOUNDS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
"""What the first page of a stream of sound holds."""
_FIRST, _HEADER = 2, 27
_INEXACT = 8192
"""Samples before the last page, or a lost one, from which seeking is not exact."""


@dataclass(frozen=True)
class _Page:
    """Place and header of a page; `position` is the sample behind it, 0 or below where it does not say."""

    start: int
    stop: int
    begins: bool
    position: int
    serial: int
    number: int
    content: bytes


@dataclass
class _Stream:
    """Pages of one serial number; `exact_until` is as in [`Part`]."""

    is_sound: bool
    number: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    position: int = 0
    before: int | None = None
    lost: int = 0
    exact_until: int | None = None

    def add(self, page: _Page) -> None:
        if self.ranges and self.ranges[-1][1] == page.start:
            self.ranges[-1] = self.ranges[-1][0], page.stop
        else:
            self.ranges.append((page.start, page.stop))
        if page.number > self.number + 1:
            if not self.lost:
                self.exact_until = max(0, self.position - _INEXACT)
            self.lost += page.number - self.number - 1
        self.number = page.number
        if not page.begins and 0 < page.position < 2**62:
            self.before, self.position = self.position or None, page.position

    def part(self, ranges: tuple[tuple[int, int], ...]) -> Part:
        if self.lost:
            return Part(ranges, exact_until=self.exact_until, has_gaps=True)
        return Part(ranges, exact_until=None if self.before is None else max(0, self.before - _INEXACT))


def ogg_layout(data: ByteReader, start: int) -> Layout:
    """Ogg, of which several may be chained, each with one stream of sound and perhaps others beside it."""
    links: list[dict[int, _Stream]] = []
    starts: list[int] = []
    begins_here, end, missing = False, start, None
    for page in _pages(data, start):
        if not links or (page.begins and not begins_here):
            links.append({})
            starts.append(page.start)
        stream = links[-1].setdefault(page.serial, _Stream(page.content.startswith(_SOUNDS), page.number))
        stream.add(page)
        begins_here, end = page.begins, min(page.stop, data.size)
        if page.stop > data.size:
            missing = "its last page is cut off"
    parts, others, lost = [], 0, 0
    for streams, stop in zip(links, [*starts[1:], data.size], strict=True):
        sounds = [stream for stream in streams.values() if stream.is_sound]
        others += len(sounds[1:])
        if sounds:
            # Of a stream that is alone, also what lies between its pages, as a damaged one is found there.
            whole = ((sounds[0].ranges[0][0], stop),)
            parts.append(sounds[0].part(whole if len(streams) == 1 else tuple(sounds[0].ranges)))
            lost += sounds[0].lost
    left_out = [
        f"{lost} of its pages are lost" if lost else None,
        f"{others} further streams of sound beside the first" if others else None,
        left_bytes(data.size - end, "are no Ogg pages"),
    ]
    words = "; ".join(filter(None, left_out)) or None
    return Layout(tuple(parts), missing, words) if parts else one_part(start, data.size)


def _pages(data: ByteReader, position: int) -> Iterator[_Page]:
    while 0 <= position < data.size:
        head = data.at(position, _HEADER)
        if len(head) < _HEADER or head[:4] != b"OggS":
            position = data.find(b"OggS", position, data.size)
            if position < 0 or position + _HEADER > data.size:
                return
            continue
        lengths = data.at(position + _HEADER, head[26])
        body = position + _HEADER + head[26]
        serial, number = (int.from_bytes(head[place : place + 4], "little") for place in (14, 18))
        granule = int.from_bytes(head[6:14], "little", signed=True)
        first = bool(head[5] & _FIRST)
        stop = body + sum(lengths)
        yield _Page(position, stop, first, granule, serial, number, data.at(body, 8) if first else b"")
        position = stop
