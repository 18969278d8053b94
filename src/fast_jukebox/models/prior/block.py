"""One block of the prior: over a complete window, and one step at a time with a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import (
    ColumnPattern,
    DensePattern,
    DeviceSlots,
    LayerCache,
    Pattern,
    PreviousRowPattern,
    RowPattern,
)
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.lyric_attention import LyricCrossPattern, LyricPrefixPattern
from fast_jukebox.sampling.machine import NARROW
from fast_jukebox.sampling.weights import effective_weights

PATTERNS: dict[str, type[Pattern]] = {
    "dense": DensePattern,
    "row": RowPattern,
    "column": ColumnPattern,
    "previous_row": PreviousRowPattern,
    "lyric_prefix": LyricPrefixPattern,
    "lyric_cross": LyricCrossPattern,
}
"""Attention pattern by its name in `layer_types`."""


def attend_step(query: Tensor, key_value: Tensor, cache: LayerCache, position: int | DeviceSlots, out: Tensor) -> None:
    """Keep a position's keys and values, and attend from it.

    Args:
        query: (N, H, D).
        key_value: keys and values of the position, (N, 2, H, D).
        cache: of the layer, with positions 0..position-1.
        position: in [0, n_ctx); as the cache's slots of a position on the device it is neither looked at by the host
            nor checked, and every shape is the same at all positions.
        out: (N, H, D), receives what the pattern's `whole` gives for the position.

    Raises:
        ValueError: `position` is a number beyond the window.
    """
    if isinstance(position, DeviceSlots):
        seen = cache.update_on_device(key_value, position)  # (N, 2, H, max_visible, D)
        attended = attend_from_present(query, seen.select(1, 0), seen.select(1, 1), position.present, cache.scale)
        if cache.pattern.sees_nothing:
            attended = attended.masked_fill(~position.present[:1], 0.0)
        out.copy_(attended)
        return
    present = cache.update(key_value, position)  # (N, 2, H, n, D)
    if present is None:
        out.zero_()
    else:
        attend_from_one(query, present.select(1, 0), present.select(1, 1), cache.scale, out)


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
        value: (N, H, n, D), finite where not present too.
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
        """Attend over a complete window from its start.

        Args:
            hidden: (N, L, W).
            need_weights: return the weights.
            cache: where to keep the keys and values that later steps need.
            lyric_states: of the conditioning; only a layer that attends to them reads them.

        Returns:
            (N, L, W), and the weights in the pattern's own layout or None.
        """
        query, key, value = self.query_key_value(hidden, lyric_states)
        if cache is not None:
            cache.fill(key, value)
        eager = self.config._attn_implementation == "eager"
        output, weights = self.pattern.whole(query, key, value, need_weights=need_weights or eager)
        return self.projection(output.flatten(2)), weights if need_weights else None

    def query_key_value(self, hidden: Tensor, lyric_states: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, L, H, D)."""
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        return query, key, value


class LyricCrossAttention(FactoredAttention):
    """Attention from the window to the lyric encoder's states.

    `qkv` has the shape that it has in every layer: its first third makes queries of the window, the rest keys and
    values of the lyric states, which are as wide. So a step runs as in other layers; the keys and values that it makes
    of its position go into the cache's spare slot.
    """

    def query_key_value(self, hidden: Tensor, lyric_states: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, L, H, D) of the window, keys and values (N, lyric_length, H, D) of `lyric_states`.

        Raises:
            ValueError: `lyric_states` is None.
        """
        if lyric_states is None:
            raise ValueError(
                "`lyric_states` must be given to a layer that attends to lyrics, those of the conditioning; got None"
            )
        # The layer is called, whose weight may have adapters or lie elsewhere, though a part of each product is unused.
        query, _, _ = super().query_key_value(hidden, None)
        _, key, value = super().query_key_value(lyric_states, None)
        return query, key, value


LAYER_NORM_EPS = 1e-5

# x * sigmoid(1.702 x); steps multiply by a tensor, which is cheaper than by a number.
_GATE = 1.702
_GATE_TENSOR = torch.tensor(_GATE, device="cpu")

# On a CPU, matrix products of other numbers of rows may go through kernels that add up in another order. So those of a
# narrow prior's step are of so many rows each, the last ones spare, and a song's logits are the same bit for bit in any
# batch. Wide priors, whose products threads share, only avoid the kernels for 1 to 3 rows and for odd last ones.
_NARROW_ROWS = 16
_WIDE_ROWS = 4

# Elementwise kernels on a CPU take full vectors of a contiguous run of numbers, 32 at once with AVX-512 and 16 with
# AVX2, and the last few one by one, with another exponential. Rows with a gap between them are separate runs, so that
# the result of a row does not depend on the number of rows.
_CPU_RUN = 32

# From so many numbers on torch shares an elementwise kernel out among its threads, which cuts runs anywhere.
_CPU_SHARED = 32768


def rows_for(songs: int, device: torch.device, width: int) -> int:
    """Rows that a step of a prior of a width computes with for a number of songs; the last ones may be spare."""
    if device.type != "cpu":
        return songs
    rows = _NARROW_ROWS if width < NARROW else _WIDE_ROWS
    return -(-songs // rows) * rows


def linear_of_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """A linear layer of a step of a prior of a width: (rows, in) -> (rows, out), as many rows as [`rows_for`] says."""
    if len(rows) <= _NARROW_ROWS or rows.device.type != "cpu" or width >= NARROW:
        return F.linear(rows, weight, bias)
    return torch.cat([F.linear(part, weight, bias) for part in rows.split(_NARROW_ROWS)])


class BlockOutput(NamedTuple):
    """Output of a [`PriorBlock`]."""

    hidden_states: Tensor
    """(N, L, W), output of the block"""
    attention_residual: Tensor
    """(N, L, W), x + attention(x)"""
    attentions: Tensor | None
    """weights in the pattern's own layout, where asked for"""


