"""What a prior remembers while it samples: a bounded, preallocated cache for each layer.

A cache holds keys and values of the positions that later positions may attend to, and no others. Storage is allocated
once, never grows and never moves; a step writes one position and reads a view. Each attention pattern has its own
layout, in which what a step reads is one contiguous stretch of slots for each song and head:

| pattern | storage | a step at position p reads |
|---|---|---|
| dense | (N, 2, H, n_ctx, D) | positions 0..p |
| row | (N, 2, H, row_length, D) | its row up to p |
| column | (N, 2, H, row_length, num_rows, D) | its column up to p |
| previous row | (N, 2, H, 2 rows, row_length, D) | the row before p's |

The first axis of size 2 holds keys and values; N songs, H heads of width D. The axes between H and D are also counted
as one, the slots; where a position is kept and what it reads are whole-number functions of the position, the same for a
number and for a tensor, so that a step can leave them to the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

Position = TypeVar("Position", int, Tensor)
"""A position or an int64 tensor of them."""


class Place(NamedTuple):
    """Where a position on the device is kept and what it reads, in shapes that do not depend on it. The same for all
    layers of a pattern, so that a step finds it once for them.
    """

    slot: Tensor
    """int64 (1,), where the position is kept"""
    slots: Tensor | None
    """int64 (`reach`,), the slots that it reads; None for the first ones"""
    present: Tensor
    """bool (`reach`,), which of them there are; none for a row of zeros"""


class LayerCache(ABC):
    """Keys and values that one layer still needs.

    Args:
        storage: the tensor that holds them, songs first.
        n_ctx: positions that exist; a write beyond them is refused.
        row_length: positions in a row.
    """

    def __init__(self, storage: Tensor, n_ctx: int, row_length: int) -> None:
        self.storage = storage
        self.n_ctx = n_ctx
        self.row_length = row_length
        self.slots = storage.flatten(3, -2)
        """(N, 2, H, slots, D), a view of the storage"""
        self.order = torch.arange(self.reach, device=storage.device)
        # 1 / sqrt(D): steps multiply by a tensor, which is cheaper than by a number.
        self.scale = torch.tensor(storage.shape[-1] ** -0.5, device="cpu")

    sees_nothing: ClassVar[bool] = False
    """Whether there are positions that read no slot."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """The most slots that a step reads."""

    @abstractmethod
    def slot(self, position: Position) -> Position:
        """Where a position is kept."""

    @abstractmethod
    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        """The first slot that a position, written last, reads (as a number 0 where it is the first one for all) and how
        many, 0..`reach`.
        """

    @abstractmethod
    def write_whole(self, key: Tensor, value: Tensor) -> None:
        """Keep what is needed of positions 0..L-1, whose keys and values are (N, L, H, D).

        Raises:
            ValueError: L exceeds n_ctx.
        """

    def write(self, key_value: Tensor, position: int) -> None:
        """Keep the keys and values (N, 2, H, D) of one position.

        Raises:
            ValueError: `position` is not in [0, n_ctx).
        """
        self._check(position)
        self.slots.select(3, self.slot(position)).copy_(key_value)

    def read(self, position: int) -> Tensor | None:
        """View (N, 2, H, n, D) of what `position`, written last, attends to; None for a row of zeros."""
        start, count = self.seen(position)
        return self.slots.narrow(3, start, count) if count else None

    def place(self, position: Tensor) -> Place:
        """The place of a position (1,) on the device, which nobody checks."""
        start, count = self.seen(position)
        slots = None if isinstance(start, int) else self.order + start
        return Place(self.slot(position), slots, self.order < count)

    def write_at(self, key_value: Tensor, place: Place) -> None:
        """`write` for a position on the device."""
        self.slots.index_copy_(3, place.slot, key_value.unsqueeze(3))

    def read_at(self, place: Place) -> Tensor:
        """(N, 2, H, `reach`, D), what a position on the device, written last, attends to where `place` says that it is
        present.
        """
        if place.slots is None:
            return self.slots.narrow(3, 0, self.reach)
        return self.slots.index_select(3, place.slots)

    def songs(self, start: int, count: int) -> LayerCache:
        """A cache of `count` of the songs that shares this one's storage."""
        return type(self)(self.storage.narrow(0, start, count), self.n_ctx, self.row_length)

    def reset(self) -> None:
        """Forget everything."""
        self.storage.zero_()

    def _check(self, position: int) -> None:
        if not 0 <= position < self.n_ctx:
            raise ValueError(
                f"`position` must be in [0, {self.n_ctx}), the capacity of {type(self).__name__}; got {position}"
            )


