import pytest

from fast_jukebox.data.tunes.scores import Score, ScoreNote


def make_score(name="tune", genre="jig", pitches=(67, 71, 74, 67, 74, 71), metre=(6, 8), length=0.5, title="A Tune"):
    """A score of one voice, whose notes are all equally long."""
    notes = tuple(ScoreNote(index * length, length, pitch) for index, pitch in enumerate(pitches))
    return Score(name, title, genre, "A book", 7, "major", metre, notes)


@pytest.fixture
def score():
    return make_score


@pytest.fixture
def synthesiser():
    for module in ("pretty_midi", "tinysoundfont"):
        pytest.importorskip(module)
