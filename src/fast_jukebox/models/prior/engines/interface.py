"""Interface of a prior to its engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

from fast_jukebox.models.prior.block import BlockList, BlockStep, PriorCache
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


class EnginePrior(Protocol):
    """A prior as engines see it: its weights, its caches and its pass over a prompt; [`FastJukeboxPrior`] is one."""

    config: FastJukeboxPriorConfig
    code_embedding: nn.Embedding
    position_embedding: nn.Parameter
    output: nn.Linear | None
    """The output matrix; None where it is the code embedding."""
    blocks: BlockList

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def new_cache(self, batch_size: int) -> PriorCache:
        """An empty cache for so many windows."""

    def block_steps(self, cache: PriorCache) -> Sequence[BlockStep]:
        """Each block made ready to step with a cache."""

    def prefill(self, codes: Tensor, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        """Logits (N, K) after a prompt of codes (N, P), P >= 0, which fills the cache."""

    def step(self, code: Tensor, position: int, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        """Logits (N, K) at `position`, from the code (N,) before it."""

    def drawn_rows(self, table: Tensor) -> Tensor:
        """A matrix (vocabulary, W) with its rows as they are drawn while sampling."""
