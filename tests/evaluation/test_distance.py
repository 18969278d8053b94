import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.distance import (
    Estimate,
    bootstrap,
    bootstrap_mean,
    estimate,
    frechet_distance,
    frechet_statistic,
    kernel_distance,
    kernel_statistic,
    median_distance,
    real_floor,
    tag_divergence,
)


def normal(count: int, width: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(count, width, generator=generator, dtype=torch.float64)


def whitened(windows: torch.Tensor) -> torch.Tensor:
    """The same cloud, with mean 0 and covariance 1 exactly."""
    centred = windows - windows.mean(dim=0)
    covariance = centred.T @ centred / (len(windows) - 1)
    return centred @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    first = whitened(normal(400, 3, 0))
    scales = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    second = whitened(normal(300, 3, 1)) * scales + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    expected = 1 + 4 + 0.25 + float((1 - scales).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_covariances_that_do_not_commute_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    first, second = normal(50, 4, 0) @ normal(4, 4, 1), normal(60, 4, 2) @ normal(4, 4, 3) + 1
    covariances = [np.cov(windows.numpy(), rowvar=False) for windows in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    gap = (first.mean(0) - second.mean(0)).numpy()
    expected = gap @ gap + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)


def test_shrinkage_is_that_of_scikit_learn():
    covariance = pytest.importorskip("sklearn.covariance")
    first, second = normal(8, 5, 0) * torch.arange(1, 6), normal(9, 5, 1, mean=1.0)
    estimates = []
    for windows in (first, second):
        amount = covariance.ledoit_wolf_shrinkage(windows.numpy())
        own = np.cov(windows.numpy(), rowvar=False)
        estimates.append((1 - amount) * own + amount * np.trace(own) / 5 * np.eye(5))
    linalg = pytest.importorskip("scipy.linalg")
    gap = (first.mean(0) - second.mean(0)).numpy()
    expected = gap @ gap + np.trace(sum(estimates) - 2 * linalg.sqrtm(estimates[0] @ estimates[1]).real)
    assert frechet_distance(first, second, shrinkage=True) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_distances_are_symmetric_and_the_frechet_distance_to_oneself_is_zero(seed, width):
    first, second = normal(20, width, seed), normal(17, width, seed + 1, mean=0.5, scale=2.0)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-7)
    distances = [kernel_distance(*pair, bandwidth=1.5) for pair in ((first, second), (second, first))]
    assert distances[0] == pytest.approx(distances[1], rel=1e-9)


def test_the_kernel_distance_is_the_double_sum():
    first, second = normal(6, 3, 0), normal(5, 3, 1, mean=1.0)
    own = [[math.exp(-float((a - b).square().sum()) / 2 / 1.3**2) for b in first] for a in first]
    other = [[math.exp(-float((a - b).square().sum()) / 2 / 1.3**2) for b in second] for a in second]
    across = [[math.exp(-float((a - b).square().sum()) / 2 / 1.3**2) for b in second] for a in first]
    expected = sum(own[i][j] for i in range(6) for j in range(6) if i != j) / 30
    expected += sum(other[i][j] for i in range(5) for j in range(5) if i != j) / 20
    expected -= 2 * sum(map(sum, across)) / 30
    assert kernel_distance(first, second, bandwidth=1.3) == pytest.approx(expected, rel=1e-12)


def test_the_kernel_distance_is_unbiased():
    values = [
        kernel_distance(normal(10, 2, 2 * seed), normal(10, 2, 2 * seed + 1), bandwidth=1.0) for seed in range(300)
    ]
    found = torch.tensor(values)
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(300)
    assert float(found.min()) < 0


def test_the_bandwidth_is_the_references_median_alone():
    reference = torch.tensor([[0.0], [1.0], [3.0]])
    assert median_distance(reference) == pytest.approx(2.0)
    far = normal(10, 1, 0, mean=50.0)
    assert kernel_distance(far, reference) == pytest.approx(kernel_distance(far, reference, bandwidth=2.0))


def test_the_tag_divergence_is_the_closed_form_and_zero_for_equals():
    samples, reference = torch.tensor([[0.5, 0.9], [0.1, 0.7]]), torch.tensor([[0.6, 0.8]])
    expected = (0.3 * math.log2(0.3 / 0.6) + 0.7 * math.log2(0.7 / 0.4)) / 2
    assert tag_divergence(samples, reference) == pytest.approx(expected, rel=1e-6)
    assert tag_divergence(samples, samples.flip(0)) == 0.0
    assert math.isfinite(tag_divergence(torch.ones(2, 2), torch.zeros(2, 2)))


def test_more_noise_is_a_larger_distance():
    reference, others = normal(300, 4, 0), normal(200, 4, 1)
    ladder = [others + noise * normal(200, 4, 2) for noise in (0.0, 0.5, 1.0, 2.0, 4.0)]
    for measure in (frechet_distance, kernel_distance):
        found = [measure(windows, reference) for windows in ladder]
        assert found == sorted(found)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, tag_divergence])
