"""Distillation losses (Fast Jukebox, Eq. 3 and 4), as pure functions.

Shapes: N windows, L positions, W width, H heads, K codes. Everything is computed in float32 and returned as a scalar,
a mean over what is compared; gradients reach the student's side only where the teacher's was computed without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import Pattern
from fast_jukebox.utils.text import shown

# What is compared between mapped layers (Eq. 4), and all terms that a loss may be made of.
INTERMEDIATE_TERMS = ("attention_residual", "hidden_states", "attentions")
TERMS = (*INTERMEDIATE_TERMS, "prediction", "data")

# Losses that have a name, as weights of their terms.
LOSSES: dict[str, dict[str, float]] = {
    "intermediate": dict.fromkeys(INTERMEDIATE_TERMS, 1.0),
    "prediction": {"prediction": 1.0},
    "data": {"data": 1.0},
}

IGNORED_LABEL = -100


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that count, those above 0.

    Raises:
        ValueError: a term that does not exist, a weight that is negative or not finite, or none above 0.
    """
    for name, weight in weights.items():
        if name not in TERMS:
            raise ValueError(f"`weights` must be of {', '.join(TERMS)}; got one of {shown(name)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"`weights` must be finite numbers of at least 0, got {shown(weight)} for {shown(name)}")
    counting = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not counting:
        raise ValueError(f"`weights` must have at least one above 0, got {dict(weights)}")
    return counting


def hidden_state_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of hidden states (N, L, W), Eq. 4, the student's projected to the teacher's width."""
    _check_shapes(student, teacher)
    return (student.float() - teacher.float()).square().mean()


def attention_mse(student: Tensor, teacher: Tensor, pattern: Pattern, length: int) -> Tensor:
    """Mean squared difference of attention matrices, Eq. 4, in the pattern's own layout.

    The mean is over the pairs of positions that the pattern lets meet, `pattern.pair_count`: what is masked is zero in
    both and does not count, nor do the rows beyond `length` with which a short window is filled up, nor the first row
    of [`PreviousRowPattern`], which meets nothing. It is 0 where no pair is left.

    Args:
        student, teacher: weights as the pattern lays them out, (groups, H, queries, keys).
        pattern: of the layer.
        length: positions of the window, L, the lyrics before the codes included.
    """
    _check_shapes(student, teacher)
    squares = (student.float() - teacher.float()).square().sum(-1, keepdim=True)  # (groups, H, queries, 1)
    squares = pattern.by_position(squares, length)  # (N, H, L, 1)
    songs, heads = squares.shape[:2]
    return squares.sum() / max(songs * heads * pattern.pair_count(length), 1)


def prediction_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross entropy of the student's distribution against the teacher's, Eq. 3, in nats a code.

    -sum_k softmax(z_T / t)_k log softmax(z_S / t)_k, a mean over the N * L positions (not over the K codes, which would
    make it K times smaller). It is multiplied by t^2, so that its gradient keeps its size when the temperature rises;
    at 1, the paper's, that is the cross entropy itself.

    Logits are (N, L, K), the temperature t is above 0.
    """
    _check_shapes(student_logits, teacher_logits)
    target = torch.softmax(teacher_logits.float() / temperature, dim=-1)
    predicted = F.log_softmax(student_logits.float() / temperature, dim=-1)
    return -(target * predicted).sum(-1).mean() * temperature**2


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) in nats a code, a mean over positions, of logits (N, L, K)."""
    _check_shapes(student_logits, teacher_logits)
    teacher = F.log_softmax(teacher_logits.float(), dim=-1)
    student = F.log_softmax(student_logits.float(), dim=-1)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


def data_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (N, L, K) against the data's codes, int64 (N, L), in nats a code; -100 is not counted."""
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(f"`student` must have the teacher's shape {tuple(teacher.shape)}, got {tuple(student.shape)}")
