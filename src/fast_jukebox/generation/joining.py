"""Where one window takes over from another that was sampled apart from it."""

from __future__ import annotations

import torch
from torch import Tensor


def seam_positions(before: Tensor, after: Tensor, first: int, last: int) -> list[int]:
    """Where to change from the codes of one window to those of the next: in the middle of the longest stretch of codes
    on which both agree, so that to either side of the seam stands what both would have said.

    Whole numbers on the host, song by song: the same in any batch and on any device.

    Args:
        before: int64 (N, M), what the earlier window has for the span that both have sampled.
        after: int64 (N, M), what the later one has.
        first: the earliest seam allowed, from 0.
        last: the latest, from `first` to M. Agreement counts from `first` to `last` only.

    Returns:
        For each song the seam s: codes before s are of the earlier window, the others of the later one. Of stretches of
        the same length the first is taken; the middle of the allowed span where no code agrees.
    """
    agreed = (before[:, first:last] == after[:, first:last]).to("cpu", torch.int64).tolist()
    return [first + _middle_of_longest_run(row) for row in agreed]


def _middle_of_longest_run(agreed: list[int]) -> int:
    best_start, best, start = 0, 0, 0
    for position, same in enumerate(agreed):
        if not same:
            start = position + 1
        elif position + 1 - start > best:
            best_start, best = start, position + 1 - start
    return best_start + best // 2 if best else len(agreed) // 2
