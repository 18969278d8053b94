import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import fast_jukebox
from fast_jukebox import FastJukeboxModel
from fast_jukebox.generation import decoding
from fast_jukebox_cli import generate as module


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """Pieces that suit 1600 samples a second."""
    monkeypatch.setattr(decoding, "FIRST_SAMPLES", 64)
    monkeypatch.setattr(decoding, "LAST_SAMPLES", 128)


def expected(tiny_model, **arguments):
    return tiny_model.generate(**arguments).audio[0].clamp(-1, 1).numpy()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_stream_into_a_file(run, model_dir, tiny_model, suffix):
    result = run(
        "generate", "--model", model_dir, "--duration", 0.4, "--seed", 3, "--stream", "--output", f"song{suffix}"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(run.folder / f"song{suffix}")
    assert "0.4 seconds, seed 3" in result.stderr
    audio, _ = soundfile.read(run.folder / f"song{suffix}", dtype="float32")
    np.testing.assert_allclose(audio, expected(tiny_model, duration=0.4, seed=3), atol=1 / 32000)


@pytest.mark.parametrize("raw", [False, True])
def test_standard_output(run, model_dir, tiny_model, raw):
    arguments = ["--model", model_dir, "--duration", 0.2, "--seed", 3, "--output", "-", *(["--raw"] if raw else [])]
    result = run("generate", *arguments)
    assert result.exit_code == 0
    written = result.stdout_bytes
    if not raw:
        assert written[:4] == b"RIFF"
        written = written[44:]
    audio = np.frombuffer(written, dtype="<i2") / 32768
    np.testing.assert_allclose(audio, expected(tiny_model, duration=0.2, seed=3), atol=1 / 32000)
    assert not list(run.folder.iterdir())


def interrupt_after(monkeypatch, chunks, error=KeyboardInterrupt):
    stream = fast_jukebox.FastJukeboxModel.stream

    def interrupted(self, **arguments):
        for index, chunk in enumerate(stream(self, **arguments)):
            if index == chunks:
                raise error
            yield chunk[:, :50]

    monkeypatch.setattr(fast_jukebox.FastJukeboxModel, "stream", interrupted)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_ctrl_c_leaves_what_was_heard(run, model_dir, monkeypatch, suffix):
    interrupt_after(monkeypatch, 3)
    result = run("generate", "--model", model_dir, "--stream", "--seed", 1, "--output", f"song{suffix}")  # without end
    assert result.exit_code == 130
    assert "interrupted; 0.09375 seconds were written, seed 1" in result.stderr
    assert soundfile.info(run.folder / f"song{suffix}").frames == 150


def test_what_stood_there_stays_until_there_is_something_to_hear(run, model_dir, monkeypatch):
    (run.folder / "song.wav").write_text("the old song")
    interrupt_after(monkeypatch, 0)
    result = run("generate", "--model", model_dir, "--stream")
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert (run.folder / "song.wav").read_text() == "the old song"


def test_a_player_that_is_closed_ends_the_song(tiny_model, monkeypatch):
    class Closed(io.BytesIO):
        def write(self, data):
            if self.tell() > 100:
                raise BrokenPipeError
            return super().write(data)

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=Closed(), fileno=lambda: 1))
    monkeypatch.setattr(module.os, "dup2", lambda source, target: None)
    assert module._stream(tiny_model, None, "wav", 1600, {"seed": 1, "duration": 3600.0}) >= 0


def test_a_terminal_is_no_place_for_sound(run, monkeypatch):
    from fast_jukebox_cli import app as cli

    monkeypatch.setattr(cli, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True), exit=sys.exit))
    result = run("generate", "--output", "-")
    assert result.exit_code == 2
    assert "terminal" in result.stderr


def test_recordings_with_samples_that_are_no_numbers_are_refused(run, model_dir):
    samples = np.zeros(1600, dtype=np.float32)
    samples[800] = np.nan
    soundfile.write(run.folder / "in.wav", samples, 1600, subtype="FLOAT")
    result = run("generate", "--model", model_dir, "--prompt", "in.wav", "--duration", 2)
    assert result.exit_code == 2
    assert "NaN" in result.stderr or "finite" in result.stderr


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_songs_made_on_a_gpu_are_written(run, model_dir, monkeypatch, as_on_gpu, stream):
    generate, make_stream = FastJukeboxModel.generate, FastJukeboxModel.stream

    def made(self, **arguments):
        output = generate(self, **arguments)
        output.audio = as_on_gpu(output.audio)
        return output

    monkeypatch.setattr(FastJukeboxModel, "generate", made)
    monkeypatch.setattr(FastJukeboxModel, "stream", lambda self, **given: map(as_on_gpu, make_stream(self, **given)))
    result = run("generate", "--model", model_dir, "--duration", 0.2, "--output", "song.wav", *stream)
    assert result.exit_code == 0, result.output
    assert soundfile.info(run.folder / "song.wav").frames == 320
