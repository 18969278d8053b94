"""The one sampling loop, and the decoders that it draws codes with.

What differs between machines is the decoder: it knows the prior, its caches and how a code is drawn. The eager one
calls the prior for each code; the others, which the prior makes for its device, draw a row of codes a call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.machine import SamplingConfig, granted_threads, is_out_of_memory, suited_threads
from fast_jukebox.sampling.weights import adapter_state, kept_for_prior, release_decoders, weight_state

ENGINES = ("auto", "eager", "native", "graph", "compiled", "fused")
"""Engines that [`open_decoder`] takes:

- `"auto"`: what suits the machine;
- `"eager"`: one call of the prior a code, anywhere;
- `"native"`: C, built by the machine's compiler; on a CPU in float32;
- `"graph"`: steps that stay on the device, recorded as CUDA graphs on a GPU;
- `"compiled"`: the same after torch.compile, which takes a minute or more before the first code;
- `"fused"`: recorded steps of a few fused Triton kernels a layer, on a CUDA device.
"""

DECODERS_KEPT = 2
"""Most decoders that are kept for each prior: of those that were costly to make, the last ones used."""

Conditioning = TypeVar("Conditioning")
Cache = TypeVar("Cache")


class SamplingPrior(Protocol[Conditioning, Cache]):
    """Interface of a prior to sampling. One that has engines also has `new_decoder`, see [`EnginesPrior`]."""

    @property
    def config(self) -> SamplingConfig:
        """Its level and sizes."""

    def new_cache(self, batch_size: int) -> Cache:
        """An empty cache for so many songs."""

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of such a cache."""

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

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""


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


class ReusableDecoder(Decoder, Protocol):
    """A decoder that a prior makes for its device, good for one window after another."""

    @property
    def costly(self) -> bool:
        """True where making it took so long that it is better kept for the next window."""

    def open(
        self,
        prior: SamplingPrior[Conditioning, Cache],
        conditioning: Conditioning,
        on_close: Callable[[], None] | None = None,
    ) -> ReusableDecoder:
        """Begin a window.

        Args:
            prior: the one that made it; it is not held beyond the window.
            conditioning: what the prior's `condition` returned for the window.
            on_close: called where the window ends and nothing went wrong.

        Returns:
            The decoder.
        """


class EnginesPrior(Protocol):
    """A prior that makes decoders for its device."""

    def new_decoder(
        self, batch_size: int, settings: SamplingSettings, engine: str, threads: int
    ) -> ReusableDecoder | None:
        """A decoder by one of `ENGINES`; None for the eager one."""


class EagerDecoder(Generic[Conditioning, Cache]):
    """One call of the prior a code, on any device.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`]: `new_cache`, `prefill`, `step`.
        conditioning: what the prior's `condition` returned for the window.
        batch_size: songs in the batch.
        settings: how a code is drawn.
    """

    engine = "eager"
    steps_per_call = 1

    def __init__(
        self,
        prior: SamplingPrior[Conditioning, Cache],
        conditioning: Conditioning,
        batch_size: int,
        settings: SamplingSettings,
    ) -> None:
        self.prior = prior
        self.conditioning = conditioning
        self.settings = settings
        self.cache = prior.new_cache(batch_size)

    def prefill(self, prompt: Tensor, noise: Tensor) -> Tensor:
        """See [`Decoder.prefill`]."""
        self.logits = self.prior.prefill(prompt, self.conditioning, self.cache)
        return draw_codes(self.logits, noise, self.settings)

    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """See [`Decoder.decode`]; any number of codes."""
        codes = []
        for index, column in enumerate(noise.unbind(1)):
            self.logits = self.prior.step(code, position + index, self.conditioning, self.cache)
            code = draw_codes(self.logits, column, self.settings)
            codes.append(code)
        return torch.stack(codes, dim=1)

    def close(self, finished: bool) -> None:
        """See [`Decoder.close`]."""
        if finished:
            check_logits(self.logits, self.prior.config.level)


def check_logits(logits: Tensor, level: int) -> None:
    """One look at a window's last logits, as what goes wrong stays in the caches.

    Raises:
        FloatingPointError: some are NaN.
    """
    if torch.isnan(logits).any():
        raise FloatingPointError(
            f"the prior of level {level} gave logits that are NaN in {logits.dtype}; if its weights are sound, load it "
            "in a wider dtype such as torch.bfloat16 or torch.float32"
        )


