import io
import struct
import sys

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.audio.io import save_audio
from fast_jukebox.audio.mpeg import frame_header
from fast_jukebox.audio.writer import AudioWriter

RATE = 8000


@pytest.fixture
def sound():
    return (0.9 * np.sin(np.arange(5000) / 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_pieces_make_the_file_that_one_would(tmp_path, sound, suffix):
    path = tmp_path / f"song{suffix}"
    with AudioWriter(path, RATE) as writer:
        for piece in np.split(sound, [1, 100, 3000]):
            writer.write(piece)
        assert writer.samples == 5000
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(audio, sound, atol=1 / 32000)
    np.testing.assert_array_equal(audio, soundfile.read(save_audio(tmp_path / f"whole{suffix}", sound, RATE))[0])


def test_a_wav_file_is_whole_at_any_moment(tmp_path, sound):
    writer = AudioWriter(tmp_path / "song.wav", RATE)
    for count in range(1, 4):
        writer.write(sound[:1000])
        audio, _ = soundfile.read(tmp_path / "song.wav", dtype="float32")
        assert len(audio) == 1000 * count
    writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sizes of files have no limit there")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_disk_that_is_full_is_an_error_and_nothing_is_printed(tmp_path, sound, suffix, capfd):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).uniform(-1, 1, 20000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(OSError) as caught, AudioWriter(tmp_path / f"song{suffix}", RATE) as writer:
            for piece in np.split(noise, 10):
                writer.write(piece)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value.filename) == str(tmp_path / f"song{suffix}")
    assert capfd.readouterr() == ("", "")


def test_loud_sound_is_clipped(tmp_path):
    with AudioWriter(tmp_path / "song.wav", RATE) as writer:
        writer.write([2.0, -2.0])
    assert soundfile.read(tmp_path / "song.wav", dtype="int16")[0].tolist() == [32767, -32768]


def test_a_pipe_gets_a_header_of_unknown_length(sound):
    pipe = io.BytesIO()
    pipe.seek = None  # what a pipe cannot do
    with AudioWriter(pipe, RATE) as writer:
        writer.write(sound)
    written = pipe.getvalue()
    assert written[:4] == b"RIFF"
    assert written[8:16] == b"WAVEfmt "
    assert struct.unpack("<HHIIHH", written[20:36]) == (1, 1, RATE, 2 * RATE, 2, 16)
    assert written[36:44] == b"data\xff\xff\xff\xff"
    assert len(written) == 44 + 2 * len(sound)
    raw = io.BytesIO()
    with AudioWriter(raw, RATE, kind="raw") as writer:
        writer.write(sound)
    assert raw.getvalue() == written[44:]
    assert not raw.closed


def test_an_mp3_file_of_pieces_is_the_one_of_the_whole(tmp_path, sound):
    with AudioWriter(tmp_path / "song.mp3", RATE) as writer:
        for piece in np.split(sound, [1, 100, 3000]):
            writer.write(piece)
    audio, rate = soundfile.read(tmp_path / "song.mp3", dtype="float32")
    assert (len(audio), rate) == (5000, RATE)
    np.testing.assert_array_equal(audio, soundfile.read(save_audio(tmp_path / "whole.mp3", sound, RATE))[0])


def whole_frames(data):
    """Samples in the complete frames of MP3 data that begins with one."""
    samples = position = 0
    while (header := frame_header(data[position : position + 4])) and position + header.length <= len(data):
        samples, position = samples + header.samples, position + header.length
    return samples


def test_an_mp3_stream_can_be_played_while_it_grows():
    class Pipe(io.BytesIO):
        def seek(self, *arguments):
            raise OSError("a pipe cannot seek")

    pipe, tone = Pipe(), (0.5 * np.sin(np.arange(3 * 44100) / 20)).astype(np.float32)
    with AudioWriter(pipe, 44100, "mp3") as writer:
        for piece in np.split(tone, 12):
            writer.write(piece)
            assert 0 <= writer.samples - whole_frames(pipe.getvalue()) < 8 * 1152
    assert whole_frames(pipe.getvalue()) >= len(tone)
    heard = soundfile.read(io.BytesIO(pipe.getvalue()))[0]
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.05)


def test_rates_that_mp3_lacks_are_refused_and_the_old_file_stays(tmp_path):
    (tmp_path / "song.mp3").write_text("the old song")
    with pytest.raises(ValueError, match="`sampling_rate` must be one that MP3 has, got 1600"):
        AudioWriter(tmp_path / "song.mp3", 1600)
    assert (tmp_path / "song.mp3").read_text() == "the old song"


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="target"):
        AudioWriter(tmp_path / "song.ogg", RATE)
    with pytest.raises(ValueError, match="kind"):
        AudioWriter(io.BytesIO(), RATE, kind="flac")
    with pytest.raises(OSError, match="missing"):
        AudioWriter(tmp_path / "missing" / "song.wav", RATE)


def test_a_tensor_on_a_gpu_is_brought_over(as_on_gpu):
    pipe, samples = io.BytesIO(), torch.tensor([0.5, -0.5, 2.0])
    AudioWriter(pipe, 8000, "raw").write(as_on_gpu(samples))
    assert np.frombuffer(pipe.getvalue(), "<i2").tolist() == [16384, -16384, 32767]
