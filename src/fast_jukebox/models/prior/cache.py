"""Key and value caches of a prior: bounded and preallocated, one for each layer.

A cache holds keys and values of the positions that later positions may attend to, and no others. Storage is allocated
once, never grows and never moves; a step writes one position and reads a view. The layer's pattern says in which slot
a position is kept and which slots it reads, for each song and head a range without gaps.

Shapes: N songs, H heads of width D; storage is (N, 2, H, capacity, D), keys and then values.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
        storage: (N, 2, H, `pattern.capacity`, D).
        whole: the cache that this one is a part of.
    """

    def __init__(self, pattern: Pattern, storage: Tensor, whole: LayerCache | None = None) -> None:
        self.pattern = pattern
        self.storage = storage
        order = torch.arange(pattern.max_visible, device=storage.device) if whole is None else whole.order
        # 1 / sqrt(D): steps multiply by a tensor, which is cheaper than by a number.
        scale = torch.tensor(storage.shape[-1] ** -0.5, device="cpu") if whole is None else whole.scale
        self.order: Tensor = order
        self.scale: Tensor = scale

    @classmethod
    def empty(
        cls, pattern: Pattern, batch_size: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> LayerCache:
        """An empty cache for `batch_size` songs."""
        shape = (batch_size, 2, heads, pattern.capacity, head_dim)
        return cls(pattern, torch.zeros(shape, dtype=dtype, device=device))

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
        return LayerCache(self.pattern, self.storage.narrow(0, start, count), self)

    def reset(self) -> None:
        """Forget everything."""
        self.storage.zero_()


class PriorCache:
    """Caches of all layers for one batch; made by [`FastJukeboxPrior.new_cache`].

    Args:
        layers: one cache a layer.
        batch_size: songs, N.
        length: positions seen so far; the next step is for this position.
        steps: each block made ready to step with its cache, see [`FastJukeboxPrior.block_steps`]; none until a step is.
    """

    def __init__(
        self,
        layers: Sequence[LayerCache],
        batch_size: int,
        length: int = 0,
        steps: Sequence[Callable[[Tensor, int | DeviceSlots], Tensor]] = (),
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
