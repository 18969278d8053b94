import json

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.systems import System
from fast_jukebox.models.valence import ValenceConfig, ValenceFeatureExtractor, ValenceModel
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
        *("--test-fraction", 0.4),
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
    assert "songs sampled with seed 0, not 1" in refused.output


def test_a_valence_classifier_says_what_it_is_worth_below_its_table(run, model_dir, songs, tmp_path):
    config = ValenceConfig(
        num_slices=1, slice_frames=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2, intermediate_size=8
    )
    ValenceModel(config).save_pretrained(tmp_path / "valence")
    ValenceFeatureExtractor(num_frames=32).save_pretrained(tmp_path / "valence")
    arguments = [
        *("evaluate", model_dir, "--songs", songs, "--output", "out", "--num-samples", 2, "--duration", 3),
        *("--embedding", "musicnn_mtt", "--resamples", 20, "--max-windows", 2, "--test-fraction", 0.4, "--no-pictures"),
        *("--valence", tmp_path / "valence"),
    ]
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "must state roc_auc" in refused.output
    assert not (run.folder / "out" / "samples").exists()
    config.held_out = {name: 0.6 for name in ("roc_auc", "pr_auc", "accuracy", "pleasantness_auc", "activation_auc")}
    config.held_out |= {"held_out_by": "artist", "songs": 9}
    config.save_pretrained(tmp_path / "valence")
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    section = (run.folder / "out" / "report.md").read_text(encoding="utf-8").split("## Emotional valence")[1]
    assert "| valence_AP | valence_DP | valence_AU | valence_DU |" in section
    assert "on 9 held-out songs (apart by artist)" in section
    assert "does not recognise pleasantness or activation reliably" in section


def test_cards_are_asked_for_before_the_work(run, model_dir, songs):
    found = run("evaluate", model_dir, "--songs", songs, "--cards")
    assert found.exit_code == 1
    assert "folders with a card" in found.output


def test_the_embedded_model_has_a_name():
    (system,) = named_systems(["embedded"])
    assert system.name == "embedded"
    assert system.source.endswith("pretrained")
    assert named_systems(["small=ann/model"]) == [System("small", "ann/model")]
