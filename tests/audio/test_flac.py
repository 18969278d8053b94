import io
import struct
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.flac import INFO_LENGTH, found_samples, stated_samples, with_samples
from fast_jukebox.audio.io import audio_info, load_audio

RATE = 8000


def flac(samples, channels=1, subtype="PCM_16", seed=0):
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels))
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, format="FLAC", subtype=subtype)
    return file.getvalue()


def stating(data, count):
    return with_samples(data[:INFO_LENGTH], count) + data[INFO_LENGTH:]


@given(st.integers(1, 40000), st.integers(1, 3), st.sampled_from(["PCM_S8", "PCM_16", "PCM_24"]))
@settings(max_examples=25, deadline=None)
def test_the_last_frame_tells_the_length(samples, channels, subtype):
    data = flac(samples, channels, subtype)
    assert stated_samples(data) == samples
    for behind in (b"", b"TAG".ljust(128, b" "), bytes(3000), b"\xff\xf8" * 50):
        whole = data + behind
        found = found_samples(ByteReader(io.BytesIO(whole)), 0, len(whole))
        # Where something stands behind the last frame, that one cannot be told from a part of a frame.
        assert found == samples or (behind and found == (samples - 1) // 4096 * 4096) or (behind and found is None)


@pytest.mark.parametrize("stated", [0, 1, 10_000, 40_000, 2**36 - 1])
def test_a_stated_length_is_not_believed(stated):
    data = flac(20_000)
    whole = load_audio(data, RATE)
    changed = stating(data, stated)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert audio_info(changed).frames == 20_000
        assert np.array_equal(load_audio(changed, RATE), whole)
        assert np.array_equal(load_audio(changed, RATE, offset=1.5, duration=0.5), whole[12_000:16_000])
    assert any(f"states {stated} samples, and 20000 are there" in str(each.message) for each in told) == (
        stated > 20_000
    )


def test_of_a_file_that_was_cut_off_the_whole_frames_are_read():
    data = flac(40_000)
    with pytest.warns(UserWarning, match="states 40000 samples, and 20480 are there"):
        cut = load_audio(data[: len(data) * 11 // 20], RATE)
    assert np.array_equal(cut, load_audio(data, RATE)[:20_480])


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_looked_at_without_an_error(tail, start):
    data = b"fLaC\x00\x00\x00\x22" + bytes(34) + tail
    found_samples(ByteReader(io.BytesIO(data)), min(start, len(data)), len(data))


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 45, 1, 0xA0000000) + bytes(1968)
APE += b"APETAGEX" + struct.pack("<IIII8x", 2000, 45, 1, 0x80000000)
LYRICS = b"LYRICSBEGIN" + b"IND0000200LYR05000" + b"x" * 5000


@pytest.mark.parametrize(
    "behind",
    [
        b"TAG".ljust(128, b" "),
        APE,
        APE + b"TAG".ljust(128, b" "),
        LYRICS + f"{len(LYRICS):06d}".encode() + b"LYRICS200" + b"TAG".ljust(128, b" "),
        bytes(3000),
        np.random.default_rng(0).bytes(5000),
    ],
)
def test_what_stands_behind_the_last_frame_takes_nothing_of_the_sound(behind):
    data = flac(20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_audio(data + behind, RATE), load_audio(data, RATE))


def test_a_block_that_holds_a_stream_is_no_second_song():
    data = flac(20_000)
    block = b"\x02" + (4 + len(data)).to_bytes(3, "big") + b"song" + data
    with_block = data[:INFO_LENGTH] + block + data[INFO_LENGTH:]
    assert np.array_equal(load_audio(with_block, RATE), load_audio(data, RATE))


def test_a_stream_without_a_frame_says_that_it_lacks_its_sound():
    with pytest.warns(UserWarning, match=r"of 2\.5 s, 0 s can be read"):
        assert len(load_audio(flac(20_000)[:INFO_LENGTH], RATE)) == 0


def test_a_file_that_is_damaged_in_the_middle_is_refused_with_a_remedy(tmp_path):
    data = flac(40_000)
    half = len(data) // 2
    (tmp_path / "song.flac").write_bytes(data[:half] + bytes(500) + data[half + 500 :])
    with pytest.raises(ValueError, match=r"song\.flac is broken: .*; fetch it again, or save what is left .*ffmpeg"):
        load_audio(tmp_path / "song.flac", RATE)