def open_decoder(
    prior: SamplingPrior[Conditioning, Cache],
    conditioning: Conditioning,
    batch_size: int,
    settings: SamplingSettings,
    engine: str = "auto",
) -> Decoder:
    """A decoder for one window.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`]: `new_cache`, `prefill`, `step`, and for engines other
            than `"eager"` `new_decoder`.
        conditioning: what the prior's `condition` returned for the window.
        batch_size: songs in the batch.
        settings: how a code is drawn.
        engine: one of `ENGINES`. `"auto"` goes by the prior and the machine, and on a CPU never by the batch.

    Raises:
        ValueError: `engine` is none of them or cannot sample this prior.
        RuntimeError: `engine` is `"native"` and there is no C compiler.
    """
    check_engine(engine)
    if engine == "eager" or not hasattr(prior, "new_decoder"):
        if engine not in ("auto", "eager"):
            raise ValueError(f"`engine` must be 'auto' or 'eager' for a {type(prior).__name__}, got {engine!r}")
        return EagerDecoder(prior, conditioning, batch_size, settings)
    threads = granted_threads()
    state, key = (weight_state(prior.parameters()), adapter_state(prior)), (engine, batch_size, settings, threads)

    def kept() -> dict[Hashable, ReusableDecoder]:
        """Decoders of these weights that no window uses, the last used one last."""
        return kept_for_prior(prior, "decoders", state, dict)

    decoder = kept().pop(key, None)
    if decoder is None:
        decoder = _new_decoder(cast(EnginesPrior, prior), batch_size, settings, engine, threads)
    if decoder is None:
        return EagerDecoder(prior, conditioning, batch_size, settings)

    def keep(decoder: ReusableDecoder = decoder) -> None:
        pool = kept()
        pool.pop(key, None)
        pool[key] = decoder
        if len(pool) > DECODERS_KEPT:
            del pool[next(iter(pool))]

    return decoder.open(prior, conditioning, keep if decoder.costly else None)


