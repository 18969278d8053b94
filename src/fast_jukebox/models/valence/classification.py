"""Metrics of four probabilities of emotional valence against labels: by class, by axis, and calibration."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fast_jukebox.models.valence.configuration_valence import QUADRANTS

AXES = {"pleasantness": (1, 1, -1, -1), "activation": (1, -1, 1, -1)}
"""Weights of the four probabilities (AP, DP, AU, DU) by axis."""


def roc_auc(scores: Tensor, is_positive: Tensor) -> float:
    """Area under the ROC curve: the probability that a positive scores higher than a negative, ties counting half.

    Args:
        scores: (n,).
        is_positive: bool (n,).

    Returns:
        In [0, 1]; NaN where all are positive or none is.
    """
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]  # equal scores share the mean of their ranks
    return float(ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(scores: Tensor, is_positive: Tensor) -> float:
    """Area under the precision-recall curve, as the mean precision at each positive; NaN where none is positive."""
    positives = int(is_positive.sum())
    if not positives:
        return math.nan
    order = scores.double().argsort(descending=True, stable=True)
    values, hits = scores.double()[order], is_positive[order].double().cumsum(0)
    # Equal scores are one threshold: all of a tie count with the precision at its end.
    ends = torch.cat([(values[1:] != values[:-1]).nonzero()[:, 0], torch.tensor([len(values) - 1])])
    gained = torch.diff(hits[ends], prepend=torch.zeros(1, dtype=torch.float64))
    return float((gained * hits[ends] / (ends + 1)).sum() / positives)


def calibration_error(probabilities: Tensor, is_positive: Tensor, bins: int = 10) -> float:
    """Mean distance of a probability from the fraction that is positive among those like it, in bins of equal width."""
    index = (probabilities.double() * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, is_positive.double() - probabilities.double())
    return float(gaps.abs().sum() / len(probabilities))


def axis_scores(probabilities: Tensor) -> dict[str, Tensor]:
    """Scores (n,) of each axis from probabilities (n, 4): of one end's classes less the other's."""
    return {name: probabilities.double() @ torch.tensor(signs).double() for name, signs in AXES.items()}


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """int64 (4, 4): songs by true class (rows) and most probable class (columns)."""
    classes = len(QUADRANTS)
    index = labels.argmax(dim=1) * classes + probabilities.argmax(dim=1)
    return torch.bincount(index, minlength=classes**2).view(classes, classes)


def classification_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """All metrics of a classifier on held-out songs.

    Args:
        probabilities: float (n, 4), in the order of `QUADRANTS`.
        labels: float (n, 4), 1 at the true class.

    Returns:
        `roc_auc` and `pr_auc`, means over the classes that occur, as well as `roc_auc_AP` and so on; `accuracy`;
        `pleasantness_auc` and `activation_auc`, of each axis alone, where 0.5 is chance; `calibration_error`. NaN where
        a class or an end of an axis does not occur.

    Raises:
        ValueError: other shapes, or no songs.
    """
    if probabilities.dim() != 2 or probabilities.shape != labels.shape or probabilities.shape[1:] != (len(QUADRANTS),):
        raise ValueError(
            f"`probabilities` and `labels` must be (n, {len(QUADRANTS)}), got {tuple(probabilities.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if not len(probabilities):
        raise ValueError("`probabilities` must be of at least one song, got none")
    truth = labels > 0.5
    metrics: dict[str, float] = {}
    for name, measure in (("roc_auc", roc_auc), ("pr_auc", average_precision)):
        values = [measure(probabilities[:, index], truth[:, index]) for index in range(len(QUADRANTS))]
        metrics |= {f"{name}_{quadrant}": value for quadrant, value in zip(QUADRANTS, values, strict=True)}
        known = [value for value in values if not math.isnan(value)]
        metrics[name] = math.fsum(known) / len(known) if known else math.nan
    for axis, scores in axis_scores(probabilities).items():
        ends = torch.tensor(AXES[axis]) > 0
        metrics[f"{axis}_auc"] = roc_auc(scores, truth[:, ends].any(dim=1))
    metrics["accuracy"] = float(confusion(probabilities, labels).diagonal().sum()) / len(labels)
    errors = [calibration_error(probabilities[:, index], truth[:, index]) for index in range(len(QUADRANTS))]
    metrics["calibration_error"] = math.fsum(errors) / len(errors)
    return metrics
