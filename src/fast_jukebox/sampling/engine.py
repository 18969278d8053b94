"""The one sampling loop: a window of codes, code by code or in rows of codes.

What differs between machines is the decoder that the loop is given: it knows the prior, its caches and how a code is
drawn. The eager one calls the prior for each code; the others, which the prior makes for its device, draw a row of
codes a call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fast_jukebox.sampling.adapters import adapter_state
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.inputs import SamplingConfig
from fast_jukebox.sampling.machine import granted_threads, is_out_of_memory

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
"""Most decoders that are kept for each prior, of those that were costly to make the last ones used."""

Conditioning = TypeVar("Conditioning")
Cache = TypeVar("Cache")
Value = TypeVar("Value")


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
            finished: whether it was sampled to its end. If not, and nothing went wrong, another window may use what the
                decoder is made of all the same.

        Raises:
            FloatingPointError: it is finished, and the logits are NaN, so the codes mean nothing.
        """


class ReusableDecoder(Decoder, Protocol):
    """A decoder that a prior makes for its device, good for one window after another."""

    @property
    def costly(self) -> bool:
        """Whether making it took so long that it is better kept for the next window."""

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
        """A decoder by one of `ENGINES`, or None where the eager one is meant."""


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
    state = weight_state(prior.parameters()), adapter_state(prior)
    key = (engine, batch_size, settings, granted_threads(), state)
    decoder = _POOL.take(prior, key)
    if decoder is None:
        decoder = _new_decoder(cast(EnginesPrior, prior), batch_size, settings, engine)
    if decoder is None:
        return EagerDecoder(prior, conditioning, batch_size, settings)
    kept = decoder
    return decoder.open(prior, conditioning, (lambda: _POOL.put(prior, key, kept)) if decoder.costly else None)


def check_engine(engine: object) -> str:
    """`engine` itself.

    Raises:
        ValueError: it is none of `ENGINES`.
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    return str(engine)


def _new_decoder(
    prior: EnginesPrior, batch_size: int, settings: SamplingSettings, engine: str
) -> ReusableDecoder | None:
    """A decoder; where there is no memory for it, once more without those that are kept."""
    try:
        return prior.new_decoder(batch_size, settings, engine, granted_threads())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose error keeps alive what filled the memory.
    release_decoders()
    return prior.new_decoder(batch_size, settings, engine, granted_threads())


class _Pool:
    """Decoders that no window uses at the moment, and what else is made of weights, as long as their prior lives."""

    def __init__(self) -> None:
        self._decoders: WeakKeyDictionary[object, list[tuple[tuple[Hashable, ...], ReusableDecoder]]]
        self._decoders = WeakKeyDictionary()
        self._shared: WeakKeyDictionary[object, dict[str, tuple[Hashable, object]]] = WeakKeyDictionary()

    def take(self, prior: object, key: tuple[Hashable, ...]) -> ReusableDecoder | None:
        """The decoder of that key, which is then the caller's; those of other weights, the key's last, are dropped."""
        kept = self._decoders.get(prior)
        if not kept:
            return None
        kept[:] = [entry for entry in kept if entry[0][-1] == key[-1]]
        for index, (own, decoder) in enumerate(kept):
            if own == key:
                del kept[index]
                return decoder
        return None

    def put(self, prior: object, key: tuple[Hashable, ...], decoder: ReusableDecoder) -> None:
        """Keep a decoder; the oldest of more than `DECODERS_KEPT` goes."""
        kept = self._decoders.setdefault(prior, [])
        kept.append((key, decoder))
        del kept[:-DECODERS_KEPT]

    def shared(self, prior: object, name: str, state: Hashable, make: Callable[[], Value]) -> Value:
        """Result of `make`, made once for each name as long as the state stays the same."""
        kept = self._shared.setdefault(prior, {})
        if name not in kept or kept[name][0] != state:
            kept.pop(name, None)  # its memory first
            kept[name] = state, make()
        return cast(Value, kept[name][1])

    def clear(self) -> None:
        """Drop everything."""
        self._decoders.clear()
        self._shared.clear()


_POOL = _Pool()


def release_decoders() -> None:
    """Release the memory of all recorded and compiled steps and packed weights that are kept for the next window."""
    _POOL.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def kept_for_prior(prior: object, name: str, state: Hashable, make: Callable[[], Value]) -> Value:
    """Something that engines make of a prior's weights, made once and kept as long as the prior lives.

    Args:
        prior: whose it is.
        name: what it is.
        state: of the weights (see `weight_state`); where it differs it is made again.
        make: called to make it; what it returns must not hold the prior.
    """
    return _POOL.shared(prior, name, state, make)


def weight_state(weights: Iterable[Tensor]) -> tuple[tuple[int, int], ...]:
    """Address and version of each weight; both stay as they are where `.data` of a weight is changed in its place."""
    return tuple([(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights])


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
            self._draw()
            if after_code is not None:
                after_code(self.done)

    def _draw(self) -> None:
        """The next code or row of codes."""
        position, done = self.known + self.done, self.done
        if done == 0:
            drawn = self.decoder.prefill(self.prompt, self.noise[:, 0]).unsqueeze(1)
        else:
            count = min(self.decoder.steps_per_call, self.new - done)
            drawn = self.decoder.decode(self._last, position, self.noise[:, done : done + count])  # (N, count)
        self.codes[:, position : position + drawn.shape[1]] = drawn
        self._last = drawn[:, -1]
        self.done += drawn.shape[1]


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
