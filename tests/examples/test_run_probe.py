"""The probing script at toy size."""

import json

import pytest
import torch
from safetensors.torch import save


@pytest.fixture
def labelled(songs):
    """Six tones, low and high ones, of which two are held out; one key is not known."""
    lines = [
        {
            "file_name": f"{index}.wav",
            "genre": "low" if index < 3 else "high",
            "key": ["C", "D", None, "C", "D", "C"][index],
            "split": "test" if index in (2, 5) else "train",
        }
        for index in range(6)
    ]
    (songs / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return songs


def test_every_layer_is_probed_beside_chance(scripts, labelled, tiny_model, tmp_path, capsys, monkeypatch):
    tiny_model.priors[2].config.teacher_layers = [1, 3, 5]
    tiny_model.save_pretrained(tmp_path / "model")
    arguments = ["--songs", str(labelled), "--labels", "genre", "key", "--model", str(tmp_path / "model")]
    arguments += ["--output_dir", str(tmp_path / "probe"), "--clip_seconds", "1"]
    found = scripts["run_probe"].main(arguments)
    layers = [f"layer {layer}" for layer in range(3)]
    fresh = [f"random weights, layer {layer}" for layer in range(3)]
    assert {label: list(scores) for label, scores in found.items()} == {
        label: [*layers, *fresh, "timbre and rhythm"] for label in ("genre", "key")
    }
    assert all(score.songs == 2 for score in found["genre"].values())
    assert all(score.songs == 1 for score in found["key"].values())
    assert json.loads((tmp_path / "probe" / "probe.json").read_text())["genre"]["layer 0"]["songs"] == 2
    written = (tmp_path / "probe" / "probe.md").read_text()
    assert written in capsys.readouterr().out and "layer 2 (teacher's 5)" in written
    assert "**genre**: 2 kinds, 2 held-out songs. The most frequent kind alone: 0.50" in written

    # Songs that were read are not read again.
    monkeypatch.setattr(type(tiny_model.vqvae), "encode", None)
    again = scripts["run_probe"].main(arguments)
    assert again == found

    # One that was damaged since is named.
    kept = sorted((tmp_path / "probe" / "features").iterdir())[-1]
    for content in (b"cut", save({"layer 0": torch.zeros(4)})):
        kept.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{kept.name} is damaged \(.*\): delete it, and the same command makes it"
        ):
            scripts["run_probe"].main(arguments)


def test_what_cannot_be_probed_is_said_first(scripts, labelled, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    arguments = ["--songs", str(labelled), "--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "probe")]
    for more, match in (
        (["--labels", "mood"], r"`--labels` must be of .*genre.*, got \['mood'\]"),
        (["--clip_seconds", "0"], "`--clip_seconds` must be above 0, got 0.0"),
        (["--level", "3"], "`--level` must be from 0 to 2, got 3"),
        (["--layers", "7", "--baselines", "false"], "`layers` must be integers from -3 to 2, got 7"),
    ):
        with pytest.raises(ValueError, match=match):
            scripts["run_probe"].main([*arguments, *more])
    assert torch.is_grad_enabled()
