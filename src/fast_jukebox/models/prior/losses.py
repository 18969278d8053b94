"""Training losses of a prior: of the codes, and where it has lyrics of the characters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED_LABEL = -100


def cross_entropy(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Nats a label, in float32.

    Args:
        logits: (N, L, ids).
        labels: int64 (N, L) in [0, ids), or -100 for what is not counted.
        num_items_in_batch: divide the sum by this and not by the number of labels.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
    count = (labels != IGNORED_LABEL).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return total / count


def join_losses(
    code_loss: Tensor,
    lyric_loss: Tensor,
    code_count: int,
    character_count: int,
    lyric_weight: float,
    share: Tensor | float = 1.0,
) -> Tensor:
    """The loss of codes and lyrics: each weighted by its share of positions, the lyrics also by their own weight.

    Args:
        code_loss: nats a code, divided as `share` says.
        lyric_loss: nats a character.
        code_count: codes of a window.
        character_count: characters of a window.
        lyric_weight: `lyric_loss_weight` of the prior.
        share: this batch's share of the labels that `code_loss` was divided by, where gradients are accumulated.
    """
    positions = code_count + character_count
    lyric_share = lyric_weight * character_count / positions
    return code_loss * (code_count / positions) + lyric_loss * (lyric_share * share)


def share_of_batch(labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """Fraction that `labels` are of the labels of all accumulated batches; 1 where there are no others."""
    return 1.0 if num_items_in_batch is None else (labels != IGNORED_LABEL).sum() / num_items_in_batch


def shifted(labels: Tensor, offset: int) -> Tensor:
    """Labels as ids of a vocabulary in which the codes begin at `offset`; what is not counted stays so."""
    return labels if offset == 0 else torch.where(labels == IGNORED_LABEL, labels, labels + offset)
