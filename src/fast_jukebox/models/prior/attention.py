"""Factored attention: which positions see which, over a whole window and one step at a time.

A window of n_ctx positions is laid out as `num_rows` rows of `row_length` positions. A pattern is an object with two
faces that agree: `whole`, over all positions at once (training, scoring, prompts), and `step`, one position with a
bounded cache (sampling). No pattern but the dense one ever makes an (L, L) matrix.

Shapes: N songs, L positions, H heads of width D. Queries, keys and values come as (N, L, H, D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.models.prior.cache import (
    ColumnCache,
    DenseCache,
    LayerCache,
    Place,
    PreviousRowCache,
    RowCache,
)
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


class Attended(NamedTuple):
    """What `whole` gives: `output` (N, L, H, D) and, where asked for, `weights` in the pattern's own layout."""

    output: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class Pattern(ABC):
    """Which positions each position attends to.

    Args:
        n_ctx: positions of a window.
        row_length: positions of a row; divides n_ctx.
    """

    n_ctx: int
    row_length: int

    cache_class: ClassVar[type[LayerCache]]

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
        mean nothing.
        """

    @abstractmethod
    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        """Shape of the cache's storage for one song."""

    def new_cache(
        self, batch_size: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> LayerCache:
        """An empty cache for `batch_size` songs."""
        storage = torch.zeros(batch_size, *self.cache_shape(heads, head_dim), dtype=dtype, device=device)
        return self.cache_class(storage, self.n_ctx, self.row_length)

    def step(self, query: Tensor, key_value: Tensor, cache: LayerCache, position: int | Place, out: Tensor) -> None:
        """Attend from one position and keep its keys and values.

        Args:
            query: (N, H, D).
            key_value: keys and values of the position, (N, 2, H, D).
            cache: a cache of this pattern that has seen positions 0..position-1.
            position: in [0, n_ctx); as the cache's place of one on the device it is neither looked at by the host nor
                checked, and every shape is the same at all positions.
            out: (N, H, D), receives what `whole` gives for the position.

        Raises:
            ValueError: `position` is a number beyond the cache's capacity.
        """
        if isinstance(position, Place):
            cache.write_at(key_value, position)
            seen = cache.read_at(position)
            attended = attend_from_present(query, seen.select(1, 0), seen.select(1, 1), position.present, cache.scale)
            if cache.sees_nothing:
                attended = attended.masked_fill(~position.present[:1], 0.0)
            out.copy_(attended)
            return
        cache.write(key_value, position)
        present = cache.read(position)
        if present is None:
            out.zero_()
        else:
            attend_from_one(query, present.select(1, 0), present.select(1, 1), cache.scale, out)


class DensePattern(Pattern):
    """Each position sees itself and all before it.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        x x x x
        x x ? .
        . . . .

    Weights are (N, H, L, L).
    """

    cache_class = DenseCache

    def support(self, position: int) -> set[int]:
        return set(range(position + 1))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        return Attended(output.transpose(1, 2), weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, self.n_ctx, head_dim)


class RowPattern(Pattern):
    """Each position sees itself and those before it in its own row.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        . . . .
        x x ? .
        . . . .

    Weights are (N * rows, H, row_length, row_length), the rows of a song in order.
    """

    cache_class = RowCache

    def support(self, position: int) -> set[int]:
        return set(range(position - position % self.row_length, position + 1))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        # (N, rows, row_length, H, D) -> (N * rows, H, row_length, D)
        query, key, value = (_grid(x, self.row_length).flatten(0, 1).transpose(1, 2) for x in (query, key, value))
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        output = output.transpose(1, 2).reshape(songs, -1, *output.shape[1::2])
        return Attended(output[:, :length], weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, self.row_length, head_dim)


class ColumnPattern(Pattern):
    """Each position sees itself and those above it in its own column.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        . . x .
        . . ? .
        . . . .

    Weights are (N * row_length, H, rows, rows), the columns of a song in order.
    """

    cache_class = ColumnCache

    def support(self, position: int) -> set[int]:
        return set(range(position % self.row_length, position + 1, self.row_length))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        # (N, rows, row_length, H, D) -> (N * row_length, H, rows, D)
        query, key, value = (
            _grid(x, self.row_length).permute(0, 2, 3, 1, 4).flatten(0, 1) for x in (query, key, value)
        )
        output, weights = attend(query, key, value, causal=True, need_weights=need_weights)
        output = output.unflatten(0, (songs, self.row_length)).permute(0, 3, 1, 2, 4).flatten(1, 2)
        return Attended(output[:, :length], weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, self.row_length, self.n_ctx // self.row_length, head_dim)


class PreviousRowPattern(Pattern):
    """Each position sees the whole row before its own; the first row sees a row of zero keys and values.

    A window of 3 rows of 4; what position 6 (`?`) sees is `x`::

        x x x x
        . . ? .
        . . . .

    So in the first row the weights are uniform and the output is exactly zero. Weights are
    (N * rows, H, row_length, row_length), the rows of a song in order.
    """

    cache_class = PreviousRowCache

    def support(self, position: int) -> set[int]:
        start = position - position % self.row_length
        return set(range(max(0, start - self.row_length), start))

    def whole(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> Attended:
        songs, length = query.shape[:2]
        query, key, value = (_grid(x, self.row_length) for x in (query, key, value))
        # Row r meets the keys and values of row r - 1, row 0 meets zeros.
        key, value = (F.pad(x, (0, 0, 0, 0, 0, 0, 1, -1)) for x in (key, value))
        query, key, value = (x.flatten(0, 1).transpose(1, 2) for x in (query, key, value))
        output, weights = attend(query, key, value, causal=False, need_weights=need_weights)
        output = output.transpose(1, 2).reshape(songs, -1, *output.shape[1::2])
        return Attended(output[:, :length], weights)

    def cache_shape(self, heads: int, head_dim: int) -> tuple[int, ...]:
        return (2, heads, 2, self.row_length, head_dim)


PATTERNS: dict[str, type[Pattern]] = {
    "dense": DensePattern,
    "row": RowPattern,
    "column": ColumnPattern,
    "previous_row": PreviousRowPattern,
}


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


def attend_from_one(query: Tensor, key: Tensor, value: Tensor, scale: Tensor, out: Tensor) -> None:
    """Softmax attention of one query over a few keys and values.

    On a CPU in float32 this is made of products and sums over one axis: no slower than a fused kernel at this size, and
    unlike it with a result for each song that does not depend on how many songs are in the batch.

    Args:
        query: (N, H, D).
        key: (N, H, n, D).
        value: (N, H, n, D).
        scale: scalar on the CPU, 1 / sqrt(D).
        out: (N, H, D), receives the result.
    """
    if query.device.type != "cpu" or query.dtype != torch.float32:
        out.copy_(F.scaled_dot_product_attention(query.unsqueeze(2), key, value).squeeze(2))
        return
    scores = (key * query.unsqueeze(2)).sum(-1)
    weights = torch.softmax(scores * scale, dim=-1)
    torch.sum(value * weights.unsqueeze(-1), 2, out=out)


def attend_from_present(query: Tensor, key: Tensor, value: Tensor, present: Tensor, scale: Tensor) -> Tensor:
    """`attend_from_one` over those of the keys that are present; anything finite where none is.

    Under torch.compile, as on a CPU in float32, it is products and sums, which one kernel or two can do; otherwise a
    fused kernel.

    Args:
        query: (N, H, D).
        key: (N, H, n, D), finite where not present too.
        value: (N, H, n, D), likewise.
        present: bool (n,).
        scale: scalar, 1 / sqrt(D).

    Returns:
        (N, H, D).
    """
    plain = torch.compiler.is_compiling() or (query.device.type == "cpu" and query.dtype == torch.float32)
    if not plain:
        mask = present.expand(query.shape[0], 1, 1, -1)
        return F.scaled_dot_product_attention(query.unsqueeze(2), key, value, attn_mask=mask).squeeze(2)
    scores = (key.float() * query.float().unsqueeze(2)).sum(-1) * scale
    weights = torch.softmax(scores.masked_fill(~present, torch.finfo(torch.float32).min), dim=-1)
    return (value.float() * weights.unsqueeze(-1)).sum(2).to(query.dtype)


def _grid(x: Tensor, row_length: int) -> Tensor:
    """(N, L, H, D) -> (N, rows, row_length, H, D), the last row filled up with zeros."""
    missing = -x.shape[1] % row_length
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    return x.unflatten(1, (-1, row_length))


class FactoredAttention(nn.Module):
    """Attention of one layer: queries, keys and values of one projection, the layer's pattern, a projection back.

    Weights are computed only where they are asked for, or where the model's `attn_implementation` is `"eager"`;
    otherwise the layer uses scaled_dot_product_attention.

    Args:
        config: of the prior.
        layer_index: which layer; the config's cycle gives its pattern.
    """

    def __init__(self, config: FastJukeboxPriorConfig, layer_index: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.attention_size // config.num_attention_heads
        self.pattern = PATTERNS[config.layer_types[layer_index]].of_config(config)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.attention_size)
        self.projection = nn.Linear(config.attention_size, config.hidden_size)

    def forward(
        self,
        hidden: Tensor,
        need_weights: bool = False,
        cache: LayerCache | None = None,
        lyric_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over a whole window from its start.

        Args:
            hidden: (N, L, W).
            need_weights: whether to return the weights.
            cache: where to keep the keys and values that later steps need.
            lyric_states: of the conditioning; only a layer that attends to them takes notice.

        Returns:
            (N, L, W), and the weights in the pattern's own layout or None.
        """
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        if cache is not None:
            cache.write_whole(key, value)
        eager = self.config._attn_implementation == "eager"
        output, weights = self.pattern.whole(query, key, value, need_weights=need_weights or eager)
        return self.projection(output.flatten(2)), weights if need_weights else None
