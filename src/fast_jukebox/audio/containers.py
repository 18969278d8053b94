"""What an audio file holds, whatever its header says: the parts that libsndfile is to read, and what is missing.

libsndfile believes headers: it stops where the first of several joined files ends, guesses the length of an MP3 file
from its first frames, and takes a file that was cut off for a shorter one. Here the bytes are looked at instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.flac import INFO_LENGTH, found_samples, stated_samples, with_samples
from fast_jukebox.audio.mpeg import FrameRun, find_frames, tag_end

FFMPEG_HINT = "convert it first, for example with `ffmpeg -i FILE FILE.flac`"
# Formats that libsndfile cannot read, by what stands at a place in the file.
_FOREIGN = (
    (4, b"ftyp", "an MP4 file (M4A, AAC, video)"),
    *((4, kind, "a QuickTime file") for kind in (b"moov", b"mdat", b"wide", b"free", b"skip")),
    (0, b"ADIF", "an AAC file"),
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
    start = _sound_start(data)
    head = data.at(start, 16)
    _refuse_others(data)
    for place, magic, name in _FOREIGN:
        if head[place : place + len(magic)] == magic:
            raise ValueError(f"is {name}, which cannot be read; {FFMPEG_HINT}")
    if len(head) > 1 and ((head[0] == 0xFF and head[1] & 0xF6 == 0xF0) or (head[0] == 0x56 and head[1] & 0xE0 == 0xE0)):
        raise ValueError(f"is an AAC file, which cannot be read; {FFMPEG_HINT}")
    if head[:4] == b"fLaC":
        return _flac_layout(data, start)
    if head[:4] == b"OggS":
        return _ogg_layout(data, start)
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _rf64_layout(data, start)
    if head[:4] == b"riff" and data.at(start + 24, 4) == b"wave":
        return _w64_layout(data, start)
    if head[:4] == b"caff":
        return _caf_layout(data, start)
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


def _sound_start(data: ByteReader) -> int:
    """Where the sound begins: behind tags and zeros, of which there may be a mebibyte."""
    start = 0
    while start < data.size:
        lead = data.at(start, 2**20)
        end = tag_end(data, start) if lead[:3] == b"ID3" or lead[:8] == b"APETAGEX" else start
        if not lead[:8].strip(b"\0"):
            end = start + len(lead) - len(lead.lstrip(b"\0"))
        if end <= start:
            break
        start = end
    return start


def _refuse_others(data: ByteReader) -> None:
    """Raise a `ValueError` for what often stands where a file of sound should."""
    head = data.at(0, 512)
    if not head:
        raise ValueError("is empty")
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html lan") or head.lstrip()[:6].lower() == b"<html>":
        raise ValueError("is a web page, not sound: download the file again")
    if head[:23] == b"version https://git-lfs":
        raise ValueError("is a pointer of Git LFS, not sound: fetch the file with `git lfs pull`")
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        raise ValueError(f"is an MPEG transport stream, which cannot be read; {FFMPEG_HINT}")


def mpeg_layout(data: ByteReader, start: int) -> Layout | None:
    """The layout of MPEG audio from `start` on; None where there is none, or less of it than of other things."""
    runs = find_frames(data, start)
    sound = sum(stop - first for run in runs for first, stop in run.ranges)
    behind = data.size - (runs[-1].ranges[-1][1] if runs else 0)
    padding = behind if runs and _is_zero(data, data.size - behind) else 0
    if not runs or 2 * sound < data.size - start - _tags(data, runs) - padding:
        return None
    missing = None
    if runs[-1].stated is not None and runs[-1].stated - runs[-1].frames > 2:
        run = runs[-1]
        missing = f"its header states {run.stated} frames, and {run.frames} are there"
    lost = data.size - start - sound - _tags(data, runs) - padding
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


def _is_zero(data: ByteReader, position: int) -> bool:
    """Whether only zeros stand from here to the end."""
    while position < data.size:
        block = data.at(position, 2**20)
        if block.strip(b"\0"):
            return False
        position += len(block)
    return True


def _flac_layout(data: ByteReader, start: int) -> Layout:
    """FLAC, which behind a tag cannot be seeked, of which several may be joined, and whose length is that of its last
    frame, whatever its header states.
    """
    starts: list[int] = []
    position = start
    while position >= 0 and len(starts) < _MOST_PARTS:
        starts.append(position)
        # "fLaC" and the block that every stream begins with, of 34 bytes.
        position = data.find(b"fLaC\x00\x00\x00\x22", position + 8, data.size)
    parts, missing = [], None
    for first, stop in zip(starts, [*starts[1:], data.size], strict=True):
        info = data.at(first, INFO_LENGTH)
        stated, found = stated_samples(info), found_samples(data, first, stop)
        if found is None or found == stated:
            parts.append(Part(((first, stop),)))
            continue
        parts.append(Part(((first + INFO_LENGTH, stop),), prefix=with_samples(info, found)))
        if found < stated:
            missing = f"its header states {stated} samples, and {found} are there"
    return Layout(tuple(parts), missing)


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
    compressed = False
    for _ in range(_MOST_PARTS):
        head = data.at(position, 8)
        if len(head) < 8:
            break
        size = struct.unpack(order + "I", head[4:])[0]
        if head[:4] == b"fmt ":
            compressed = data.at(position + 8, 2) == b"\x55\x00"
        if head[:4] == wanted:
            sound = position + 8
            if compressed and (frames := mpeg_layout(data, sound)) is not None:  # MP3 within WAV
                return frames
            if size == 0 and data.size > sound:  # written by a program that was killed, or into a pipe
                patched = data.at(start, sound - start)[:-4] + struct.pack(order + "I", 0xFFFFFFFF)
                return Layout((Part(((sound, data.size),), prefix=patched),))
            return _sized_layout(data, start, sound - start, size)
        position += 8 + size + size % 2
    return Layout((Part(((start, data.size),)),))


def _rf64_layout(data: ByteReader, start: int) -> Layout:
    """WAV of more than 4 GiB, whose sizes stand in its first chunk (EBU Tech 3306); BW64 is laid out alike."""
    position, sizes = start + 12, -1
    for _ in range(_MOST_PARTS):
        head = data.at(position, 8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"ds64":
            sizes = position + 16  # behind the size of the whole file
        if head[:4] == b"data" and sizes >= 0:
            return _long_layout(data, start, position + 8, sizes, "little", data.at(start, 4).replace(b"BW64", b"RF64"))
        position += 8 + size + size % 2
    return Layout((Part(((start, data.size),)),))


def _w64_layout(data: ByteReader, start: int) -> Layout:
    """Sony's Wave64: chunks of 16 letters and a size of 8 bytes that counts both, padded to 8 bytes."""
    position = start + 40
    for _ in range(_MOST_PARTS):
        head = data.at(position, 24)
        if len(head) < 24:
            break
        if head[:4] == b"data":
            return _long_layout(data, start, position + 24, position + 16, "little", header=24)
        position += max(-(-int.from_bytes(head[16:], "little") // 8) * 8, 24)
    return Layout((Part(((start, data.size),)),))


def _caf_layout(data: ByteReader, start: int) -> Layout:
    """Apple's CAF: chunks of 4 letters and a size of 8 bytes; that of the sound is -1 where it was not known."""
    position = start + 8
    for _ in range(_MOST_PARTS):
        head = data.at(position, 12)
        if len(head) < 12:
            break
        if head[:4] == b"data":
            return _long_layout(data, start, position + 12, position + 4, "big")
        position += 12 + int.from_bytes(head[4:], "big")
    return Layout((Part(((start, data.size),)),))


def _long_layout(
    data: ByteReader,
    start: int,
    sound: int,
    place: int,
    order: Literal["little", "big"],
    magic: bytes = b"",
    header: int = 0,
) -> Layout:
    """Sound from byte `sound` on, whose size of 8 bytes stands at `place`, and where it is wrong is put right.

    Args:
        data: the file.
        start: where its header begins.
        sound: where its sound begins.
        place: where its size stands.
        order: of the bytes of that.
        magic: what to put in place of the header's first letters.
        header: bytes of the chunk's own header that the size counts.
    """
    size, there = int.from_bytes(data.at(place, 8), order) - header, data.size - sound
    before, stop = data.at(start, sound - start), data.size
    missing = left_out = None
    if 0 < size <= there:
        stop = sound + size
        behind = data.at(stop, 5)
        if there - size > _NEGLIGIBLE and not behind.lstrip(b"\0")[:3].isalnum():
            left_out = f"{there - size} bytes stand behind its stated end"
    else:
        if 0 < size < 2**62:
            missing = f"its header states {size} bytes of sound, and {there} are there"
        patched = (there + header).to_bytes(8, order)
        before = before[: place - start] + patched + before[place - start + 8 :]
    return Layout((Part(((sound, stop),), prefix=magic + before[len(magic) :]),), missing, left_out)


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
