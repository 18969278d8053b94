"""Ogg files with streams beside the sound, with lost pages, and without their beginning."""

import io
import random
import struct
import warnings

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.audio import ogg
from fast_jukebox.audio.bytes import ByteReader
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


def test_a_page_whose_content_is_damaged_is_lost_and_told(vorbis):
    own = pages(vorbis)
    data = b"".join([*own[:4], own[4][:99] + bytes([own[4][99] ^ 1]) + own[4][100:], *own[5:]])
    with pytest.warns(UserWarning, match="1 of its pages are lost"):
        whole = load_audio(data)
    with pytest.warns(UserWarning, match="1 of its pages are lost"):
        assert torch.equal(load_audio(b"".join([*own[:4], *own[5:]])), whole)


def test_what_only_looks_like_a_page_is_passed_over(vorbis):
    own = pages(vorbis)
    false = b"OggS\0\2" + own[0][6:26] + b"\xff" + b"\xff" * 40 + b"\1vorbis"
    data = b"".join([*own[:3], false, *own[3:]])
    assert torch.equal(load_audio(data), load_audio(vorbis))
    assert audio_info(data).left_out is None


@pytest.mark.parametrize(
    ("change", "told", "share"),
    [
        (lambda first, second: [*first[:-1]], "the end of a stream is not there", 1),
        (lambda first, second: [*first, *second[1:]], "pages are of streams whose beginning is lost", 1),
        (lambda first, second: [*first[:-1], *second], "the end of a stream is not there", 2),
        (lambda first, second: [*first[:3], *second[3:4], *first[3:]], "1 of its pages are of streams whose", 1),
    ],
)
def test_what_is_lost_at_the_ends_of_streams_is_told(vorbis, change, told, share):
    data = b"".join(change(pages(vorbis), pages(with_serial(vorbis, 5))))
    with pytest.warns(UserWarning, match=told):
        assert 0.8 * share * 3 * RATE < len(load_audio(data)) <= share * 3 * RATE


@pytest.mark.parametrize("position", [5, 2**40, 2**62, -2])
def test_positions_that_contradict_each_other_are_told(vorbis, position):
    own = pages(vorbis)
    own[5] = with_checksum(own[5][:6] + struct.pack("<q", position) + own[5][14:])
    with pytest.warns(UserWarning, match="positions of its pages contradict each other"):
        whole = load_audio(b"".join(own))
    assert audio_info(b"".join(own)).frames == len(whole)


def test_files_made_to_be_slow_are_given_up(vorbis, monkeypatch):
    """Of many beginnings of pages that each state 64 kB to check."""
    checked = []
    checksum = ogg._checksum
    monkeypatch.setattr(ogg, "_checksum", lambda page: checked.append(len(page)) or checksum(page))
    data = vorbis + (b"OggS\0\0" + bytes(20) + b"\xff" + b"\xff" * 8) * 50_000
    with pytest.warns(UserWarning, match="1750000 bytes are no Ogg pages"):
        assert torch.equal(load_audio(data), load_audio(vorbis))
    assert sum(checked) < 17 * len(data)
    many = [page(serial, 0, 2, 0, b"OpusHead") for serial in range(300)]
    monkeypatch.setattr(ogg, "MOST_PARTS", 100)
    assert len(ogg.ogg_layout(ByteReader(io.BytesIO(b"".join(many))), 0).parts) == 1


def damaged(chance, data):
    """A file of pages with one damage of any kind."""
    own = pages(data)
    kind, at = chance.choice(["cut", "flip", "drop", "twice", "swap", "insert", "zeros", "header"]), chance.randrange(9)
    if kind == "drop":
        del own[at]
    elif kind == "twice":
        own.insert(at, own[at])
    elif kind == "swap":
        other = chance.randrange(len(own))
        own[at], own[other] = own[other], own[at]
    elif kind == "insert":
        own.insert(at, chance.choice([chance.randbytes(500), b"OggS" * 30, own[at][:200]]))
    elif kind == "header":
        place, size = chance.choice([(5, 1), (6, 8), (14, 4), (18, 4), (26, 1)])
        own[at] = with_checksum(own[at][:place] + chance.randbytes(size) + own[at][place + size :])
    raw = bytearray(b"".join(own))
    place = chance.randrange(len(raw))
    if kind == "cut":
        del raw[max(place, 1) :]
    elif kind == "flip":
        raw[place] ^= 1 << chance.randrange(8)
    elif kind == "zeros":
        raw[place : place + 2000] = bytes(len(raw[place : place + 2000]))
    return bytes(raw)


def test_no_damage_takes_sound_away_without_a_word(vorbis):
    """Whatever is damaged, the file is refused, or complete up to a tenth of a second, or a warning tells the loss."""
    chance = random.Random(0)
    whole = vorbis + with_serial(vorbis, 5)
    complete = refused = 0
    for _ in range(300):
        data = damaged(chance, whole)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = load_audio(data)
            except ValueError as error:
                assert "the given bytes" in str(error)
                refused += 1
                continue
        if not told:
            assert len(found) >= 6 * RATE - RATE // 10
            complete += 1
    assert complete > 20 and refused < 150


def test_a_stream_without_its_beginning_is_refused_by_name(tmp_path, vorbis):
    (tmp_path / "middle.ogg").write_bytes(b"".join(pages(vorbis)[4:]))
    with pytest.raises(ValueError, match=r"middle\.ogg is no sound that can be read: .*; fetch it again, or save"):
        load_audio(tmp_path / "middle.ogg")
