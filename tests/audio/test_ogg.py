"""Ogg files with streams beside the sound, with lost pages, and without their beginning."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.audio.io import audio_info, load_audio

RATE = 44100


def table():
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        yield value


TABLE = list(table())


def with_checksum(page):
    page, value = page[:22] + bytes(4) + page[26:], 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ TABLE[(value >> 24) ^ byte]
    return page[:22] + struct.pack("<I", value) + page[26:]


def page(serial, number, kind, position, body):
    lengths = [255] * (len(body) // 255) + [len(body) % 255]
    head = b"OggS\0" + bytes([kind]) + struct.pack("<qIII", position, serial, number, 0) + bytes([len(lengths)])
    return with_checksum(head + bytes(lengths) + body)


def pages(data):
    found = []
    while data:
        count = data[26]
        stop = 27 + count + sum(data[27 : 27 + count])
        found.append(data[:stop])
        data = data[stop:]
    return found


def with_serial(data, serial):
    return b"".join(with_checksum(each[:14] + struct.pack("<I", serial) + each[18:]) for each in pages(data))


@pytest.fixture(scope="module")
def vorbis():
    time = np.arange(3 * RATE) / RATE
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, len(time))
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 300 * time) + noise, RATE, format="OGG", subtype="VORBIS")
    return file.getvalue()


SKELETON = [page(7777, 0, 2, 0, b"fishead\0" + bytes(56)), page(7777, 1, 4, 0, b"")]
THEORA = [page(99, 0, 2, 0, b"\x80theora\3\2\1" + bytes(32)), *(page(99, n, 0, n, b"frame" * 90) for n in range(1, 9))]


@pytest.mark.parametrize("others", [SKELETON, THEORA])
@pytest.mark.parametrize("first", [True, False])
def test_the_sound_is_found_among_other_streams(vorbis, others, first):
    own, (begin, *rest) = pages(vorbis), others
    heads = [begin, own[0]] if first else [own[0], begin]
    for at in range(len(rest)):
        own.insert(3 + 2 * at, rest[at])
    data = b"".join([*heads, *own[1:]])
    assert torch.equal(load_audio(data), load_audio(vorbis))
    assert torch.equal(load_audio(data, offset=2.5), load_audio(vorbis, offset=2.5))
    assert audio_info(data).left_out is None


def test_a_second_stream_of_sound_is_left_out_with_a_word(vorbis):
    own, other = pages(vorbis), pages(with_serial(vorbis, 5))
    data = b"".join([own[0], other[0], *own[1:], *other[1:]])
    with pytest.warns(UserWarning, match="1 further streams of sound beside the first"):
        assert torch.equal(load_audio(data), load_audio(vorbis))


def test_lost_pages_are_told_and_the_rest_is_read_alike_from_any_offset(vorbis):
    own = pages(vorbis)
    assert len(own) > 7
    data = b"".join([*own[:4], *own[5:]])
    with pytest.warns(UserWarning, match="1 of its pages are lost"):
        whole = load_audio(data)
    info = audio_info(data)
    assert info.frames == len(whole) < 3 * RATE
    for start in (1000, len(whole) // 2, len(whole) - 3000):
        with pytest.warns(UserWarning, match="lost"):
            assert torch.equal(load_audio(data, offset=start / RATE), whole[start:])


def test_a_stream_without_its_beginning_is_refused_by_name(tmp_path, vorbis):
    (tmp_path / "middle.ogg").write_bytes(b"".join(pages(vorbis)[4:]))
    with pytest.raises(ValueError, match=r"middle\.ogg is no sound that can be read"):
        load_audio(tmp_path / "middle.ogg")
