import json

import pytest
import torch
from huggingface_hub import ModelCard

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.audio import save_audio
from fast_jukebox.data.manifest import MANIFEST
from fast_jukebox.evaluation.cards import CardSettings
from fast_jukebox.evaluation.systems import System
from fast_jukebox.models.valence import ValenceConfig, ValenceFeatureExtractor, ValenceModel


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
    assert run(*arguments, "--no-pictures").exit_code == 0
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


def test_a_model_is_measured_from_songs_to_card(run, audible_settings, write_notes, tmp_path):
    model, songs = tmp_path / "model", tmp_path / "songs"
    FastJukeboxModel(FastJukeboxConfig.from_dict(audible_settings)).save_pretrained(model)
    write_notes(songs)
    training = tmp_path / "training.json"
    training.write_text(json.dumps({"text": "On chorales.", "prior-0": {"steps": 7, "batch_size": 2, "seconds": 30}}))
    found = run(
        *("evaluate", model, "--songs", songs, "--output", "out", "--codes", "codes", "--max-windows", 3),
        *("--num-samples", 2, "--duration", 0.65, "--embedding", "none", "--resamples", 20, "--device", "cpu"),
        *("--card", "embedded", "--card-license", "apache-2.0", "--training", training),
    )
    assert found.exit_code == 0, found.output
    text = (run.folder / "out" / "report.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert str(tmp_path) not in report["command"] and "--embedding none" in report["command"]
    assert (report["data"]["train_songs"], report["data"]["test_songs"]) == (4, 2)
    sets = {name: {key: each["value"] for key, each in own["numbers"].items()} for name, own in report["sets"].items()}
    for level in range(3):
        assert sets["model"][f"bits_per_code_{level}"] == pytest.approx(4.0, abs=0.5)  # random weights, 16 codes
        assert sets["model"][f"unigram_bits_per_code_{level}"] < 4.5
        assert sets["songs through the codes of model"][f"spectral_convergence_{level}"] > 0
    assert sets["held-out songs"]["in_key_fraction"] > 0.97 > sets["random notes"]["in_key_fraction"]
    assert sets["training songs"]["in_key_fraction"] > 0.97
    assert (sets["songs"]["quiet_fraction"], sets["songs"]["long_silence"]) == (0, 0)
    assert sets["white noise"]["noted_fraction"] < 0.6 < 0.9 < sets["held-out songs"]["noted_fraction"]
    assert sets["held-out songs"]["pitch_distance"] >= 0
    for name in ("waveforms.png", "levels.png", "cards/model/spectrograms.png", "cards/model/notes.png"):
        assert (run.folder / "out" / name).stat().st_size > 1000
        assert f"]({name})" in (run.folder / "out" / "report.md").read_text(encoding="utf-8")

    card = ModelCard.load(model / "README.md")
    assert card.data.license == "apache-2.0"
    assert 'pipeline("fast-jukebox")(' in card.text
    assert "On chorales." in card.text
    assert "| prior, level 0 | 7 | 2 | 30 s |" in card.text
    assert "bits per code of the prior" in card.text
    assert "| songs | samples of the model (2) | training songs (2) | held-out songs (2) |" in card.text
    assert (model / "spectrograms.png").is_file()


def test_codes_of_another_model_are_refused(run, model_dir, songs):
    arguments = ["evaluate", model_dir, "--songs", songs, "--codes", "codes", "--embedding", "none", "--num-samples", 2]
    (run.folder / "codes").mkdir()
    (run.folder / "codes" / MANIFEST).write_text(json.dumps({"vqvae": "another"}), encoding="utf-8")
    refused = run(*arguments, "--duration", 1, "--test-fraction", 0.4, "--no-pictures")
    assert refused.exit_code == 2 and "codes" in refused.output
    assert not (run.folder / "runs" / "evaluation" / "samples").exists()


def test_what_a_card_needs_is_asked_for_before_the_work(run, model_dir, songs):
    for more, words in (
        (["--card", "model"], "--card-license"),
        (["--card", "pie"], "--card"),
        (["--training", "nowhere.json"], "--training"),
        (["--samples", "nowhere"], "--samples"),
    ):
        found = run("evaluate", model_dir, "--songs", songs, *more)
        assert found.exit_code == 2 and words in found.output, found.output
    assert not (run.folder / "runs").exists()


def test_models_have_the_names_given_or_those_of_their_folders(run, monkeypatch):
    class Stopped(Exception):
        pass

    asked = []

    def check(card, systems):
        asked.extend(systems)
        raise Stopped

    monkeypatch.setattr(CardSettings, "check", check)
    found = run("evaluate", "embedded", "small=ann/model", "ann/other", "--songs", "x", "--no-pictures")
    assert isinstance(found.exception, Stopped)
    assert [system.name for system in asked] == ["embedded", "small", "other"]
    assert asked[0].source.endswith("pretrained")
    assert asked[1:] == [System("small", "ann/model"), System("other", "ann/other")]
