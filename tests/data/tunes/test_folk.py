"""Tunes in ABC notation are read as they are played."""

import pytest

from fast_jukebox.data.tunes.folk import read_abc
from fast_jukebox.data.tunes.scores import ScoreError

pytest.importorskip("music21")

HEAD = "X:1\nT:{title}\nM:{metre}\nL:1/8\nR:{kind}\nK:{key}\n"


def tune(body, title="Tune, The", metre="6/8", kind="jig", key="G", collection="ryan", name="ryan-A"):
    return read_abc(HEAD.format(title=title, metre=metre, kind=kind, key=key) + body + "\n", collection, name)


def played(score):
    return [(note.onset, note.duration, note.pitch) for note in score.notes]


BAR = "GAB cde|"


def test_a_tune_is_read_with_its_labels():
    score = tune("G|" + BAR * 8)
    assert (score.title, score.genre, score.tonic, score.mode) == ("The Tune", "jig", 7, "major")
    assert (score.metre, score.upbeat) == ((6, 8), 0.5)
    assert played(score)[:3] == [(0, 0.5, 67), (0.5, 0.5, 67), (1.0, 0.5, 69)]
    assert score.notes[7].pitch == 67


def test_lengths_ties_tuplets_and_broken_rhythms_are_played_and_ornaments_are_not():
    score = tune("G3-G3|{ab}(3gab c>d [Ce]2|" + BAR * 8)
    assert played(score)[:8] == [
        (0, 3.0, 67),
        (3.0, pytest.approx(1 / 3), 79),
        (pytest.approx(3 + 1 / 3), pytest.approx(1 / 3), 81),
        (pytest.approx(3 + 2 / 3), pytest.approx(1 / 3), 83),
        (4.0, 0.75, 72),
        (4.75, 0.25, 74),
        (5.0, 1.0, 76),
        (6.0, 0.5, 67),
    ]


def test_an_accidental_holds_to_the_bar_line():
    pitches = [note.pitch for note in tune("f=ff f2f|f3 f3|" + BAR * 8).notes]
    assert pitches[:7] == [78, 77, 77, 77, 77, 78, 78]


@pytest.mark.parametrize(
    ("body", "order"),
    [
        ("|:A6|B6:|c6|", "AB AB c"),
        ("A6|B6:|:c6:|", "AB AB c c"),
        ("A6||B6:|c6|", "A B B c"),
        ("|:A6|1 B6:|2 c6|]d6|", "AB Ac d"),
        ("|:A6|B6|[1 c6:|[2 d6||e6|", "ABc ABd e"),
    ],
)
def test_repeats_are_played(body, order):
    names = {69: "A", 71: "B", 72: "c", 74: "d", 76: "e"}
    score = tune(body + "G6|" * 8)
    assert "".join(names.get(note.pitch, "") for note in score.notes) == order.replace(" ", "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": "polka"}, "kind 'polka'"),
        ({"kind": "jig", "metre": "2/4"}, "metre of 2/4"),
        ({"body": "GAB|"}, "length"),
        ({"body": BAR * 4 + "z6|" + BAR * 4}, "pauses"),
        ({"body": BAR * 4 + "[K:D]" + BAR * 4}, "changes its key"),
        ({"key": "Hp"}, "key"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_reason(options, reason):
    with pytest.raises(ScoreError, match=reason):
        tune(**{"body": BAR * 8, **options})
