import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from fast_jukebox.evaluation.cards import (
    SONG_METRICS,
    TEACHER_METRICS,
    CardSettings,
    card_metrics,
    card_sets,
    compare_songs,
    song_table,
    training_markdown,
    write_card,
)
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.side_by_side import HELD_OUT, NOISE, SONGS, TRAINING, SetResult
from fast_jukebox.evaluation.song_metrics import summarise_songs
from fast_jukebox.evaluation.systems import System
from fast_jukebox.hub import model_card, write_model_card


def some(value, low=math.nan, high=math.nan):
    return Estimate(value, low, high, torch.empty(0), 8)


OWN = {f"bits_per_code_{level}": some(3.0 + level) for level in range(3)}
OWN |= {f"unigram_bits_per_code_{level}": some(8.5) for level in range(3)}
OWN |= {"in_key_fraction": some(0.9, 0.85, 0.94), "notes_per_minute": some(83.4), "repetition": some(math.nan)}
OWN |= {"pitch_distance": some(0.02), "kernel_distance_ears": some(0.4), "valence_AP": some(0.25)}
FLOORS = {"pitch_distance": (0.012, math.nan), "kernel_distance_ears": (0.01, 0.002)}
THROUGH = {f"snr_{level}": some(10.0 - level) for level in range(3)}
HELD = {"in_key_fraction": some(0.951), "quiet_fraction": some(0.0), "pitch_distance": some(0.001)}
RESULTS = [
    SetResult(SONGS, 100, HELD),
    SetResult(HELD_OUT, 30, HELD),
    SetResult(TRAINING, 24, HELD),
    SetResult("songs through the codes of a", 12, THROUGH, vqvae="v"),
    SetResult("a", 24, OWN, FLOORS, vqvae="v", parameters=7, predicted=(4, 4, 4)),
    SetResult("songs through the codes of b", 12, {"snr_0": some(99.0)}, vqvae="w"),
    SetResult("b", 24, {}, vqvae="w", parameters=7, predicted=(4,)),
    SetResult(NOISE, 24, HELD),
]
COUNTS = {"train_songs": 370, "train_hours": 4.4, "test_songs": 30}
STORY = {
    "preset": "fastjukebox-mini-9",
    "seed": 0,
    "vqvae-0": {"steps": 1500, "batch_size": 4, "seconds": 3000},
    "prior-2": {"steps": 3000, "batch_size": 4, "seconds": 7200},
}


def test_the_sets_beside_a_system_are_its_own():
    sets = card_sets(RESULTS, "a")
    assert [own.name for own in sets.values()] == ["a", TRAINING, HELD_OUT, "songs through the codes of a", NOISE]
    assert card_sets(RESULTS, "b")["the same through the bottom level's codes"].name == "songs through the codes of b"


def test_sets_of_songs_stand_side_by_side_with_their_intervals():
    text = song_table(RESULTS, "a")
    header = "| songs | samples of the model (24) | training songs (24) | held-out songs (30) |"
    assert text.startswith(header)
    assert "| time with notes of one key | 0.90 (0.85 to 0.94) | 0.95 | 0.95 |" in text
    assert "| time below -40 dBFS |  | 0.00 |" in text
    assert "| notes a minute | 83 |  |" in text
    sets = {"old": summarise_songs([dict.fromkeys(SONG_METRICS, value) for value in (0.25, 0.75)])}
    sets["one"] = summarise_songs([dict.fromkeys(SONG_METRICS, 12.5)])
    lines = compare_songs(sets).splitlines()
    assert lines[0] == "| songs | old | one |"
    assert lines[2] == "| time below -40 dBFS | 0.50 (0.25 to 0.75) | 12 |"
    assert len(lines) == 2 + len(SONG_METRICS)


def test_the_card_has_the_numbers_that_there_are():
    groups = card_metrics(RESULTS, "a")
    assert groups["reconstruction, signal-to-noise ratio (dB)"] == {"bottom": 10.0, "middle": 9.0, "top": 8.0}
    assert groups["bits per code of the prior"] == {"bottom": 3.0, "middle": 4.0, "top": 5.0}
    assert "bits per code of a bigram model" not in groups and "passages heard before" not in groups
    distances = groups["distance to the songs (bits)"]
    assert distances["samples of the model"] == 0.02
    assert distances["held-out songs"] == "0.001"
    assert distances["that of as few held-out clips, by chance"] == "0.012"
    assert groups["kernel_distance_ears"] == {"samples of the model": 0.4}
    assert groups["valence_AP"] == {"samples of the model": 0.25}
    assert groups["bits per code of a unigram model"]["top"] == "8.5"
    card = model_card(name="x", description="x", training="x", metrics=groups, license="apache-2.0")
    assert "| bits per code of the prior | top | 5 |" in card.text
    assert "| time with notes of one key | samples of the model | 0.9 |" in card.text
    # What the model is compared with is no result of the model.
    assert len(card.data.eval_results) == 3 + 3 + 5
    assert card_metrics(RESULTS, "b")["reconstruction, signal-to-noise ratio (dB)"] == {"only": 99.0}


