"""MPEG audio (MP3, MP2) by its frames, since its headers may state no length, or another file's.

A frame has a header of 4 bytes (ISO/IEC 11172-3, 2.4.1.3 and 13818-3). The first may hold no sound but a count of
frames (the tags `Xing`, `Info` and `VBRI`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.layout import Layout, Part, left_bytes

_KBITS = {  # by (MPEG 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
# A tag that states the length of what it stands before; found in bytes 4 to 40 of a first frame.
_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
# Frames in a row that must fit together to be taken for sound.
_CHAIN = 4
_SEARCHED = 2**20
"""Bytes after a place that is no frame in which the next frame is looked for."""
_LEAD = 2**15
"""Samples that are decoded before the one that is wanted: frames use the bits of others."""
ID3_PREFIX = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
"""An empty tag, by which libsndfile knows that MPEG audio follows."""


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a header of 4 bytes.

    Attributes:
        version: 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5.
        samples: of each channel in it.
    """

    version: int
    layer: int
    rate: int
    mono: bool
    length: int
    samples: int

    def fits(self, other: FrameHeader) -> bool:
        """True where both can be frames of one sound."""
        return (self.version, self.layer, self.rate) == (other.version, other.layer, other.rate)


@dataclass
class FrameRun:
    """Frames of one sound: their byte ranges, their count, and what a tag before them states.

    Attributes:
        ranges: (start, stop) in bytes, in order; only tags and damage lie between.
        tag: (start, stop) of the frame with the tag, or None.
        is_exact: the tag is one that decoders follow to the sample where its count is true.
    """

    header: FrameHeader
    ranges: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    tag: tuple[int, int] | None = None
    stated: int | None = None
    is_exact: bool = False

    def prefix(self) -> bytes:
        """Bytes to put before the ranges, by which a decoder knows the length."""
        if self.header.layer != 3 or self._is_tag_true():
            return ID3_PREFIX
        size = sum(stop - start for start, stop in self.ranges)
        return ID3_PREFIX + _length_frame(self.header, self.frames, size)

    def _is_tag_true(self) -> bool:
        return self.is_exact and self.stated == self.frames

    def ranges_to_decode(self) -> tuple[tuple[int, int], ...]:
        """The ranges, behind the frame with the tag where that is true, as it states the silence at both ends too."""
        ranges = [self.tag] if self.tag is not None and self._is_tag_true() else []
        for start, stop in self.ranges:
            _extend(ranges, start, stop)
        return tuple(ranges)


