import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import fast_jukebox
from fast_jukebox import FastJukeboxModel
from fast_jukebox.generation import decoding
from fast_jukebox.generation.request import SongRequest
from fast_jukebox_cli import generate as module
from fast_jukebox_cli import values


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
    assert module._stream(tiny_model, None, "wav", SongRequest(seed=1, duration=3600.0)) >= 0


def test_a_terminal_is_no_place_for_sound(run, monkeypatch):
    monkeypatch.setattr(values, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True), exit=sys.exit))
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


def quick(model_dir, *arguments):
    return ["generate", "--model", model_dir, "--duration", 0.1, "--seed", 3, "--quiet", *arguments]


def test_songs_without_a_name_do_not_overwrite_each_other(run, model_dir):
    paths = [run(*quick(model_dir)).stdout.splitlines()[-1] for _ in range(3)]
    assert [path.rpartition("/")[2] for path in paths] == ["song.wav", "song-2.wav", "song-3.wav"]
    assert len(list(run.folder.iterdir())) == 3


def test_a_file_is_overwritten_with_force_alone(run, model_dir):
    (run.folder / "mine.wav").write_text("a recording")
    refused = run(*quick(model_dir, "--output", "mine.wav"))
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (run.folder / "mine.wav").read_text() == "a recording"
    assert run(*quick(model_dir, "--output", "mine.wav", "--force")).exit_code == 0
    assert soundfile.info(run.folder / "mine.wav").frames == 160


def test_a_prompt_is_never_overwritten(run, model_dir):
    soundfile.write(run.folder / "mine.wav", np.zeros(100), 1600)
    (run.folder / "link.wav").symlink_to("mine.wav")
    for name in ("mine.wav", "link.wav"):
        result = run(*quick(model_dir, "--prompt", "mine.wav", "--output", name, "--force"))
        assert result.exit_code == 2
        assert "must not be a file that is read" in result.stderr
    assert soundfile.info(run.folder / "mine.wav").frames == 100


def test_a_song_that_cannot_be_written_is_kept_and_its_seed_told(run, model_dir, monkeypatch):
    save = module.audio.save_audio
    monkeypatch.setattr(module, "check_rate", lambda path, rate: None)

    def full(path, *arguments, **options):
        if path.parent == run.folder:
            raise OSError(28, "No space left on device")
        return save(path, *arguments, **options)

    monkeypatch.setattr(module.audio, "save_audio", full)
    result = run(*quick(model_dir))
    assert result.exit_code == 1
    assert "seed 3" in result.stderr
    kept = Path(re.search(r"kept in (\S+),", result.stderr)[1])
    assert [soundfile.info(path).frames for path in kept.iterdir()] == [160]
    assert not list(run.folder.iterdir())


def test_a_failure_of_sampling_tells_the_seed(run, model_dir, monkeypatch):
    def fail(self, **arguments):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(fast_jukebox.FastJukeboxModel, "generate", fail)
    result = run("generate", "--model", model_dir, "--quiet")
    assert result.exit_code == 1
    assert re.search(r"the device is gone; `--seed \d+` makes the same song", result.stderr)


def test_several_songs_are_numbered(run, model_dir, tiny_model):
    result = run(*quick(model_dir, "--num-samples", 2, "--output", "mine.flac"))
    assert [path.rpartition("/")[2] for path in result.stdout.splitlines()] == ["mine-1.flac", "mine-2.flac"]
    songs = tiny_model.generate(duration=0.1, seed=3, num_samples=2).audio.clamp(-1, 1).numpy()
    for number, song in enumerate(songs, 1):
        audio, _ = soundfile.read(run.folder / f"mine-{number}.flac", dtype="float32")
        np.testing.assert_allclose(audio, song, atol=1 / 32000)


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac", "wav"])
def test_files_say_that_they_are_generated(run, model_dir, suffix, monkeypatch):
    # Lossy formats have rates of their own, which the tiny model has not.
    save = module.audio.save_audio
    monkeypatch.setattr(module, "check_rate", lambda path, rate: None)
    monkeypatch.setattr(module.audio, "save_audio", lambda path, song, rate, **tags: save(path, song, 16000, **tags))
    result = run(*quick(model_dir, "--output", f"song.{suffix}"))
    assert result.exit_code == 0, result.stderr
    with soundfile.SoundFile(run.folder / f"song.{suffix}") as file:
        assert file.title == "Fast Jukebox, seed 3"
        assert file.comment.startswith("generated audio")
        assert str(model_dir) in file.comment
        assert suffix == "mp3" or "fast_jukebox" in file.software  # an MP3 names its encoder there


