"""The attention patterns, dense and factored, of a window and to its lyrics.

Shapes: N songs, L positions, H heads of width D. Queries, keys and values come as (N, L, H, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.cache import Attended, Pattern, Position, SlotsOfPrompt, attend
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


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

    @property
    def capacity(self) -> int:
        return self.n_ctx

    @property
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

    @property
    def capacity(self) -> int:
        return self.row_length

    @property
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

    @property
    def capacity(self) -> int:
        return self.n_ctx

    @property
    def max_visible(self) -> int:
        return self.n_ctx // self.row_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        row, first = position // self.row_length, position % self.row_length * self.max_visible
        return first + row, first, row + 1


class PreviousRowPattern(Pattern):
    """Each position sees the whole row before its own; the first row sees a row of zero keys and values.

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

    @property
    def capacity(self) -> int:
        return 2 * self.row_length

    @property
    def max_visible(self) -> int:
        return self.row_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        row = position // self.row_length
        return position % self.capacity, (row + 1) % 2 * self.row_length, (row > 0) * self.row_length


@dataclass(frozen=True)
class LyricPrefixPattern(Pattern):
    """Each position sees itself and those before it among the first `keys` positions, where the lyrics stand.

    A window of 3 rows of 4 with 4 keys; what position 6 (`?`) sees is `x`::

        x x x x
        . . ? .
        . . . .

    Weights are (N, H, L, min(L, keys)). There is a slot for each key and a spare one for all other positions.

    Args:
        keys: how many of the first positions are seen; a row where 0.
    """

    keys: int = 0

    @classmethod
    def of_config(cls, config: FastJukeboxPriorConfig) -> Pattern:
        return cls(config.sequence_length, config.row_length, config.lyric_prefix_keys)

    def support(self, position: int) -> set[int]:
        return set(range(min(position + 1, self.max_visible)))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = [x.transpose(1, 2) for x in (query, key, value)]  # (N, H, L, D)
        seen = min(self.max_visible, query.shape[2])
        key, value = key[:, :, :seen], value[:, :, :seen]
        # The lyrics attend to themselves causally; whatever comes after them sees all of them.
        first, weights = attend(query[:, :, :seen], key, value, causal=True, need_weights=need_weights)
        if query.shape[2] == seen:
            return Attended(first.transpose(1, 2), weights)
        rest, rest_weights = attend(query[:, :, seen:], key, value, causal=False, need_weights=need_weights)
        if weights is not None and rest_weights is not None:
            weights = torch.cat([weights, rest_weights], dim=2)
        return Attended(torch.cat([first, rest], dim=2).transpose(1, 2), weights)

    def pair_count(self, length: int) -> int:
        seen = min(self.max_visible, length)
        return seen * (seen + 1) // 2 + (length - seen) * seen

    @property
    def capacity(self) -> int:
        return self.max_visible + 1

    @property
    def max_visible(self) -> int:
        return min(self.keys or self.row_length, self.n_ctx)

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        return _at_most(position, self.max_visible), 0, _at_most(position + 1, self.max_visible)


@dataclass(frozen=True)
class LyricCrossPattern(Pattern):
    """Each position sees every state of the lyric encoder, and no position of the window.

    Keys and values are (N, lyric_length, H, D); weights are (N, H, L, lyric_length). There is a slot for each state,
    filled with the prompt, and a spare one for what a step makes of its own position.

    Args:
        lyric_length: states of the encoder.
    """

    lyric_length: int = 0

    @classmethod
    def of_config(cls, config: FastJukeboxPriorConfig) -> Pattern:
        return cls(config.sequence_length, config.row_length, config.lyric_length)

    def support(self, position: int) -> set[int]:
        return set()

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = [x.transpose(1, 2) for x in (query, key, value)]  # (N, H, L or lyric_length, D)
        output, weights = attend(query, key, value, causal=False, need_weights=need_weights)
        return Attended(output.transpose(1, 2), weights)

    def pair_count(self, length: int) -> int:
        return length * self.lyric_length

    @property
    def capacity(self) -> int:
        return self.lyric_length + 1

    @property
    def max_visible(self) -> int:
        return self.lyric_length

    def slots(self, position: Position) -> tuple[Position, Position | int, Position | int]:
        spare = _at_most(position + self.lyric_length, self.lyric_length)
        return spare, 0, spare

    def kept(self, length: int) -> SlotsOfPrompt:
        """The slots of `length` states of the encoder."""
        return SlotsOfPrompt(*[torch.arange(length, device="cpu")] * 2)


PATTERNS: dict[str, type[Pattern]] = {
    "dense": DensePattern,
    "row": RowPattern,
    "column": ColumnPattern,
    "previous_row": PreviousRowPattern,
    "lyric_prefix": LyricPrefixPattern,
    "lyric_cross": LyricCrossPattern,
}


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


def _at_most(position: Position, limit: int) -> Position:
    return position.clamp(max=limit) if isinstance(position, Tensor) else min(position, limit)
