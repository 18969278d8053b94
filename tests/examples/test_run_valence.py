import json

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.models.valence import QUADRANTS, ValenceConfig, ValenceModel


@pytest.fixture
def script(scripts):
    return scripts["run_valence"]


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    rows = []
    for number in range(16):
        save_audio(folder / f"{number}.wav", (0.1 * torch.randn(12000)).clamp(-1, 1), 8000)
        instrument = "piano" if number < 8 else "organ"
        rows.append({"file_name": f"{number}.wav", "valence": QUADRANTS[number % 4], "instruments": [instrument]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_classifier_is_trained_stated_and_tabled(script, songs, tmp_path, monkeypatch):
    tiny = ValenceConfig(
        num_slices=1, slice_frames=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2, intermediate_size=8
    )
    monkeypatch.setattr(script.ValenceConfig, "mini", classmethod(lambda cls: tiny))
    output = tmp_path / "valence"
    figures = script.main(
        [
            *("--songs", str(songs), "--size", "mini", "--group_by", "instruments", "--test_groups", "organ"),
            *("--labels_from", "a test", "--output_dir", str(output), "--max_steps", "2"),
            *("--per_device_train_batch_size", "4", "--report_to", "none", "--use_cpu", "true"),
            *("--hub_license", "apache-2.0", "--save_strategy", "no", "--table", f"real={songs}"),
        ]
    )
    config = ValenceModel.from_pretrained(output).config
    assert config.held_out["held_out_by"] == "instruments"
    assert config.held_out["songs"] == 8
    assert config.held_out["pleasantness_auc"] == pytest.approx(figures["pleasantness_auc"])
    report = (output / "valence.md").read_text(encoding="utf-8")
    assert "| real | 16 |" in report
    assert "apart by instruments" in report
    assert "a test" in (output / "README.md").read_text(encoding="utf-8")
    assert (output / "preprocessor_config.json").is_file()
    again = script.main(
        [
            *("--songs", str(songs), "--group_by", "instruments", "--test_groups", "organ", "--use_cpu", "true"),
            *("--model_name_or_path", str(output), "--max_steps", "0", "--report_to", "none"),
            *("--output_dir", str(tmp_path / "again"), "--table", f"real={songs}"),
        ]
    )
    assert again == pytest.approx(figures)
    assert "| real | 16 |" in (tmp_path / "again" / "valence.md").read_text(encoding="utf-8")


def test_bad_words_are_refused_before_anything_is_read(script, tmp_path):
    with pytest.raises(ValueError, match="`--table` must be NAME=FOLDER"):
        script.main(["--songs", "nowhere", "--output_dir", str(tmp_path), "--table", "nonsense"])
    with pytest.raises(ValueError, match="`--size` must be full or mini"):
        script.make_model(script.ModelArguments(size="huge"))