def autocast_bfloat16(device: torch.device) -> bool:
    """True where autocast to bfloat16 is on for a device: then hidden states and outputs of LayerNorm are kept in it.
    Autocast alone leaves them in float32, and training would spend most of its time reading and writing them.
    """
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


class PriorLayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32 and gives bfloat16 under autocast to that."""

    def forward(self, input: Tensor) -> Tensor:
        if not autocast_bfloat16(input.device):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = self.weight.to(torch.bfloat16), self.bias.to(torch.bfloat16)
            return F.layer_norm(input.to(torch.bfloat16), self.normalized_shape, weight, bias, self.eps)


class PriorMLP(nn.Module):
    """W -> inner width -> W with x * sigmoid(1.702 x) between."""

    def __init__(self, config: FastJukeboxPriorConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.hidden_size, config.mlp_size)
        self.contract = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.expand(hidden)
        return self.contract(hidden * torch.sigmoid(_GATE * hidden))


class PriorBlock(nn.Module):
    """x + s * (a + m) with a = attention(norm(x)), m = mlp(norm(x + a)), s = 1 or 1 / depth.

    LayerNorms compute in float32, whatever the dtype of the weights.

    Args:
        config: of the prior.
        layer_index: which layer it is.
    """

    # Set by `gradient_checkpointing_enable` of the model. (The base class that transformers has for such layers lives
    # in a module that imports torchaudio and fails where that is broken.)
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., BlockOutput]

    def __init__(self, config: FastJukeboxPriorConfig, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = PriorLayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        cross = config.layer_types[layer_index] == "lyric_cross"
        self.attention = (LyricCrossAttention if cross else FactoredAttention)(config, layer_index)
        self.mlp_norm = PriorLayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.mlp = PriorMLP(config)
        self.residual_scale = 1.0 / config.num_hidden_layers if config.residual_scale else 1.0

    def forward(
        self,
        hidden: Tensor,
        need_weights: bool = False,
        cache: LayerCache | None = None,
        lyric_states: Tensor | None = None,
    ) -> BlockOutput:
        """Run over a complete window from its start.

        Args:
            hidden: (N, L, W), 1 <= L <= the sequence's length.
            need_weights: return the attention's weights.
            cache: where to keep the keys and values that later steps need.
            lyric_states: (N, lyric_length, W) of the conditioning, where the layer attends to the lyrics.

        Raises:
            ValueError: the layer attends to lyrics and there are none.
        """
        if self.gradient_checkpointing and self.training and cache is None:
            return self._gradient_checkpointing_func(self._forward, hidden, need_weights, None, lyric_states)
        return self._forward(hidden, need_weights, cache, lyric_states)

    def _forward(
        self, hidden: Tensor, need_weights: bool, cache: LayerCache | None, lyric_states: Tensor | None
    ) -> BlockOutput:
        attended, weights = self.attention(self.attention_norm(hidden), need_weights, cache, lyric_states)
        residual = hidden + attended
        branch = self.mlp(self.mlp_norm(residual))
        if self.residual_scale == 1.0:
            return BlockOutput(residual + branch, residual, weights)
        return BlockOutput(hidden + self.residual_scale * (attended + branch), residual, weights)


class BlockList(nn.ModuleList):
    """Blocks of a prior, in order."""

    def __iter__(self) -> Iterator[PriorBlock]:
        return cast("Iterator[PriorBlock]", super().__iter__())


def block_weights(block: PriorBlock) -> list[Tensor]:
    """Weight and bias of each layer of a block, in their order; merged copies of layers with adapters."""
    attention, mlp = block.attention, block.mlp
    weights: list[Tensor | None] = []
    for layer in (block.attention_norm, attention.qkv, attention.projection, block.mlp_norm, mlp.expand, mlp.contract):
        weights += effective_weights(layer) if hasattr(layer, "base_layer") else (layer.weight, layer.bias)
    return cast("list[Tensor]", weights)


class BlockStep:
    """A block made ready to run one position at a time: its weights gathered, its cache, a buffer.

    It gives what `block.forward` gives for the position, with as few operations as possible and without gradients and
    hooks. It holds the weights themselves, so it follows their training but not their replacement; of a layer with
    adapters it holds a merged copy, which follows neither.

    Args:
        block: the block.
        cache: a cache of its pattern, for as many songs as will be stepped at once.
    """

    def __init__(self, block: PriorBlock, cache: LayerCache) -> None:
        self.cache = cache
        self.residual_scale = block.residual_scale
        self.weights = block_weights(block)
        heads, head_dim = block.attention.num_heads, block.attention.head_dim
        self.songs = cache.storage.shape[0]
        self.rows = rows_for(self.songs, cache.storage.device, len(self.weights[0]))
        self.width = self.weights[0].shape
        self.qkv_shape = (self.rows, 3, heads, head_dim)
        # What was attended to; the spare rows stay zero.
        self.attended = cache.storage.new_zeros(self.rows, heads * head_dim)
        self.attended_of_songs = self.attended[: self.songs].view(self.songs, heads, head_dim)
        self.gated = gate_rows(self.attended, len(self.weights[8]))

    def __call__(self, hidden: Tensor, position: int | DeviceSlots) -> Tensor:
        """(rows, W), of which the first rows are songs -> (rows, W); a position as [`attend_step`] takes it."""
        norm_1, norm_1_bias, qkv, qkv_bias, out, out_bias, norm_2, norm_2_bias, *mlp = self.weights
        (width,) = self.width
        normed = torch.layer_norm(hidden, self.width, norm_1, norm_1_bias, LAYER_NORM_EPS)
        projected = linear_of_rows(normed, qkv, qkv_bias, width).view(self.qkv_shape)
        if self.rows != self.songs:
            projected = projected.narrow(0, 0, self.songs)
        query, key_value = projected.select(1, 0), projected.narrow(1, 1, 2)
        attend_step(query, key_value, self.cache, position, self.attended_of_songs)
        attended = linear_of_rows(self.attended, out, out_bias, width)
        residual = hidden + attended

        expand, expand_bias, contract, contract_bias = mlp
        normed = torch.layer_norm(residual, self.width, norm_2, norm_2_bias, LAYER_NORM_EPS)
        inner = linear_of_rows(normed, expand, expand_bias, width)
        branch = linear_of_rows(gate(inner, self.gated), contract, contract_bias, width)
        if self.residual_scale == 1.0:
            return residual.add_(branch)
        return attended.add_(branch).mul_(self.residual_scale).add_(hidden)


def gate_rows(like: Tensor, width: int) -> Tensor | None:
    """Memory (rows, `width`) for `gate` where a row's numbers would depend on the number of rows without it.

    Args:
        like: (rows, any), whose dtype and device it gets.
        width: numbers of a row.
    """
    full = width % _CPU_RUN == 0 and like.shape[0] * width < _CPU_SHARED
    if like.device.type != "cpu" or full:
        return None
    apart = -(-(width + 1) // 16) * 16  # more than the width, and full vectors for the product that reads it
    return like.new_zeros(like.shape[0], apart)[:, :width]


def gate(inner: Tensor, rows: Tensor | None) -> Tensor:
    """The MLP's x * sigmoid(1.702 x) of (rows, width), computed in `rows` (see `gate_rows`) where they are given."""
    if rows is None or torch.compiler.is_compiling():
        return torch.sigmoid(inner * _GATE_TENSOR).mul_(inner)
    torch.mul(inner, _GATE_TENSOR, out=rows)
    for part in rows.split(max(1, (_CPU_SHARED - 1) // rows.shape[1])):
        part.sigmoid_()
    return rows.mul_(inner)


class PriorCache:
    """Caches of all layers for one batch; made by [`FastJukeboxPrior.new_cache`].

    Args:
        layers: one cache a layer.
        batch_size: songs, N.
        length: positions seen so far; the next step is for this position.

    Attributes:
        steps: each block made ready to step with its cache, see [`FastJukeboxPrior.block_steps`]; none before a step.
    """

    def __init__(self, layers: Sequence[LayerCache], batch_size: int, length: int = 0) -> None:
        self.layers = list(layers)
        self.batch_size = batch_size
        self.length = length
        self.steps: list[BlockStep] = []

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
