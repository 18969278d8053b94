"""WAV, AIFF and AU files by their chunks, whose sizes and padding programs write wrongly in many ways."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.layout import MOST_PARTS, Layout, Part, is_unknown, left_bytes, missing_bytes, one_part
from fast_jukebox.audio.mpeg import mpeg_layout

_MP3_IN_WAV = b"\x55\x00"
_LONGEST_FORMAT = 2**16


@dataclass(frozen=True)
class _Kind:
    """A format's names of the chunks with the format and with the samples, and the bytes of the latter before them."""

    format: bytes
    sound: bytes
    lead: int


_WAVE, _AIFF = _Kind(b"fmt ", b"data", 0), _Kind(b"COMM", b"SSND", 8)
_KINDS = {b"WAVE": _WAVE, b"AIFF": _AIFF, b"AIFC": _AIFF}


@dataclass(frozen=True)
class _Chunk:
    """A chunk: its name, where its body begins, the size that it states, and where it ends with its padding.

    It is `regular` where libsndfile finds what follows it.
    """

    name: bytes
    body: int
    size: int
    stop: int
    regular: bool = True


def is_chunked(data: ByteReader, start: int) -> bool:
    """True where a WAV or AIFF file begins here."""
    head = data.at(start, 12)
    magics = (b"RIFF", b"RIFX") if head[8:12] == b"WAVE" else (b"FORM",)
    return head[:4] in magics and head[8:12] in _KINDS


def is_au(data: ByteReader, start: int) -> bool:
    """True where an AU file begins here, of either order of bytes."""
    return data.at(start, 4) in (b".snd", b"dns.") and len(data.at(start, 24)) == 24


def chunk_layout(data: ByteReader, start: int) -> Layout:
    """WAV or AIFF, of which several may be joined; a `ValueError` where the format of the samples is not stated."""
    return _joined(data, start, is_chunked, _chunk_file)


def au_layout(data: ByteReader, start: int) -> Layout:
    """AU, of which several may be joined."""
    return _joined(data, start, is_au, _au_file)


def _joined(
    data: ByteReader,
    start: int,
    begins: Callable[[ByteReader, int], bool],
    file: Callable[[ByteReader, int], tuple[Layout, int]],
) -> Layout:
    parts: list[Part] = []
    first = start
    while len(parts) < MOST_PARTS and (start == first or begins(data, start)):
        layout, start = file(data, start)
        parts += layout.parts
    left_out = layout.left_out or left_bytes(data.size - start)
    return Layout(tuple(parts), layout.missing, left_out, layout.quiet)


def _chunk_file(data: ByteReader, start: int) -> tuple[Layout, int]:
    """One WAV or AIFF file, and where it ends."""
    head = data.at(start, 12)
    kind, order = _KINDS[head[8:]], "<" if head[:4] == b"RIFF" else ">"
    chunks = list(_chunks(data, start + 12, order, kind))
    sounds = [chunk for chunk in chunks if chunk.name == kind.sound]
    formats = [chunk for chunk in chunks if chunk.name == kind.format]
    if not sounds:
        return one_part(start, data.size), data.size
    if not formats:
        raise ValueError(f"holds no `{kind.format.decode()}` chunk, which says what its samples are: export it again")
    format_body = data.at(formats[0].body, min(formats[0].size, _LONGEST_FORMAT))
    if kind is _WAVE and format_body[:2] == _MP3_IN_WAV and (frames := mpeg_layout(data, sounds[0].body)) is not None:
        return frames, data.size
    stop, last = chunks[-1].stop, sounds[-1]
    there = data.size - last.body
    missing = missing_bytes(last.size, there) if last.size > there and not is_unknown(last.size) else None
    silent = any(chunk.name == b"slnt" for chunk in chunks)
    left_out = "its chunks of silence (`slnt`) are left out" if silent else None
    before = chunks[: chunks.index(sounds[0]) + 1]
    if len(sounds) == 1 and formats[0] in before and all(chunk.regular for chunk in before[:-1]):
        if last.size > kind.lead:
            return one_part(start, stop, b"", missing, left_out), stop
        header = data.at(start, last.body - start)[:-4] + b"\xff" * 4  # libsndfile reads up to the end then
        return one_part(last.body, stop, header, missing, left_out), stop
    parts = tuple(
        _clean_part(chunk, head, order, kind, format_body) for chunk in sounds if chunk.stop > chunk.body + kind.lead
    )
    return Layout(parts or one_part(start, data.size).parts, missing, left_out), stop