class DenseCache(LayerCache):
    """Every position, (N, 2, H, n_ctx, D)."""

    @property
    def reach(self) -> int:
        return self.n_ctx

    def slot(self, position: Position) -> Position:
        return position

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        return 0, position + 1

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        length = key.shape[1]
        self._check(length - 1)
        self.storage[:, 0, :, :length] = key.transpose(1, 2)
        self.storage[:, 1, :, :length] = value.transpose(1, 2)


class RowCache(LayerCache):
    """One row, (N, 2, H, row_length, D): a new row overwrites the last one."""

    @property
    def reach(self) -> int:
        return self.row_length

    def slot(self, position: Position) -> Position:
        return position % self.row_length

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        return 0, position % self.row_length + 1

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        length = key.shape[1]
        self._check(length - 1)
        start = (length - 1) // self.row_length * self.row_length
        self.storage[:, 0, :, : length - start] = key[:, start:].transpose(1, 2)
        self.storage[:, 1, :, : length - start] = value[:, start:].transpose(1, 2)


class ColumnCache(LayerCache):
    """Every position, column by column, (N, 2, H, row_length, num_rows, D): a column is contiguous."""

    @property
    def reach(self) -> int:
        return self.n_ctx // self.row_length

    def slot(self, position: Position) -> Position:
        return position % self.row_length * self.reach + position // self.row_length

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        return position % self.row_length * self.reach, position // self.row_length + 1

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        length = key.shape[1]
        self._check(length - 1)
        rows = length // self.row_length
        full = rows * self.row_length
        for index, entries in enumerate((key, value)):
            store = self.storage[:, index]  # (N, H, row_length, num_rows, D)
            if rows:
                grid = entries[:, :full].unflatten(1, (rows, self.row_length))  # (N, rows, row_length, H, D)
                store[:, :, :, :rows] = grid.permute(0, 3, 2, 1, 4)
            if full < length:
                store[:, :, : length - full, rows] = entries[:, full:].transpose(1, 2)


class PreviousRowCache(LayerCache):
    """Two rows, (N, 2, H, 2 rows, row_length, D): the row being written and the one before it, by parity of the row.

    Nothing is moved at the end of a row; the roles of the two rows change.
    """

    sees_nothing = True

    @property
    def reach(self) -> int:
        return self.row_length

    def slot(self, position: Position) -> Position:
        return position % (2 * self.row_length)

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        row = position // self.row_length
        return (row + 1) % 2 * self.row_length, (row > 0) * self.row_length

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        length = key.shape[1]
        self._check(length - 1)
        last = (length - 1) // self.row_length
        for row in range(max(0, last - 1), last + 1):
            start = row * self.row_length
            stop = min(length, start + self.row_length)
            self.storage[:, 0, :, row % 2, : stop - start] = key[:, start:stop].transpose(1, 2)
            self.storage[:, 1, :, row % 2, : stop - start] = value[:, start:stop].transpose(1, 2)


class PriorCache:
    """What a prior remembers of the songs of one batch; made by [`FastJukeboxPrior.new_cache`].

    Args:
        layers: one cache a layer.
        batch_size: songs, N.
        length: positions seen so far; the next step is for this position.
        steps: each block made ready to step with its cache; they belong to the weights of the prior that made them.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        batch_size: int,
        length: int = 0,
        steps: Sequence[Callable[[Tensor, int | Place], Tensor]] = (),
    ) -> None:
        self.layers = list(layers)
        self.batch_size = batch_size
        self.length = length
        self.steps = list(steps)

    def songs(self, start: int, count: int) -> PriorCache:
        """A cache of `count` of the songs that shares this one's storage, for filling only."""
        return PriorCache([layer.songs(start, count) for layer in self.layers], count, self.length)

    def reset(self) -> None:
        """Forget everything; the storage stays."""
        for layer in self.layers:
            layer.reset()
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        return sum(layer.storage.nbytes for layer in self.layers)

    @property
    def device(self) -> torch.device:
        """Device of the storage."""
        return self.layers[0].storage.device