def check_engine(engine: object) -> str:
    """`engine` itself.

    Raises:
        ValueError: it is none of `ENGINES`.
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    return str(engine)


def _new_decoder(
    prior: EnginesPrior, batch_size: int, settings: SamplingSettings, engine: str, threads: int
) -> ReusableDecoder | None:
    """A decoder; where there is no memory for it, once more without those that are kept."""
    try:
        return prior.new_decoder(batch_size, settings, engine, threads)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose error keeps alive what filled the memory.
    release_decoders()
    return prior.new_decoder(batch_size, settings, engine, threads)


class WindowRun:
    """The sampling of one window, which may pause between its codes.

    Args:
        decoder: the prior, set up for this window.
        prompt: int64 (N, P), the codes that are known, P >= 0.
        noise: float32 (N, M), one number for each code to sample, M >= 1.

    Attributes:
        codes: int64 (N, P + M), the prompt first, on its device; what is not sampled yet holds any numbers.
        done: how many codes are sampled.
    """

    def __init__(self, decoder: Decoder, prompt: Tensor, noise: Tensor) -> None:
        self.decoder, self.prompt, self.noise = decoder, prompt, noise
        self.known, self.new = prompt.shape[1], noise.shape[1]
        self.codes = prompt.new_empty((len(prompt), self.known + self.new))
        self.codes[:, : self.known] = prompt
        self.done = 0
        self._last = prompt.new_empty(0)

    def resume(self, count: int, after_code: Callable[[int], None] | None = None) -> None:
        """Sample until so many codes are done, or a few more where they come in rows; at most all of them.

        Args:
            count: from 0 to M.
            after_code: called after each code or row of codes with how many are done, for progress; what it raises ends
                the sampling.
        """
        while self.done < count:
            position, done = self.known + self.done, self.done
            if done == 0:
                drawn = self.decoder.prefill(self.prompt, self.noise[:, 0]).unsqueeze(1)
            else:
                rest = min(self.decoder.steps_per_call, self.new - done)
                drawn = self.decoder.decode(self._last, position, self.noise[:, done : done + rest])  # (N, rest)
            self.codes[:, position : position + drawn.shape[1]] = drawn
            self._last = drawn[:, -1]
            self.done += drawn.shape[1]
            if after_code is not None:
                after_code(self.done)


def sample_window(
    decoder: Decoder, prompt: Tensor, noise: Tensor, after_code: Callable[[int], None] | None = None
) -> Tensor:
    """Sample one window and close its decoder.

    Args:
        decoder: as in [`WindowRun`], like `prompt` and `noise`.
        prompt: int64 (N, P).
        noise: float32 (N, M).
        after_code: as in [`WindowRun.resume`].

    Returns:
        int64 (N, P + M), the prompt first, on its device.
    """
    run = WindowRun(decoder, prompt, noise)
    run.resume(run.new, after_code)
    decoder.close(finished=True)
    return run.codes


class WindowSampling(Generic[Conditioning, Cache]):
    """The sampling of windows of one shape, N of them at once, which may pause after any code or row of codes.

    How often it pauses changes no code. While it is paused, it holds its caches.

    Args:
        prior: the level's prior.
        length: codes of a window.
        prompt: int64 (N, P), P from 0 to `length` - 1.
        upper_codes: int64 (N, `length` / upper ratio) codes of the level above, or `None`.
        metadata: int64 (N, width), or `None`.
        settings: how codes are drawn.
        noise: float32 (N, `length` - P).
        engine: see [`~fast_jukebox.sampling.engine.open_decoder`].
        after_code: called with how many codes of each row are sampled, 0 after each row that is conditioned; what it
            raises ends the sampling.
    """

    def __init__(
        self,
        prior: SamplingPrior[Conditioning, Cache],
        length: int,
        prompt: Tensor,
        upper_codes: Tensor | None,
        metadata: Tensor | None,
        settings: SamplingSettings,
        noise: Tensor,
        engine: str = "auto",
        after_code: Callable[[int], None] | None = None,
    ) -> None:
        self.prior, self.length, self.count, self.after_code = prior, length, len(prompt), after_code
        spare = usual_rows(self.count) - self.count if prompt.device.type == "cuda" else 0
        if spare:
            prompt, noise = _repeated(prompt, spare), _repeated(noise, spare)
            upper_codes = None if upper_codes is None else _repeated(upper_codes, spare)
            metadata = None if metadata is None else _repeated(metadata, spare)
        with suited_threads(prior):
            conditioning = prior.condition(
                len(prompt),
                length,
                upper_codes=upper_codes,
                metadata=metadata,
                after_song=None if after_code is None else lambda row: after_code(0),
            )
            self._run = WindowRun(open_decoder(prior, conditioning, len(prompt), settings, engine), prompt, noise)

    @property
    def known(self) -> int:
        """Codes of each window that are there, the prompt included."""
        return self._run.known + self._run.done

    @property
    def engine(self) -> str:
        """Engine of the steps, one of [`~fast_jukebox.sampling.engine.ENGINES`], never "auto"."""
        return self._run.decoder.engine

    @property
    def codes(self) -> Tensor:
        """int64 (N, known)."""
        codes = self._run.codes[: self.count, : self.known]
        # Where lyrics share the codes' vocabulary a character may be drawn, which as published stands for code 0.
        return codes.masked_fill(codes >= self.prior.config.codebook_size, 0)

    def sample(self, known: int | None = None) -> Tensor:
        """Resume until so many codes of each window are there, or a few more; by default to the end. Returns `codes`.

        Raises:
            FloatingPointError: the prior's logits are NaN, so the codes mean nothing.
        """
        run, end = self._run, self.length if known is None else min(known, self.length)
        if self.known >= end:
            return self.codes
        with suited_threads(self.prior):
            run.resume(end - run.known, self.after_code)
            if self.known == self.length:
                run.decoder.close(finished=True)
            else:
                check_logits(run.decoder.logits, self.prior.config.level)
        return self.codes

    def leave(self) -> None:
        """End before the last code; the decoder may serve other windows. It cannot be resumed."""
        self._run.decoder.close(finished=False)


def _repeated(rows: Tensor, times: int) -> Tensor:
    """Rows (N, any) and the last of them so many times more."""
    return torch.cat([rows, rows[-1:].expand(times, *rows.shape[1:])])


def usual_rows(count: int) -> int:
    """The next number of rows that GPUs sample: up to 8 a power of two, then a multiple of an eighth of the power of
    two above it. So decoders that are costly to make are made for few sizes; the spare rows repeat the last one.
    """
    unit = 1 << max((count - 1).bit_length() - 3, 0) if count > 8 else 1 << (count - 1).bit_length()
    return -(-count // unit) * unit


@contextmanager
def sampling_mode(*modules: object) -> Iterator[None]:
    """Put modules into evaluation mode, without gradients; afterwards, also on errors, each submodule is as it was."""
    training = [
        (part, part.training) for module in modules if isinstance(module, nn.Module) for part in module.modules()
    ]
    try:
        for part, _ in training:
            part.training = False
        with torch.inference_mode():
            yield
    finally:
        for part, was_training in training:
            part.training = was_training
