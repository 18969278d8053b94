"""Resampling is checked against sines in closed form, against torchaudio, and against itself in other cuts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.resample import resample_audio, resample_blocks


def sine(frequency, rate, seconds):
    return torch.sin(2 * math.pi * frequency * torch.arange(round(rate * seconds), dtype=torch.float64) / rate).float()


@pytest.mark.parametrize(
    ("source_rate", "sampling_rate"),
    [(48000, 44100), (22050, 44100), (44100, 8000), (8000, 44100), (192000, 44100), (1601, 1600), (1600, 1601)],
)
@pytest.mark.parametrize(("part", "error"), [(0.25, 1e-5), (0.4, 4e-4)])
def test_a_sine_below_the_cutoff_stays_the_same_sine(source_rate, sampling_rate, part, error):
    frequency = part * min(source_rate, sampling_rate)
    result = resample_audio(sine(frequency, source_rate, 1.0), source_rate, sampling_rate)
    assert len(result) == sampling_rate
    edge = sampling_rate // 8
    wanted = sine(frequency, sampling_rate, 1.0)
    assert (result - wanted)[edge:-edge].abs().max() < error


def test_a_sine_beyond_the_new_nyquist_frequency_disappears():
    result = resample_audio(sine(6000, 44100, 1.0), 44100, 8000)
    assert result[1000:-1000].abs().max() < 1e-6


def test_agrees_with_torchaudio_on_sound_below_its_cutoff():
    functional = pytest.importorskip("torchaudio.functional")
    audio = sum(sine(f, 48000, 0.5) / 5 for f in (60, 440, 1000, 5000, 12000))
    theirs = functional.resample(
        audio, 48000, 44100, lowpass_filter_width=48, rolloff=0.95, resampling_method="sinc_interp_kaiser", beta=10.0
    )
    ours = resample_audio(audio, 48000, 44100)
    assert ours.shape == theirs.shape
    assert (ours - theirs)[200:-200].abs().max() < 3e-5


@settings(max_examples=40, deadline=None)
@given(
    rates=st.sampled_from([(48000, 44100), (44100, 48000), (8000, 44100), (44100, 8000), (3, 7), (7, 3), (1, 1)]),
    lengths=st.lists(st.integers(0, 900), max_size=8),
)
def test_blocks_concatenated_equal_the_whole(rates, lengths):
    blocks = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in lengths]
    whole = torch.cat([torch.zeros(0), *blocks])
    result = torch.cat([torch.zeros(0), *resample_blocks(blocks, *rates)])
    wanted = resample_audio(whole, *rates)
    assert len(result) == len(wanted) == math.ceil(len(whole) * rates[1] / rates[0])
    assert torch.equal(result, wanted)


def test_equal_rates_give_the_same_audio():
    audio = torch.rand(10)
    assert resample_audio(audio, 44100, 44100) is audio


def test_integers_are_refused():
    with pytest.raises(ValueError, match="audio"):
        resample_audio(torch.zeros(5, dtype=torch.int64), 44100, 22050)


@pytest.mark.parametrize("rate", [0, -1, 1.5, True, 10**7])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="source_rate"):
        resample_audio(torch.zeros(5), rate, 22050)
    with pytest.raises(ValueError, match="sampling_rate"):
        resample_audio(torch.zeros(5), 22050, rate)