def test_bad_sets_are_refused(measure):
    good = torch.rand(20, 3)
    with pytest.raises(ValueError, match="`samples` of .* must be finite"):
        measure(torch.full((20, 3), float("nan")), good)
    with pytest.raises(ValueError, match="equally wide, got 2 and 3"):
        measure(torch.rand(20, 2), good)
    with pytest.raises(ValueError, match=r"`reference` of .* shape \(windows, D\)"):
        measure(good, torch.zeros(0, 3))


def test_too_few_windows_are_refused_or_shrunk():
    few, many = torch.rand(3, 3), torch.rand(20, 3)
    with pytest.raises(ValueError, match="`samples` must hold more windows than the 3 dimensions"):
        frechet_distance(few, many)
    with pytest.raises(ValueError, match="`reference` must hold more windows"):
        frechet_distance(many, few)
    assert frechet_distance(few, many, shrinkage=True) > 0
    assert math.isfinite(frechet_distance(few[:1], many, shrinkage=True))
    with pytest.raises(ValueError, match="`samples` must hold from 2 to"):
        kernel_distance(few[:1], many)


def test_a_reference_of_silence_has_no_bandwidth():
    with pytest.raises(ValueError, match="silence"):
        kernel_distance(torch.rand(4, 3), torch.zeros(5, 3))


def test_probabilities_are_asked_for():
    with pytest.raises(ValueError, match="`reference` must be probabilities"):
        tag_divergence(torch.rand(3, 2), torch.rand(3, 2) + 1)


def test_a_song_that_counts_twice_is_the_song_given_twice_but_for_pairs_with_itself():
    samples, reference = normal(4, 2, 0), normal(6, 2, 1)
    statistic = kernel_statistic(samples, reference, 1.0)
    doubled = statistic(torch.tensor([2.0, 1, 1, 1], dtype=torch.float64))
    kernel = torch.exp(-torch.cdist(samples, samples).square() / 2).fill_diagonal_(0)
    repeated = kernel[[0, 0, 1, 2, 3]][:, [0, 0, 1, 2, 3]]
    across = torch.exp(-torch.cdist(samples[[0, 0, 1, 2, 3]], reference).square() / 2).mean()
    within = torch.exp(-torch.cdist(reference, reference).square() / 2).fill_diagonal_(0).sum() / 30
    assert doubled == pytest.approx(float(repeated.sum() / 18 + within - 2 * across))


def test_the_bootstrap_of_a_mean_has_the_width_that_theory_gives():
    values = normal(200, 1, 0)[:, 0]
    found = bootstrap(lambda weights: float(weights @ values / weights.sum()), range(200), resamples=2000)
    error = float(values.std()) / math.sqrt(200)
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.08)


