"""Base of attention patterns: the positions that each position sees, and the cache slots in which a step finds them.

A window of n_ctx positions is laid out as `num_rows` rows of `row_length` positions. A pattern is the only place that
knows its geometry; caches, engines, kernels and losses ask it. It has two faces that agree: `whole`, over all positions
at once (training, scoring, prompts), and `slots`, for one position with a bounded cache (sampling). No pattern but the
dense one ever makes an (L, L) matrix.

Shapes: N songs, L positions, H heads of width D. Queries, keys and values come as (N, L, H, D).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig

Position = TypeVar("Position", int, Tensor)
"""A position or an int64 tensor of them."""


class Attended(NamedTuple):
    """Result of `whole`: `output` (N, L, H, D) and, where asked for, `weights` in the pattern's own layout."""

    output: Tensor
    weights: Tensor | None


class SlotTables(NamedTuple):
    """`Pattern.slots` of the positions 0..L-1, each (L,), for kernels that know no pattern."""

    slot: Tensor
    first: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple's own `count` is of no use here


@dataclass(frozen=True)
class Pattern(ABC):
    """Attention pattern: the positions that each position attends to.

    Args:
        n_ctx: positions of a window.
        row_length: positions of a row; divides n_ctx.
    """

    n_ctx: int
    row_length: int

    sees_nothing: ClassVar[bool] = False
    """Whether there are positions that see nothing and attend to a row of zeros."""

    @classmethod
    def of_config(cls, config: FastJukeboxPriorConfig) -> Pattern:
        """The pattern in a prior of that configuration."""
        return cls(config.sequence_length, config.row_length)

    @abstractmethod
    def support(self, position: int) -> set[int]:
        """The positions that `position` attends to; empty where it attends to zeros only."""

    @abstractmethod
    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        """Attend over positions 0..L-1, any 1 <= L <= n_ctx.

        Factored patterns work on full rows: where L is no multiple of row_length, queries, keys and values are filled
        up with zeros and the output is cut; the weights keep the filled rows, of which those of positions from L on
        mean nothing (see `by_position`).
        """

    @abstractmethod
    def pair_count(self, length: int) -> int:
        """Pairs of a position and one that it sees, among the first `length` positions."""

    def by_position(self, weights: Tensor, length: int) -> Tensor:
        """Weights in the pattern's own layout, or what was made of them, position by position.

        Args:
            weights: (groups, H, queries, any), as `whole` lays them out.
            length: positions of the window, L.

        Returns:
            (N, H, L, any).
        """
        return weights[:, :, :length]

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Slots of a layer's cache for one song."""

    @property
    @abstractmethod
    def max_visible(self) -> int:
        """The most slots that a step reads."""

    @abstractmethod
    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        """The slot of a position, and the first slot and the number of slots that it reads once it is there.

        Whole-number functions of the position, the same for a number and for a tensor, so that a step can leave them to
        the device. The first slot is the number 0 where it is that for all positions.
        """

    def tables(self, length: int, dtype: torch.dtype = torch.int64, device: torch.device | None = None) -> SlotTables:
        """`slots` of the positions 0..`length` - 1."""
        entries = (
            torch.as_tensor(entry, device="cpu").expand(length)
            for entry in self.slots(torch.arange(length, device="cpu"))
        )
        return SlotTables(*(entry.to(device=device, dtype=dtype, copy=True) for entry in entries))

    def kept(self, length: int) -> SlotsOfPrompt:
        """Those of the first `length` positions that still have a slot after the last of them, and their slots.

        Raises:
            ValueError: `length` exceeds n_ctx.
        """
        if length > self.n_ctx:
            raise ValueError(f"`position` must be in [0, {self.n_ctx}), the positions of a window; got {length - 1}")
        return _kept(self, length)


class SlotsOfPrompt(NamedTuple):
    """Positions of a prompt and the slots that they are kept in, int64 (kept,) each."""

    positions: Tensor
    slots: Tensor


@functools.lru_cache(maxsize=64)
def _kept(pattern: Pattern, length: int) -> SlotsOfPrompt:
    positions = torch.arange(length, device="cpu")
    last = torch.full((pattern.capacity,), -1, device="cpu").scatter_reduce_(
        0, pattern.slots(positions)[0], positions, "amax"
    )
    slots = (last >= 0).nonzero().squeeze(1)
    return SlotsOfPrompt(last[slots], slots)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention of (B, H, L, D), scaled by 1 / sqrt(D).

    Without weights this is scaled_dot_product_attention. With weights they are computed explicitly, the softmax in
    float32.

    Returns:
        The output (B, H, L, D) and the weights (B, H, L, L) or None.
    """
    if not need_weights:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal), None
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        length = scores.shape[-1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    return weights @ value, weights
