"""Probes: how well a linear classifier reads a label, such as key or genre, from features of songs."""

from __future__ import annotations

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
class Probe:
    """A ridge classifier of standardised features (one against the rest), fitted in closed form.

    Attributes:
        labels: names of the classes.
        mean, scale: float64 (D,) of the features that it was fitted on.
        coefficients: float64 (D, labels).
        intercepts: float64 (labels,).
        penalty: of [`PENALTIES`].
        left_out_accuracy: fraction of the songs that it was fitted on whose label is right when they are left out.
    """

    labels: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    coefficients: Tensor
    intercepts: Tensor
    penalty: float
    left_out_accuracy: float

    @classmethod
    def fit(cls, features: Tensor, labels: Sequence[str]) -> Probe:
        """Fit with the penalty whose predictions of songs that are left out have the least squared error.

        Args:
            features: (songs, D).
            labels: of the songs, of two kinds at least.

        Raises:
            ValueError: the numbers of songs differ, or there are fewer than two kinds.
        """
        names = tuple(sorted(set(labels)))
        if features.dim() != 2 or len(labels) != len(features) or len(names) < 2:
            raise ValueError(
                f"`labels` must be one for each of the songs and of two kinds at least, got {len(labels)} of "
                f"{len(names)} kinds for features {tuple(features.shape)}"
            )
        data = features.double()
        mean, scale = data.mean(dim=0), data.std(dim=0).clamp_min(1e-8)
        wanted = torch.tensor([names.index(label) for label in labels])
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
        coefficients = right.T @ ((values / (values.square() + penalty))[:, None] * projected)
        return cls(names, mean, scale, coefficients, intercepts, penalty, left_out)

    def predict(self, features: Tensor) -> list[str]:
        """The most probable label of each song, from (songs, D)."""
        scores = ((features.double() - self.mean) / self.scale) @ self.coefficients + self.intercepts
        return [self.labels[number] for number in scores.argmax(dim=1).tolist()]


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
        ValueError: there are no others, or as in [`Probe.fit`].
    """
    if not len(held_out) or len(held_out) != len(held_out_labels):
        raise ValueError(
            f"`held_out_labels` must be one for each of the held-out songs, of which there must be at least one, got "
            f"{len(held_out_labels)} for {len(held_out)}"
        )

    def right_of(predicted: Sequence[str]) -> Tensor:
        pairs = zip(predicted, held_out_labels, strict=True)
        return torch.tensor([one == other for one, other in pairs], dtype=torch.float64)

    fitted = Probe.fit(features, labels)
    right = right_of(fitted.predict(held_out))
    found = bootstrap_mean(right, resamples=1000, seed=seed)
    generator, shuffled = torch.Generator().manual_seed(seed), []
    for _ in range(_SHUFFLES):
        order = torch.randperm(len(labels), generator=generator).tolist()
        shuffled.append(float(right_of(Probe.fit(features, [labels[i] for i in order]).predict(held_out)).mean()))
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
