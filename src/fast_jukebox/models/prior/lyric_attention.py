"""The attention patterns of a prior to its lyrics: in one sequence with the codes, or as the states of an encoder.

Shapes as in [`~fast_jukebox.models.prior.attention`].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fast_jukebox.models.prior.attention import Attended, Pattern, Position, SlotsOfPrompt, attend
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


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
    filled with the prompt, and a spare one for what a step makes of its position.

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


def _at_most(position: Position, limit: int) -> Position:
    return position.clamp(max=limit) if isinstance(position, Tensor) else min(position, limit)
