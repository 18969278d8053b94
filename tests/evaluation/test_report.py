from fast_jukebox.evaluation.report import (
    SONG_METRICS,
    card_metrics,
    compare_songs,
    level_names,
    metrics_markdown,
    training_markdown,
)
from fast_jukebox.evaluation.song_metrics import SongMetrics, summarise_songs
from fast_jukebox.hub import model_card

FIGURES = {
    "train_songs": 370,
    "train_hours": 4.4,
    "test_songs": 30,
    **{f"snr_{level}": 10.0 - level for level in range(3)},
    **{f"bits_per_code_{level}": 3.0 + level for level in range(3)},
    **{f"unigram_bits_per_code_{level}": 8.5 for level in range(3)},
    "songs_songs": 30,
    "songs_in_key_fraction": 0.951,
    "songs_quiet_fraction": 0.0,
    "songs_clips": 90,
    "songs_distance": 0.001,
    "songs_distance_same_size": 0.012,
    "samples_songs": 24,
    "samples_in_key_fraction": 0.9,
    "samples_in_key_fraction_low": 0.85,
    "samples_in_key_fraction_high": 0.94,
    "samples_notes_per_minute": 83.4,
    "samples_clips": 4,
    "samples_distance": 0.02,
    "command": "python examples/run_evaluation.py --model model",
}
TRAINING = {
    "preset": "fastjukebox-mini-9",
    "seed": 0,
    "vqvae-0": {"steps": 1500, "batch_size": 4, "seconds": 3000},
    "prior-2": {"steps": 3000, "batch_size": 4, "seconds": 7200},
}


def test_every_figure_stands_in_one_table():
    text = metrics_markdown(FIGURES)
    assert "| signal-to-noise ratio (dB) | 10 | 9 | 8 |" in text
    assert "| songs | samples of the model (24) | held-out songs (30) |" in text
    assert "| time with notes of one key | 0.90 (0.85 to 0.94) | 0.95 |" in text
    assert "| time below -40 dBFS |  | 0.00 |" in text
    assert "| notes a minute | 83 |  |" in text
    assert "| songs_distance_same_size | 0.012 |" in text
    assert "white noise" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.count("|") in (3, 4, 5, 10)


def test_sets_of_songs_stand_side_by_side_with_their_intervals():
    sets = {"old": summarise_songs([SongMetrics(20.0, *[value] * 8) for value in (0.25, 0.75)]), "one": {}}
    sets["one"] = summarise_songs([SongMetrics(20.0, *[12.5] * 8)])
    lines = compare_songs(sets).splitlines()
    assert lines[0] == "| songs | old | one |"
    assert lines[2] == "| time below -40 dBFS | 0.50 (0.25 to 0.75) | 12 |"
    assert len(lines) == 2 + len(SONG_METRICS)


def test_levels_are_named_by_their_number():
    assert level_names(FIGURES) == ["bottom", "middle", "top"]
    assert level_names({"snr_0": 1.0}) == ["only"]
    assert level_names({f"snr_{level}": 1.0 for level in range(4)}) == ["bottom", "level 1", "level 2", "top"]


def test_the_card_has_the_figures_that_there_are():
    groups = card_metrics(FIGURES)
    assert groups["bits per code of the prior"] == {"bottom": 3.0, "middle": 4.0, "top": 5.0}
    assert "bits per code of a bigram model" not in groups
    distances = groups["distance to the songs (bits)"]
    assert distances["samples of the model"] == 0.02
    assert distances["that of as few held-out clips, by chance"] == "0.012"
    assert groups["bits per code of a unigram model"]["top"] == "8.5"
    card = model_card(name="x", description="x", training="x", metrics=groups, license="apache-2.0")
    assert "| bits per code of the prior | top | 5 |" in card.text
    assert "| time with notes of one key | samples of the model | 0.9 |" in card.text
    # What the model is compared with is no result of the model.
    assert len(card.data.eval_results) == 3 + 3 + 3


def test_the_training_is_told_from_its_facts():
    text = training_markdown(TRAINING, FIGURES)
    assert "370 songs (4.4 hours) to train on, 30 held out" in text
    assert "| VQ-VAE, level 0 | 1500 | 4 | 50 min |" in text
    assert "| prior, level 2 | 3000 | 4 | 2.0 h |" in text
    assert "preset: fastjukebox-mini-9; seed: 0." in text


def test_a_text_of_ones_own_takes_the_place_of_what_is_said_of_the_songs():
    text = training_markdown({**TRAINING, "text": "On *jigs*."}, FIGURES)
    assert text.startswith("On *jigs*.\n\n| part |")
    assert "370 songs" not in text


def test_other_facts_are_listed_and_no_facts_are_an_empty_text():
    assert "songs: my band" in training_markdown({"songs": "my band"}, {})
    assert training_markdown({}, {}) == ""
