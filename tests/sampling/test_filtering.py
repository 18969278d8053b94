import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.sampling.checks import SamplingSettings, check_seed, fresh_seed
from fast_jukebox.sampling.drawing import draw_codes, filter_top_k_top_p, philox, uniform_noise


def chi_square(counts, expected):
    counts, expected = np.asarray(counts, dtype=float), np.asarray(expected, dtype=float)
    return ((counts - expected) ** 2 / expected).sum()


def chi_square_limit(freedom):
    """Five standard deviations above the mean of the chi-square distribution."""
    return freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_published_test_vectors(counter, key, expected):
    assert philox(counter, key) == expected
    tensors = philox(tuple(torch.tensor([word]) for word in counter), tuple(torch.tensor([word]) for word in key))
    assert tuple(int(word) for word in tensors) == expected


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 5),
    st.integers(0, 2**40),
    st.integers(0, 5),
    st.integers(1, 8),
)
def test_noise_is_a_function_of_seed_song_level_and_position(seed, song, level, start, skip, length):
    alone = uniform_noise(seed, [song], level, start, length)
    assert alone.dtype == torch.float32
    assert alone.shape == (1, length)
    assert (0 <= alone).all()
    assert (alone < 1).all()
    batch = uniform_noise([seed, 1, seed], [(song + 1) % 2**32, song, song], level, start, length)
    torch.testing.assert_close(batch[2:], alone, rtol=0, atol=0)
    longer = uniform_noise(seed, [song], level, max(start - skip, 0), length + 9)
    torch.testing.assert_close(longer[:, start - max(start - skip, 0) :][:, :length], alone, rtol=0, atol=0)
    expected = philox((start & 0xFFFFFFFF, song, level, start >> 32), (seed & 0xFFFFFFFF, seed >> 32))[0] >> 8
    assert float(alone[0, 0]) == expected / 2**24


def test_noise_neither_reads_nor_moves_a_generator():
    before = torch.random.get_rng_state()
    first = uniform_noise(3, [0], 0, 0, 50)
    torch.manual_seed(123)
    second = uniform_noise(3, [0], 0, 0, 50)
    torch.random.set_rng_state(before)
    assert torch.equal(first, second)


def test_noise_is_uniform():
    noise = uniform_noise(11, range(20), 2, 0, 10_000).numpy().ravel()
    counts, _ = np.histogram(noise, bins=1000, range=(0, 1))
    assert chi_square(counts, [noise.size / 1000] * 1000) < chi_square_limit(999)
    low_bits = (noise * 2**24).astype(np.int64) % 256  # the last bits are as random as the first
    assert chi_square(np.bincount(low_bits, minlength=256), [noise.size / 256] * 256) < chi_square_limit(255)


@pytest.mark.parametrize("what", ["positions", "songs", "levels", "seeds", "far seeds"])
def test_neighbours_are_independent(what):
    size = 40_000
    first = uniform_noise(5, [0], 0, 0, size)
    second = {
        "positions": lambda: uniform_noise(5, [0], 0, 1, size),
        "songs": lambda: uniform_noise(5, [1], 0, 0, size),
        "levels": lambda: uniform_noise(5, [0], 1, 0, size),
        "seeds": lambda: uniform_noise(6, [0], 0, 0, size),
        "far seeds": lambda: uniform_noise(5 + 2**32, [0], 0, 0, size),
    }[what]()
    counts, _, _ = np.histogram2d(first[0].numpy(), second[0].numpy(), bins=16, range=[[0, 1], [0, 1]])
    assert chi_square(counts.ravel(), [size / 256] * 256) < chi_square_limit(255)


