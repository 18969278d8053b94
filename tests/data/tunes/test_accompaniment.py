"""An accompaniment by rule fits the melody, keeps time and leaves the tune as it is."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.data.tunes.accompaniment import BASS_VOICE, CHORD_VOICE, PARTS, accompany, find_chords
from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
from fast_jukebox.data.tunes.scores import DRUM_VOICE
from fast_jukebox.data.tunes.synthesis import Player

G, C, D = 7, 0, 2
ARPEGGIOS = {G: (67, 71, 74), C: (60, 64, 67), D: (62, 66, 69)}


def test_chords_are_those_of_the_melody_and_the_last_is_the_tonic(score):
    roots = [G, C, D, G, C, G, D, G]
    tune = score(pitches=[pitch for root in roots for pitch in ARPEGGIOS[root]])  # half a bar of 6/8 each
    chords = find_chords(tune, 1.5)
    assert [chord.root for chord in chords] == roots
    assert [chord.start for chord in chords] == [1.5 * number for number in range(8)]
    assert chords[-1].end == tune.quarters
    assert all({pitch % 12 for pitch in ARPEGGIOS[chord.root]} == set(chord.pitch_classes) for chord in chords)


def test_passing_notes_do_not_change_the_chord(score):
    tune = score(pitches=[67, 69, 71] * 4 + [67, 71, 74] * 4)
    assert {chord.root for chord in find_chords(tune, 1.5)} == {G}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pitches=st.lists(st.integers(60, 84), min_size=6, max_size=40),
    kind=st.sampled_from([("jig", (6, 8)), ("reel", (4, 4)), ("slip jig", (9, 8)), ("air", (3, 4)), ("march", (2, 4))]),
    parts=st.sets(st.sampled_from(PARTS)),
)
def test_the_tune_stays_and_what_is_added_lies_within_it(score, pitches, kind, parts):
    genre, metre = kind
    tune = score(genre=genre, metre=metre, pitches=pitches)
    both = accompany(tune, sorted(parts))
    assert tuple(note for note in both.notes if note.voice == 0) == tune.notes
    added = [note for note in both.notes if note.voice]
    wanted = {
        voice for voice, part in ((CHORD_VOICE, "chords"), (BASS_VOICE, "bass"), (DRUM_VOICE, "drums")) if part in parts
    }
    assert {note.voice for note in added} <= wanted
    for note in added:
        assert note.duration > 0 and note.onset >= 0
        assert note.voice == DRUM_VOICE or note.onset + note.duration <= tune.quarters + 1e-6
    if genre == "air":
        assert DRUM_VOICE not in {note.voice for note in added}
    basses = [note for note in added if note.voice == BASS_VOICE]
    assert all(36 <= note.pitch < 48 for note in basses)
    assert len(basses) == len({note.onset for note in basses})


def test_chorales_need_none(score):
    chorale = score(genre="chorale", metre=(4, 4))
    assert accompany(chorale, PARTS) == chorale


@pytest.mark.usefixtures("synthesiser")
def test_an_accompanied_song_is_rendered_with_its_notes(score):
    tune = score(pitches=[67, 71, 74, 72, 71, 69] * 4)
    recipe = SongRecipe(accompaniment=("chords", "bass", "drums"), instruments=("flute",), longest=8.0)
    player = Player()
    audio, row = render_song(tune, recipe, player)
    assert row["accompaniment"] == "chords bass drums"
    assert row["notes_heard"] > 0.5
    alone, _ = render_song(tune, SongRecipe(instruments=("flute",), longest=8.0), player)
    both = min(len(alone), len(audio))
    assert abs(len(alone) - len(audio)) < 4410 and not np.allclose(alone[:both], audio[:both], atol=0.05)


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="`accompaniment`"):
        SongRecipe(accompaniment=("choir",))
