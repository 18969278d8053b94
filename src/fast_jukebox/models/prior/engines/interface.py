"""Interface of a prior to its engines, and the base of their decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

from fast_jukebox.models.prior.block import BlockList, BlockStep, PriorCache
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.engine import check_logits


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


class EngineDecoder(ABC):
    """A decoder that holds weights and no prior: opened for a window, good for one after another.

    See [`~fast_jukebox.sampling.engine.ReusableDecoder`].
    """

    engine: str
    steps_per_call: int
    level: int
    """Of the prior."""
    batch_size: int
    settings: SamplingSettings
    cache: PriorCache
    """Filled by the prior's pass over the prompt."""
    logits: Tensor
    """(N, K), those of the last step; its memory stays the same."""

    _window: tuple[EnginePrior, PriorConditioning] | None = None
    _on_close: Callable[[], None] | None = None

    @property
    def costly(self) -> bool:
        """Whether making it took so long that it is better kept for the next window."""
        return False

    def open(
        self, prior: EnginePrior, conditioning: PriorConditioning, on_close: Callable[[], None] | None = None
    ) -> EngineDecoder:
        """Begin a window; see [`~fast_jukebox.sampling.engine.ReusableDecoder.open`]."""
        self._window, self._on_close = (prior, conditioning), on_close
        return self

    def prefill(self, prompt: Tensor, noise: Tensor) -> Tensor:
        """Take in the prompt int64 (N, P) and draw the code int64 (N,) at its end with `noise` float32 (N,).

        Raises:
            RuntimeError: no window was opened.
        """
        if self._window is None:
            raise RuntimeError(f"a {type(self).__name__} must be opened for a window before it is used")
        prior, conditioning = self._window
        logits = prior.prefill(prompt, conditioning, self.cache)
        self.load(conditioning)
        self.logits.copy_(logits)
        return draw_codes(logits, noise, self.settings)

    @abstractmethod
    def load(self, conditioning: PriorConditioning) -> None:
        """Take in what conditions the window, after its prompt."""

    @abstractmethod
    def unload(self) -> None:
        """Release it after the window: no codes can be drawn until the next `load`."""

    @abstractmethod
    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """Draw codes from `position` on: int64 (N,) before it and float32 (N, count) -> int64 (N, count)."""

    def close(self, finished: bool) -> None:
        """End the window; see [`~fast_jukebox.sampling.engine.Decoder.close`]."""
        if finished:
            check_logits(self.logits, self.level)
        on_close, self._window, self._on_close = self._on_close, None, None
        self.unload()
        if on_close is not None:
            on_close()
