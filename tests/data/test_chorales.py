"""Chorales are played as asked: these notes, in this key and tempo, at this level; and made once, whole, resumably."""

import io
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.io import load_audio
from fast_jukebox.data import chorales
from fast_jukebox.data.chorales import (
    GENERAL_MIDI_PROGRAMS,
    ChoraleRecipe,
    Performance,
    choose_performance,
    choose_split,
    play_midi,
    render_chorale,
    render_chorales,
    sounding_notes,
    write_midi,
)
from fast_jukebox.data.scanning import check_notes, check_sound
from fast_jukebox.data.scores import Chorale, NoChoraleError, ScoreNote


def tune(name="bwv999", pitches=((67, 62, 59, 43), (66, 62, 57, 50), (67, 59, 62, 43))):
    """Three chords of four voices, two quarters each; the alto repeats its note and crosses the tenor."""
    notes = [
        ScoreNote(2.0 * position, 2.0, pitch, voice)
        for position, chord in enumerate(pitches)
        for voice, pitch in enumerate(chord)
    ]
    return Chorale(name, "Three chords", 7, "major", tuple(notes))


@pytest.fixture
def synthesiser():
    for module in ("music21", "pretty_midi", "tinysoundfont"):
        pytest.importorskip(module)


@pytest.mark.usefixtures("synthesiser")
def test_the_midi_file_holds_the_notes_asked_for():
    import pretty_midi

    chorale, performance = tune(), Performance("church organ", 2, 90)
    midi = pretty_midi.PrettyMIDI(io.BytesIO(write_midi(chorale, performance)))
    assert len(midi.instruments) == 4
    assert {instrument.program for instrument in midi.instruments} == {GENERAL_MIDI_PROGRAMS["church organ"]}
    written = sorted((note.start, note.end, note.pitch) for part in midi.instruments for note in part.notes)
    wanted = sorted(sounding_notes(chorale, performance))
    assert len(written) == len(wanted)
    assert np.allclose(written, wanted, atol=2e-3)


@pytest.mark.usefixtures("synthesiser")
@pytest.mark.parametrize("instrument", GENERAL_MIDI_PROGRAMS)
def test_every_instrument_plays_the_notes_and_no_others(instrument):
    chorale, performance = tune(), Performance(instrument, -1, 80)
    audio = play_midi(write_midi(chorale, performance), 44100, tail=1.0)
    audio /= np.abs(audio).max()
    notes = sounding_notes(chorale, performance)
    wrong = [(start, end, pitch + 1) for start, end, pitch in notes]
    assert check_notes(audio, 44100, notes).heard >= 0.75
    assert check_notes(audio, 44100, wrong).heard <= 0.4
    sound = check_sound(audio)
    assert sound.click < 12
    assert sound.largest_jump < 0.4


@pytest.mark.usefixtures("synthesiser")
def test_a_rendering_has_the_length_level_and_end_of_its_recipe():
    recipe = ChoraleRecipe(bpm=(100, 100), tail=0.5, peak_decibels=-6.0, sampling_rate=22050)
    audio, row = render_chorale(tune(), recipe)
    assert audio.dtype == np.float32
    assert row["duration"] == pytest.approx(len(audio) / 22050, abs=1e-5)
    assert row["duration"] == pytest.approx(6 * 0.6 + 0.5, abs=0.01)
    assert np.abs(audio).max() == pytest.approx(10 ** (-6 / 20), rel=1e-4)
    assert audio[-1] == 0
    assert np.abs(audio[-220:]).max() < 1e-3
    assert (row["bpm"], row["mode"], row["catalogue"]) == (100, "major", "BWV 999")


@pytest.mark.usefixtures("synthesiser")
def test_a_rendering_is_a_function_of_recipe_and_song():
    first, row = render_chorale(tune(), ChoraleRecipe(seed=3))
    again, same = render_chorale(tune(), ChoraleRecipe(seed=3))
    assert np.array_equal(first, again)
    assert row == same


def test_a_recipe_plays_the_voices_it_names_from_the_top():
    chorale = tune()
    assert ChoraleRecipe().played(chorale) == chorale
    for voices in (1, 3):
        played = ChoraleRecipe(voices=voices).played(chorale)
        assert {note.voice for note in played.notes} == set(range(voices))
        assert set(played.notes) <= set(chorale.notes)


@settings(max_examples=50, deadline=None)
@given(name=st.text(max_size=8), seed=st.integers(0, 2**32))
def test_choices_are_within_the_recipe(name, seed):
    recipe = ChoraleRecipe(seed=seed)
    performance = choose_performance(name, recipe)
    assert performance == choose_performance(name, recipe)
    assert performance.instrument in recipe.instruments
    assert recipe.transpositions[0] <= performance.transposition <= recipe.transpositions[1]
    assert recipe.bpm[0] <= performance.bpm <= recipe.bpm[1]


