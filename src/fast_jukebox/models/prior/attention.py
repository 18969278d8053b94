"""Attention of a layer, over a whole window and one position at a time.

Shapes: N songs, L positions, H heads of width D, W the width of the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.models.prior.cache import DeviceSlots, LayerCache
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.patterns import PATTERNS


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
            cache.fill(key, value)
        eager = self.config._attn_implementation == "eager"
        output, weights = self.pattern.whole(query, key, value, need_weights=need_weights or eager)
        return self.projection(output.flatten(2)), weights if need_weights else None


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
        # The layer is called, whose weight may have adapters or lie elsewhere, though a part of each product is unused.
        parts = (3, self.num_heads, self.head_dim)
        query = self.qkv(hidden).unflatten(-1, parts).select(2, 0)
        _, key, value = self.qkv(lyric_states).unflatten(-1, parts).unbind(2)
        if cache is not None:
            cache.fill(key, value)
        eager = self.config._attn_implementation == "eager"
        output, weights = self.pattern.whole(query, key, value, need_weights=need_weights or eager)
        return self.projection(output.flatten(2)), weights if need_weights else None


def make_attention(config: FastJukeboxPriorConfig, layer_index: int) -> FactoredAttention:
    """The attention of a layer: to the window itself, or to the lyric encoder's states."""
    cross = config.layer_types[layer_index] == "lyric_cross"
    return (LyricCrossAttention if cross else FactoredAttention)(config, layer_index)