def test_a_recording_is_extended_by_seconds(run, model_dir):
    soundfile.write(run.folder / "mine.wav", np.zeros(200), 1600)
    arguments = ["generate", "--model", model_dir, "--quiet", "--seed", 3, "--prompt", "mine.wav"]
    assert run(*arguments, "--extend", 0.1).exit_code == 0
    assert soundfile.info(run.folder / "song.wav").frames == 360
    short = run(*arguments, "--duration", 0.1)
    assert short.exit_code == 2
    assert "--extend" in short.stderr


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_labelled_model_says_what_it_chose(run, paired_model, tmp_path, options):
    paired_model.save_pretrained(tmp_path / "model")
    words = [
        "generate",
        "--model",
        tmp_path / "model",
        "--duration",
        0.1,
        "--seed",
        3,
        "--output",
        "song.wav",
        *options,
    ]
    result = run(*words)
    assert result.exit_code == 0, result.output
    found = re.search(r"seed 3; (\w+) by (\w+)", result.stderr)
    assert (found[2], found[1]) in paired_model.processor.pairs
    asked = ["--output", "same.wav", "--genre", found[1], "--artist", found[2], *options]
    again = run(*words, *asked)
    assert again.exit_code == 0, again.output
    assert (run.folder / "same.wav").read_bytes() == (run.folder / "song.wav").read_bytes()


def test_a_stream_keeps_the_recording_as_a_whole_song_does(run, model_dir):
    samples = (0.3 * np.sin(np.arange(400) / 5)).astype(np.float32)
    soundfile.write(run.folder / "in.wav", samples, 1600, subtype="FLOAT")
    arguments = ["generate", "--model", model_dir, "--quiet", "--seed", 3, "--prompt", "in.wav", "--extend", 0.1]
    for name, how in (("whole.wav", []), ("streamed.wav", ["--stream"])):
        assert run(*arguments, "--output", name, *how).exit_code == 0
    whole, streamed = (soundfile.read(run.folder / name, dtype="float32")[0] for name in ("whole.wav", "streamed.wav"))
    np.testing.assert_allclose(streamed, whole, atol=1 / 32000)
    np.testing.assert_allclose(whole[:352], samples[:352], atol=1 / 32000)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_utf8_is_written_and_printed(run, model_dir):
    result = run(*quick(model_dir, "--output", "caf\udce9.wav"))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("caf\\xe9.wav")
    assert [path.name for path in run.folder.iterdir()] == ["caf\udce9.wav"]


@pytest.mark.parametrize("output", ["song.mp3", "song.ogg"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_format_that_lacks_the_models_rate_is_refused_before_a_note_is_made(
    run, model_dir, monkeypatch, output, stream
):
    for name in ("generate", "stream"):
        monkeypatch.setattr(FastJukeboxModel, name, lambda *args, **kwargs: pytest.fail("sampled"))
    result = run(*quick(model_dir, "--output", output, *(["--stream"] if stream else [])))
    assert result.exit_code == 2, result.output
    assert "`--output`" in result.stderr
    assert not list(run.folder.iterdir())


def test_a_revision_must_be_of_a_repository(run, model_dir):
    result = run(*quick(model_dir, "--revision", "v2"))
    assert result.exit_code == 2
    assert "`--revision` must go with a Hub repository, got the folder" in result.stderr