STUDENT_CARD = {
    "name": "ann/student", "description": "Distilled.", "training": "### The top level\n\n| row | 0 | 2 |",
    "license": "mit", "base_model": "ann/teacher", "tags": ["knowledge-distillation"], "datasets": ["ann/songs"],
    "metrics": {TEACHER_METRICS["kl_to_teacher"]: {"top level (2)": 0.25}, "bits per code of the prior": {"top": 987}},
}  # fmt: skip


def test_a_students_card_keeps_what_it_states_and_has_the_new_numbers(tmp_path):
    folder, picture = tmp_path / "model", tmp_path / "out" / "spectrograms.png"
    write_model_card(folder, **STUDENT_CARD)
    picture.parent.mkdir()
    picture.write_bytes(b"new")
    system = System("a", str(folder))

    def renew(**options):
        card = CardSettings("model", **options)
        card.check([system])
        return write_card(system, RESULTS, card, COUNTS, "Made by hand.", picture).read_text(encoding="utf-8")

    first = renew()
    card = ModelCard(first)
    assert (card.data.base_model, card.data.license, card.data.datasets) == ("ann/teacher", "mit", ["ann/songs"])
    assert "knowledge-distillation" in card.data.tags
    assert "# ann/student\n\nDistilled." in card.text and STUDENT_CARD["training"] in card.text
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["KL divergence to the teacher, bits, top level (2)"] == 0.25
    assert results["bits per code of the prior, top"] == 5.0
    assert card.text.count("| bits per code of the prior | top |") == 1 and "| 987 |" not in first
    assert "measured at the end of the distillation" in card.text and "Made by hand." in card.text
    assert (folder / "spectrograms.png").read_bytes() == b"new"

    assert renew(license="mit", name="ann/student") == first  # nothing is added twice
    # A story of the training that is given replaces the card's.
    (tmp_path / "training.json").write_text(json.dumps({"prior-0": {"steps": 7, "batch_size": 2, "seconds": 30}}))
    text = renew(training=tmp_path / "training.json")
    assert "| prior, level 0 | 7 | 2 | 30 s |" in text and "| row | 0 | 2 |" not in text


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"license": "apache-2.0"}, "`card_license` must be left out .* 'mit' .* 'apache-2.0'"),
        ({"name": "another"}, "`card_name` must be left out .* 'ann/student' .* 'another'"),
    ],
)
def test_a_card_that_states_something_else_is_not_overruled(tmp_path, wrong, match):
    write_model_card(tmp_path, **STUDENT_CARD)
    with pytest.raises(ValueError, match=match):
        CardSettings("model", **wrong).check([System("a", str(tmp_path))])


def test_what_a_card_lacks_is_asked_for_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="`card` needs models that are folders, got 'ann/model'"):
        CardSettings("model", "mit").check([System("a", "ann/model")])
    with pytest.raises(ValueError, match="`card_license` must name"):
        CardSettings("embedded").check([System("a", str(tmp_path))])
    with pytest.raises(ValueError, match="`training` must be a JSON file, got 'nowhere.json'"):
        CardSettings(training=Path("nowhere.json")).check([])
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(ValueError, match=r"damaged.json` is damaged, it must be JSON"):
        CardSettings(training=tmp_path / "damaged.json").check([])
    CardSettings().check([System("a", "ann/model")])


def test_the_training_is_told_from_its_facts():
    text = training_markdown(STORY, COUNTS)
    assert "370 songs (4.4 hours) to train on, 30 held out" in text
    assert "| VQ-VAE, level 0 | 1500 | 4 | 50 min |" in text
    assert "| prior, level 2 | 3000 | 4 | 2.0 h |" in text
    assert "preset: fastjukebox-mini-9; seed: 0." in text


def test_a_text_of_ones_own_takes_the_place_of_what_is_said_of_the_songs():
    text = training_markdown({**STORY, "text": "On *jigs*."}, COUNTS)
    assert text.startswith("On *jigs*.\n\n| part |")
    assert "370 songs" not in text


def test_other_facts_are_listed_and_no_facts_are_an_empty_text():
    assert "songs: my band" in training_markdown({"songs": "my band"}, {})
    assert training_markdown({}, {}) == ""
