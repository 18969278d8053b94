import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import fast_jukebox


def no_loading(monkeypatch):
    def loaded(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(fast_jukebox.FastJukeboxModel, "from_pretrained", loaded)


def test_version(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"fast-jukebox {fast_jukebox.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["generate", "estimate", "info", "--version"]),
        (
            ["generate", "--help"],
            ["--duration", "--output", "--prompt", "--prompt-duration", "--model", "--seed", "--stream"],
        ),
        (["info", "--help"], ["MODEL"]),
        (["estimate", "--help"], ["MODEL", "--duration", "--schedule"]),
    ],
)
def test_help(run, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 0
    for word in words:
        assert word in result.stdout


def test_a_song_is_written_and_its_path_is_the_last_line(run, model_dir, tiny_model):
    result = run("generate", "--model", model_dir, "--duration", 0.1, "--seed", 3, "--output", "song.wav")
    assert result.exit_code == 0, result.output
    path = run.folder / "song.wav"
    assert result.stdout.splitlines()[-1] == str(path)
    assert "seed 3" in result.stderr
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == 1600
    expected = tiny_model.generate(duration=0.1, seed=3).audio[0].clamp(-1, 1).numpy()
    np.testing.assert_allclose(audio, expected, atol=1 / 32000)


def test_what_the_model_says_is_the_default(run, model_dir):
    result = run("generate", "--model", model_dir, "--output", "song.flac", "--quiet")
    assert result.exit_code == 0, result.output
    assert soundfile.info(run.folder / "song.flac").frames == 80


def test_settings_and_a_recording_are_passed_on(run, model_dir, tiny_model):
    samples = (0.3 * np.sin(np.arange(400) / 5)).astype(np.float32)
    soundfile.write(run.folder / "in.wav", samples, 1600, subtype="FLOAT")
    arguments = ["--model", model_dir, "--duration", 0.2, "--seed", 1, "--prompt", "in.wav", "--prompt-duration", 0.1]
    settings = ["--temperature", "0.9,0.8,0.7", "--top-k", 5, "--top-p", "0.9", "--hop-fractions", "0.5,0.25,0.5"]
    result = run("generate", *arguments, *settings, "--stop-level", 1)
    assert result.exit_code == 0, result.output
    expected = tiny_model.generate(
        duration=0.2,
        seed=1,
        prompt=samples,
        prompt_duration=0.1,
        temperature=[0.9, 0.8, 0.7],
        top_k=5,
        top_p=0.9,
        hop_fractions=[0.5, 0.25, 0.5],
        stop_level=1,
    )
    audio, _ = soundfile.read(run.folder / "song.wav", dtype="float32")
    # The recording's own 160 samples, the last 48 of which fade into the model's.
    np.testing.assert_allclose(audio[:112], samples[:112], atol=1 / 32000)
    np.testing.assert_allclose(audio[160:], expected.audio[0, 160:].clamp(-1, 1).numpy(), atol=1 / 32000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "song.aiff"], "--output"),
        (["--output", "song.ogg", "--stream"], "--output"),
        (["--output", "x" * 260 + ".wav"], "--output"),
        (["--num-samples", "2", "--stream"], "--stream"),
        (["--extend", "3"], "--extend"),
        (["--output", "missing/song.wav"], "--output"),
        (["--output", "folder.wav"], "--output"),
        (["--raw"], "--raw"),
        (["--schedule", "random"], "--schedule"),
        (["--window-fractions", "2"], "--window-fractions"),
        (["--engine", "steam"], "--engine"),
        (["--prompt-duration", "-1"], "--prompt-duration"),
        (["--prompt", "missing.wav"], "--prompt"),
        (["--temperature", "warm"], "--temperature"),
        (["--temperature", "0"], "--temperature"),
        (["--top-k", "1.5"], "--top-k"),
        (["--duration", "0"], "--duration"),
        (["--duration", "inf"], "--duration"),
        (["--seed", "-1"], "--seed"),
        (["--device", "toaster"], "--device"),
        (["--duration", "long"], "--duration"),
    ],
)
def test_bad_input_is_one_line_before_a_model_is_loaded(run, monkeypatch, arguments, message):
    no_loading(monkeypatch)
    (run.folder / "folder.wav").mkdir()
    result = run("generate", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no write bit")
def test_a_folder_that_cannot_be_written_to_is_refused_first(run, monkeypatch):
    no_loading(monkeypatch)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    result = run("generate", "--output", "song.wav")
    assert result.exit_code == 2
    assert "written" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration", "0.1", "--stop-level", "3"], "--stop-level"),
        (["--duration", "0.1", "--temperature", "1,1"], "--temperature"),
        (["--duration", "0.1", "--prompt", "in.wav"], "--prompt"),
        (["--duration", "0.1", "--prompt", "notes.txt"], "notes.txt"),
    ],
)
def test_what_the_model_refuses_is_one_line_too(run, model_dir, arguments, message):
    soundfile.write(run.folder / "in.wav", np.zeros(1600), 1600)
    (run.folder / "notes.txt").write_text("la la la")
    result = run("generate", "--model", model_dir, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (run.folder / "song.wav").exists()


def test_a_model_that_is_not_there(run, tmp_path):
    for command in ("generate", "info"):
        arguments = ["--model"] if command == "generate" else []
        result = run(command, *arguments, tmp_path / "nowhere")
        assert result.exit_code == 1
        assert "nowhere" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_an_installation_without_the_embedded_model(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fast_jukebox_cli.model.default_model_path", lambda: tmp_path)
    result = run("generate")
    assert result.exit_code == 1
    assert "--model" in result.stderr


def test_a_disk_that_is_full_leaves_the_old_file(run, model_dir, monkeypatch):
    (run.folder / "song.wav").write_text("the old song")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fast_jukebox.audio.io.save_audio", full)
    result = run("generate", "--model", model_dir)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert (run.folder / "song.wav").read_text() == "the old song"


def test_interrupting_leaves_the_old_file(run, model_dir, monkeypatch):
    (run.folder / "song.wav").write_text("the old song")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fast_jukebox.FastJukeboxModel, "generate", interrupt)
    result = run("generate", "--model", model_dir)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert [path.name for path in run.folder.iterdir()] == ["song.wav"]
    assert (run.folder / "song.wav").read_text() == "the old song"


SAMPLING = """
import sys
from fast_jukebox import FastJukeboxPrior
from fast_jukebox_cli import app as cli

step = FastJukeboxPrior.step

def announced(self, code, position, *args):
    if position == 1:
        print("sampling", file=sys.stderr, flush=True)
    return step(self, code, position, *args)

FastJukeboxPrior.step = announced
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_a_real_process(run, model_dir):
    (run.folder / "song.wav").write_text("the old song")
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            SAMPLING,
            "generate",
            "--model",
            model_dir,
            "--duration",
            "3600",
            "--engine",
            "eager",
            "--quiet",
        ],
        cwd=run.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            before = list(itertools.takewhile(lambda line: line != "sampling\n", process.stderr))
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert before == []
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "fast-jukebox: interrupted; nothing was written"
    assert "Traceback" not in stderr
    assert [path.name for path in run.folder.iterdir()] == ["song.wav"]
    assert (run.folder / "song.wav").read_text() == "the old song"


QUICK = """
import sys
sys.argv = ["fast-jukebox", *{arguments!r}]
try:
    from fast_jukebox_cli import main
    main()
finally:
    slow = [name for name in ("torch", "transformers", "fast_jukebox") if name in sys.modules]
    print(slow, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["generate", "--duration", "long"]])