def test_choices_vary_with_the_song_and_the_seed():
    recipe = ChoraleRecipe()
    chosen = [choose_performance(f"bwv{number}", recipe) for number in range(200)]
    assert {performance.instrument for performance in chosen} == set(recipe.instruments)
    assert {performance.transposition for performance in chosen} == set(range(-3, 4))
    assert chosen != [choose_performance(f"bwv{number}", ChoraleRecipe(seed=1)) for number in range(200)]


def test_about_eight_in_a_hundred_songs_are_held_out():
    splits = [choose_split(f"bwv{number}") for number in range(2000)]
    assert 0.06 < splits.count("test") / 2000 < 0.10
    assert set(splits) == {"train", "test"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instruments", ()),
        ("instruments", ("kazoo",)),
        ("voices", 0),
        ("voices", 5),
        ("transpositions", (3, -3)),
        ("transpositions", (-13, 0)),
        ("bpm", (90, 60)),
        ("bpm", (0, 60)),
        ("sampling_rate", 4000),
        ("peak_decibels", 1.0),
        ("tail", -1.0),
    ],
)
def test_a_recipe_that_cannot_be_played_is_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        ChoraleRecipe(**{field: value})


@pytest.mark.usefixtures("synthesiser")
@pytest.mark.parametrize("tracks", [b"", b"MTrk\x00\x00\x00\x04\x00\xff\x2f\x00"])
def test_midi_without_notes_is_refused(tracks):
    with pytest.raises(ValueError, match="midi"):
        play_midi(b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x00\x60" + tracks)


@pytest.fixture
def compilation(tmp_path, monkeypatch, synthesiser):
    """Renders four made-up scores: two good ones, the second's double, and one that cannot be read."""
    songs = {"bwv1": tune("bwv1"), "bwv2": tune("bwv2", ((60, 55, 52, 48),)), "bwv3": tune("bwv3", ((62, 57, 54, 50),))}
    reads = []

    def read(path):
        reads.append(path.stem)
        if path.stem == "bwv4":
            raise ZeroDivisionError("a bar of no length")
        if path.stem == "bwv5":
            raise NoChoraleError("bwv5 is no chorale")
        return songs[path.stem]

    monkeypatch.setattr(chorales, "read_chorale", read)
    recipe = ChoraleRecipe(instruments=("reed organ",), sampling_rate=16000)

    def render(recipe=recipe, **options):
        reads.clear()
        paths = [tmp_path / f"bwv{number}.mxl" for number in range(1, 6)]
        return render_chorales(tmp_path / "songs", recipe, paths=paths, progress=False, **options), list(reads)

    render.folder = tmp_path / "songs"
    return render


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def test_songs_that_fail_or_are_doubles_are_named_and_the_rest_is_made(compilation):
    report, _ = compilation()
    assert [song["file_name"] for song in report.songs] == ["bwv1.flac", "bwv2.flac"]
    assert report.rendered == 2
    assert report.skipped == {"bwv3": "has the notes of bwv2.flac", "bwv5": "bwv5 is no chorale"}
    assert report.failed == {"bwv4": "ZeroDivisionError: a bar of no length"}
    assert rows_of(compilation.folder) == report.songs
    for song in report.songs:
        info = soundfile.info(str(compilation.folder / song["file_name"]))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames / 16000 == pytest.approx(song["duration"], abs=1e-4)
        assert load_audio(compilation.folder / song["file_name"], 16000).abs().max() == pytest.approx(0.7079, abs=1e-3)
    assert report.seconds == pytest.approx(sum(song["duration"] for song in report.songs))


def test_finished_songs_are_kept_and_lost_ones_made_again(compilation):
    compilation()
    before = {path.name: path.read_bytes() for path in compilation.folder.iterdir()}
    report, reads = compilation()
    assert (report.rendered, "bwv1" in reads, "bwv2" in reads) == (0, False, False)
    (compilation.folder / "bwv1.flac").unlink()
    report, reads = compilation()
    assert (report.rendered, "bwv1" in reads, "bwv2" in reads) == (1, True, False)
    assert {path.name: path.read_bytes() for path in compilation.folder.iterdir()} == before


def test_another_recipe_makes_them_again(compilation):
    compilation()
    report, _ = compilation(ChoraleRecipe(seed=5, instruments=("voice",), sampling_rate=16000))
    assert report.rendered == 2
    assert all(song["instruments"] == ["voice"] for song in rows_of(compilation.folder))


def test_an_interrupted_rendering_goes_on_where_it_was(compilation, monkeypatch):
    real = chorales.save_audio

    def interrupted(path, *rest):
        if path.name == "bwv2.flac":
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(chorales, "save_audio", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compilation()
    assert sorted(path.name for path in compilation.folder.iterdir()) == ["bwv1.flac", "metadata.jsonl"]
    monkeypatch.setattr(chorales, "save_audio", real)
    report, reads = compilation()
    assert (report.rendered, len(report.songs), "bwv1" in reads) == (1, 2, False)


def test_a_limit_takes_the_first_scores_and_must_be_positive(compilation):
    report, reads = compilation(limit=1)
    assert reads == ["bwv1"]
    assert len(report.songs) == 1
    with pytest.raises(ValueError, match="limit"):
        compilation(limit=0)
