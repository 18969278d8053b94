"""Linear classifiers, and probes: how well one reads a label, such as key or genre, from features of songs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast_jukebox.evaluation.distance import bootstrap_mean

PENALTIES = tuple(10.0**exponent for exponent in range(-3, 7))
"""Weights of the squared coefficients, of which leave-one-out picks one."""

_SHUFFLES = 20


@dataclass(frozen=True)
class LinearClassifier:
    """A classifier by the largest of one linear score a class, fitted in closed form.

    Attributes:
        labels: names of the classes.
        coefficients: float64 (D, labels).
        intercepts: float64 (labels,).
        penalty: of [`PENALTIES`]; NaN where there is none.
        left_out_accuracy: fraction of the songs that it was fitted on whose label is right when they are left out; NaN
            where that was not tried.
    """

    labels: tuple[str, ...]
    coefficients: Tensor
    intercepts: Tensor
    penalty: float = math.nan
    left_out_accuracy: float = math.nan

    @classmethod
    def fit_ridge(cls, features: Tensor, labels: Sequence[str]) -> LinearClassifier:
        """Ridge regression of standardised features, one class against the rest, with the penalty whose predictions of
        songs that are left out have the least squared error.

        Args:
            features: (songs, D).
            labels: of the songs, of two kinds at least.

        Raises:
            ValueError: the numbers of songs differ, or there are fewer than two kinds.
        """
        names, wanted = _classes(features, labels)
        data = features.double()
        mean, scale = data.mean(dim=0), data.std(dim=0).clamp_min(1e-8)
        targets = torch.nn.functional.one_hot(wanted, len(names)).double()
        intercepts = targets.mean(dim=0)
        left, values, right = torch.linalg.svd((data - mean) / scale, full_matrices=False)
        projected = left.T @ (targets - intercepts)  # (rank, labels)
        best: tuple[float, float, float] | None = None
        for penalty in PENALTIES:
            shrunk = values.square() / (values.square() + penalty)
            # Prediction of each song by the fit to all others; centring leaves one more direction out.
            influence = left.square() @ shrunk + 1 / len(data)
            fitted = left @ (shrunk[:, None] * projected)
            residual = (targets - intercepts - fitted) / (1 - influence).clamp_min(1e-8)[:, None]
            error = float(residual.square().mean())
            if best is None or error < best[0]:
                right_ones = ((targets - residual).argmax(dim=1) == wanted).double().mean()
                best = error, penalty, float(right_ones)
        assert best is not None
        _, penalty, left_out = best
        coefficients = right.T @ ((values / (values.square() + penalty))[:, None] * projected) / scale[:, None]
        return cls(names, coefficients, intercepts - mean @ coefficients, penalty, left_out)

    @classmethod
    def fit_discriminant(cls, features: Tensor, labels: Sequence[str], shrinkage: float = 0.3) -> LinearClassifier:
        """Linear discriminant analysis: a mean a class and one covariance, shrunk towards its diagonal.

        Args:
            features: (songs, D).
            labels: of the songs, two kinds or more, each with two songs or more.
            shrinkage: weight in (0, 1] of the diagonal.

        Raises:
            ValueError: the numbers of songs differ, or a label has too few songs.
        """
        if not 0 < shrinkage <= 1:
            raise ValueError(f"`shrinkage` must be in (0, 1], got {shrinkage!r}")
        names, wanted = _classes(features, labels)
        if few := [name for name in names if list(labels).count(name) < 2]:
            raise ValueError(f"`labels` must each have two songs or more, got one of {', '.join(few)}")
        data = features.double()
        means = torch.stack([data[wanted == number].mean(dim=0) for number in range(len(names))])
        rest = data - means[wanted]
        covariance = rest.T @ rest / max(len(data) - len(names), 1)
        diagonal = covariance.diagonal().clamp_min(1e-8)
        shrunk = (1 - shrinkage) * covariance + shrinkage * torch.diag(diagonal) + 1e-8 * torch.eye(len(diagonal))
        coefficients = torch.linalg.solve(shrunk, means.T)  # (D, labels)
        return cls(names, coefficients, -0.5 * (means.T * coefficients).sum(dim=0))

    def predict(self, features: Tensor) -> list[str]:
        """The most probable label of each song, from (songs, D)."""
        scores = features.double() @ self.coefficients + self.intercepts
        return [self.labels[number] for number in scores.argmax(dim=1).tolist()]


def _classes(features: Tensor, labels: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Names of the labels, sorted, and the number int64 (songs,) of each song's."""
    names = tuple(sorted(set(labels)))
    if features.dim() != 2 or len(labels) != len(features) or len(names) < 2:
        raise ValueError(
            f"`labels` must be one for each of the songs and of two kinds at least, got {len(labels)} of "
            f"{len(names)} kinds for features {tuple(features.shape)}"
        )
    return names, torch.tensor([names.index(label) for label in labels])


@dataclass(frozen=True)
class ProbeScore:
    """Accuracy of a probe on songs that it was not fitted on, beside chance.

    Attributes:
        accuracy: fraction of the held-out songs whose label is right.
        low, high: of its 95 % interval over the songs.
        left_out_accuracy: of the songs that the probe was fitted on, each left out once: to choose a layer by, since
            the best of many on the held-out songs is better than it is.
        most_frequent: what the most frequent label of the songs that it was fitted on gives.
        shuffled: mean of probes that were fitted to shuffled labels.
        penalty: of the probe.
        labels: kinds.
        songs: held out.
    """

    accuracy: float
    low: float
    high: float
    left_out_accuracy: float
    most_frequent: float
    shuffled: float
    penalty: float
    labels: int
    songs: int


def probe(
    features: Tensor, labels: Sequence[str], held_out: Tensor, held_out_labels: Sequence[str], seed: int = 0
) -> ProbeScore:
    """Fit a probe to songs, and judge it on others.

    Args:
        features: (songs, D), such as `model.features(audio, pool="mean")[layer]`.
        labels: of the songs.
        held_out: (others, D).
        held_out_labels: of the others; labels that the songs lack count as wrong.
        seed: of the shuffled labels and the interval's resamples.

    Raises:
        ValueError: there are no others, or as in [`LinearClassifier.fit_ridge`].
    """
    if not len(held_out) or len(held_out) != len(held_out_labels):
        raise ValueError(
            f"`held_out_labels` must be one for each of the held-out songs, of which there must be at least one, got "
            f"{len(held_out_labels)} for {len(held_out)}"
        )

    def right_of(predicted: Sequence[str]) -> Tensor:
        pairs = zip(predicted, held_out_labels, strict=True)
        return torch.tensor([one == other for one, other in pairs], dtype=torch.float64)

    fitted = LinearClassifier.fit_ridge(features, labels)
    right = right_of(fitted.predict(held_out))
    found = bootstrap_mean(right, resamples=1000, seed=seed)
    generator, shuffled = torch.Generator().manual_seed(seed), []
    for _ in range(_SHUFFLES):
        order = torch.randperm(len(labels), generator=generator).tolist()
        mixed = LinearClassifier.fit_ridge(features, [labels[index] for index in order])
        shuffled.append(float(right_of(mixed.predict(held_out)).mean()))
    (frequent, _), *_ = Counter(sorted(labels)).most_common(1)
    return ProbeScore(
        accuracy=float(right.mean()),
        low=found.low,
        high=found.high,
        left_out_accuracy=fitted.left_out_accuracy,
        most_frequent=float(right_of([frequent] * len(right)).mean()),
        shuffled=sum(shuffled) / len(shuffled),
        penalty=fitted.penalty,
        labels=len(fitted.labels),
        songs=len(right),
    )
