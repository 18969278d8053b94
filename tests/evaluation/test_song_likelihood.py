import math

import pytest
import torch

from fast_jukebox.evaluation.likelihood import prior_likelihood, song_bits

RATE = 1600


def test_bits_are_those_of_the_songs_windows(tiny_model):
    songs = [0.3 * torch.randn(1100), 0.3 * torch.randn(700)]
    found = song_bits(tiny_model, songs, sampling_rate=RATE, max_windows=None)
    assert len(found) == 3
    for level, (prior, own) in enumerate(zip(tiny_model.priors, found, strict=True)):
        span = prior.config.n_ctx * prior.config.hop_length
        for number, song in enumerate(songs):
            codes = tiny_model.vqvae.encode(song[None, : len(song) // 16 * 16])
            windows = []
            for start in range(0, len(song) // 16 * 16 - span + 1, span):
                first = start // prior.config.hop_length
                window = {"codes": codes[level][0, first : first + prior.config.n_ctx]}
                if level < 2:
                    window["upper_codes"] = codes[level + 1][0, first // 2 : (first + prior.config.n_ctx) // 2]
                windows.append(window)
            expected = prior_likelihood(prior, windows)
            assert own.codes[number] == expected.codes
            assert float(own.bits[number]) == pytest.approx(expected.bits_per_code * expected.codes, rel=1e-5)
        estimate = own.estimate()
        assert estimate.value == pytest.approx(float(own.bits.sum() / own.codes.sum()))
        assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9


def test_few_windows_are_spread_over_the_songs(tiny_model):
    songs = [0.3 * torch.randn(1100) for _ in range(3)]
    found = song_bits(tiny_model, songs, sampling_rate=RATE, max_windows=3)
    assert all(len(own.bits) == 3 for own in found)
    assert math.isfinite(found[0].estimate().value)


def test_songs_shorter_than_a_context_are_refused(tiny_model):
    with pytest.raises(
        ValueError, match=r"at least 0.\d+ s, the context of the prior of level 0; the longest of 1 has 0.02"
    ):
        song_bits(tiny_model, [torch.zeros(40)], sampling_rate=RATE)
