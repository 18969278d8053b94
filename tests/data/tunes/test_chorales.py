"""The scores of music21's corpus, against what is printed in every edition of these chorales."""

import pytest

from fast_jukebox.data.tunes.chorales import chorale_paths, read_chorale
from fast_jukebox.data.tunes.scores import ScoreError


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
    assert (chorale.tonic, chorale.mode, chorale.metre, chorale.upbeat) == (7, "major", (3, 4), 1.0)
    assert (chorale.genre, chorale.composer) == ("chorale", "Johann Sebastian Bach")
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
    with pytest.raises(ScoreError, match=rf"{name}.*{reason}"):
        read_chorale(paths[name])