def test_the_command_loads_nothing_before_it_must(arguments):
    code = QUICK.format(arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr.splitlines()[-1] == "[]"
    assert "--duration" in result.stdout + result.stderr or "generate" in result.stdout


BROKEN_TORCHAUDIO = """
import importlib.machinery, os, sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torchaudio", "torchcodec"):
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise OSError(f"cannot import {{module.__name__}}")

sys.meta_path.insert(0, Broken())
os.chdir({folder!r})
sys.argv = ["fast-jukebox", *{arguments!r}]
from fast_jukebox_cli import main
main()
"""


def test_songs_are_made_where_torchaudio_is_broken(run_afresh, run, model_dir):
    arguments = ["generate", "--model", str(model_dir), "--duration", "0.1", "--quiet"]
    run_afresh(BROKEN_TORCHAUDIO.format(folder=str(run.folder), arguments=arguments))
    assert (run.folder / "song.wav").is_file()


INTERRUPTED_IMPORT = """
import importlib.abc, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.argv = ["fast-jukebox", "generate"]
from fast_jukebox_cli import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "torch"])
def test_ctrl_c_while_modules_are_imported(name):
    code = INTERRUPTED_IMPORT.format(name=name)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 130
    assert len(result.stderr.splitlines()) == 1
    assert "interrupted" in result.stderr


def test_the_version_loads_nothing():
    result = subprocess.run(
        [sys.executable, "-c", QUICK.format(arguments=["--version"]).replace(', "fast_jukebox"', "")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == f"fast-jukebox {fast_jukebox.__version__}"
    assert result.stderr.splitlines()[-1] == "[]"


def test_the_help_shows_the_commands_of_sessions_together(run):
    text = run("-h").stdout
    commands, _, sessions = text.partition("Songs kept in a folder")
    assert "generate" in commands
    assert "takes" not in commands
    assert all(name in sessions for name in ("session", "takes", "keep", "cut", "branch"))