@lru_cache(maxsize=4096)
def frame_header(word: bytes) -> FrameHeader | None:
    """The header in 4 bytes, or None where they are none, or one of a frame whose length cannot be known."""
    if len(word) < 4 or word[0] != 0xFF or word[1] & 0xE0 != 0xE0:
        return None
    version, layer = word[1] >> 3 & 3, 4 - (word[1] >> 1 & 3)
    bits, rate_index, padding = word[2] >> 4, word[2] >> 2 & 3, word[2] >> 1 & 1
    if version == 1 or layer == 4 or bits in (0, 15) or rate_index == 3 or word[3] & 3 == 2:
        return None
    first = version == 3
    rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    bits_per_second = 1000 * _KBITS[first, layer][bits]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    if layer == 1:
        length = (12 * bits_per_second // rate + padding) * 4
    else:
        length = samples // 8 * bits_per_second // rate + padding
    return FrameHeader(version, layer, rate, word[3] >> 6 == 3, length, samples)


def find_frames(data: ByteReader, start: int = 0) -> list[FrameRun]:
    """All frames of a file, in runs that are one sound each; empty where what follows `start` is no MPEG audio.

    A new run begins with each tag that states a length, and where the rate or the layer changes.
    """
    runs: list[FrameRun] = []
    for position, header in _frames(data, start):
        stop = position + header.length
        head = data.at(position, min(header.length, 200))
        stated = _stated_frames(head)
        if stated is not None:
            exact = b"VBRI" not in head[4:44]  # of which decoders make another length
            runs.append(FrameRun(header, tag=(position, stop), stated=stated or None, is_exact=exact))
            continue
        if not runs or not runs[-1].header.fits(header):
            runs.append(FrameRun(header))
        runs[-1].frames += 1
        _extend(runs[-1].ranges, position, stop)
    return [run for run in runs if run.frames]


def mpeg_layout(data: ByteReader, start: int) -> Layout | None:
    """The layout of MPEG audio from `start` on; None where less than half of the bytes are MPEG audio."""
    runs = find_frames(data, start)
    if not runs:
        return None
    last, sound = runs[-1], sum(stop - first for run in runs for first, stop in run.ranges)
    end = last.ranges[-1][1]
    blocks = (data.at(place, 2**20) for place in range(end, data.size, 2**20))
    padding = 0 if any(block.strip(b"\0") for block in blocks) else data.size - end
    others = _tags(data, runs) + padding
    if 2 * sound < data.size - start - others:
        return None
    missing = None
    if last.stated is not None and last.stated - last.frames > 2:
        missing = f"its header states {last.stated} frames, and {last.frames} are there"
    left_out = left_bytes(data.size - start - sound - others, "are no frames of sound")
    parts = tuple(Part(run.ranges_to_decode(), run.prefix(), lead=_LEAD) for run in runs)
    return Layout(parts, missing, left_out, quiet=True)


def _tags(data: ByteReader, runs: list[FrameRun]) -> int:
    """Bytes of the tags between, before and behind the frames, and of the frames that hold no sound."""
    known = dict(run.tag for run in runs if run.tag is not None)
    total = sum(stop - start for start, stop in known.items())
    ranges = [place for run in runs for place in run.ranges]
    gaps = zip([0] + [stop for _, stop in ranges], [first for first, _ in ranges] + [data.size], strict=True)
    for position, stop in gaps:
        while position < stop:
            end = known.get(position) or tag_end(data, position)
            if end <= position:
                break
            total += 0 if position in known else min(end, stop) - position
            position = end
    return total


def tag_end(data: ByteReader, position: int) -> int:
    """The end of an ID3v2, ID3v1, APE or Lyrics3 tag that begins at `position`, or `position` where none does."""
    head = data.at(position, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return position + 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return position + 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size, flags = struct.unpack("<I4xI", head[12:24])
        return position + size + (32 if flags & 0x20000000 else 0)
    if head[:11] == b"LYRICSBEGIN":
        end = data.find(b"LYRICS200", position, min(data.size, position + _SEARCHED))
        return position if end < 0 else end + 9
    return position


def tags_begin(data: ByteReader, start: int) -> int:
    """Where the ID3v1, APE and Lyrics3 tags at the end of a file begin, or its size where there are none."""
    stop = data.size
    while stop > start:
        before = stop
        if stop - start > 128 and data.at(stop - 128, 3) == b"TAG":
            stop -= 128
        foot = data.at(max(stop - 32, 0), 32)
        if foot[:8] == b"APETAGEX":
            size, flags = struct.unpack("<I4xI", foot[12:24])
            stop -= size + (32 if flags & 0x80000000 else 0)
        elif foot[-9:] == b"LYRICS200" and foot[-15:-9].isdigit():
            stop -= int(foot[-15:-9]) + 15
        if not start < stop < before:
            return before
    return stop


def _frames(data: ByteReader, position: int) -> Iterator[tuple[int, FrameHeader]]:
    """Position and header of each complete frame."""
    last: FrameHeader | None = None
    while position < data.size:
        header = frame_header(data.at(position, 4))
        fits = header is not None and position + header.length <= data.size
        if header is not None and fits and ((last is not None and last.fits(header)) or _is_chain(data, position)):
            yield position, header
            last, position = header, position + header.length
            continue
        end = tag_end(data, position)
        position = end if end > position else _next_chain(data, position + 1)
        if position < 0:
            return


def _next_chain(data: ByteReader, position: int) -> int:
    """Where the next frames begin, or a tag that may have frames behind it; -1 where none are near."""
    stop = min(data.size, position + _SEARCHED)
    while position < stop:
        found = data.find(b"\xff", position, stop)
        tags = [data.find(tag, position, found if found >= 0 else stop) for tag in (b"ID3", b"APETAGEX")]
        candidates = [place for place in (found, *tags) if place >= 0]
        if not candidates:
            return -1
        position = min(candidates)
        if tag_end(data, position) > position or _is_chain(data, position):
            return position
        position += 1
    return -1


def _is_chain(data: ByteReader, position: int) -> bool:
    """True where frames of one sound begin here, four in a row or as many as the file has left."""
    first = frame_header(data.at(position, 4))
    if first is None:
        return False
    for _ in range(_CHAIN):
        header = frame_header(data.at(position, 4))
        if header is None or not header.fits(first):
            return tag_end(data, position) > position
        position += header.length
        if position >= data.size - 4:
            return position <= data.size
    return True


def _stated_frames(frame: bytes) -> int | None:
    """Frames that a frame's tag states, 0 where it states none; None where the frame has no tag."""
    for tag in _LENGTH_TAGS:
        place = frame.find(tag, 4, 44)
        if place < 0:
            continue
        if tag == b"VBRI":
            return int.from_bytes(frame[place + 14 : place + 18], "big")
        flags = int.from_bytes(frame[place + 4 : place + 8], "big")
        return int.from_bytes(frame[place + 8 : place + 12], "big") if flags & 1 else 0
    return None


def _length_frame(header: FrameHeader, frames: int, size: int) -> bytes:
    """A frame of layer 3 with a `Xing` tag that states so many frames and bytes."""
    first = header.version == 3
    bits = 9 if first else 8  # 128 or 64 kbit/s, enough for the tag at any rate
    third = bits << 4 | _RATES.index(header.rate << {3: 0, 2: 1, 0: 2}[header.version]) << 2
    word = bytes([0xFF, 0xE3 | header.version << 3, third, 0xC0 if header.mono else 0])
    own = frame_header(word)
    assert own is not None
    side = (17 if header.mono else 32) if first else (9 if header.mono else 17)
    tag = b"Xing" + struct.pack(">III", 3, frames, min(size + own.length, 2**32 - 1))
    return (word + bytes(side) + tag).ljust(own.length, b"\0")


def _extend(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    """Append a range, or extend the last one that it touches."""
    if ranges and ranges[-1][1] == start:
        start = ranges.pop()[0]
    ranges.append((start, stop))
