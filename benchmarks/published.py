"""Sampling as published Jukebox does it: eager, one code at a time, caches that grow by concatenation.

The loop is written anew from the architecture's description, as the yardstick of the generation benchmark. It samples
from the same prior with the same result: with `greedy` its codes are those of the package's own engines, which a test
holds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.models.prior.block import PriorBlock


class GrowingCache:
    """Keys and values (N, H, n, D) of one layer: each step makes both anew, one position longer."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, those of the new position (N, H, 1, D) included."""
        self.key = key if self.key is None else torch.cat([self.key, key], dim=2)
        self.value = value if self.value is None else torch.cat([self.value, value], dim=2)
        return self.key, self.value

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` positions."""
        self.key, self.value = self.key[:, :, -count:], self.value[:, :, -count:]


class PublishedLoop:
    """Samples one window of a prior.

    Args:
        prior: of row, column, previous-row or dense layers.
        upper_codes: int64 (N, L / ratio), where there is a level above.
        batch_size: songs, N.
        metadata: int64 (N, width), where the prior has labels.
    """

    def __init__(
        self,
        prior: FastJukeboxPrior,
        upper_codes: Tensor | None = None,
        batch_size: int = 1,
        metadata: Tensor | None = None,
    ) -> None:
        self.prior, self.batch_size = prior, batch_size
        length = prior.config.n_ctx if upper_codes is None else upper_codes.shape[1] * prior.config.upper_ratio
        self.conditioning = prior.condition(batch_size, length, upper_codes, metadata)
        self.caches = [GrowingCache() for _ in prior.blocks]

    @torch.no_grad()
    def sample(self, codes: int, temperature: float = 1.0, greedy: bool = False) -> Tensor:
        """int64 (N, `codes`) from the window's start."""
        made: list[Tensor] = []
        for position in range(codes):
            logits = self.logits(made[-1] if made else None, position)
            if greedy:
                made.append(logits.argmax(-1))
            else:
                made.append(torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0])
        return torch.stack(made, dim=1)

    @torch.no_grad()
    def skip_to(self, position: int) -> None:
        """Fill the caches as if `position` codes had been sampled, with numbers that mean nothing."""
        config = self.prior.config
        width = config.attention_size // config.num_attention_heads
        like = self.prior.position_embedding
        for block, cache in zip(self.prior.blocks, self.caches, strict=True):
            kept = _kept(block, position)
            cache.key = like.new_zeros(self.batch_size, config.num_attention_heads, kept, width)
            cache.value = cache.key.clone()

    def logits(self, code: Tensor | None, position: int) -> Tensor:
        """(N, K) of `position`; `code` (N,) is the one before it, `None` at the start."""
        prior = self.prior
        start = self.conditioning.start[:, 0]
        hidden = (start if code is None else prior.code_embedding(code)) + prior.position_embedding[position]
        positions = self.conditioning.positions
        if positions is not None:
            hidden = hidden + positions[:, position]
        hidden = hidden[:, None]
        for block, cache in zip(prior.blocks, self.caches, strict=True):
            hidden = _block(block, hidden, cache, position)
        return prior.head(hidden, _at(self.conditioning, position))[:, 0]


def _at(conditioning, position: int):
    """The conditioning of one position alone."""
    positions = conditioning.positions
    return type(conditioning)(
        conditioning.start, None if positions is None else positions[:, position : position + 1], 1
    )


def _kept(block: PriorBlock, position: int) -> int:
    """Positions that a layer's cache holds before `position` is added."""
    pattern = block.attention.pattern
    name, column = type(pattern).__name__, position % pattern.row_length
    if name == "RowPattern":
        return column
    if name == "PreviousRowPattern":
        return min(position, pattern.row_length + column)
    return position


def _block(block: PriorBlock, hidden: Tensor, cache: GrowingCache, position: int) -> Tensor:
    attended = _attention(block, block.attention_norm(hidden), cache, position)
    residual = hidden + attended
    branch = block.mlp(block.mlp_norm(residual))
    return hidden + block.residual_scale * (attended + branch)


def _attention(block: PriorBlock, hidden: Tensor, cache: GrowingCache, position: int) -> Tensor:
    attention = block.attention
    pattern = attention.pattern
    query, key, value = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, attention.head_dim)).unbind(2)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    name, column = type(pattern).__name__, position % pattern.row_length
    if name == "RowPattern" and column == 0 and position:
        cache.key = cache.value = None
    key, value = cache.append(key, value)
    if name == "PreviousRowPattern":
        if column == 0 and position >= 2 * pattern.row_length:
            cache.keep_last(pattern.row_length + 1)
        key, value = cache.key[:, :, : -column - 1], cache.value[:, :, : -column - 1]
        if position < pattern.row_length:
            return attention.projection(torch.zeros_like(query).transpose(1, 2).flatten(2))
        key, value = key[:, :, -pattern.row_length :], value[:, :, -pattern.row_length :]
    elif name == "ColumnPattern":
        key, value = key[:, :, column :: pattern.row_length], value[:, :, column :: pattern.row_length]
    weights = F.softmax((query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5, dim=-1)
    return attention.projection((weights @ value).transpose(1, 2).flatten(2))