def _clean_part(sound: _Chunk, head: bytes, order: str, kind: _Kind, format_body: bytes) -> Part:
    """A chunk of sound behind a header that holds its format, the bytes `format_body`, and nothing else."""
    stop = sound.body + sound.size if kind.lead < sound.size < sound.stop - sound.body else sound.stop  # no padding
    chunk = struct.Struct(order + "4sI")
    size = stop - sound.body
    body = chunk.pack(kind.format, len(format_body)) + format_body + bytes(len(format_body) % 2)
    body += chunk.pack(kind.sound, size)
    prefix = chunk.pack(head[:4], 4 + len(body) + size) + head[8:] + body + bytes(kind.lead)
    return Part(((sound.body + kind.lead, stop),), prefix=prefix)


def _chunks(data: ByteReader, position: int, order: str, kind: _Kind) -> Iterator[_Chunk]:
    """The chunks from a position on: each 4 letters, a size, so many bytes, padded to an even number.

    Some programs do not pad: where a chunk begins without the padding, it is taken. Behind the sound, only what surely
    is a chunk is one.
    """
    after_sound = False
    for _ in range(MOST_PARTS):
        head = data.at(position, 8)
        name, body = head[:4], position + 8
        if len(head) < 8 or is_chunked(data, position) or (after_sound and not _begins_chunk(data, position, kind)):
            return
        size = struct.unpack(order + "I", head[4:])[0]
        if name == b"LIST" and data.at(body, 4) == b"wavl":  # a list of sounds and silence
            after_sound, position = True, body + 4
            yield _Chunk(name, body, 4, position, regular=False)
            continue
        if after_sound and name != kind.sound:
            size = min(int.from_bytes(head[4:], each) for each in ("little", "big"))
        stop, padded = body + size, True
        if name == kind.sound:
            after_sound = True
            empty = size <= kind.lead and body + kind.lead < data.size and not _begins_chunk(data, stop, kind)
            if empty or is_unknown(size) or stop > data.size:  # a killed program, a pipe, or a file that was cut off
                yield _Chunk(name, body, size, data.size)
                return
        if size % 2:
            padded = not _begins_chunk(data, stop, kind)
            stop += padded
        yield _Chunk(name, body, size, min(stop, data.size), padded)
        position = stop


def _begins_chunk(data: ByteReader, position: int, kind: _Kind) -> bool:
    """True where a chunk of a printable name, which fits into the file, or another file surely begins here."""
    head = data.at(position, 8)
    name = head[:4]
    if (
        len(head) < 8
        or not all(0x20 <= letter < 0x7F for letter in name)
        or not (name[:1].isalnum() or name[0] == 0x5F)
    ):
        return False
    size = min(int.from_bytes(head[4:], each) for each in ("little", "big"))
    return name in (kind.sound, b"RIFF", b"RIFX", b"FORM") or position + 8 + size <= data.size


def _au_file(data: ByteReader, start: int) -> tuple[Layout, int]:
    """One AU file, and where it ends; a size of 0 or of -1 means that it was not known."""
    order = ">" if data.at(start, 4) == b".snd" else "<"
    offset, size = struct.unpack(order + "II", data.at(start + 4, 8))
    there = data.size - start - offset
    if is_unknown(size) or (size == 0 and there > 0):
        header = data.at(start, 24)
        return one_part(start + 24, data.size, header[:8] + b"\xff" * 4 + header[12:]), data.size
    if size > there:
        return one_part(start, data.size, b"", missing_bytes(size, there)), data.size
    stop = start + offset + size
    return one_part(start, stop), stop
