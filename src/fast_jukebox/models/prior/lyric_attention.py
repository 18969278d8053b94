"""Attention to the lyrics: to the states of an encoder, or to the characters that stand before the codes.

Both patterns have the two faces of [`~fast_jukebox.models.prior.attention.Pattern`] and a cache whose slots are found
by whole-number functions of the position, so that one step serves every layer. What need not be kept goes into one
spare slot that nothing reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import PATTERNS, Attended, FactoredAttention, Pattern, attend
from fast_jukebox.models.prior.cache import LayerCache, Position
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


class LyricPrefixCache(LayerCache):
    """The first positions, (N, 2, H, keys + 1, D); the last slot takes the positions that nothing attends to."""

    @property
    def reach(self) -> int:
        return self.storage.shape[3] - 1

    def slot(self, position: Position) -> Position:
        return _at_most(position, self.reach)

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        return 0, _at_most(position + 1, self.reach)

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        self._check(key.shape[1] - 1)
        kept = min(key.shape[1], self.reach)
        self.storage[:, 0, :, :kept] = key[:, :kept].transpose(1, 2)
        self.storage[:, 1, :, :kept] = value[:, :kept].transpose(1, 2)


class LyricCrossCache(LayerCache):
    """The lyric encoder's states, (N, 2, H, lyric_length + 1, D), kept by the prompt's pass and read by every step; the
    last slot takes what a step writes.
    """

    @property
    def reach(self) -> int:
        return self.storage.shape[3] - 1

    def slot(self, position: Position) -> Position:
        return _at_most(position + self.reach, self.reach)

    def seen(self, position: Position) -> tuple[Position | int, Position | int]:
        return 0, self.slot(position)

    def write_whole(self, key: Tensor, value: Tensor) -> None:
        self.storage[:, 0, :, : self.reach] = key.transpose(1, 2)
        self.storage[:, 1, :, : self.reach] = value.transpose(1, 2)


@dataclass(frozen=True)
class LyricPrefixPattern(Pattern):
    """Each position sees itself and those before it among the first `keys` positions, where the lyrics stand.

    A window of 3 rows of 4 with 4 keys; what position 6 (`?`) sees is `x`::

        x x x x
        . . ? .
        . . . .

    Weights are (N, H, L, min(L, keys)).

    Args:
        keys: how many of the first positions are seen; a row where 0.
    """

    keys: int = 0

    cache_class = LyricPrefixCache

    @classmethod
    def of_config(cls, config: FastJukeboxPriorConfig) -> Pattern:
        return cls(config.sequence_length, config.row_length, config.lyric_prefix_keys)

    @property
    def reach(self) -> int:
        """Positions that are seen at most."""
        return min(self.keys or self.row_length, self.n_ctx)

    def support(self, position: int) -> set[int]:
        return set(range(min(position + 1, self.reach)))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        reach = min(self.reach, query.shape[2])
        key, value = key[:, :, :reach], value[:, :, :reach]
        # The lyrics attend to themselves causally; whatever comes after them sees all of them.
        first, weights = attend(query[:, :, :reach], key, value, causal=True, need_weights=need_weights)
        if query.shape[2] == reach:
            return Attended(first.transpose(1, 2), weights)
        rest, rest_weights = attend(query[:, :, reach:], key, value, causal=False, need_weights=need_weights)
        if weights is not None and rest_weights is not None:
            weights = torch.cat([weights, rest_weights], dim=2)
        return Attended(torch.cat([first, rest], dim=2).transpose(1, 2), weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, self.reach + 1, head_dim)


@dataclass(frozen=True)
class LyricCrossPattern(Pattern):
    """Each position sees every state of the lyric encoder, and no position of the window.

    Keys and values are (N, lyric_length, H, D); weights are (N, H, L, lyric_length).

    Args:
        lyric_length: states of the encoder.
    """

    lyric_length: int = 0

    cache_class = LyricCrossCache

    @classmethod
    def of_config(cls, config: FastJukeboxPriorConfig) -> Pattern:
        return cls(config.sequence_length, config.row_length, config.lyric_length)

    def support(self, position: int) -> set[int]:
        return set()

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        output, weights = attend(query, key, value, causal=False, need_weights=need_weights)
        return Attended(output.transpose(1, 2), weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, self.lyric_length + 1, head_dim)


class LyricCrossAttention(FactoredAttention):
    """Attention from the window to the lyric encoder's states.

    `qkv` has the shape that it has in every layer: its first third makes queries of the window, the rest keys and
    values of the lyric states, which are as wide. So a step runs as in other layers; the keys and values that it makes
    of its own position go into the cache's spare slot.
    """

    def forward(
        self,
        hidden: Tensor,
        need_weights: bool = False,
        cache: LayerCache | None = None,
        lyric_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As [`FactoredAttention.forward`], but with keys and values of `lyric_states`, (N, lyric_length, W).

        Raises:
            ValueError: `lyric_states` is None.
        """
        if lyric_states is None:
            raise ValueError(
                "`lyric_states` must be given to a layer that attends to lyrics, those of the conditioning; got None"
            )
        size = self.num_heads * self.head_dim
        heads = (self.num_heads, self.head_dim)
        query_weight, key_value_weight = self.qkv.weight.split([size, 2 * size])
        query_bias, key_value_bias = self.qkv.bias.split([size, 2 * size])
        query = F.linear(hidden, query_weight, query_bias).unflatten(-1, heads)
        key, value = F.linear(lyric_states, key_value_weight, key_value_bias).unflatten(-1, (2, *heads)).unbind(2)
        if cache is not None:
            cache.write_whole(key, value)
        eager = self.config._attn_implementation == "eager"
        output, weights = self.pattern.whole(query, key, value, need_weights=need_weights or eager)
        return self.projection(output.flatten(2)), weights if need_weights else None


PATTERNS["lyric_prefix"] = LyricPrefixPattern
PATTERNS["lyric_cross"] = LyricCrossPattern


def make_attention(config: FastJukeboxPriorConfig, layer_index: int) -> FactoredAttention:
    """The attention of a layer: to the window itself, or to the lyric encoder's states."""
    cross = config.layer_types[layer_index] == "lyric_cross"
    return (LyricCrossAttention if cross else FactoredAttention)(config, layer_index)


def _at_most(position: Position, limit: int) -> Position:
    return position.clamp(max=limit) if isinstance(position, Tensor) else min(position, limit)
