import logging

import pytest
import torch
from datasets import Dataset

from fast_jukebox import FastJukeboxPriorConfig, FastJukeboxProcessor
from fast_jukebox.data.labels import WindowLabels, labelled_config
from fast_jukebox.processing import LabelVocabulary

ROWS = [
    {"artist": "Ann Lee", "genre": "Classic Pop", "lyrics": "Where the wind blows, there I go, slowly, on."},
    {"artist": None, "genre": "hymn", "lyrics": "Amen ♪"},
    {"artist": "Somebody Else", "genre": None, "lyrics": None},
]


@pytest.fixture
def songs():
    return Dataset.from_list(ROWS)


@pytest.fixture
def processor(words_config, words_files):
    return FastJukeboxProcessor.from_vocabulary_files(words_config, **words_files)


def test_songs_with_and_without_words(songs, words_config, processor, caplog):
    top = words_config.prior_configs[2]
    with caplog.at_level(logging.INFO):
        labels = WindowLabels(songs, top, processor)
    assert (
        "1 characters" in caplog.text and "of 3 songs, 1 have a known artist, 2 a known genre, 2 lyrics" in caplog.text
    )
    _, vocabulary = processor.for_prior(top)
    first, last = labels(0, 0, 120, 0), labels(0, 96, 120, 4)
    assert first.shape == (top.metadata_length,) and first.dtype == torch.int64
    assert first[:5].tolist() == [1920, 0, 384, 1, 1]
    assert last[:5].tolist() == [1920, 1536, 384, 1, 1]
    assert vocabulary.lyric_text(first[5:].tolist()) == "Where the wi"
    assert vocabulary.lyric_text(last[5:].tolist()) == ROWS[0]["lyrics"][-12:]
    amen = labels(1, 0, 120, 0)
    assert amen[3:5].tolist() == [0, 2] and amen[5:12].tolist() == [0] * 7
    assert vocabulary.lyric_text(amen[5:].tolist()) == "Amen "
    assert labels(2, 0, 120, 0)[3:].tolist() == [0] * 14
    below = WindowLabels(songs, words_config.prior_configs[0], processor)
    assert below(0, 0, 480, 0).tolist() == [1920, 0, 128, 1, 2, 1, -1]


def test_words_are_dropped_by_seed_epoch_and_window(songs, words_config, processor):
    top = words_config.prior_configs[2]
    labels = WindowLabels(songs, top, processor, dropout=0.5, seed=7)
    made = {(window, epoch): labels(0, 0, 120, window, epoch).tolist() for window in range(40) for epoch in range(3)}
    told = [(bool(row[3]), any(row[5:])) for row in made.values()]
    assert {(True, True), (True, False), (False, True), (False, False)} == set(told)
    for which in range(2):
        assert 35 <= sum(each[which] for each in told) <= 85
    again = WindowLabels(songs, top, processor, dropout=0.5, seed=7)
    assert all(again(0, 0, 120, *place).tolist() == row for place, row in made.items())
    other = WindowLabels(songs, top, processor, dropout=0.5, seed=8)
    assert any(other(0, 0, 120, *place).tolist() != row for place, row in made.items())
    kept = WindowLabels(songs, top, processor, dropout=0.5)  # without a seed, as in evaluation
    assert all(kept(0, 0, 120, window)[3] == 1 for window in range(9))
    nothing = WindowLabels(songs, top, processor, dropout=1.0, seed=0)
    assert nothing(0, 0, 120, 3)[3:].tolist() == [0] * 14
    for wrong in (-0.1, 1.1, True, "often"):
        with pytest.raises(ValueError, match="`label_dropout` must be from 0 to 1"):
            WindowLabels(songs, top, processor, dropout=wrong)


def test_ids_that_stand_there(words_config):
    rows = Dataset.from_list([{"artist_id": 3, "genre_ids": [2, 1, 4, 5]}, {"artist_id": None, "genre_ids": None}])
    below, _, top = words_config.prior_configs
    assert WindowLabels(rows, below)(0, 8, 480, 0).tolist() == [1920, 32, 128, 3, 2, 1, 4]
    assert WindowLabels(rows, below)(1, 8, 480, 0)[3:].tolist() == [0, 0, -1, -1]
    assert WindowLabels(rows, top)(0, 0, 120, 0)[3:].tolist() == [3, 2, *[0] * 12]


def test_a_config_is_told_of_a_compilation(tiny_config):
    vocabulary = LabelVocabulary.from_metadata(ROWS)
    plain = tiny_config.prior_configs[2]
    plain.num_hidden_layers = 4
    top = labelled_config(plain, vocabulary, lyric_length=8, longest=700.0)
    assert not plain.has_labels
    assert (top.num_artists, top.num_genres, top.use_timing, top.lyric_length) == (3, 3, True, 8)
    assert (top.min_duration, top.max_duration) == (0.0, 702.0)
    assert top.layer_types == ["row", "column", "previous_row", "lyric_prefix"]
    FastJukeboxProcessor.from_metadata(ROWS, top).check(top)
    below = labelled_config(tiny_config.prior_configs[0], vocabulary, lyric_length=8)
    assert (below.num_artists, below.use_timing, below.lyric_length) == (3, False, 0)
    words = LabelVocabulary.from_metadata(ROWS, genre_words=True)
    assert labelled_config(plain, words, max_genres=4).num_genres == 4
    assert isinstance(top, FastJukeboxPriorConfig)
    with pytest.raises(ValueError, match="multiple of `num_rows`"):
        labelled_config(plain, vocabulary, lyric_length=7)


def test_names_that_the_model_does_not_know_are_told(tiny_config, caplog):
    known = [{"artist": "Ann", "genre": "Slow Pop"}, {"artist": "Bob", "genre": "Rock"}]
    songs = Dataset.from_list([*known, {"artist": "Zoë", "genre": "Slow Rock"}, {"artist": None, "genre": "unknown"}])
    for words, genre in ((True, None), (False, "Slow Rock")):
        vocabulary = LabelVocabulary.from_metadata(known, genre_words=words)
        config = labelled_config(tiny_config.prior_configs[1], vocabulary, max_genres=3 if words else 1)
        processor = FastJukeboxProcessor.from_metadata(Dataset.from_list(known), config)
        caplog.clear()
        WindowLabels(songs, config, processor)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [("'Zoë'" in line, "artist" in line) for line in warnings[:1]] == [(True, True)]
        assert len(warnings) == (1 if genre is None else 2)
        assert genre is None or repr(genre) in warnings[1]
