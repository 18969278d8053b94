"""Distances between sets of songs, from embeddings of their windows, with intervals by a bootstrap over songs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

_MOST_WINDOWS = 20_000
_BANDWIDTH_WINDOWS = 2_000

Statistic = Callable[[Tensor], float]
"""A number as a function of one weight (n,) for each window of the set that is judged."""


def frechet_distance(samples: Tensor, reference: Tensor, *, shrinkage: bool = False) -> float:
    """Frechet distance between Gaussians fitted to two sets (Heusel et al. 2017, Eq. 6; Kilgour et al. 2019).

    Args:
        samples: float (n, D), a row a window.
        reference: float (m, D).
        shrinkage: shrink both covariances towards a multiple of the identity by the amount of Ledoit and Wolf (2004),
            which allows fewer windows than dimensions. Not comparable with distances made without it.

    Returns:
        The squared distance, at least 0, computed in float64.

    Raises:
        ValueError: sets of different width, values that are not finite, or without `shrinkage` as many dimensions as
            windows or more.
    """
    samples, reference = checked_sets(samples, reference, "frechet_distance")
    return frechet_statistic(samples, reference, shrinkage)(torch.ones(len(samples), dtype=torch.float64))


def kernel_distance(samples: Tensor, reference: Tensor, *, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, Eq. 3).

    Args:
        samples: float (n, D), a row a window, at least 2.
        reference: float (m, D), at least 2.
        bandwidth: standard deviation of the kernel; by default the median distance between windows of the reference,
            so that the yardstick does not depend on what is measured.

    Returns:
        The discrepancy, computed in float64. It is unbiased: of two samples of one distribution its mean is 0, so it
        may be slightly negative. Published values are often multiplied by 100.

    Raises:
        ValueError: sets of different width, values that are not finite, fewer than 2 windows, or a reference whose
            windows are all equal.
    """
    samples, reference = checked_sets(samples, reference, "kernel_distance")
    return kernel_statistic(samples, reference, bandwidth)(torch.ones(len(samples), dtype=torch.float64))


def tag_divergence(samples: Tensor, reference: Tensor) -> float:
    """Kullback-Leibler divergence from the reference's mean tag probabilities to the samples', in bits a tag.

    Each tag is a yes-or-no variable; the divergence is averaged over the tags.

    Args:
        samples: probabilities (n, K), a row a window.
        reference: probabilities (m, K).

    Raises:
        ValueError: sets of different width, or values outside [0, 1].
    """
    samples, reference = checked_sets(samples, reference, "tag_divergence")
    return tag_statistic(samples, reference)(torch.ones(len(samples), dtype=torch.float64))


def frechet_statistic(samples: Tensor, reference: Tensor, shrinkage: bool = False) -> Statistic:
    """[`frechet_distance`] as a function of the samples' weights; the reference's part is computed once."""
    dimensions = samples.shape[1]
    for name, windows in (("samples", samples), ("reference", reference)):
        if not shrinkage and len(windows) <= dimensions:
            raise ValueError(
                f"`{name}` must hold more windows than the {dimensions} dimensions of the embedding, got "
                f"{len(windows)}: pass more or longer songs, or shrinkage=True, or take the kernel distance"
            )
    own_amount = _ledoit_wolf(samples) if shrinkage else 0.0
    mean, covariance = _moments(reference, torch.ones(len(reference), dtype=torch.float64))
    covariance = _shrunk(covariance, _ledoit_wolf(reference) if shrinkage else 0.0)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T

    def distance(weights: Tensor) -> float:
        own_mean, own_covariance = _moments(samples, weights)
        own_covariance = _shrunk(own_covariance, own_amount)
        # The trace of the root of the product, by the eigenvalues of a symmetric matrix that has the same.
        product = torch.linalg.eigvalsh(root @ own_covariance @ root).clamp_min(0).sqrt().sum()
        trace = torch.trace(covariance) + torch.trace(own_covariance) - 2 * product
        return max(float((own_mean - mean).square().sum() + trace), 0.0)

    return distance


