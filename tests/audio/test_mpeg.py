"""MP3 files that begin within a frame, and whose length a `VBRI` tag states."""

import io
import struct

import numpy as np
import pytest
import soundfile

from fast_jukebox.audio.bytes import ByteReader
from fast_jukebox.audio.io import audio_info, load_audio
from fast_jukebox.audio.mpeg import find_frames, frame_header

RATE = 44100


@pytest.fixture(scope="module")
def mp3():
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE)
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def length_of(mp3):
    return frame_header(mp3[:4]).length


@pytest.mark.parametrize("begin", [1, 50, 300])
def test_a_file_that_begins_within_a_frame_is_read_from_the_next(mp3, begin):
    data = mp3[length_of(mp3) + begin :]
    assert data[:1] != b"\xff"
    audio = load_audio(data)
    assert abs(len(audio) - 3 * RATE) <= 4 * 1152
    assert audio_info(data).frames == len(audio)


@pytest.mark.parametrize("share", [0.2, 1, 5])
def test_a_vbri_tag_is_not_believed(mp3, share):
    length = length_of(mp3)
    (run,) = find_frames(ByteReader(io.BytesIO(mp3)))
    stated = round(share * run.frames)
    tag = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(mp3), stated, 0, 1, 2, 1)
    data = (mp3[:4] + bytes(32) + tag).ljust(length, b"\0") + mp3[length:]
    if share > 1:
        with pytest.warns(UserWarning, match=f"states {stated} frames, and {run.frames} are there"):
            audio = load_audio(data)
    else:
        audio = load_audio(data)
    assert abs(len(audio) - 3 * RATE) <= 3 * 1152
    assert audio_info(data).frames == len(audio)
