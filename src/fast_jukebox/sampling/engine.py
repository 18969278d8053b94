"""The one sampling loop, and the decoders that it draws codes with.

What differs between machines is the decoder: it knows the prior, its caches and how a code is drawn. The eager one
calls the prior for each code; the others, which the prior makes for its device, draw a row of codes a call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, cast

import torch
from torch import Tensor, nn

from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.machine import granted_threads, is_out_of_memory, suited_threads, usual_rows
from fast_jukebox.sampling.protocols import Cache, Conditioning, Decoder, SamplingPrior
from fast_jukebox.sampling.weights import adapter_state, kept_for_prior, release_decoders, weight_state
from fast_jukebox.utils.text import shown

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


class EngineDecoder(ABC, Generic[Conditioning, Cache]):
    """A decoder that a prior makes for its device; it holds weights and no prior, and is opened for one window after
    another.
    """

    engine: str
    steps_per_call: int
    level: int
    """Of the prior."""
    batch_size: int
    settings: SamplingSettings
    cache: Cache
    """Filled by the prior's pass over the prompt."""
    logits: Tensor
    """(N, K), those of the last step; its memory stays the same."""

    _window: tuple[SamplingPrior[Conditioning, Cache], Conditioning] | None = None
    _on_close: Callable[[], None] | None = None

    @property
    def costly(self) -> bool:
        """True where making it takes so long that it is better kept for the next window."""
        return False

    def open(
        self,
        prior: SamplingPrior[Conditioning, Cache],
        conditioning: Conditioning,
        on_close: Callable[[], None] | None = None,
    ) -> EngineDecoder[Conditioning, Cache]:
        """Begin a window.

        Args:
            prior: the one that made it; it is held until the window ends.
            conditioning: what the prior's `condition` returned for the window.
            on_close: called where the window ends and nothing went wrong.

        Returns:
            The decoder.
        """
        self._window, self._on_close = (prior, conditioning), on_close
        return self

    def prefill(self, prompt: Tensor, noise: Tensor) -> Tensor:
        """See [`Decoder.prefill`].

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
    def load(self, conditioning: Conditioning) -> None:
        """Take in what conditions the window, after its prompt."""

    @abstractmethod
    def unload(self) -> None:
        """Release it after the window: no codes can be drawn until the next `load`."""

    @abstractmethod
    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """See [`Decoder.decode`]."""

    def close(self, finished: bool) -> None:
        """See [`Decoder.close`]."""
        if finished:
            check_logits(self.logits, self.level)
        on_close, self._window, self._on_close = self._on_close, None, None
        self.unload()
        if on_close is not None:
            on_close()


class EnginesPrior(Protocol[Conditioning, Cache]):
    """A prior that makes decoders for its device."""

    def new_decoder(
        self, batch_size: int, settings: SamplingSettings, engine: str, threads: int
    ) -> EngineDecoder[Conditioning, Cache] | None:
        """A decoder by one of `ENGINES`; None for the eager one."""


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
            raise ValueError(f"`engine` must be 'auto' or 'eager' for a {type(prior).__name__}, got {shown(engine)}")
        return EagerDecoder(prior, conditioning, batch_size, settings)
    threads = granted_threads()
    state, key = (weight_state(prior.parameters()), adapter_state(prior)), (engine, batch_size, settings, threads)

    def kept() -> dict[Hashable, EngineDecoder[Conditioning, Cache]]:
        """Decoders of these weights that no window uses, the last used one last."""
        return kept_for_prior(prior, "decoders", state, dict)

    decoder = kept().pop(key, None)
    if decoder is None:
        decoder = _new_decoder(cast("EnginesPrior[Conditioning, Cache]", prior), batch_size, settings, engine, threads)
    if decoder is None:
        return EagerDecoder(prior, conditioning, batch_size, settings)

    def keep(decoder: EngineDecoder[Conditioning, Cache] = decoder) -> None:
        pool = kept()
        pool.pop(key, None)
        pool[key] = decoder
        if len(pool) > DECODERS_KEPT:
            del pool[next(iter(pool))]

    return decoder.open(prior, conditioning, keep if decoder.costly else None)


def check_engine(engine: object) -> str:
    """One of `ENGINES`; a `ValueError` for anything else."""
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {shown(engine)}")
    return str(engine)


def _new_decoder(
    prior: EnginesPrior[Conditioning, Cache], batch_size: int, settings: SamplingSettings, engine: str, threads: int
) -> EngineDecoder[Conditioning, Cache] | None:
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
        """Sample until so many codes are done, from 0 to M.

        Args:
            count: how many.
            after_code: called after each call of the decoder with how many are done, for progress; what it raises ends
                the sampling.
        """
        while self.done < count:
            position, done = self.known + self.done, self.done
            if done == 0:
                drawn = self.decoder.prefill(self.prompt, self.noise[:, 0]).unsqueeze(1)
            else:
                rest = min(self.decoder.steps_per_call, count - done)
                drawn = self.decoder.decode(self._last, position, self.noise[:, done : done + rest])  # (N, rest)
            self.codes[:, position : position + drawn.shape[1]] = drawn
            self._last = drawn[:, -1]
            self.done += drawn.shape[1]
            if after_code is not None:
                after_code(self.done)


def sample_window(
    decoder: Decoder, prompt: Tensor, noise: Tensor, after_code: Callable[[int], None] | None = None
) -> Tensor:
    """Sample one window, see [`WindowRun`], and close its decoder: int64 (N, P + M), the prompt first."""
    run = WindowRun(decoder, prompt, noise)
    run.resume(run.new, after_code)
    decoder.close(finished=True)
    return run.codes


class WindowSampling(Generic[Conditioning, Cache]):
    """The sampling of windows of one shape, N of them at once, which may pause after any code.

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
        """Resume until so many codes of each window are there; by default to the end. Returns `codes`.

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
