"""The script asks for every label and judges what it gets."""

import json

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.evaluation.probing import describe_rhythm, describe_timbre


@pytest.fixture
def labelled_songs(tmp_path):
    """Songs by a fiddle and a harp at 1600 samples a second: tones of other spectra, struck at other spans."""
    folder, rows = tmp_path / "labelled", []
    folder.mkdir()
    time = np.arange(4800) / 1600
    for number in range(24):
        artist, genre = [("fiddle", "jig"), ("fiddle", "reel"), ("harp", "air")][number % 3]
        partials = (1, 1, 1) if artist == "fiddle" else (1, 0, 0)
        struck = np.exp(-6 * (time % {"jig": 0.3, "reel": 0.2, "air": 0.9}[genre]))
        tone = sum(a * np.sin(2 * np.pi * 100 * (1 + n) * (1 + number / 100) * time) for n, a in enumerate(partials))
        name = f"{number}.wav"
        soundfile.write(folder / name, (0.2 * struck * tone).astype(np.float32), 1600)
        split = "test" if number < 6 else "train"
        rows.append({"file_name": name, "artist": artist, "genre": genre, "split": split})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("stop_level", [0, 2])
def test_every_label_is_asked_for_and_judged(scripts, paired_model, labelled_songs, tmp_path, stop_level):
    paired_model.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--songs", str(labelled_songs), "--songs_per_label", "1"]
    arguments += ["--duration", "0.5", "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    found = scripts["run_labels"].main([*arguments, "--stop_level", str(stop_level)])
    assert found["artist"].chance == 0.5
    assert set(found["artist"].by_label) == {"fiddle", "harp"}
    assert set(found["genre"].by_label) == {"air", "jig", "reel"}
    written = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert written["genre"]["samples"] == found["genre"].samples
    assert "| artist |" in (tmp_path / "out" / "labels.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "out").glob("*.flac"))) == 3


def test_songs_without_a_label_are_left_out_and_single_ones_refused_before_any_is_heard(
    scripts, paired_model, labelled_songs, tmp_path, monkeypatch
):
    script, listed = scripts["run_labels"], labelled_songs / "metadata.jsonl"
    paired_model.save_pretrained(tmp_path / "model")
    rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    rows[9].pop("artist"), rows[10].pop("genre")
    listed.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["--model", str(tmp_path / "model"), "--songs", str(labelled_songs), "--songs_per_label", "1"]
    arguments += ["--duration", "0.5", "--output_dir", str(tmp_path / "out"), "--device", "cpu", "--stop_level", "2"]
    assert set(script.main(arguments)["artist"].by_label) == {"fiddle", "harp"}
    rows[11] |= {"artist": "oboe"}
    listed.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.delattr(script, "describe_songs")
    with pytest.raises(ValueError, match="must have two songs or more to learn from of each artist, .* song of oboe"):
        script.main(arguments)


@pytest.mark.parametrize("stop_level", [0, 2])
def test_songs_are_heard_through_the_codes_of_the_samples_level(scripts, tiny_model, labelled_songs, stop_level):
    script = scripts["run_labels"]
    args = script.LabelArguments(songs=str(labelled_songs), duration=0.5, stop_level=stop_level)
    rows = [{"audio": {"path": str(labelled_songs / "3.wav"), "bytes": None}, "duration": 3.0}]
    found = script.describe_songs(rows, tiny_model.vqvae, args)
    clip = torch.as_tensor(soundfile.read(labelled_songs / "3.wav", dtype="float32")[0])[1600:2400]
    codes = tiny_model.vqvae.encode(clip[None])[stop_level]
    heard = tiny_model.vqvae.decode([codes], start_level=stop_level)[0]
    torch.testing.assert_close(found["artist"][0], describe_timbre(heard, 1600))
    torch.testing.assert_close(found["genre"][0], describe_rhythm(heard, 1600))


def test_a_model_without_labels_is_refused(scripts, model_dir, labelled_songs, tmp_path):
    arguments = ["--model", str(model_dir), "--songs", str(labelled_songs), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="must be a model with labels"):
        scripts["run_labels"].main(arguments)
