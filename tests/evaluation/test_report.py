import json

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.cards import CardSettings
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.report import report_json, report_markdown, shown_command, write_report
from fast_jukebox.evaluation.settings import EvaluationSettings, RealSongs
from fast_jukebox.evaluation.side_by_side import SONGS, SetResult
from fast_jukebox.evaluation.systems import System
from fast_jukebox.hub import write_model_card

RATE = 8000


def some(value, spread=0.1):
    deviations = torch.linspace(-spread, spread, 20, dtype=torch.float64)
    return Estimate(value, value - spread, value + spread, value + deviations, 8)


@pytest.fixture
def results():
    return [
        SetResult(SONGS, 30, {"repetition": some(0.4)}),
        SetResult("held-out songs", 9, {"pitch_distance": some(0.2)}, {"pitch_distance": (0.1, float("nan"))}),
        SetResult(
            "teacher", 12, {"kernel_distance_ears": some(0.2), "repetition": some(0.5), "bits_per_code_0": some(3.0)},
            {"kernel_distance_ears": (0.01, 0.002)}, vqvae="abcdef123456", parameters=7, predicted=(9,),
        ),
        SetResult(
            "a student", 12,
            {"kernel_distance_ears": some(0.9), "repetition": some(0.55), "bits_per_code_0": some(float("nan"))},
            {"kernel_distance_ears": (0.01, 0.002)}, vqvae="abcdef123456", parameters=7,
            predicted=(9, 8, 9),
        ),
    ]  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return EvaluationSettings("songs/chorales", tmp_path / "out", duration=1.0)


SYSTEMS = [System("teacher", "runs/teacher"), System("a student", "runs/student")]


def test_every_set_has_its_row_and_the_floor_stands_beside(results, settings):
    text = report_markdown(results, settings, SYSTEMS, "fast-jukebox evaluate x")
    assert "```bash\nfast-jukebox evaluate x\n```" in text
    assert "| teacher | 12 | 0.2 (0.1 to 0.3) |" in text
    assert "| *floor for as many as teacher* |  | 0.01 ± 0.002 |" in text
    assert "as a student*" not in text  # sets of one size have one floor
    assert "| a student | 12 | 0.9 (0.8 to 1) |" in text
    assert "fewer than 50" in text
    bits = text.split("## Bits per code")[1].splitlines()
    assert "| teacher | 9 | 3 (2.9 to 3.1) |" in bits
    assert "| a student | 9, 8, 9 |  |" in bits


def test_differences_are_bold_where_they_are_clear(results, settings):
    text = report_markdown(results, settings, SYSTEMS, "x").split("## Differences")[1]
    assert "| kernel_distance_ears | **0.7 (0.7 to 0.7)** |" in text
    assert "Each system less teacher" in text


def test_a_floor_without_a_deviation_is_one_number(results, settings):
    text = report_markdown(results, settings, SYSTEMS, "x")
    assert "| held-out songs | 9 | 0.2 (0.1 to 0.3) |" in text
    assert "| *floor for as many as held-out songs* |  | 0.1 |" in text


def test_everything_is_written_and_the_cards_are_updated(results, settings, tmp_path):
    song = save_audio(tmp_path / "song.wav", 0.1 * torch.sin(torch.arange(RATE) / 9), RATE)
    songs = RealSongs([str(song)], [str(song)], [], {"test": {"duration": [3600.0]}})
    models = [System("teacher", str(tmp_path / "teacher")), System("a student", str(tmp_path / "student"))]
    for system in models:
        write_model_card(system.source, name=system.name, description="It.", training="Yes.", license="mit")
    card = CardSettings("model")
    path = write_report(results, settings, models, songs, "cmd", dataset="ann/songs", card=card)
    assert "](waveforms.png)" not in path.read_text(encoding="utf-8")
    found = json.loads((settings.output / "report.json").read_text(encoding="utf-8"))
    assert found["sets"]["teacher"]["numbers"]["kernel_distance_ears"] == {
        "value": 0.2, "low": pytest.approx(0.1), "high": pytest.approx(0.3),
    }  # fmt: skip
    assert found["sets"]["a student"]["numbers"]["bits_per_code_0"]["value"] is None
    assert found["differences"]["baseline"] == "teacher"
    assert found["data"] == {"test_songs": 1, "test_hours": 1.0}
    for folder in (settings.output / "cards" / "teacher", tmp_path / "teacher"):
        entries = yaml.safe_load((folder / ".eval_results" / "fast-jukebox.yaml").read_text())
        assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries}["kernel_distance_ears"] == 0.2
    index = yaml.safe_load((settings.output / "cards" / "teacher" / "model-index.yaml").read_text())
    assert index["model-index"][0]["name"] == "teacher"
    (measured,) = index["model-index"][0]["results"]
    names = {metric["name"] for metric in measured["metrics"]}
    assert {"bits per code of the prior, only", "kernel_distance_ears, samples of the model"} <= names
    card = ModelCard.load(tmp_path / "teacher" / "README.md")
    assert names == {entry.metric_name for entry in card.data.eval_results}
    assert "Yes." in card.text and "Made by `cmd` with Python" in card.text


def test_a_command_is_shown_without_folders_of_one_machine():
    assert shown_command(["a", "--songs", "/b/songs", "x=/b/c", "y=d/e"]) == "a --songs songs x=c y=d/e"
    assert shown_command(["/b/my songs", "my x=/b/run=3/c", "vggish:/b/c.pt"]) == "'my songs' 'my x=c' vggish:c.pt"


def test_differences_of_a_system_of_any_name_stand_in_the_report(results, settings):
    results[3].name = "baseline"
    systems = [SYSTEMS[0], System("baseline", "runs/student")]
    found = report_json(results, settings, systems, "cmd")["differences"]
    assert found["baseline"] == "teacher"
    assert found["systems"]["baseline"]["repetition"]["value"] == pytest.approx(0.05)


def test_numbers_of_a_scorer_of_ones_own_have_a_table(results, settings):
    results[2].numbers["loudness"] = some(0.7)
    text = report_markdown(results, settings, SYSTEMS, "x").split("## Others")[1]
    assert "| teacher | 12 | 0.7 (0.6 to 0.8) |" in text
