"""The checks of a rendering find what is put into it: spikes, and notes that are or are not there."""

import numpy as np
import pytest

from fast_jukebox.data.tunes.listening import check_notes, check_sound

RATE = 16000


def chord(pitches, seconds=1.0, noise=0.0):
    time = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    tones = [
        np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * partial * time) / partial
        for pitch in pitches
        for partial in (1, 2, 3)
    ]
    audio = 0.2 * np.sum(tones, axis=0) + noise * rng.standard_normal(len(time))
    return (audio / max(1.0, np.abs(audio).max())).astype(np.float32)


def test_measures_of_a_sine_are_its_closed_forms():
    time = np.arange(RATE) / RATE
    check = check_sound(0.5 * np.sin(2 * np.pi * 100 * time))
    assert check.peak == pytest.approx(0.5, abs=1e-4)
    assert check.rms == pytest.approx(0.5 / np.sqrt(2), abs=1e-4)
    assert check.largest_jump == pytest.approx(0.5 * 2 * np.sin(np.pi * 100 / RATE), abs=1e-4)
    assert check.click < 2


def test_one_wrong_sample_is_a_click_and_a_jump():
    audio = chord([60, 64, 67])
    clean = check_sound(audio)
    audio[5000] = -0.9
    spiked = check_sound(audio)
    assert clean.click < 6
    assert spiked.click > 12
    assert spiked.largest_jump > 0.5 > clean.largest_jump


def test_silence_and_very_short_sounds_are_measured_too():
    assert check_sound(np.zeros(2000)).click == 0
    assert check_sound(np.array([0.5])).peak == 0.5


def test_notes_that_sound_are_heard():
    pitches = [50, 57, 62, 66]
    notes = [(0.0, 1.0, pitch) for pitch in pitches]
    check = check_notes(chord(pitches, noise=0.01), RATE, notes)
    assert check.count == 4
    assert check.heard == 1.0
    assert check.heard_elsewhere < 0.35


@pytest.mark.parametrize("shift", [-1, 1])
def test_notes_that_do_not_sound_are_not_heard(shift):
    pitches = [50, 57, 62, 66]
    notes = [(0.0, 1.0, pitch + shift) for pitch in pitches]
    assert check_notes(chord(pitches, noise=0.01), RATE, notes).heard <= 0.25


def test_notes_too_short_to_tell_their_pitch_are_not_counted():
    assert check_notes(chord([40]), RATE, [(0.0, 0.1, 40)]).count == 0
