"""Linear classifiers, probes (how well one reads a label, such as key or genre, from features of songs), and the
agreement of songs with their labels by statistics of timbre and rhythm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast_jukebox.evaluation.distance import bootstrap_mean
from fast_jukebox.evaluation.mel import mel_frames, window_length
from fast_jukebox.evaluation.notes import QUIET, find_onsets

PENALTIES = tuple(10.0**exponent for exponent in range(-3, 7))
"""Weights of the squared coefficients, of which leave-one-out picks one."""

_SHUFFLES = 20
_SHRINKAGE = 0.3


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
    def fit_discriminant(cls, features: Tensor, labels: Sequence[str]) -> LinearClassifier:
        """Linear discriminant analysis: a mean a class and one covariance, shrunk by 0.3 towards its diagonal.

        Args:
            features: (songs, D).
            labels: of the songs, two kinds or more, each with two songs or more.

        Raises:
            ValueError: the numbers of songs differ, or a label has too few songs.
        """
        names, wanted = _classes(features, labels)
        if few := [name for name in names if list(labels).count(name) < 2]:
            raise ValueError(f"`labels` must each have two songs or more, got one of {', '.join(few)}")
        data = features.double()
        means = torch.stack([data[wanted == number].mean(dim=0) for number in range(len(names))])
        rest = data - means[wanted]
        covariance = rest.T @ rest / max(len(data) - len(names), 1)
        diagonal = covariance.diagonal().clamp_min(1e-8)
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * torch.diag(diagonal) + 1e-8 * torch.eye(len(diagonal))
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


_BANDS = 40
_SHORTEST_LAG, _LONGEST_LAG, _LAGS = 0.09, 1.6, 64
_WIDTH = 0.015
_FLOOR = 1e-5


def describe_timbre(audio: Tensor, sampling_rate: int) -> Tensor:
    """Spectrum of sound (samples,) whatever its loudness, float32 (80,): mean and standard deviation of 40 mel bands in
    decibels; zeros for silence.

    Each frame of 46 ms counts relative to its own mean over the bands, which are cut off 50 dB below the loudest;
    frames below [`QUIET`] do not count.
    """
    n_fft, audio = window_length(sampling_rate), audio.float()
    if len(audio) < n_fft:
        return torch.zeros(2 * _BANDS)
    loud = audio.unfold(0, n_fft, n_fft // 2).square().mean(dim=1).sqrt() >= QUIET  # (frames,)
    if loud.sum() < 2:
        return torch.zeros(2 * _BANDS)
    bands = mel_frames(audio, sampling_rate, _BANDS, n_fft // 2).T[loud]  # (frames, bands)
    decibels = 10 * (bands / bands.amax(dim=1, keepdim=True)).clamp_min(_FLOOR).log10()
    decibels = decibels - decibels.mean(dim=1, keepdim=True)
    return torch.cat([decibels.mean(dim=0), decibels.std(dim=0)]).cpu()


def describe_rhythm(audio: Tensor, sampling_rate: int) -> Tensor:
    """Spans of time between attacks of sound (samples,), float32 (65,): the autocorrelation of the onsets, which shows
    tempo and metre.

    For 64 spans from 0.09 to 1.6 s, evenly spaced in their logarithm, pairs of onsets so far apart, as a fraction of
    all onsets; then the onsets a second.
    """
    onsets = find_onsets(audio, sampling_rate).cpu()
    lags = torch.logspace(math.log10(_SHORTEST_LAG), math.log10(_LONGEST_LAG), _LAGS)
    if len(onsets) < 2:
        return torch.zeros(_LAGS + 1)
    spans = onsets[None] - onsets[:, None]  # (onsets, onsets)
    spans = spans[(spans > 0) & (spans < 2 * _LONGEST_LAG)]
    # A long span is known as well as a short one in relation to itself.
    width = _WIDTH + 0.02 * lags
    near = torch.exp(-0.5 * ((spans[:, None] - lags) / width).square()).sum(dim=0)
    seconds = len(audio) / sampling_rate
    return torch.cat([near / len(onsets), torch.tensor([len(onsets) / seconds])])


@dataclass(frozen=True)
class LabelAgreement:
    """Fractions of songs and samples in which a classifier of real songs finds the label.

    Attributes:
        songs: fraction of held-out songs whose label it finds: the most that samples can reach.
        chance: one over the number of labels.
        swapped: fraction of samples in which it finds the label asked of another sample, the mean over all others with
            another label: what a model gets that plays every label but listens to none.
    """

    songs: float
    samples: float
    chance: float
    swapped: float
    by_label: dict[str, float]


def label_agreement(
    train: Tensor,
    train_labels: Sequence[str],
    held_out: Tensor,
    held_out_labels: Sequence[str],
    samples: Tensor,
    sample_labels: Sequence[str],
) -> LabelAgreement:
    """Judge samples by what they were asked to be, with a classifier of real songs.

    Args:
        train, train_labels: descriptions (songs, features) of real songs that the classifier learns from.
        samples, sample_labels: of samples, and what each was asked to be.

    Raises:
        ValueError: as [`LinearClassifier.fit_discriminant`]; or samples were asked for what no song is.
    """
    classifier = LinearClassifier.fit_discriminant(train, train_labels)
    if strangers := sorted(set(sample_labels) - set(classifier.labels)):
        raise ValueError(f"`sample_labels` must be labels of songs, got {strangers}")
    heard = classifier.predict(samples)
    real = classifier.predict(held_out)
    rates = []
    for own, label in zip(heard, sample_labels, strict=True):
        others = [other for other in sample_labels if other != label]
        rates += [sum(other == own for other in others) / len(others)] if others else []
    by_label = {
        name: sum(own == name for own, asked in zip(heard, sample_labels, strict=True) if asked == name)
        / list(sample_labels).count(name)
        for name in sorted(set(sample_labels))
    }
    return LabelAgreement(
        songs=_fraction(real, held_out_labels),
        samples=_fraction(heard, sample_labels),
        chance=1 / len(classifier.labels),
        swapped=sum(rates) / len(rates) if rates else math.nan,
        by_label=by_label,
    )


def _fraction(heard: Sequence[str], labels: Sequence[str]) -> float:
    equal = [own == label for own, label in zip(heard, labels, strict=True)]
    return sum(equal) / len(equal) if equal else math.nan
