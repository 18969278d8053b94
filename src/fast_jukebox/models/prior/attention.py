"""Attention over a window, and the keys and values that one step needs: the dense and the factored patterns.

A layer's pattern says which positions each position attends to, over a complete window and with a cache. A cache is
bounded: it holds keys and values of the positions that later positions may attend to, and no others. Its storage is
allocated once, never grows and never moves; a step writes one position and reads a view. The pattern says in which slot
a position is kept and which slots it reads, for each song and head a range without gaps.

Shapes: N songs, L positions, H heads of width D. Queries, keys and values come as (N, L, H, D); a cache's storage is
(N, 2, H, capacity, D), keys and then values.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.sampling.machine import zeros

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
    """True where some positions see nothing and attend to a row of zeros."""

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

        Integer functions of the position, the same for a number and for a tensor, so that a step can leave them to
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


class DensePattern(Pattern):
    """Each position sees itself and all before it.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        x x x x
        x x ? .
        . . . .

    Weights are (N, H, L, L). Every position has a slot.
    """

    def support(self, position: int) -> set[int]:
        return set(range(position + 1))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = [x.transpose(1, 2) for x in (query, key, value)]  # (N, H, L, D)
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        return Attended(output.transpose(1, 2), weights)

    def pair_count(self, length: int) -> int:
        return length * (length + 1) // 2

    @cached_property
    def capacity(self) -> int:
        return self.n_ctx

    @cached_property
    def max_visible(self) -> int:
        return self.n_ctx

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        return position, 0, position + 1


class RowPattern(Pattern):
    """Each position sees itself and those before it in its own row.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        . . . .
        x x ? .
        . . . .

    Weights are (N * rows, H, row_length, row_length), the rows of a song in order. There is a slot for each position of
    a row: a new row overwrites the last one.
    """

    def support(self, position: int) -> set[int]:
        return set(range(position - position % self.row_length, position + 1))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        # (N, rows, row_length, H, D) -> (N * rows, H, row_length, D)
        query, key, value = [_grid(x, self.row_length).flatten(0, 1).transpose(1, 2) for x in (query, key, value)]
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        output = output.transpose(1, 2).reshape(songs, -1, *output.shape[1::2])  # (N, rows * row_length, H, D)
        return Attended(output[:, :length], weights)

    def pair_count(self, length: int) -> int:
        full, rest = divmod(length, self.row_length)
        return full * self.row_length * (self.row_length + 1) // 2 + rest * (rest + 1) // 2

    def by_position(self, weights: Tensor, length: int) -> Tensor:
        return _rows_by_position(weights, self.row_length, length)

    @cached_property
    def capacity(self) -> int:
        return self.row_length

    @cached_property
    def max_visible(self) -> int:
        return self.row_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        column = position % self.row_length
        return column, 0, column + 1


class ColumnPattern(Pattern):
    """Each position sees itself and those above it in its own column.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        . . x .
        . . ? .
        . . . .

    Weights are (N * row_length, H, rows, rows), the columns of a song in order. Every position has a slot, those of a
    column side by side.
    """

    def support(self, position: int) -> set[int]:
        return set(range(position % self.row_length, position + 1, self.row_length))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        width = self.row_length
        # (N, rows, row_length, H, D) -> (N * row_length, H, rows, D)
        query, key, value = [_grid(x, width).permute(0, 2, 3, 1, 4).flatten(0, 1) for x in (query, key, value)]
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        # (N * row_length, H, rows, D) -> (N, rows * row_length, H, D)
        output = output.unflatten(0, (songs, width)).permute(0, 3, 1, 2, 4).flatten(1, 2)
        return Attended(output[:, :length], weights)

    def pair_count(self, length: int) -> int:
        full, rest = divmod(length, self.row_length)
        return self.row_length * full * (full + 1) // 2 + rest * (full + 1)

    def by_position(self, weights: Tensor, length: int) -> Tensor:
        # (N * row_length, H, rows, any) -> (N, H, rows, row_length, any)
        grid = weights.unflatten(0, (-1, self.row_length)).permute(0, 2, 3, 1, 4)
        return grid.flatten(2, 3)[:, :, :length]

    @cached_property
    def capacity(self) -> int:
        return self.n_ctx

    @cached_property
    def max_visible(self) -> int:
        return self.n_ctx // self.row_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        row, first = position // self.row_length, position % self.row_length * self.max_visible
        return first + row, first, row + 1


class PreviousRowPattern(Pattern):
    """Each position sees the complete row before its own; the first row sees a row of zero keys and values.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        x x x x
        . . ? .
        . . . .

    So in the first row the weights are uniform and the output is exactly zero. Weights are
    (N * rows, H, row_length, row_length), the rows of a song in order. There are slots for two rows, the one being
    written and the one before it, by parity of the row: nothing is moved at the end of a row.
    """

    sees_nothing = True

    def support(self, position: int) -> set[int]:
        start = position - position % self.row_length
        return set(range(max(0, start - self.row_length), start))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        query, key, value = [_grid(x, self.row_length) for x in (query, key, value)]
        # Row r meets the keys and values of row r - 1, row 0 meets zeros.
        key, value = [F.pad(x, (0, 0, 0, 0, 0, 0, 1, -1)) for x in (key, value)]
        # (N, rows, row_length, H, D) -> (N * rows, H, row_length, D)
        query, key, value = [x.flatten(0, 1).transpose(1, 2) for x in (query, key, value)]
        output, weights = attend(query, key, value, causal=False, need_weights=need_weights)
        output = output.transpose(1, 2).reshape(songs, -1, *output.shape[1::2])  # (N, rows * row_length, H, D)
        return Attended(output[:, :length], weights)

    def pair_count(self, length: int) -> int:
        return max(length - self.row_length, 0) * self.row_length

    def by_position(self, weights: Tensor, length: int) -> Tensor:
        return _rows_by_position(weights, self.row_length, length)

    @cached_property
    def capacity(self) -> int:
        return 2 * self.row_length

    @cached_property
    def max_visible(self) -> int:
        return self.row_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        row = position // self.row_length
        return position % self.capacity, (row + 1) % 2 * self.row_length, (row > 0) * self.row_length


def _grid(x: Tensor, row_length: int) -> Tensor:
    """(N, L, H, D) -> (N, rows, row_length, H, D), the last row filled up with zeros."""
    missing = -x.shape[1] % row_length
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    return x.unflatten(1, (-1, row_length))


def _rows_by_position(weights: Tensor, row_length: int, length: int) -> Tensor:
    """(N * rows, H, row_length, any) -> (N, H, L, any)."""
    grid = weights.unflatten(0, (-1, -(-length // row_length))).transpose(1, 2)  # (N, H, rows, row_length, any)
    return grid.flatten(2, 3)[:, :, :length]


class DeviceSlots(NamedTuple):
    """Slots of a position on the device: where it is kept and what it reads, in shapes that do not depend on it. The
    same for all layers of a pattern, so that a step finds them once.
    """

    slot: Tensor
    """int64 (1,), where the position is kept"""
    visible: Tensor | None
    """int64 (`max_visible`,), the slots that it reads; None for the first ones"""
    present: Tensor
    """bool (`max_visible`,), which of them there are; none for a row of zeros"""


class LayerCache:
    """Keys and values that one layer still needs.

    Args:
        pattern: of the layer.
        batch_size: songs, N.
        heads: H.
        head_dim: D.
        dtype, device: of keys and values.

    Attributes:
        storage: (N, 2, H, `pattern.capacity`, D), zeros at first.
    """

    def __init__(
        self, pattern: Pattern, batch_size: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.pattern = pattern
        self.storage = zeros((batch_size, 2, heads, pattern.capacity, head_dim), dtype, device)
        self.order = torch.arange(pattern.max_visible, device=device)
        # 1 / sqrt(D): steps multiply by a tensor, which is cheaper than by a number.
        self.scale = torch.tensor(head_dim**-0.5, device="cpu")

    def fill(self, key: Tensor, value: Tensor) -> None:
        """Keep what is needed of a prompt's keys and values.

        Args:
            key: (N, L, H, D), of positions 0..L-1 (of the lyric encoder's states, where the layer attends to them).
            value: of the same shape.

        Raises:
            ValueError: L exceeds n_ctx.
        """
        positions, slots = self.pattern.kept(key.shape[1])
        positions, slots = positions.to(key.device), slots.to(key.device)
        for index, entries in enumerate((key, value)):
            kept = entries.index_select(1, positions).transpose(1, 2)  # (N, H, kept, D)
            self.storage.select(1, index).index_copy_(2, slots, kept)

    def update(self, key_value: Tensor, position: int) -> Tensor | None:
        """Keep the keys and values of one position, and give what it attends to.

        Args:
            key_value: (N, 2, H, D).
            position: in [0, n_ctx); what it attends to was kept before.

        Returns:
            A view (N, 2, H, n, D) of the storage; None for a row of zeros.

        Raises:
            ValueError: `position` is not in [0, n_ctx).
        """
        n_ctx = self.pattern.n_ctx
        if not 0 <= position < n_ctx:
            raise ValueError(f"`position` must be in [0, {n_ctx}), the positions of a window; got {position}")
        slot, first, count = self.pattern.slots(position)
        self.storage.select(3, slot).copy_(key_value)
        return self.storage.narrow(3, first, count) if count else None

    def device_slots(self, position: Tensor) -> DeviceSlots:
        """The slots of a position (1,) on the device, which nobody checks."""
        slot, first, count = self.pattern.slots(position)
        return DeviceSlots(slot, None if isinstance(first, int) else self.order + first, self.order < count)

    def update_on_device(self, key_value: Tensor, at: DeviceSlots) -> Tensor:
        """`update` for a position on the device: (N, 2, H, `max_visible`, D), of which it sees those that are present
        in `at`.
        """
        self.storage.index_copy_(3, at.slot, key_value.unsqueeze(3))
        if at.visible is None:
            return self.storage.narrow(3, 0, self.pattern.max_visible)
        return self.storage.index_select(3, at.visible)

    def songs(self, start: int, count: int) -> LayerCache:
        """A cache of `count` of the songs that shares this one's storage."""
        part = copy.copy(self)
        part.storage = self.storage.narrow(0, start, count)
        return part

    def reset(self) -> None:
        """Forget everything."""
        self.storage.zero_()
