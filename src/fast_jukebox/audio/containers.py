"""What an audio file holds, whatever its header says: the parts that libsndfile is to read, and what is missing.

libsndfile believes headers: it stops where the first of several joined files ends, guesses the length of an MP3 file
from its first frames, and takes a file that was cut off for a shorter one. Here the bytes are looked at instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.mpeg import FrameRun, find_frames, tag_end

FFMPEG_HINT = "convert it first, for example with `ffmpeg -i FILE FILE.flac`"
# Formats that libsndfile cannot read, by what stands at a place in the file.
_FOREIGN = (
    (4, b"ftyp", "an MP4 file (M4A, AAC, video)"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file (WMA, ASF)"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"TTA1", "a True Audio file"),
    (0, b"MPCK", "a Musepack file"),
    (0, b"MP+", "a Musepack file"),
    (0, b"DSD ", "a DSD file"),
    (0, b"FRM8", "a DSD file"),
    (0, b".RMF", "a RealMedia file"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\x00\x00\x01\xba", "an MPEG video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"\x0bw", "an AC-3 file"),
    (0, b"MThd", "a MIDI file"),
)
_MOST_PARTS = 10_000
_MPEG_LEAD = 2**15
_NEGLIGIBLE = 4096
"""Bytes at a file's end that are not worth a word: padding, or the tag of a format that is not known here."""


@dataclass(frozen=True)
class Part:
    """A sound that libsndfile can read by itself.

    Attributes:
        ranges: (start, stop) of its bytes in the file, in order.
        prefix: bytes to put before them.
        exact_until: up to where seeking is exact, in samples of each channel; None where it is up to the end.
        lead: samples that must be decoded before the one that is wanted, as frames of MP3 use the bits of others.
    """

    ranges: tuple[tuple[int, int], ...]
    prefix: bytes = b""
    exact_until: int | None = None
    lead: int = 0


@dataclass(frozen=True)
class Layout:
    """The parts of a file, in order.

    Attributes:
        missing: what its header states and the file lacks, in words; None where all is there.
        left_out: what the file holds and is not read, likewise.
        quiet: whether its decoder writes to the terminal, and had better not.
    """

    parts: tuple[Part, ...]
    missing: str | None = None
    left_out: str | None = None
    quiet: bool = False


def find_layout(data: ByteReader) -> Layout:
    """Look at a file.

    Raises:
        ValueError: it is of a format that cannot be read; says which, and not the file's name.
    """
    start = 0
    while (end := tag_end(data, start)) > start and data.at(start, 3) == b"ID3":
        start = end
    head = data.at(start, 16)
    for place, magic, name in _FOREIGN:
        if head[place : place + len(magic)] == magic:
            raise ValueError(f"is {name}, which cannot be read; {FFMPEG_HINT}")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        raise ValueError(f"is an AAC file, which cannot be read; {FFMPEG_HINT}")
    if head[:4] == b"fLaC":
        return _flac_layout(data, start)
    if head[:4] == b"OggS":
        return _ogg_layout(data, start)
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return _wav_layout(data, start)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _chunk_layout(data, start, 12, ">", b"SSND")
    if head[:4] == b".snd":
        offset, size = struct.unpack(">II", head[4:12])
        return _sized_layout(data, start, offset, size)
    if start or head[:1] == b"\xff":
        layout = mpeg_layout(data, start)
        if layout is not None:
            return layout
    return Layout((Part(((start, data.size),)),))


def mpeg_layout(data: ByteReader, start: int) -> Layout | None:
    """The layout of MPEG audio from `start` on; None where there is none, or less of it than of other things."""
    runs = find_frames(data, start)
    sound = sum(stop - first for run in runs for first, stop in run.ranges)
    if not runs or 2 * sound < data.size - start - _tags(data, runs):
        return None
    missing = None
    if runs[-1].stated is not None and runs[-1].stated - runs[-1].frames > 2:
        run = runs[-1]
        missing = f"its header states {run.stated} frames, and {run.frames} are there"
    lost = data.size - start - sound - _tags(data, runs)
    left_out = f"{lost} bytes are no frames of sound" if lost > _NEGLIGIBLE else None
    parts = tuple(Part(run.ranges_to_decode(), run.prefix(), lead=_MPEG_LEAD) for run in runs)
    return Layout(parts, missing, left_out, quiet=True)


def _tags(data: ByteReader, runs: list[FrameRun]) -> int:
    """Bytes of the tags between, before and behind the frames, and of the frames that hold no sound."""
    total = sum(run.tag[1] - run.tag[0] for run in runs if run.tag is not None)
    known = {run.tag[0]: run.tag[1] for run in runs if run.tag is not None}
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


def _flac_layout(data: ByteReader, start: int) -> Layout:
    """FLAC, which behind a tag cannot be seeked, and of which several may be joined."""
    starts: list[int] = []
    position = start
    while position >= 0 and len(starts) < _MOST_PARTS:
        starts.append(position)
        # "fLaC" and the block that every stream begins with, of 34 bytes.
        position = data.find(b"fLaC\x00\x00\x00\x22", position + 8, data.size)
    return Layout(tuple(Part((place,)) for place in zip(starts, [*starts[1:], data.size], strict=True)))


