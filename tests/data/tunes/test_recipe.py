"""Songs are played as asked: these notes, in this key and tempo, at this level, a function of recipe and score."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fast_jukebox.data.tunes.listening import check_notes, check_sound
from fast_jukebox.data.tunes.performing import INSTRUMENTS, Performance, SoundingNote, beat_quarters, perform
from fast_jukebox.data.tunes.recipe import SongRecipe, plan_performances, read_scores, render_song
from fast_jukebox.data.tunes.scores import ScoreNote
from fast_jukebox.data.tunes.synthesis import Player, soundfont_path


@pytest.fixture
def chords(score):
    """Three chords of four voices, two quarters each; the alto repeats its note and crosses the tenor."""
    pitches = ((67, 62, 59, 43), (66, 62, 57, 50), (67, 59, 62, 43))
    notes = [
        ScoreNote(2.0 * position, 2.0, pitch, voice)
        for position, chord in enumerate(pitches)
        for voice, pitch in enumerate(chord)
    ]
    return replace(score("bwv999", "chorale", metre=(4, 4)), notes=tuple(notes))


@pytest.fixture(scope="module")
def player():
    for module in ("pretty_midi", "tinysoundfont"):
        pytest.importorskip(module)
    return Player(None, 44100)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_every_instrument_plays_the_notes_and_no_others(instrument, chords, player):
    notes = perform(chords, Performance(instrument, -1, 80, human=0.0))
    programs = dict.fromkeys(range(4), INSTRUMENTS[instrument].program)
    audio = player.play(notes, programs, tail=1.0)
    audio /= np.abs(audio).max()
    played = [(note.start, note.end, note.pitch) for note in notes]
    wrong = [(start, end, pitch + 1) for start, end, pitch in played]
    assert check_notes(audio, 44100, played).heard >= 0.75
    assert check_notes(audio, 44100, wrong).heard <= 0.4
    sound = check_sound(audio)
    assert sound.click < 12
    assert sound.largest_jump < 0.5


def test_a_rendering_has_the_length_level_and_end_of_its_recipe(score, player):
    recipe = SongRecipe(tail=0.5, peak_decibels=-6.0, human=0.0, gain_step=0.0)
    tune = score(pitches=[67, 69, 71, 72] * 6)
    audio, row = render_song(tune, recipe, player)
    assert audio.dtype == np.float32
    assert row["duration"] == pytest.approx(len(audio) / 44100, abs=1e-5)
    assert row["duration"] == pytest.approx(8 * 60 / row["bpm"] + 0.5, abs=0.01)
    assert np.abs(audio).max() == pytest.approx(10 ** (-6 / 20), rel=1e-4)
    assert audio[-1] == 0
    assert np.abs(audio[-220:]).max() < 1e-3
    assert (row["genre"], row["mode"], row["metre"], row["split"]) == ("jig", "major", "6/8", "train")
    assert row["artist"] in recipe.instruments
    assert row["notes_heard"] > 0.8
    assert "recording: CC0-1.0; soundfont: TimGM6mb.sf2 (GPL-2.0-only)" in row["license"]
    short, _ = render_song(tune, replace(recipe, longest=2.0), player)
    assert len(short) == 2 * 44100


def test_a_rendering_is_a_function_of_recipe_and_score_whatever_was_played_before(score, player):
    first, row = render_song(score(), SongRecipe(seed=3), player)
    render_song(score("other", "air", pitches=[60] * 20), SongRecipe(), player)
    again, same = render_song(score(), SongRecipe(seed=3), player)
    assert np.array_equal(first, again)
    assert row == same


def test_the_gain_of_a_song_is_a_multiple_of_the_step_and_never_above_its_peak(score, player):
    tune = score(pitches=[67, 69, 71, 72] * 3)
    exact, row = render_song(tune, SongRecipe(gain_step=0.0), player)
    stepped, _ = render_song(tune, SongRecipe(gain_step=3.0), player)
    notes = perform(tune, SongRecipe().performance(tune))
    played = player.play(notes, {0: INSTRUMENTS[row["artist"]].program}, 0.8, 300.0, 128)
    gain = 20 * np.log10(np.abs(stepped).max() / np.abs(played).max())
    assert gain / 3 == pytest.approx(round(gain / 3), abs=1e-4)
    assert -3 < 20 * np.log10(np.abs(stepped).max() / np.abs(exact).max()) <= 1e-4


@pytest.mark.parametrize("instrument", ["flute", "reed organ", "piano"])
def test_a_note_on_the_grid_sounds_the_same_again(player, instrument):
    program = {0: INSTRUMENTS[instrument].program}
    notes = [SoundingNote(start, start + 0.4, 69, 84) for start in (0.0, 3.0004)]
    audio = player.play(notes, program, tail=0.5, grid=128)
    second = round(3.0004 * 44100 / 128) * 128
    assert np.abs(audio[:22050]).max() > 1e-3
    np.testing.assert_allclose(audio[second : second + 22050], audio[:22050], atol=1e-5)


def test_a_recipe_plays_the_voices_it_names_from_the_top(chords):
    assert SongRecipe(voices=None).played(chords) == chords
    for voices in (1, 3):
        played = SongRecipe(voices=voices).played(chords)
        assert {note.voice for note in played.notes} == set(range(voices))
        assert set(played.notes) <= set(chords.notes)


@pytest.mark.parametrize(
    ("genre", "metre", "rows"), [("reel", (4, 4), 2), ("jig", (6, 8), 2), ("hornpipe", (4, 4), 3), ("air", (3, 4), 3)]
)
def test_with_a_grid_of_beats_a_kind_has_one_steady_tempo_and_its_beats_stand_on_the_grid(score, genre, metre, rows):
    recipe = SongRecipe(beat_grid=12288, human=0.0)
    tune = score("a-tune", genre, metre=metre, pitches=[60 + n % 12 for n in range(96)])
    assert {recipe.performance(tune, take).tempo for take in range(20)} == {60 * 44100 / 12288 / rows}
    beat = beat_quarters(tune)
    on_beats = [note for note in tune.notes if note.onset % beat == 0]
    assert len(on_beats) > 10
    started = {round(note.start * 44100) for note in perform(tune, recipe.performance(tune))}
    assert started >= {rows * round(note.onset / beat) * 12288 for note in on_beats}


def test_a_song_may_begin_with_its_first_whole_bar(score):
    tune = score("a-tune", "jig", metre=(6, 8), pitches=[60 + n % 12 for n in range(97)])
    unit = tune.notes[0].duration
    late = replace(tune, upbeat=unit)  # the first note stands before the first bar
    played = SongRecipe(from_first_bar=True).played(late)
    assert played.upbeat == 0
    assert [(note.onset, note.pitch) for note in played.notes] == [(n.onset - unit, n.pitch) for n in tune.notes[1:]]
    assert SongRecipe().played(late) == late
    again = SongRecipe(from_first_bar=True, shortest=60.0).played(late)
    bar = -(-late.quarters // 3.0) * 3.0
    assert [n.pitch for n in again.notes if n.onset == bar - unit] == [60]  # it is played before the second time


def test_a_steady_tempo_does_not_drift_but_notes_are_uneven(score):
    tune = score("a-tune", "air", metre=(4, 4), pitches=[60 + n % 12 for n in range(200)])
    written = perform(tune, Performance("piano", 0, 80, human=0.0))
    steady = perform(tune, Performance("piano", 0, 80, human=1.0, seed=3, steady=True))
    apart = [note.start - exact.start for note, exact in zip(steady, written, strict=True)]
    assert max(map(abs, apart)) < 0.0151  # what onsets scatter by, at most
    assert len(set(apart)) > 100


def test_short_scores_are_played_again_on_whole_bars(score):
    recipe, tune = SongRecipe(shortest=20.0), score("a-tune", "jig", metre=(6, 8), pitches=[60, 62, 64, 65] * 8)
    played, bar = recipe.played(tune), 3.0
    length = -(-tune.quarters // bar) * bar
    times = recipe.times(tune)
    assert times > 1
    assert times * tune.quarters / beat_quarters(tune) * 60 / 112 >= 20 > (times - 1) * tune.quarters / 1.5 * 60 / 112
    expected = [(note.onset + time * length, note.pitch) for time in range(times) for note in tune.notes]
    assert [(note.onset, note.pitch) for note in played.notes] == expected
    assert SongRecipe(shortest=1.0).played(tune) == SongRecipe().played(tune) == tune


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("genres", ("polka",)),
        ("instruments", ()),
        ("instruments", ("kazoo",)),
        ("voices", 0),
        ("voices", 5),
        ("transpositions", (3, -3)),
        ("transpositions", (-13, 0)),
        ("human", 1.5),
        ("scales", ("H",)),
        ("grid", 0),
        ("beat_grid", -1),
        ("shortest", -1.0),
        ("loudness_step", 21),
        ("gain_step", -1.0),
        ("sampling_rate", 4000),
        ("peak_decibels", 1.0),
        ("tail", -1.0),
        ("longest", 0.0),
    ],
)
def test_a_recipe_that_cannot_be_played_is_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        SongRecipe(**{field: value})


def test_a_plan_plays_rare_kinds_more_often_and_every_score_of_a_kind_equally(score):
    scores = [score(f"reel-{n}", "reel") for n in range(90)] + [score(f"march-{n}", "march") for n in range(10)]
    plan = plan_performances(scores, 100, balance=0.5)
    kinds = Counter(tune.genre for tune, _ in plan)
    assert kinds == {"reel": 75, "march": 25}
    takes = Counter(tune.name for tune, _ in plan if tune.genre == "march")
    assert set(takes.values()) <= {2, 3}
    assert len(set((tune.name, take) for tune, take in plan)) == 100
    assert plan == plan_performances(scores, 100)
    assert Counter(tune.genre for tune, _ in plan_performances(scores, 100, balance=0.0)) == {"reel": 90, "march": 10}


def test_an_unknown_collection_or_soundfont_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`collections`"):
        read_scores(["essen"])
    with pytest.raises(ValueError, match="`soundfont`"):
        soundfont_path(tmp_path / "none.sf2")


def test_a_file_that_is_no_soundfont_is_refused(tmp_path):
    pytest.importorskip("tinysoundfont")
    path = tmp_path / "noise.sf2"
    path.write_bytes(b"no soundfont")
    with pytest.raises(ValueError, match="`soundfont`.*cannot be read"):
        Player(path)
