"""Scores are compared, parted and kept in their file."""

import gzip
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.data.tunes.scores import (
    Score,
    ScoreNote,
    choose_splits,
    in_ticks,
    load_scores,
    natural_order,
    require,
    save_scores,
)

times = st.integers(0, 4000).map(lambda ticks: ticks / 480)
notes = st.lists(
    st.builds(ScoreNote, times, times.map(lambda time: time + 1 / 480), st.integers(0, 127), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


def test_the_fingerprint_does_not_depend_on_the_key(score):
    first, same, different = score(), score(pitches=(70, 74, 77, 70, 77, 74)), score(pitches=(67, 71, 74, 67, 74, 72))
    assert first.fingerprint() == same.fingerprint() != different.fingerprint()


def test_names_are_ordered_by_their_numbers():
    names = ["bwv9.7", "bwv9.7-a", "bwv9.12", "bwv10.7"]
    assert sorted(reversed(names), key=natural_order) == names


def test_a_missing_package_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(ImportError, match=r"pip install --no-deps tinysoundfont"):
        require("tinysoundfont")


@settings(max_examples=40, deadline=None)
@given(notes=notes)
def test_a_file_gives_back_what_was_saved(notes, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.jsonl.gz"
    written = Score(
        "a-1", "Tüne\u2028\x85", "reel", "Book", 2, "dorian", (2, 2), tuple(in_ticks(notes)), 0.5, None, "No. 1"
    )
    save_scores(path, [written, written])
    assert load_scores(path) == [written, written]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "score 1"),
        ("[]", "score 1"),
        ("1", "score 1"),
        ("[" * 100_000, "score 1"),
        ('{"name": "a", "notes": [[0], [1%s], [60], [0]]}' % ("0" * 400), "score 1"),
        ('{"name": "a", "notes": [[0], [480], [200], [0]]}', "no note"),
        ('{"name": "a", "notes": [[], [], [], []]}', "1 to"),
        ('{"name": "../a", "notes": [[0], [480], [60], [0]]}', "file's name"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(tmp_path, text, reason):
    path = tmp_path / "scores.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match=reason):
        load_scores(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="score 1"):
        load_scores(path)


def test_about_eight_in_a_hundred_tunes_are_held_out(score):
    tunes = [
        score(f"tune-{n}", pitches=[60 + (n >> bit & 1) for bit in range(12)], title=f"Title {n:04d}")
        for n in range(2000)
    ]
    splits = choose_splits(tunes)
    assert 0.06 < list(splits.values()).count("test") / 2000 < 0.10


def test_settings_of_one_tune_are_on_the_same_side(score):
    """By their beginnings, by their titles, and by both around a corner."""
    for number in range(40):
        first = score("a", pitches=[60 + number % 7, 62, 64, 65 + number], title=f"Morning Dew {number}")
        titled = score("b", pitches=[60, 70, 60, 71], title=f"The Morning Dew {number} -- Reel")
        begun = score("c", pitches=[72, 82, 72, 83], title="Another Name")
        assert len(set(choose_splits([first, titled, begun]).values())) == 1
