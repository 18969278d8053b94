"""What a student is told by its teacher (Fast Jukebox, Eq. 3 and 4), as pure functions.

Shapes: N windows, L positions, W width, H heads, K codes. Everything is computed in float32 and returned as a scalar,
a mean over what is compared; gradients reach the student's side only where the teacher's was computed without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.configuration_prior import PATTERN_NAMES

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
        ValueError: a term that does not exist, a weight that is negative or no number, or none above 0.
    """
    for name, weight in weights.items():
        if name not in TERMS:
            raise ValueError(f"`weights` must be of {', '.join(TERMS)}; got one of {name!r}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"`weights` must be finite numbers of at least 0, got {weight!r} for {name!r}")
    counting = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not counting:
        raise ValueError(f"`weights` must have at least one above 0, got {dict(weights)}")
    return counting


def hidden_state_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of hidden states, Eq. 4.

    Args:
        student: (N, L, W).
        teacher: (N, L, W), of the width that the student was projected to.
    """
    _check_shapes(student, teacher)
    return (student.float() - teacher.float()).square().mean()


def attention_mse(student: Tensor, teacher: Tensor, pattern: str, row_length: int, length: int) -> Tensor:
    """Mean squared difference of attention matrices, Eq. 4, in the pattern's own layout.

    The mean is over the pairs of positions that the pattern lets meet, `Pattern.support`: what is masked is zero in
    both and does not count, nor do the rows beyond `length` with which a short window is filled up, nor the first row
    of `previous_row`, which meets nothing. It is 0 where no pair is left.

    Args:
        student: weights as the pattern lays them out: (N, H, L, L) for `dense`, (N * rows, H, B, B) for `row` and
            `previous_row`, (N * B, H, rows, rows) for `column`, with B = `row_length` and rows = ceil(L / B);
            (N, H, L, characters) for `lyric_cross`, (N, H, L, keys) for `lyric_prefix`.
        teacher: of the same shape.
        pattern: `dense`, `row`, `column`, `previous_row`, `lyric_cross` or `lyric_prefix`.
        row_length: positions in a row, B.
        length: positions of the window, L, the lyrics before the codes included.
    """
    _check_shapes(student, teacher)
    difference = student.float() - teacher.float()
    rows = -(-length // row_length)
    full, rest = divmod(length, row_length)
    # `pairs` of positions meet in one window and head; `layout` is that of the queries' grid in the weights.
    if pattern == "dense":
        pairs, layout = length * (length + 1) // 2, (1, length)
    elif pattern == "row":
        pairs, layout = full * row_length * (row_length + 1) // 2 + rest * (rest + 1) // 2, (rows, row_length)
    elif pattern == "column":
        pairs, layout = row_length * full * (full + 1) // 2 + rest * rows, (row_length, rows)
    elif pattern == "previous_row":
        pairs, layout = max(length - row_length, 0) * row_length, (rows, row_length)
    elif pattern == "lyric_cross":
        pairs, layout = length * student.shape[-1], (1, length)
    elif pattern == "lyric_prefix":
        keys = student.shape[-1]
        pairs, layout = keys * (keys + 1) // 2 + (length - keys) * keys, (1, length)
    else:
        raise ValueError(f"`pattern` must be {', '.join(PATTERN_NAMES)}, got {pattern!r}")
    if rest and pattern in ("row", "column", "previous_row"):
        inside = (torch.arange(rows * row_length, device=student.device) < length).view(rows, row_length)
        inside = inside.T if pattern == "column" else inside
        difference = difference.unflatten(0, (-1, layout[0])) * inside[:, None, :, None]
    windows, heads = student.shape[0] // layout[0], student.shape[1]
    return difference.square().sum() / max(windows * heads * pairs, 1)


def prediction_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross entropy of the student's distribution against the teacher's, Eq. 3, in nats a code.

    -sum_k softmax(z_T / t)_k log softmax(z_S / t)_k, a mean over the N * L positions (not over the K codes, which would
    make it K times smaller). It is multiplied by t^2, so that its gradient keeps its size when the temperature rises;
    at 1, the paper's, that is the cross entropy itself.

    Args:
        student_logits: (N, L, K).
        teacher_logits: (N, L, K).
        temperature: t, above 0.
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
    """Cross entropy against the data's codes, in nats a code.

    Args:
        logits: (N, L, K).
        labels: int64 (N, L); -100 is not counted.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(f"`student` must have the teacher's shape {tuple(teacher.shape)}, got {tuple(student.shape)}")
