import io
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