def test_windows_of_one_song_move_together():
    of_song = normal(20, 1, 0).repeat_interleave(10, dim=0)[:, 0]
    songs = torch.arange(20).repeat_interleave(10)

    def mean(weights):
        return float(weights @ of_song / weights.sum())

    by_song, by_window = bootstrap(mean, songs), bootstrap(mean, range(200))
    assert by_song.high - by_song.low > 2 * (by_window.high - by_window.low)
    again = bootstrap(mean, songs)
    assert torch.equal(by_song.resamples, again.resamples)


def test_a_single_song_has_no_interval():
    found = bootstrap(lambda weights: 1.0, [7, 7, 7])
    assert found.value == 1.0
    assert math.isnan(found.low) and math.isnan(found.high)


def test_two_songs_of_one_window_have_no_interval_of_what_needs_pairs_of_windows():
    found = bootstrap(kernel_statistic(normal(2, 3, 0), normal(9, 3, 1)), range(2), centred=True)
    assert math.isfinite(found.value)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize(("songs", "least"), [(4, 0.82), (8, 0.9), (30, 0.92)])
def test_intervals_of_few_songs_hold_the_mean_nearly_as_often_as_they_say(songs, least):
    draws = torch.rand(400, songs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = [found.low <= 0.5 <= found.high for found in (bootstrap_mean(row, 100, n) for n, row in enumerate(draws))]
    assert least <= sum(held) / len(held) <= 0.98


def test_intervals_of_a_distance_hold_what_so_many_songs_get_on_average():
    reference = normal(60, 6, 0)
    found = [
        bootstrap(
            frechet_statistic(normal(10, 6, seed, mean=0.5), reference), range(10), 60, seed, centred=True, least=0.0
        )
        for seed in range(1, 101)
    ]
    average = sum(each.value for each in found) / len(found)
    assert sum(each.low <= average <= each.high for each in found) >= 90
    assert all(each.low <= each.value <= each.high for each in found)


def test_the_interval_of_what_cannot_be_negative_begins_at_zero_at_the_lowest():
    values = torch.tensor([0.0, 0.0, 0.0, 0.3], dtype=torch.float64)
    mean = bootstrap_mean(values)
    assert mean.low == 0.0  # a mean is that of some of the songs, and needs no bound
    songs = torch.tensor([-1.0, 0.2, 0.5, 0.9], dtype=torch.float64)

    def squared_distance(weights):
        return float(weights @ songs / weights.sum()) ** 2

    free, bounded = (bootstrap(squared_distance, range(4), centred=True, least=least) for least in (-math.inf, 0.0))
    assert free.low < 0 == bounded.low
    assert bounded.high == free.high > bounded.value
    gap = bounded.minus(bounded)
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_a_difference_has_the_interval_of_the_differences():
    first = estimate(3.0, torch.linspace(2, 4, 101, dtype=torch.float64), 1000)
    second = estimate(1.0, torch.ones(101, dtype=torch.float64), 1000)
    gap = first.minus(second)
    assert isinstance(gap, Estimate)
    assert (gap.value, gap.low, gap.high) == pytest.approx((2.0, 1.05, 2.95), abs=1e-3)
    assert first.minus(estimate(1.0, second.resamples, 5)).low == pytest.approx(1.0, abs=3e-3)  # few songs, wide tails


def test_the_floor_is_small_and_falls_with_the_number_of_songs():
    songs = torch.arange(60).repeat_interleave(5)
    windows = normal(60, 3, 0).repeat_interleave(5, dim=0) + 0.3 * normal(300, 3, 1)
    few, many = (real_floor(frechet_distance, windows, songs, count) for count in (4, 30))
    assert 0 < many.value < few.value < frechet_distance(windows + 3, windows)
    assert few.songs == 4
    assert real_floor(frechet_distance, windows, songs, 500).songs == 30
    assert math.isnan(real_floor(frechet_distance, windows[:10], songs[:10], 5).value)
