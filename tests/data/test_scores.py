"""The scores of music21's corpus, against what is printed in every edition of these chorales."""

import sys

import pytest

from fast_jukebox.data import scores
from fast_jukebox.data.scores import Chorale, NoChoraleError, ScoreNote, chorale_paths, natural_order, read_chorale


@pytest.fixture(scope="module")
def paths():
    pytest.importorskip("music21")
    return {path.stem: path for path in chorale_paths()}


def test_there_are_over_350_chorales_in_the_order_of_their_numbers(paths):
    names = list(paths)
    assert len(names) > 350
    assert names.index("bwv2.6") < names.index("bwv10.7") < names.index("bwv269") < names.index("bwv438")


def test_a_chorale_is_read_as_its_four_voices(paths):
    chorale = read_chorale(paths["bwv269"])
    assert chorale.title == "Aus meines Herzens Grunde"
    assert chorale.catalogue == "BWV 269"
    assert (chorale.tonic, chorale.mode) == (7, "major")
    assert chorale.quarters == 63
    assert {note.voice for note in chorale.notes} == {0, 1, 2, 3}
    soprano = [(note.onset, note.pitch) for note in chorale.notes if note.voice == 0][:4]
    assert soprano == [(0.0, 67), (1.0, 67), (3.0, 74), (4.0, 71)]
    assert list(chorale.notes) == sorted(chorale.notes, key=lambda note: (note.onset, note.voice, note.pitch))


def test_instruments_beside_the_voices_are_left_out(paths):
    """BWV 1.6 has a second horn, of 80 quarters like the voices."""
    chorale = read_chorale(paths["bwv1.6"])
    assert {note.voice for note in chorale.notes} == {0, 1, 2, 3}
    assert chorale.quarters == 80


@pytest.mark.parametrize(("name", "reason"), [("bwv846", "voices are"), ("bwv248.64-6", "they pause")])
def test_what_is_no_chorale_is_refused_by_name(paths, name, reason):
    with pytest.raises(NoChoraleError, match=rf"{name}.*{reason}"):
        read_chorale(paths[name])


def test_the_fingerprint_does_not_depend_on_the_key():
    notes = (ScoreNote(0, 1, 60, 0), ScoreNote(1, 1, 62, 0))
    up = tuple(ScoreNote(note.onset, note.duration, note.pitch + 3, note.voice) for note in notes)
    other = (ScoreNote(0, 1, 60, 0), ScoreNote(1, 1, 63, 0))
    first, same, different = (Chorale("x", "x", 0, "major", which) for which in (notes, up, other))
    assert first.fingerprint() == same.fingerprint() != different.fingerprint()


def test_names_are_ordered_by_their_numbers():
    assert sorted(["bwv10.7", "bwv9.7", "bwv9.7-a", "bwv9.12"], key=natural_order) == [
        "bwv9.7",
        "bwv9.7-a",
        "bwv9.12",
        "bwv10.7",
    ]


def test_a_missing_package_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(ImportError, match=r"pip install --no-deps tinysoundfont"):
        scores.require("tinysoundfont")