def kernel_statistic(samples: Tensor, reference: Tensor, bandwidth: float | None = None) -> Statistic:
    """[`kernel_distance`] as a function of the samples' weights; the kernels are computed once.

    A window is not compared with itself, nor, where a song counts twice, with its copy.
    """
    for name, windows in (("samples", samples), ("reference", reference)):
        if not 2 <= len(windows) <= _MOST_WINDOWS:
            raise ValueError(f"`{name}` must hold from 2 to {_MOST_WINDOWS} windows, got {len(windows)}")
    if bandwidth is None:
        bandwidth = median_distance(reference)
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"`bandwidth` must be over 0 and finite, got {bandwidth}")

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        return torch.exp(torch.cdist(first, second).square() / (-2 * bandwidth**2))

    count = len(reference)
    within_reference = float(kernel(reference, reference).sum() - count) / (count * (count - 1))
    own = kernel(samples, samples).fill_diagonal_(0)
    across = kernel(samples, reference).mean(dim=1)

    def distance(weights: Tensor) -> float:
        total = weights.sum()
        pairs = float(total.square() - weights.square().sum())
        if pairs <= 0:  # a resample of one window only
            return math.nan
        within = float(weights @ own @ weights) / pairs
        return within + within_reference - 2 * float(weights @ across / total)

    return distance


def tag_statistic(samples: Tensor, reference: Tensor) -> Statistic:
    """[`tag_divergence`] as a function of the samples' weights."""
    for name, values in (("samples", samples), ("reference", reference)):
        if float(values.min()) < 0 or float(values.max()) > 1:
            raise ValueError(f"`{name}` must be probabilities in [0, 1], got {values.min():g} to {values.max():g}")
    smallest = 1e-7
    other = reference.mean(dim=0).clamp(smallest, 1 - smallest)

    def divergence(weights: Tensor) -> float:
        own = (weights @ samples / weights.sum()).clamp(smallest, 1 - smallest)
        bits = own * (own / other).log2() + (1 - own) * ((1 - own) / (1 - other)).log2()
        return max(float(bits.mean()), 0.0)

    return divergence


def median_distance(windows: Tensor) -> float:
    """Median Euclidean distance between windows (m, D), of at most 2000 of them, spread evenly.

    Raises:
        ValueError: it is 0, as where all windows are silent.
    """
    step = max(1, math.ceil(len(windows) / _BANDWIDTH_WINDOWS))
    found = float(torch.pdist(windows[::step].double()).median()) if len(windows) > 1 else 0.0
    if not found > 0:
        raise ValueError(
            f"`reference` must hold windows that differ, got {len(windows)} with a median distance of 0: is it silence?"
        )
    return found


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: of the complete set.
        low: lower end of the interval; NaN where there is none.
        high: upper end.
        resamples: (R,) the number of each resample of the songs, for differences of two estimates.
        songs: how many songs were resampled.
    """

    value: float
    low: float
    high: float
    resamples: Tensor
    songs: int

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two estimates with its interval; their resamples drew songs of the same numbers, or of
        sets that have nothing to do with each other.
        """
        songs = min(self.songs, other.songs)
        return estimate(self.value - other.value, self.resamples - other.resamples, songs)


def estimate(value: float, resamples: Tensor, songs: int, least: float = -math.inf) -> Estimate:
    """A value and the interval of 95 % that its resamples give.

    The interval's ends are quantiles of the resamples. Those of few songs vary less than a mean of as many songs does,
    by `sqrt((n - 1) / n)`, and know the spread no better than n songs show it: quantiles further out make up for both
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentile interval).

    Args:
        value: of the complete set.
        resamples: (R,) of as many resamples; NaN where one has no number.
        songs: that were resampled.
        least: the least that the quantity can be, at which the interval ends.

    Returns:
        The estimate; without an interval for a single song, and where a twentieth of the resamples has no number.
    """
    finite = resamples[resamples.isfinite()].double()
    if songs < 2 or len(finite) < 2 or len(finite) < 0.95 * len(resamples):
        return Estimate(value, math.nan, math.nan, resamples, songs)
    tail = _tail(songs)
    low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=torch.float64)).clamp_min(least).tolist()
    return Estimate(value, low, high, resamples, songs)


def bootstrap(
    statistic: Statistic,
    songs: Sequence[int] | Tensor,
    resamples: int = 200,
    seed: int = 0,
    *,
    centred: bool = False,
    least: float = -math.inf,
) -> Estimate:
    """A statistic and its interval by resampling complete songs: windows of one song are not independent draws.

    Args:
        statistic: of one weight for each window.
        songs: (n,) which song each window is of.
        resamples: how often the songs are drawn with replacement.
        seed: of the draws.
        centred: move the resamples so that their mean is the value. For distances: a resample has fewer different
            songs than the set, which alone makes a distance larger, and must not move the interval.
        least: the least that the quantity can be, at which the interval ends.

    Returns:
        The statistic of all windows, with an interval that holds 95 %; see [`estimate`].
    """
    songs = torch.as_tensor(songs, dtype=torch.int64)
    names, of_window = songs.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    value = statistic(torch.ones(len(songs), dtype=torch.float64))
    values = []
    for _ in range(resamples if len(names) > 1 else 0):
        drawn = torch.randint(len(names), (len(names),), generator=generator)
        counts = torch.bincount(drawn, minlength=len(names)).double()
        values.append(statistic(counts[of_window]))
    found = torch.tensor(values, dtype=torch.float64)
    if centred:
        found = found - found.nanmean() + value
    return estimate(value, found, len(names), least)