def _ogg_layout(data: ByteReader, start: int) -> Layout:
    """Ogg, of which several may be chained: each begins with the pages marked so (RFC 3533, 4)."""
    starts: list[int] = []
    limits: list[int | None] = []
    begins_here, granule, before, missing, end = False, 0, None, None, start
    for position, kind, page_granule, stop in _ogg_pages(data, start):
        if kind & 2 and not begins_here:
            if starts:
                limits.append(before)
            starts.append(position)
            before = None
        elif not kind & 2 and 0 < page_granule < 2**62:
            before, granule = (granule if granule else None), page_granule
        if kind & 2:
            granule = 0
        begins_here, end = bool(kind & 2), min(stop, data.size)
        if stop > data.size:
            missing = "its last page is cut off"
    limits.append(before)
    lost = data.size - end
    left_out = f"{lost} bytes are no Ogg pages" if lost > _NEGLIGIBLE else None
    parts = [
        Part((place,), exact_until=None if limit is None else max(0, limit - 8192))
        for place, limit in zip(zip(starts, [*starts[1:], data.size], strict=True), limits, strict=True)
    ]
    return Layout(tuple(parts), missing, left_out)


def _ogg_pages(data: ByteReader, position: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, kind, granule position, stop) of each page."""
    while 0 <= position < data.size:
        head = data.at(position, 27)
        if len(head) < 27 or head[:4] != b"OggS":
            position = data.find(b"OggS", position, data.size)
            if position < 0 or position + 27 > data.size:
                return
            continue
        lengths = data.at(position + 27, head[26])
        stop = position + 27 + head[26] + sum(lengths)
        yield position, head[5], int.from_bytes(head[6:14], "little", signed=True), stop
        position = stop


def _wav_layout(data: ByteReader, start: int) -> Layout:
    """WAV, of which several may be joined."""
    order = "<" if data.at(start, 4) == b"RIFF" else ">"
    parts: list[Part] = []
    while len(parts) < _MOST_PARTS:
        layout = _chunk_layout(data, start, 12, order, b"data")
        stop = layout.parts[0].ranges[-1][1]
        parts += layout.parts
        head = data.at(stop, 12)
        if head[:4] != data.at(start, 4) or head[8:12] != b"WAVE":
            break
        start = stop
    return Layout(tuple(parts), layout.missing, layout.left_out)


def _chunk_layout(data: ByteReader, start: int, position: int, order: str, wanted: bytes) -> Layout:
    """A file of chunks (RIFF, IFF): each 4 letters, a size, so many bytes, padded to an even number."""
    position += start
    for _ in range(_MOST_PARTS):
        head = data.at(position, 8)
        if len(head) < 8:
            break
        size = struct.unpack(order + "I", head[4:])[0]
        if head[:4] == wanted:
            sound = position + 8
            if size == 0 and data.size > sound:  # written by a program that was killed, or into a pipe
                patched = data.at(start, sound - start)[:-4] + struct.pack(order + "I", 0xFFFFFFFF)
                return Layout((Part(((sound, data.size),), prefix=patched),))
            return _sized_layout(data, start, sound - start, size)
        position += 8 + size + size % 2
    return Layout((Part(((start, data.size),)),))


def _sized_layout(data: ByteReader, start: int, offset: int, size: int) -> Layout:
    """Sound that begins `offset` bytes behind `start` and is stated to have `size` bytes."""
    there = data.size - start - offset
    if _is_unknown(size):
        return Layout((Part(((start, data.size),)),))
    if size > there:
        missing = f"its header states {size} bytes of sound, and {max(there, 0)} are there"
        return Layout((Part(((start, data.size),)),), missing)
    stop = _chunks_end(data, start + offset + size + size % 2)
    lost = data.size - stop
    left_out = f"{lost} bytes stand behind its stated end" if lost > _NEGLIGIBLE else None
    return Layout((Part(((start, min(stop, data.size)),)),), left_out=left_out)


def _chunks_end(data: ByteReader, position: int) -> int:
    """Where the chunks behind the sound end."""
    while position + 8 <= data.size:
        head = data.at(position, 8)
        if not head[:4].isalnum() and head[:4].strip(b" ") not in (b"id3", b"iXML", b"PAD"):
            break
        size = min(int.from_bytes(head[4:], order) for order in ("little", "big"))
        if head[:4] in (b"RIFF", b"RIFX", b"FORM") or position + 8 + size > data.size:
            break
        position += 8 + size + size % 2
    return min(position, data.size)


def _is_unknown(size: int) -> bool:
    """Whether a stated size stands for one that was not known: programs write the most that they can, or nearly so."""
    return size >= 0xFFFF0000 or 0x7FFF0000 <= size <= 0x80010000
