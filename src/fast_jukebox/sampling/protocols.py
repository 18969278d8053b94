"""Protocols of sampling: priors, and the decoders that draw their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from torch import Tensor, nn

Conditioning = TypeVar("Conditioning")
Cache = TypeVar("Cache")


class SamplingConfig(Protocol):
    """Configuration of a prior, as far as sampling reads it."""

    level: int
    codebook_size: int
    n_ctx: int


class HasParameters(Protocol):
    """Whatever has weights, such as a module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""


class SizedPrior(HasParameters, Protocol):
    """A prior whose memory is counted."""

    @property
    def config(self) -> SamplingConfig:
        """Its level and sizes."""

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of its cache for so many songs."""


class SamplingPrior(SizedPrior, Protocol[Conditioning, Cache]):
    """Interface of a prior to sampling. One with engines also has `new_decoder`, see
    [`~fast_jukebox.sampling.engine.EnginesPrior`].
    """

    def new_cache(self, batch_size: int) -> Cache:
        """An empty cache for so many songs."""

    def condition(
        self,
        batch_size: int,
        length: int,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        after_song: Callable[[int], None] | None = None,
    ) -> Conditioning:
        """Conditioning of `batch_size` windows of `length` codes; `after_song` is called with how many are done."""

    def prefill(self, codes: Tensor, conditioning: Conditioning, cache: Cache) -> Tensor:
        """Logits (N, K) after a prompt of codes (N, P), P >= 0."""

    def step(self, code: Tensor, position: int, conditioning: Conditioning, cache: Cache) -> Tensor:
        """Logits (N, K) at `position`, from the code (N,) before it."""


class Decoder(Protocol):
    """A prior set up to sample one window."""

    engine: str
    """Its name among `ENGINES`."""
    steps_per_call: int
    """The most codes that one call of `decode` draws."""
    logits: Tensor
    """(N, K), those of the last step."""

    def prefill(self, prompt: Tensor, noise: Tensor) -> Tensor:
        """Take in the prompt in one pass and draw the code at its end.

        Args:
            prompt: int64 (N, P), P >= 0.
            noise: float32 (N,) in [0, 1).

        Returns:
            int64 (N,), at position P.
        """

    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """Draw codes from `position` on.

        Args:
            code: int64 (N,), the one before.
            position: follows those that were drawn before.
            noise: float32 (N, count) in [0, 1), from 1 to `steps_per_call` codes.

        Returns:
            int64 (N, count).
        """

    def close(self, finished: bool) -> None:
        """End the window, once.

        Args:
            finished: it was sampled to its end. If not, and nothing went wrong, another window may still use what the
                decoder is made of.

        Raises:
            FloatingPointError: it is finished, and the logits are NaN, so the codes mean nothing.
        """
