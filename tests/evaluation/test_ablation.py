"""The ablation's report says what its results say."""

import pytest

from fast_jukebox.evaluation.ablation import (
    ablation_markdown,
    speed_up,
    system_title,
    training_cost,
    training_story,
    write_ablation,
)
from fast_jukebox.evaluation.cards import training_markdown


def metrics(bits, kl):
    return {
        "bits_per_code": bits, "perplexity": 2.0**bits, "kl_to_teacher": kl, "agreement": 0.5, "accuracy": 0.4,
        "codes": 100,
    }  # fmt: skip


@pytest.fixture
def results():
    systems = {"teacher-8": 8, "scratch-2": 2, "student-without-pred-2": 2, "student-2": 2, "student-plain-2": 2}
    level = {
        "metrics": {
            "teacher-8": metrics(2.0, 0.0),
            "scratch-2": metrics(3.0, 1.0),
            "student-without-pred-2": metrics(2.75, 0.7),
            "student-2": metrics(2.5, 0.4),
            "student-plain-2": metrics(3.25, 1.1),
            "model": metrics(2.25, 0.2),
        },
        "windows": 7,
        "training_seconds": {"8": {"plain": 4.0}, "2": {"plain": 1.0, "intermediate": 3.0, "prediction": 2.0}},
        "sampling_seconds": {"8": 0.008, "2": 0.002},
        "curves": {system: [(5, 4.0), (10, 3.0)] for system in systems},
    }
    return {
        "machine": "a machine", "versions": {"torch": "2.11", "transformers": "5"}, "systems": systems,
        "model_layers": 2, "levels": {"1": level, "0": level},
        "settings": {
            "grow_teacher": True, "teacher_steps": 20, "steps": 10, "intermediate_steps": 4, "batch_sizes": [2, 3],
            "eval_steps": 5, "eval_windows": 7, "teacher_learning_rate": 3e-4, "learning_rate": 1e-3,
            "student_learning_rate": 6e-4, "threads": 1, "model": "some/where/model",
        },
    }  # fmt: skip


def test_costs_and_speed_are_those_measured(results):
    assert training_cost(results, "teacher-8", "0") == 20 * 4.0
    assert training_cost(results, "scratch-2", "0") == 10 * 1.0
    assert training_cost(results, "student-2", "0") == 4 * 3.0 + 6 * 2.0
    assert training_cost(results, "student-plain-2", "0") == 4 * 3.0 + 6 * 2.0
    assert training_cost(results, "student-without-pred-2", "0") == 4 * 3.0 + 6 * 1.0
    assert speed_up(results, "student-2", "0") == pytest.approx(4.0)
    assert speed_up(results, "teacher-8", "0") == 1.0


def test_report_holds_every_system_and_its_metrics(results, tmp_path):
    path = write_ablation(tmp_path / "docs" / "ablation.md", results) if (tmp_path / "docs").mkdir() is None else None
    text = path.read_text()
    assert (tmp_path / "docs" / "images" / "ablation.png").stat().st_size > 1000
    assert "images/ablation.png" in text
    for line in (
        "- 2 (student): +0.50 at the top level (1), +0.50 at the bottom level (0)",
        "- 2 (student), random initialisation: -0.25 at the top level (1), -0.25 at the bottom level (0)",
        "| teacher, 8 layers | 2.000 | 4.00 | 0.000 | 50.0% | 80 | 1.0x |",
        "| 2 (student) w/o Pred | 2.750 | 6.73 | 0.700 | 50.0% | 18 | 4.0x |",
        "| Top level (1) | 2 | 1.00 | 3.00 | 2.00 | 500 |",
        "--batch_sizes 2 3",
        "--grow_teacher true",
        "7 held-out windows.",
    ):
        assert line in text, line
    assert max(len(line) for line in text.splitlines() if line.startswith(("python", "    "))) <= 120


def test_a_teacher_of_its_own_is_told(results):
    results["settings"]["grow_teacher"] = False
    assert "began with random weights" in ablation_markdown(results, "x.png")


def test_a_students_story_is_what_a_card_tells(results):
    model = {"text": "On chorales.", "prior-0": {"steps": 7, "batch_size": 1, "seconds": 60}}
    story = training_story(results, "student-without-pred-2", model)
    assert story["student-1"] == {"steps": 10, "batch_size": 3, "seconds": 18}
    assert story["teacher-0"] == {"steps": 20, "batch_size": 2, "seconds": 80}
    assert story["prior-0"] == model["prior-0"] and "teacher-0" not in model
    text = training_markdown(story, {})
    for line in ("| student prior, level 1 | 10 | 3 | 18 s |", "| prior, level 0 | 7 | 1 | 60 s |", "On chorales."):
        assert line in text
    assert "for 4 steps (Eq. 4), then the data's codes for 6" in text and "made deeper" in text

    results["settings"]["grow_teacher"] = False
    story = training_story(results, "student-plain-2", model)
    assert "prior-0" not in story and "trained from scratch" in story["distillation"]
    assert "random weights" in story["distillation"] and "predictions (Eq. 3) for 6" in story["distillation"]
    with pytest.raises(ValueError, match="`system` must be one of student-without-pred-2, .*, got 'scratch-2'"):
        training_story(results, "scratch-2")


def test_refuses_unknown_systems():
    with pytest.raises(ValueError, match="system"):
        system_title("pupil-3")
