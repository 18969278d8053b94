import json

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.systems import System
from fast_jukebox_cli.evaluate import named_systems


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(6):
        tone = 0.3 * torch.sin(2 * torch.pi * (100 + 30 * number) * torch.arange(4800) / 1600)
        save_audio(folder / f"{number}.wav", tone, 1600)
    return folder


def test_models_are_judged_reported_and_kept(run, model_dir, songs):
    arguments = [
        *("evaluate", f"one={model_dir}", f"two={model_dir}", "--songs", songs, "--output", "out"),
        *("--num-samples", 2, "--duration", 3, "--embedding", "musicnn_mtt", "--resamples", 20, "--max-windows", 2),
        *("--test-share", 0.4),
    ]
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1].endswith("report.md")
    report = (run.folder / "out" / "report.md").read_text(encoding="utf-8")
    assert "| two | 2 |" in report
    assert "--embedding musicnn_mtt" in report
    assert str(songs.parent) not in report.split("```")[1]
    sets = json.loads((run.folder / "out" / "report.json").read_text())["sets"]
    assert sets["one"]["numbers"] == sets["two"]["numbers"]
    assert (run.folder / "out" / "waveforms.png").is_file()
    before = (run.folder / "out" / "samples" / "one" / "sample-1.flac").stat().st_mtime_ns
    assert run(*arguments).exit_code == 0
    assert (run.folder / "out" / "samples" / "one" / "sample-1.flac").stat().st_mtime_ns == before
    refused = run(*arguments, "--seed", 1)
    assert refused.exit_code == 2
    assert "sampled with another seed" in refused.output


def test_cards_are_asked_for_before_the_work(run, model_dir, songs):
    found = run("evaluate", model_dir, "--songs", songs, "--cards")
    assert found.exit_code == 1
    assert "folders with a card" in found.output


def test_the_embedded_model_has_a_name():
    (system,) = named_systems(["embedded"])
    assert system.name == "embedded"
    assert system.source.endswith("pretrained")
    assert named_systems(["small=ann/model"]) == [System("small", "ann/model")]