def bootstrap_mean(values: Tensor, resamples: int = 200, seed: int = 0) -> Estimate:
    """Mean of one value (songs,) a song, with its interval; see [`bootstrap`]."""
    values = values.double()
    return bootstrap(lambda weights: float(weights @ values / weights.sum()), range(len(values)), resamples, seed)


@dataclass(frozen=True)
class Floor:
    """The number that other real songs get, as many as were judged: what a perfect model would get.

    Attributes:
        value: mean over the draws; NaN where there are fewer than 4 songs to draw from.
        deviation: standard deviation over the draws.
        songs: how many songs were judged in each draw.
    """

    value: float
    deviation: float
    songs: int


def real_floor(
    measure: Callable[[Tensor, Tensor], float],
    reference: Tensor,
    songs: Sequence[int] | Tensor,
    count: int,
    draws: int = 10,
    seed: int = 0,
) -> Floor:
    """Judge `count` songs of the reference against its others, several times.

    Args:
        measure: of windows (n, D) and a reference (m, D), such as [`kernel_distance`].
        reference: (m, D) windows.
        songs: (m,) which song each window is of.
        count: songs that a draw judges, at most half of the reference's.
        draws: how many.
        seed: of the draws.
    """
    songs = torch.as_tensor(songs, dtype=torch.int64)
    names = songs.unique()
    count = min(count, len(names) // 2)
    if count < 2:
        return Floor(math.nan, math.nan, count)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(draws):
        chosen = torch.isin(songs, names[torch.randperm(len(names), generator=generator)[:count]])
        values.append(measure(reference[chosen], reference[~chosen]))
    found = torch.tensor(values, dtype=torch.float64)
    return Floor(float(found.mean()), float(found.std()), count)


def _tail(songs: int) -> float:
    """Fraction of the resamples of so many songs, 2 or more, that lies below an interval of 95 %; as many lie above."""
    normal, freedom = NormalDist(), songs - 1
    z = normal.inv_cdf(0.975)
    # Student's t by the expansion of Cornish and Fisher, within 1 % from 4 songs on; of fewer the tail is empty anyway.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return normal.cdf(-t * math.sqrt(songs / freedom))


def checked_sets(samples: Tensor, reference: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the CPU.

    Raises:
        ValueError: sets of another shape than (windows, D) or of different width, or values that are not finite.
    """
    for name, values in (("samples", samples), ("reference", reference)):
        if values.dim() != 2 or 0 in values.shape:
            raise ValueError(f"`{name}` of {what} must have the shape (windows, D), got {tuple(values.shape)}")
        if not bool(values.isfinite().all()):
            raise ValueError(f"`{name}` of {what} must be finite, got NaN or infinite values")
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(
            f"`samples` and `reference` of {what} must be equally wide, got {samples.shape[1]} and {reference.shape[1]}"
        )
    return samples.detach().double().cpu(), reference.detach().double().cpu()


def _moments(windows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) with `sum(weights) - 1` degrees of freedom."""
    total = weights.sum()
    mean = weights @ windows / total
    centred = (windows - mean) * weights.sqrt()[:, None]
    return mean, centred.T @ centred / (total - 1).clamp_min(1)


def _shrunk(covariance: Tensor, amount: float) -> Tensor:
    dimensions = len(covariance)
    target = torch.eye(dimensions, dtype=covariance.dtype) * torch.trace(covariance) / dimensions
    return (1 - amount) * covariance + amount * target


def _ledoit_wolf(windows: Tensor) -> float:
    """Amount of shrinkage towards the identity that Ledoit and Wolf (2004) estimate, from 0 to 1."""
    count, dimensions = windows.shape
    centred = windows - windows.mean(dim=0)
    covariance = centred.T @ centred / count
    mean = torch.trace(covariance) / dimensions
    distance = float(covariance.square().sum() / dimensions - mean.square())
    squares = float(centred.square().sum(dim=1).square().mean() / dimensions)
    variance = (squares - float(covariance.square().sum()) / dimensions) / count
    return min(max(variance / distance, 0.0), 1.0) if distance > 0 else 1.0
