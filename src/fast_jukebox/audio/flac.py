"""FLAC: how many samples a stream has, by its last frame and not by its header (RFC 9639, 8.2 and 9)."""

from __future__ import annotations

from collections.abc import Iterator

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.layout import MOST_PARTS

INFO_LENGTH = 42
"""Bytes of the marker `fLaC` and the block STREAMINFO, with which every stream begins."""
_TOTAL_BITS = 36
_SEARCHED = (2**16, 2**20)
"""Bytes at the end in which the last frame is looked for: few, then many."""
_MOST_TRIES = 24
_BLOCK_SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
_EXTRA_BYTES = {6: 1, 7: 2}
"""Bytes of a block size that is written behind the number of the frame, by its code."""
_RATE_BYTES = {12: 1, 13: 2, 14: 2}


def _crc_table(polynomial: int, bits: int) -> list[int]:
    top, table = 1 << (bits - 1), []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value & top else 0)
        table.append(value & ((1 << bits) - 1))
    return table


_CRC8, _CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)


def stated_samples(info: bytes) -> int:
    """Samples of each channel that STREAMINFO states; 0 where it does not know."""
    return int.from_bytes(info[18:26], "big") & ((1 << _TOTAL_BITS) - 1)


def with_samples(info: bytes, count: int) -> bytes:
    """STREAMINFO, from `fLaC` on, that states another number of samples."""
    others = int.from_bytes(info[18:26], "big") >> _TOTAL_BITS << _TOTAL_BITS
    return info[:18] + (others | count).to_bytes(8, "big") + info[26:INFO_LENGTH]


def frames_begin(data: ByteReader, start: int) -> int:
    """Where the frames of a stream begin, behind its blocks of pictures and other things."""
    position = start + 4
    for _ in range(MOST_PARTS):
        head = data.at(position, 4)
        position += 4 + int.from_bytes(head[1:], "big")
        if len(head) < 4 or head[0] & 0x80:
            break
    return position


def found_samples(data: ByteReader, start: int, stop: int) -> int | None:
    """Samples of each channel up to the end of the last complete frame; `None` where none is found near the end."""
    info = data.at(start, INFO_LENGTH)
    if len(info) < INFO_LENGTH:
        return None
    for searched in _SEARCHED:
        first = max(start + INFO_LENGTH, stop - searched)
        tail = data.at(first, stop - first)
        found = _last_frame_end(tail, info)
        if found is not None or first == start + INFO_LENGTH:
            return found
    return None


def _last_frame_end(tail: bytes, info: bytes) -> int | None:
    """The sample behind the last frame in some bytes whose checksum is right."""
    headers = list(_headers(tail, info))
    ends = [len(tail), *(place for place, _ in reversed(headers))]
    tries = 0
    for end in ends:
        for place, last in reversed(headers):
            if place + 6 < end and tries < _MOST_TRIES:
                tries += 1
                if _crc16(tail[place : end - 2]) == int.from_bytes(tail[end - 2 : end], "big"):
                    return last
        if end == len(tail):  # or something stands behind the frame that is stated to be the last
            for place, last in reversed(headers):
                if last == stated_samples(info) and _is_frame_before(tail[place:]):
                    return last
    return None


def _is_frame_before(tail: bytes) -> bool:
    """True where bytes begin with a complete frame: with its checksum, the checksum of all is 0."""
    value = 0
    for place, byte in enumerate(tail):
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
        if value == 0 and place > 8:
            return True
    return False


def _headers(tail: bytes, info: bytes) -> Iterator[tuple[int, int]]:
    """Where headers of frames stand, as far as their checksum says, and the sample behind each frame."""
    place = tail.find(b"\xff")
    while place >= 0:
        last = _sample_behind(tail[place : place + 16], info)
        if last is not None:
            yield place, last
        place = tail.find(b"\xff", place + 1)


def _sample_behind(head: bytes, info: bytes) -> int | None:
    """The number of the sample behind the frame that begins with these bytes; `None` where none does."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    block_code, rate_code = head[2] >> 4, head[2] & 15
    length = _number_length(head[4])
    extra = _EXTRA_BYTES.get(block_code, 0)
    end = 4 + length + extra + _RATE_BYTES.get(rate_code, 0)
    if length == 0 or block_code == 0 or rate_code == 15 or len(head) <= end or _crc8(head[:end]) != head[end]:
        return None
    number = head[4] & (0xFF >> (length + 1)) if length > 1 else head[4]
    for byte in head[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    block = _BLOCK_SIZES.get(block_code) or int.from_bytes(head[4 + length : 4 + length + extra], "big") + 1
    if head[1] & 1:  # blocks of several sizes: the number is that of the first sample
        return number + block
    return number * int.from_bytes(info[10:12], "big") + block  # the largest block, which all but the last are


def _number_length(first: int) -> int:
    """Bytes of a number that is coded as UTF-8 codes characters; 0 where it cannot be."""
    if first < 0x80:
        return 1
    ones = 8 - (first ^ 0xFF).bit_length()
    return ones if 2 <= ones <= 7 else 0


def _crc8(content: bytes) -> int:
    value = 0
    for byte in content:
        value = _CRC8[value ^ byte]
    return value


def _crc16(content: bytes) -> int:
    value = 0
    for byte in content:
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
    return value
