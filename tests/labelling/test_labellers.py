"""Labels are what can be heard, and nothing where nothing can: noise and silence have neither key nor tempo."""

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.evaluation.controls import chord, white_noise
from fast_jukebox.labelling import KeyLabeller, TagLabeller, TempoLabeller
from fast_jukebox.labelling.labellers import fold_tempo, load_labeller

RATE = 22050


def chords(*pitches, seconds=1.0):
    """Chords of held notes, one after the other."""
    return torch.cat([chord(list(each), int(seconds * RATE), RATE) for each in pitches])


def clicks(bpm, seconds=12.0):
    """A short burst of noise on every beat."""
    audio = torch.zeros(int(seconds * RATE))
    burst = torch.randn(400, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 400)
    for beat in range(int(seconds * bpm / 60)):
        start = int(beat * 60 / bpm * RATE)
        audio[start : start + 400] += 0.5 * burst[: len(audio) - start]
    return audio


TONIC, FOURTH, FIFTH = (60, 64, 67), (60, 65, 69), (59, 62, 67)


@pytest.mark.parametrize(("shift", "key"), [(0, "C major"), (2, "D major"), (7, "G major")])
def test_a_cadence_is_in_its_key(shift, key):
    cadence = [tuple(pitch + shift for pitch in chord) for chord in (TONIC, FOURTH, TONIC, FIFTH, TONIC, TONIC)]
    assert KeyLabeller()(chords(*cadence), RATE) == {"key": key}


def test_a_minor_cadence_is_minor():
    minor = [(57, 60, 64), (57, 62, 65), (56, 59, 64), (57, 60, 64), (57, 60, 64)]
    assert KeyLabeller()(chords(*minor), RATE) == {"key": "A minor"}


def test_a_key_that_is_hardly_ahead_is_none():
    """All twelve pitch classes alike are in no key, and neither is anything less than `lead` ahead."""
    chromatic = chords(*[(pitch,) for pitch in range(60, 72)], seconds=0.8)
    assert KeyLabeller()(chromatic, RATE) == {}
    assert KeyLabeller(lead=2.0)(chords(TONIC, FOURTH, FIFTH, TONIC), RATE) == {}


def test_clicks_have_a_tempo_and_its_octave_is_folded():
    pytest.importorskip("libsonare")
    for bpm in (84, 168):
        assert TempoLabeller()(clicks(bpm), RATE)["bpm"] == pytest.approx(84, rel=0.02)
    assert TempoLabeller(centre=170)(clicks(84), RATE)["bpm"] == pytest.approx(168, rel=0.02)


@given(st.floats(1, 1000), st.floats(20, 400))
def test_a_folded_tempo_is_nearest_in_octaves(bpm, centre):
    found = fold_tempo(bpm, centre)
    assert math.log2(found / bpm) == pytest.approx(round(math.log2(found / bpm)), abs=1e-9)
    assert centre / math.sqrt(2) * (1 - 1e-9) <= found <= centre * math.sqrt(2) * (1 + 1e-9)


def labellers():
    yield KeyLabeller()
    yield TagLabeller()
    if pytest.importorskip("libsonare"):
        yield TempoLabeller()


@pytest.mark.parametrize("seed", [0, 1])
def test_white_noise_has_no_labels(seed):
    noise = white_noise(12.0, RATE, seed)
    assert [dict(labeller(noise, RATE)) for labeller in labellers()] == [{}, {}, {}]


@pytest.mark.parametrize("samples", [0, 1, 2000, 8 * RATE])
def test_silence_of_any_length_has_no_key_and_no_tempo(samples):
    silence = torch.zeros(samples)
    assert KeyLabeller()(silence, RATE) == {}
    assert TempoLabeller()(silence, RATE) == {}


def test_a_clip_that_is_shorter_than_a_window_has_no_tags():
    assert TagLabeller(0.01)(chords(TONIC), RATE) == {}


def test_tags_become_words_that_they_stand_for():
    found = TagLabeller(0.05)(chords(TONIC, FOURTH, FIFTH, TONIC), RATE)
    assert set(found) <= {"instrument", "genre", "moods"} and found["genre"]
    assert len(found["instrument"].split(", ")) <= 3
    lower = TagLabeller(0.001)(chords(TONIC, FOURTH, FIFTH, TONIC), RATE)
    assert lower["genre"] == found["genre"]  # the most probable one, whatever the threshold
    assert len(lower["moods"]) == 3


def test_a_labeller_travels_without_its_networks():
    labeller = TagLabeller(0.05)
    sound = chords(TONIC, FOURTH, FIFTH, TONIC)
    expected = labeller(sound, RATE)
    pickled = pickle.dumps(labeller)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)(sound, RATE) == expected


class Mine:
    name = "mine"

    def __call__(self, audio, sampling_rate):
        return {}


def test_labellers_have_names_and_plugs_a_place():
    assert load_labeller("key").lead == 0.08
    assert load_labeller(f"{__name__}:Mine").name == "mine"
    for wrong in ("loudness", "no_such_module:Name", f"{__name__}:Nobody"):
        with pytest.raises(ValueError, match="`labeller` must be key, tempo, tags or MODULE:NAME"):
            load_labeller(wrong)
    with pytest.raises(ValueError, match="has a `name`"):
        load_labeller("collections:Counter")


def test_a_missing_libsonare_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "libsonare", None)
    with pytest.raises(ImportError, match=r'pip install "fast-jukebox\[labels\]"'):
        TempoLabeller()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeyLabeller(-1), "`lead` must be in"),
        (lambda: TempoLabeller(0), "`centre` must be from 20"),
        (lambda: TempoLabeller(100, 2), "`confidence` must be in"),
        (lambda: TagLabeller(1.0), "`threshold` must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
