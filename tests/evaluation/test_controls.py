import pytest
import torch

from fast_jukebox.evaluation.controls import chord, random_notes, white_noise

RATE = 8000


def test_noise_is_white_and_depends_on_its_seed():
    noise = white_noise(4.0, RATE)
    assert noise.shape == (4 * RATE,)
    assert float(noise.square().mean().sqrt()) == pytest.approx(0.1, rel=0.02)
    spectrum = torch.fft.rfft(noise).abs().square()
    low, high = float(spectrum[1:8001].mean()), float(spectrum[8001:].mean())
    assert low == pytest.approx(high, rel=0.1)
    assert torch.equal(noise, white_noise(4.0, RATE))
    assert not torch.equal(noise, white_noise(4.0, RATE, seed=1))


def test_a_note_has_its_partials_and_fades_at_both_ends():
    note = chord([69], RATE, RATE)
    spectrum = torch.fft.rfft(note).abs()
    assert spectrum.topk(3).indices.sort().values.tolist() == [440, 880, 1320]
    assert note.abs().max() < 1
    assert note[0] == 0
    assert note[-1] == 0


def test_partials_above_half_the_rate_are_left_out():
    high = chord([105], RATE, RATE)  # 3520 Hz
    assert torch.fft.rfft(high).abs().argmax() == 3520
    assert torch.fft.rfft(high).abs()[:3400].max() < 1


def test_random_notes_are_of_the_pitch_classes_asked_for():
    audio = random_notes(2.0, RATE, pitch_classes=[9], voices=2)
    assert audio.shape == (2 * RATE,)
    assert audio.abs().max() < 1
    spectrum = torch.fft.rfft(audio[2 * RATE - 3200 :]).abs()
    frequency = float(spectrum.argmax()) * RATE / 3200
    octave = torch.tensor(frequency / 55.0).log2()
    assert abs(float(octave - octave.round())) < 0.05
    assert not torch.equal(random_notes(1.0, RATE, 0), random_notes(1.0, RATE, 1))
