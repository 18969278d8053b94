"""The way that examples/README.md tells, as written: from songs to a student on the Hub that is played."""

import copy
import json
import os
import re
import stat
import subprocess

import pytest
import soundfile
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.data.tunes.rendering import RenderReport
from fast_jukebox.data.tunes.scores import Score, ScoreNote
from fast_jukebox_cli.app import app

RATE = 8000
SCORE = Score("tune", "A Tune", "jig", "A book", 7, "major", (6, 8), (ScoreNote(0.0, 1.0, 67),))
TRAINING = ["--use_cpu", "true", "--disable_tqdm", "true"]
MORE = {
    "run_vqvae": [*TRAINING, "--window", "640"],
    "run_prior": [*TRAINING, "--max_eval_windows", "2"],
    "run_distill": [*TRAINING, "--max_eval_windows", "2"],
    "evaluate": [
        *("--max-windows", "2", "--num-samples", "2", "--duration", "0.65", "--device", "cpu", "--embedding", "none"),
        *("--resamples", "20"),
    ],
}
"""What makes each script and command quick, beside fewer steps."""


def said_to_the_shell(block, folder):
    """The commands that a shell makes of a block of the page, as lists of words, in their order."""
    told = folder / "told"
    told.write_text("")
    for name in ("python", "fast-jukebox"):
        stub = folder / name
        stub.write_text(
            f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s\\0" "$word"; done >> {told}; echo >> {told}\n'
        )
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-eu", "-c", block], check=True, env=environment, timeout=60)
    return [line.split("\0")[:-1] for line in told.read_text().splitlines()]


@pytest.fixture
def presets(audible_settings, monkeypatch):
    """The named sizes as tiny models of their depths, at a rate at which notes can be heard."""

    def preset(cls, name):
        own = copy.deepcopy(audible_settings)
        for prior in own["prior_configs"]:
            prior["num_hidden_layers"] = int(name.removeprefix("fastjukebox-mini-"))
        return FastJukeboxConfig.from_dict(own)

    monkeypatch.setattr(FastJukeboxConfig, "preset", classmethod(preset))


@pytest.mark.slow
def test_the_way_from_songs_to_a_student_on_the_hub(
    scripts, hub, presets, write_notes, repository_root, tmp_path, monkeypatch
):
    def notes(folder, plan, splits, recipe, **options):  # in the synthesiser's place
        write_notes(folder)
        return RenderReport()

    hub.users["token-of-you"] = ["you"]
    monkeypatch.setenv("HF_TOKEN", "token-of-you")
    monkeypatch.setattr(scripts["prepare_songs"], "render_songs", notes)
    monkeypatch.setattr(scripts["prepare_songs"], "read_scores", lambda collections: ([SCORE], {}))
    monkeypatch.chdir(tmp_path)
    page = (repository_root / "examples" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (repository_root / "examples").glob("*.py")} == set(
        re.findall(r"^\| \[(\w+\.py)\]", page, re.MULTILINE)
    )
    for pattern, fewer in (
        (r"--max_steps \d+", "--max_steps 1"),
        (r'"steps": \d+', '"steps": 1'),
        (r"--duration \d+", "--duration 0.2"),
    ):
        page = re.sub(pattern, fewer, page)

    used = []
    for language, code in re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(code, "examples/README.md", "exec"), {})
            continue
        for program, *words in said_to_the_shell(code, tmp_path):
            if program == "fast-jukebox":
                result = CliRunner().invoke(app, [*words, *MORE.get(words[0], [])])
                assert result.exit_code == 0, result.output
                continue
            script, words = re.fullmatch(r"examples/(\w+)\.py", words[0])[1], words[1:]
            scripts[script].main([*words, *MORE.get(script, [])])
            used.append(script)
    assert used == ["prepare_songs", "run_vqvae", *["run_prior"] * 3, "run_distill"]

    student = FastJukeboxModel.from_pretrained("you/fastjukebox-mini-9")
    assert [prior.config.num_hidden_layers for prior in student.priors] == [9, 9, 9]
    card = ModelCard.load("you/fastjukebox-mini-9")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "you/fastjukebox-mini-36")
    assert "Distilled (top level (2) from one of 36" in card.text
    measured = {result.metric_name for result in card.data.eval_results or []}
    assert {"top-1 agreement with the teacher, top level (2)", "bits per code of the prior, top"} <= measured
    assert "](spectrograms.png)" in card.text and "spectrograms.png" in hub.files("you/fastjukebox-mini-9")
    teacher = FastJukeboxModel.from_pretrained("you/fastjukebox-mini-36")
    assert [prior.config.num_hidden_layers for prior in teacher.priors] == [36, 36, 36]
    assert json.loads((tmp_path / "runs" / "evaluation" / "report.json").read_text())["data"]["test_songs"] == 2
    assert soundfile.info(tmp_path / "song.wav").frames == 0.2 * RATE


def test_every_option_that_is_told_of_exists(scripts, repository_root, capsys):
    pages = [*repository_root.glob("*.md"), *repository_root.glob("docs/*.md"), *repository_root.glob("examples/*")]
    told = {}
    for page in filter(os.path.isfile, pages):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, options in re.findall(r"python examples/(\w+)\.py( .*)", text):
            told.setdefault(script, set()).update(re.findall(r"(?<= )--\w+", options))
    assert set(scripts) <= told.keys()
    for script, options in told.items():
        with pytest.raises(SystemExit):
            scripts[script].main(["--help"])
        assert options <= set(re.findall(r"--\w+", capsys.readouterr().out)), script
