"""Content of audio files, found by their bytes: the parts that libsndfile is to read, and what is missing.

libsndfile trusts headers: it stops where the first of several joined files ends, guesses the length of an MP3 file
from its first frames, and takes a file that was cut off for a shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.chunks import au_layout, chunk_layout, is_au, is_chunked
from fast_jukebox.audio.flac import INFO_LENGTH, found_samples, frames_begin, stated_samples, with_samples
from fast_jukebox.audio.layout import MOST_PARTS, Layout, Part, left_bytes, missing_bytes, one_part
from fast_jukebox.audio.mpeg import mpeg_layout, tag_end, tags_begin
from fast_jukebox.audio.ogg import ogg_layout

Order: TypeAlias = Literal["little", "big"]

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


def find_layout(data: ByteReader) -> Layout:
    """The parts of a file; a `ValueError` names a format that cannot be read, not the file."""
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
        return ogg_layout(data, start)
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _rf64_layout(data, start)
    if head[:4] == b"riff" and data.at(start + 24, 4) == b"wave":
        return _w64_layout(data, start)
    if head[:4] == b"caff":
        return _caf_layout(data, start)
    if is_chunked(data, start):
        return chunk_layout(data, start)
    if is_au(data, start):
        return au_layout(data, start)
    frames = mpeg_layout(data, start) if start or head[:1] == b"\xff" else None
    return frames or one_part(start, data.size)


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
        raise ValueError("is empty: fetch it again, or leave it out")
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html lan") or head.lstrip()[:6].lower() == b"<html>":
        raise ValueError("is a web page, not sound: download the file again")
    if head[:23] == b"version https://git-lfs":
        raise ValueError("is a pointer of Git LFS, not sound: fetch the file with `git lfs pull`")
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        raise ValueError(f"is an MPEG transport stream, which cannot be read; {FFMPEG_HINT}")


def _flac_layout(data: ByteReader, start: int) -> Layout:
    """FLAC, which behind a tag cannot be seeked, of which several may be joined, and whose length is that of its last
    frame, whatever its header states.
    """
    starts: list[int] = []
    position, end = start, tags_begin(data, start)
    while position >= 0 and len(starts) < MOST_PARTS:
        starts.append(position)
        # "fLaC" and the block that every stream begins with, of 34 bytes.
        position = data.find(b"fLaC\x00\x00\x00\x22", frames_begin(data, position), end)
    parts, missing = [], None
    for first, stop in zip(starts, [*starts[1:], end], strict=True):
        info = data.at(first, INFO_LENGTH)
        stated, found = stated_samples(info), found_samples(data, first, stop)
        if found is None or found == stated:
            parts.append(Part(((first, stop),)))
            continue
        parts.append(Part(((first + INFO_LENGTH, stop),), prefix=with_samples(info, found)))
        if found < stated:
            missing = f"its header states {stated} samples, and {found} are there"
    return Layout(tuple(parts), missing)


def _long_chunks(
    data: ByteReader, position: int, order: Order, name: int = 4, size: int = 4, align: int = 1, counted: int = 0
) -> Iterator[tuple[bytes, int]]:
    """(first 4 letters of the name, start of the content) of each chunk.

    A name and a size have so many bytes. The size counts `counted` bytes of the header, and content is padded to a
    multiple of `align`.
    """
    for _ in range(MOST_PARTS):
        head = data.at(position, name + size)
        if len(head) < name + size:
            return
        position += name + size
        yield head[:4], position
        length = max(int.from_bytes(head[name:], order) - counted, 0)
        position += -(-length // align) * align


def _rf64_layout(data: ByteReader, start: int) -> Layout:
    """WAV of more than 4 GiB, whose sizes stand in its first chunk (EBU Tech 3306); BW64 has the same layout."""
    sizes = -1
    for name, content in _long_chunks(data, start + 12, "little", align=2):
        if name == b"ds64":
            sizes = content + 8  # behind the size of the complete file
        if name == b"data" and sizes >= 0:
            return _long_layout(data, start, content, sizes, "little", data.at(start, 4).replace(b"BW64", b"RF64"))
    return one_part(start, data.size)


def _w64_layout(data: ByteReader, start: int) -> Layout:
    """Sony's Wave64: chunks of 16 letters and a size of 8 bytes that counts both, padded to 8 bytes."""
    for name, sound in _long_chunks(data, start + 40, "little", name=16, size=8, align=8, counted=24):
        if name == b"data":
            return _long_layout(data, start, sound, sound - 8, "little", counted=24)
    return one_part(start, data.size)


def _caf_layout(data: ByteReader, start: int) -> Layout:
    """Apple's CAF: chunks of 4 letters and a size of 8 bytes; that of the sound is -1 where it was not known."""
    for name, sound in _long_chunks(data, start + 8, "big", size=8):
        if name == b"data":
            return _long_layout(data, start, sound, sound - 8, "big")
    return one_part(start, data.size)


def _long_layout(
    data: ByteReader, start: int, sound: int, place: int, order: Order, magic: bytes = b"", counted: int = 0
) -> Layout:
    """Sound from byte `sound` on, whose size of 8 bytes stands at `place` and is corrected where it is wrong.

    The size counts `counted` bytes of the chunk's header; `magic` replaces the first letters of the header at `start`.
    """
    size, there = int.from_bytes(data.at(place, 8), order) - counted, data.size - sound
    before, stop = data.at(start, sound - start), data.size
    missing = left_out = None
    if 0 < size <= there:
        stop = sound + size
        if not data.at(stop, 5).lstrip(b"\0")[:3].isalnum():
            left_out = left_bytes(there - size)
    else:
        if 0 < size < 2**62:
            missing = missing_bytes(size, there)
        before = before[: place - start] + (there + counted).to_bytes(8, order) + before[place - start + 8 :]
    return one_part(sound, stop, magic + before[len(magic) :], missing, left_out)
