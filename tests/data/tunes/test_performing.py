"""Scores are performed in time, in range, and as unevenly as asked for."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.data.tunes.performing import (
    INSTRUMENTS,
    SUITED,
    TEMPI,
    Performance,
    beat_quarters,
    perform,
)
from fast_jukebox.data.tunes.recipe import SongRecipe
from fast_jukebox.data.tunes.scores import GENRES


def choose(tune, instruments, take=0, **options):
    recipe = SongRecipe(instruments=instruments, **{"scales": (), "transpositions": (-3, 3), **options})
    return recipe.performance(tune, take)


@pytest.mark.parametrize(
    ("genre", "metre", "quarters"),
    [("jig", (6, 8), 1.5), ("slip jig", (9, 8), 1.5), ("reel", (4, 4), 2), ("reel", (2, 2), 2), ("reel", (2, 4), 1),
     ("air", (4, 4), 1), ("air", (3, 4), 1), ("air", (3, 8), 1.5), ("chorale", (3, 2), 2)],
)  # fmt: skip
def test_a_beat_is_what_the_foot_taps(score, genre, metre, quarters):
    assert beat_quarters(score(genre=genre, metre=metre)) == quarters


def test_as_written_every_note_is_where_the_tempo_puts_it(score):
    jig = score(genre="jig")
    sounding = perform(jig, Performance("fiddle", 2, 120, human=0.0))
    assert [note.pitch for note in sounding] == [note.pitch + 2 for note in jig.notes]
    for note, written in zip(sounding, jig.notes, strict=True):
        assert note.start == pytest.approx(written.onset / 3)  # a beat of 1.5 quarters lasts half a second
        assert note.end == pytest.approx((written.onset + written.duration) / 3)
    assert {note.velocity for note in sounding} == {84}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(genre=st.sampled_from(GENRES), seed=st.integers(0, 10**6), human=st.floats(0.1, 1))
def test_people_are_uneven_but_keep_time(score, genre, seed, human):
    metre = {"jig": (6, 8), "slip jig": (9, 8)}.get(genre, (4, 4))
    tune = score(genre=genre, metre=metre, pitches=[60 + n % 12 for n in range(96)])
    exact = perform(tune, Performance("piano", 0, TEMPI[genre][0], human=0.0))
    human_notes = perform(tune, Performance("piano", 0, TEMPI[genre][0], human, seed))
    assert [note.pitch for note in human_notes] == [note.pitch for note in exact]
    assert len({note.velocity for note in human_notes}) > 1
    for note, other in zip(human_notes, exact, strict=True):
        assert note.end > note.start >= 0
        assert abs(note.start - other.start) < 0.02 * other.start + 0.35
        assert 1 <= note.velocity <= 127


def test_hornpipes_swing(score):
    notes = perform(score(genre="hornpipe", metre=(4, 4), pitches=[60] * 64), Performance("fiddle", 0, 80, 1.0, 1))
    steps = [after.start - before.start for before, after in pairwise(notes)]
    assert sum(steps[::2]) / sum(steps[1::2]) == pytest.approx(0.58 / 0.42, abs=0.15)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=8), seed=st.integers(0, 2**32), genre=st.sampled_from(GENRES))
def test_choices_are_within_what_is_asked_for(score, name, seed, genre):
    tune = score(name=name, genre=genre)
    chosen = choose(tune, tuple(INSTRUMENTS), seed=seed, transpositions=(-2, 3))
    assert chosen == choose(tune, tuple(INSTRUMENTS), seed=seed, transpositions=(-2, 3))
    assert chosen.instrument in SUITED[genre]
    assert -2 <= (chosen.transposition + 2) % 12 - 2 <= 3
    assert TEMPI[genre][0] <= chosen.tempo <= TEMPI[genre][1]
    played = INSTRUMENTS[chosen.instrument]
    assert all(played.lowest <= note.pitch + chosen.transposition <= played.highest for note in tune.notes)


def test_choices_vary_with_the_song_the_take_and_the_seed(score):
    tunes = [score(f"tune-{number}") for number in range(100)]
    chosen = [choose(tune, ("fiddle", "flute", "piano")) for tune in tunes]
    assert {performance.instrument for performance in chosen} == {"fiddle", "flute", "piano"}
    assert chosen != [choose(tune, ("fiddle", "flute", "piano"), seed=1) for tune in tunes]
    assert chosen != [choose(tune, ("fiddle", "flute", "piano"), take=1) for tune in tunes]


def test_an_instrument_that_suits_nothing_plays_all(score):
    assert choose(score(genre="jig"), ("choir",)).instrument == "choir"


@pytest.mark.parametrize(
    ("pitches", "scales", "moved"),
    [
        ((60, 62, 64, 65, 67, 69, 71), ("G", "D"), 2),  # C major to D major
        ((65, 67, 69, 70, 72, 74, 76), ("G", "D"), 2),  # F major to G major
        ((62, 64, 66, 67, 69, 71, 73), ("G", "D"), 0),
        ((69, 71, 73, 74, 76, 78, 80), ("G", "D"), -2),  # A major to G major
        ((60, 62, 64, 65, 67, 69, 71), ("F#",), 6),
        ((60, 62, 64, 65, 67, 69, 71), (), 0),
    ],
)
def test_a_score_moves_to_the_nearest_scale(score, pitches, scales, moved):
    tune = score(pitches=pitches, genre="air", metre=(4, 4))
    chosen = choose(tune, ("piano",), scales=scales, transpositions=(0, 0))
    assert chosen.transposition == moved


def test_loudness_comes_in_steps(score):
    tune = score(genre="reel", metre=(4, 4), pitches=[60 + n % 5 for n in range(64)])
    notes = perform(tune, Performance("fiddle", 0, 100, 1.0, 3, loudness_step=4))
    assert len({note.velocity for note in notes}) > 2
    assert {note.velocity % 4 for note in notes} == {0}