@given(st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 1.7]), st.sampled_from([0, 3]), st.sampled_from([0.6, 1.0]))
def test_draw_inverts_the_cumulative_distribution(seed, temperature, top_k, top_p):
    torch.manual_seed(seed)
    settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
    logits, uniform = 2 * torch.randn(5, 7), torch.rand(5)
    codes = draw_codes(logits, uniform, settings)
    assert codes.dtype == torch.int64
    kept = filter_top_k_top_p(logits / temperature, top_k, top_p).double().softmax(-1)
    for row in range(5):
        total, found = 0.0, None
        for code in range(7):
            total += float(kept[row, code])
            if found is None and total > float(uniform[row]) + 1e-6:
                found = code
        near = abs(float(kept[row].cumsum(0)[codes[row]]) - float(uniform[row])) < 1e-5
        assert codes[row] == found or near


def test_draws_follow_the_probabilities():
    torch.manual_seed(0)
    logits = torch.randn(1, 12) * 2
    settings = SamplingSettings(temperature=1.3)
    size = 50_000
    codes = draw_codes(logits.expand(size, -1), uniform_noise(1, [0], 0, 0, size)[0], settings)
    expected = (logits[0] / 1.3).softmax(-1) * size
    counts = torch.bincount(codes, minlength=12)
    assert chi_square(counts, expected) < chi_square_limit(11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_code_without_probability_is_never_drawn(dtype):
    logits = torch.full((3, 2000), -1e4)
    logits[0, 7] = logits[1, 1999] = 0.0  # everything before, everything after
    logits[2, 100:200] = torch.randn(100)
    for uniform in (0.0, 1e-7, 0.5, 1 - 2**-24):
        codes = draw_codes(logits.to(dtype), torch.full((3,), uniform), SamplingSettings())
        assert codes[0] == 7
        assert codes[1] == 1999
        assert 100 <= codes[2] < 200


def test_the_largest_noise_never_leaves_the_codebook():
    torch.manual_seed(0)
    logits = torch.randn(500, 2048) * torch.linspace(0.01, 20, 500).unsqueeze(1)
    logits[:, 1500:] = -1e9
    codes = draw_codes(logits, torch.full((500,), 1 - 2**-24), SamplingSettings())
    assert (codes < 1500).all()
    assert (logits.softmax(-1).gather(1, codes[:, None]) > 0).all()


def test_a_cumulative_sum_that_dips_does_no_harm(monkeypatch):
    logits = torch.log(torch.tensor([[0.5, 1e-30, 0.5, 1e-30]])).masked_fill(torch.tensor([0, 1, 0, 1]).bool(), -1e9)
    dipping = torch.tensor([[0.5, 0.50001, 0.9999, 1.0]])  # rises where nothing was added
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda self, dim: dipping.clone())
    for uniform in (0.0, 0.4, 0.50001, 0.7, 1 - 2**-24):
        assert draw_codes(logits, torch.tensor([uniform]), SamplingSettings()) in (0, 2)


def test_greedy_takes_the_most_probable():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    assert draw_codes(logits, torch.zeros(2), SamplingSettings(do_sample=False)).tolist() == [1, 0]


def test_top_k_and_top_p_keep_what_they_say():
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    assert filter_top_k_top_p(logits, top_k=2).isfinite().tolist() == [[False, True, False, True]]
    assert filter_top_k_top_p(logits, top_k=9).isfinite().all()
    assert filter_top_k_top_p(logits, top_p=0.65).isfinite().tolist() == [[False, True, False, True]]
    assert filter_top_k_top_p(logits, top_p=0.75).isfinite().tolist() == [[False, True, True, True]]
    assert filter_top_k_top_p(logits, top_p=1e-9).isfinite().tolist() == [[False, True, False, False]]
    # top_p is of what top_k leaves: 0.4 of 0.7 is above a half.
    assert filter_top_k_top_p(logits, top_k=2, top_p=0.55).isfinite().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "warm"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("do_sample", 1),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        SamplingSettings(**{name: value})


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match="seed"):
        check_seed(seed)


def test_a_seed_for_each_song_or_one_for_all():
    with pytest.raises(ValueError, match="seeds"):
        uniform_noise([1, 2], [0, 0, 0], 0, 0, 4)


def test_fresh_seeds_differ_and_survive_json():
    seeds = {fresh_seed() for _ in range(50)}
    assert len(seeds) == 50
    assert all(check_seed(seed) < 2**53 for seed in seeds)
