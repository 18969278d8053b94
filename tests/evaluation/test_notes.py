import math

import pytest
import torch

from fast_jukebox.evaluation.controls import chord, white_noise
from fast_jukebox.evaluation.notes import LOWEST_PITCH, find_notes, shortest_clip

RATE = 16000


def found_pitches(audio, rate=RATE):
    """Pitches that sound in most of the frames."""
    there = (find_notes(audio, rate).strength > 0).float().mean(dim=0)
    return [LOWEST_PITCH + index for index in range(len(there)) if there[index] > 0.5]


@pytest.mark.parametrize("pitch", [38, 43, 55, 60, 69, 81, 93])
def test_one_note_is_found_and_none_of_its_partials(pitch):
    assert found_pitches(chord([pitch], 2 * RATE, RATE)) == [pitch]


@pytest.mark.parametrize(
    "pitches",
    [
        [48, 55, 64, 72],  # C major, with an octave and a twelfth that lie on partials
        [45, 57, 60, 64],
        [50, 57, 65, 69],
        [43, 59, 62, 65],
    ],
)
def test_the_pitch_classes_of_a_chord_are_found(pitches):
    found = {pitch % 12 for pitch in found_pitches(chord(pitches, 2 * RATE, RATE))}
    assert found == {pitch % 12 for pitch in pitches}


def test_strength_follows_the_amplitude():
    audio = chord([60], 2 * RATE, RATE)
    loud, soft = find_notes(audio, RATE), find_notes(0.25 * audio, RATE)
    torch.testing.assert_close(soft.strength, 0.25 * loud.strength, rtol=1e-4, atol=1e-6)
    assert soft.tonal_clarity == pytest.approx(loud.tonal_clarity, rel=1e-4)


def test_silence_between_notes_does_not_sound():
    audio = torch.cat([chord([60], RATE, RATE), torch.zeros(2 * RATE), chord([64], RATE, RATE)])
    notes = find_notes(audio, RATE)
    middle = len(notes.sounding) // 2
    assert notes.sounding[0]
    assert not notes.sounding[middle]
    assert not notes.strength[middle].any()
    assert notes.noted_fraction > 0.9
    assert len(notes.sounding) == (4 * RATE - shortest_clip(RATE)) // (shortest_clip(RATE) // 4) + 1


def test_held_notes_are_clear_and_noise_is_not():
    tones, noise = chord([48, 64, 67], 4 * RATE, RATE), white_noise(4.0, RATE)
    assert find_notes(tones, RATE).tonal_clarity > 0.9
    assert find_notes(noise, RATE).tonal_clarity < 0.02
    assert find_notes(noise, RATE).noted_fraction < 0.2
    mixed = tones + noise * tones.square().mean().sqrt() / noise.square().mean().sqrt()
    assert 0.3 < find_notes(mixed, RATE).tonal_clarity < 0.7


def test_silence_has_no_notes_and_no_clarity():
    notes = find_notes(torch.zeros(RATE), RATE)
    assert not notes.strength.any()
    assert math.isnan(notes.tonal_clarity)
    assert math.isnan(notes.noted_fraction)


def test_audio_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="audio"):
        find_notes(torch.zeros(1, RATE), RATE)


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="audio"):
        find_notes(torch.zeros(RATE, dtype=torch.int16), RATE)


def test_audio_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="audio"):
        find_notes(torch.zeros(shortest_clip(RATE) - 1), RATE)


def test_low_sampling_rates_are_refused():
    with pytest.raises(ValueError, match="sampling_rate"):
        shortest_clip(4000)
