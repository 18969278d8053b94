"""What scripts say when something is wrong or they are stopped."""

import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import pytest

from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script


def stopped():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("`--level` must be from 0 to 2,\n  got 5"), "run.py: `--level` must be from 0 to 2, got 5"),
        (FileNotFoundError("there is no folder 'x'"), "run.py: there is no folder 'x'"),
        (ValueError("caf\udce9.wav"), "run.py: caf\\udce9.wav"),
        (OSError(), "run.py: OSError"),
        (ImportError("`pip install wandb`"), "run.py: `pip install wandb`"),
        (RuntimeError("out of memory"), "run.py: out of memory (FAST_JUKEBOX_TRACEBACK=1 shows where)"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, error, line):
    def fail():
        raise error

    monkeypatch.setattr(sys, "argv", ["examples/run.py"])
    assert run_script(fail) == 1
    assert capsys.readouterr().err == f"{line}\n"
    monkeypatch.setenv("FAST_JUKEBOX_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run_script(fail)


@dataclass
class Options:
    songs: str
    learning_rate: float = 0.1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: --songs; `run.py --help` lists the options"),
        (["--songs", "a", "--learning_rate", "fast"], "invalid float value: 'fast'; `run.py --help`"),
        (
            ["--songs", "a", "--lerning_rate", "1"],
            "no option '--lerning_rate'; did you mean `--learning_rate`?",
        ),
        (["--songs", "a", "stray"], "there is no option 'stray'"),
        (["damaged.json"], "damaged.json: Expecting property name"),
        (["damaged.yaml"], "damaged.yaml: while parsing"),
        (["lacking.json"], "lacking.json: .*missing 1 required .*'songs'"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_a_wrong_option_is_one_line(monkeypatch, capsys, tmp_path, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "damaged.yaml").write_text("a: [")
    (tmp_path / "lacking.json").write_text('{"learning_rate": 1.0}')
    monkeypatch.setattr(sys, "argv", ["examples/run.py", *words])
    error = ArgumentParser.error
    try:
        status = run_script(lambda: parse_arguments((Options,)))
    except SystemExit as stopped:
        status = stopped.code
    told = capsys.readouterr().err
    assert status in (1, 2)
    assert told.startswith("run.py: ") and len(told.splitlines()) == 1
    assert re.search(line, told) or line in told
    assert ArgumentParser.error is error


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


def test_a_script_that_ends_well_says_nothing(capsys):
    assert run_script(lambda: {"loss": 1.0}) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "resume", "wanted"),
    [
        (["--steps", "3"], "--resume_from_checkpoint", "run.py --steps 3 --resume_from_checkpoint true"),
        (
            ["--resume_from_checkpoint", "false", "--songs", "my songs"],
            "--resume_from_checkpoint",
            "run.py --songs 'my songs' --resume_from_checkpoint true",
        ),
        (["--resume_from_checkpoint=x", "--a"], "--resume_from_checkpoint", "run.py --a --resume_from_checkpoint true"),
        (["run.yaml"], "--resume_from_checkpoint", "put `resume_from_checkpoint: true` into run.yaml"),
        (["--a", "1"], "", "What is finished is kept; to go on:"),
        (["--a", "1"], None, "Stopped."),
    ],
)
def test_after_ctrl_c_it_says_how_to_go_on(monkeypatch, capsys, arguments, resume, wanted):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run_script(stopped, resume) == 130
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_says_how_to_go_on(monkeypatch, capsys, rank):
    monkeypatch.setattr(sys, "argv", ["run.py", "--a", "1"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    assert run_script(stopped) == 130
    said = "Stopped. To go on from the last checkpoint, launch the same again with --resume_from_checkpoint true."
    assert capsys.readouterr().err == ("" if rank else f"\n{said}\n")


SCRIPT = """
import sys, time
from fast_jukebox.training.scripts import loading, run_script
loading()
if sys.argv[1] == "loading":
    try:
        time.sleep(60)
    except BaseException:
        print("an exception was seen", file=sys.stderr)
class Bar:
    def __init__(self):
        self.itself = self
    def __del__(self):  # as those of tqdm, which a trainer holds
        print("the bar", file=sys.stderr)
def main():
    bar = Bar()
    print("training", file=sys.stderr, flush=True)
    time.sleep(60)
sys.exit(run_script(main))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are others there")
@pytest.mark.parametrize("when", ["loading", "training"])
def test_ctrl_c_ends_a_script_whatever_it_does(tmp_path, when):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), when],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert any(line.startswith(when) for line in process.stderr)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.split("\n")[:-4] == ([] if when == "loading" else ["the bar"])
    assert said.split("\n")[-4:] == [
        "",
        "Stopped. To go on from the last checkpoint, or from the start where there is none yet:",
        f"  {Path(sys.executable).name} {script} {when} --resume_from_checkpoint true",
        "",
    ]


@pytest.mark.skipif(os.name != "posix", reason="signals are others there")
def test_a_script_in_the_background_is_left_alone_by_ctrl_c(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.replace("time.sleep(60)", "os.kill(os.getpid(), 2)").replace("sys, time", "os, sys"))
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    done = subprocess.run([sys.executable, str(script), "loading"], capture_output=True, text=True, **ignored)
    assert (done.returncode, done.stderr) == (0, "loading torch\ntraining\nthe bar\n")
