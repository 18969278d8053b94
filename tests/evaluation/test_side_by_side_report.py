import json

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.side_by_side import SONGS, EvaluationSettings, SetResult
from fast_jukebox.evaluation.side_by_side_report import report_markdown, shown_command, write_report
from fast_jukebox.evaluation.systems import System, sample_paths, top_level_path
from fast_jukebox.hub import write_model_card

RATE = 8000


def some(value, spread=0.1):
    deviations = torch.linspace(-spread, spread, 20, dtype=torch.float64)
    return Estimate(value, value - spread, value + spread, value + deviations, 8)


@pytest.fixture
def results():
    return [
        SetResult(SONGS, 30, {"repetition": some(0.4)}),
        SetResult(
            "teacher", 12, {"kernel_distance_ears": some(0.2), "repetition": some(0.5), "bits_per_code_0": some(3.0)},
            {"kernel_distance_ears": (0.01, 0.002)}, vqvae="abcdef123456", parameters=7, predicted=(9,),
        ),
        SetResult(
            "a|student", 12,
            {"kernel_distance_ears": some(0.9), "repetition": some(0.55), "bits_per_code_0": some(float("nan"))},
            {"kernel_distance_ears": (0.01, 0.002)}, vqvae="abcdef123456", predicted=(9, 8, 9),
        ),
    ]  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return EvaluationSettings("songs/chorales", tmp_path / "out", duration=1.0)


SYSTEMS = [System("teacher", "runs/teacher"), System("a|student", "runs/student")]


def test_every_set_has_its_row_and_the_floor_stands_beside(results, settings):
    text = report_markdown(results, settings, SYSTEMS, "fast-jukebox evaluate x")
    assert "```bash\nfast-jukebox evaluate x\n```" in text
    assert "| teacher | 12 | 0.2 (0.1 to 0.3) |" in text
    assert "| *floor for as many as teacher* |  | 0.01 ± 0.002 |" in text
    assert text.count("*floor for as many as") == 1  # sets of one size have one floor
    assert "| a\\|student | 12 | 0.9 (0.8 to 1) |" in text
    assert "fewer than 50" in text
    bits = text.split("## Bits per code")[1].splitlines()
    assert "| teacher | 9 | 3 (2.9 to 3.1) |" in bits
    assert "| a\\|student | 9, 8, 9 |  |" in bits


def test_differences_are_bold_where_they_are_clear(results, settings):
    text = report_markdown(results, settings, SYSTEMS, "x").split("## Differences")[1]
    assert "| kernel_distance_ears | **0.7 (0.7 to 0.7)** |" in text
    assert "Each system less teacher" in text


def test_everything_is_written_and_cards_keep_their_text(results, settings, tmp_path):
    song = save_audio(tmp_path / "song.wav", 0.1 * torch.sin(torch.arange(RATE) / 9), RATE)
    names = [result for result in results if result.name != SONGS]
    for result in names:
        (path,) = sample_paths(settings.output / "samples" / result.name, 1)
        path.parent.mkdir(parents=True)
        for each in (path, top_level_path(path)):
            save_audio(each, 0.1 * torch.randn(RATE).clamp(-3, 3), RATE)
    models = [System("teacher", str(tmp_path / "teacher")), System("a|student", str(tmp_path / "student"))]
    for system in models:
        write_model_card(system.source, name=system.name, description="It.", training="Yes.", license="mit")
    text = ModelCard.load(tmp_path / "teacher" / "README.md").text
    path = write_report(results, settings, models, "cmd", song=song, dataset="ann/songs", cards=True)
    assert path.read_text(encoding="utf-8").count("](waveforms.png)") == 1
    found = json.loads((settings.output / "report.json").read_text(encoding="utf-8"))
    assert found["sets"]["teacher"]["numbers"]["kernel_distance_ears"] == {
        "value": 0.2, "low": pytest.approx(0.1), "high": pytest.approx(0.3),
    }  # fmt: skip
    assert found["sets"]["a|student"]["numbers"]["bits_per_code_0"]["value"] is None
    assert found["differences"]["baseline"] == "teacher"
    for folder in (settings.output / "cards" / "teacher", tmp_path / "teacher"):
        entries = yaml.safe_load((folder / ".eval_results" / "fast-jukebox.yaml").read_text())
        assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries}["kernel_distance_ears"] == 0.2
    index = yaml.safe_load((settings.output / "cards" / "teacher" / "model-index.yaml").read_text())
    assert index["model-index"][0]["name"] == "teacher"
    measured = {entry["dataset"]["name"]: entry["metrics"] for entry in index["model-index"][0]["results"]}
    assert [metric["type"] for metric in measured["chorales, held out"]] == ["bits_per_code_0"]
    assert "bits_per_code_0" not in [metric["type"] for metric in measured["chorales, 12 samples"]]
    card = ModelCard.load(tmp_path / "teacher" / "README.md")
    assert card.text == text
    assert {entry.metric_type for entry in card.data.eval_results} >= {"kernel_distance_ears", "bits_per_code_0"}


def test_a_command_is_shown_without_folders_of_one_machine():
    assert shown_command(["a", "--songs", "/b/songs", "x=/b/c", "y=d/e"]) == "a --songs songs x=c y=d/e"
