"""The one sampling loop: a window of codes, code by code.

What differs between machines is the step that the loop is given: a step knows the prior, its caches and how a code is
drawn. The plain one calls the prior for each code; the others hand a row of codes at a time to a program that the prior
made for its device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fast_jukebox.sampling.filtering import SamplingSettings, draw_codes
from fast_jukebox.sampling.memory import is_out_of_memory
from fast_jukebox.sampling.threads import granted_threads

ENGINES = ("auto", "eager", "native", "graph", "compiled", "fused")
"""What [`make_step`] can be asked for:

- `"auto"`: what suits the machine;
- `"eager"`: one call of the prior a code, anywhere;
- `"native"`: C, built by the machine's compiler; on a CPU in float32;
- `"graph"`: steps that stay on the device, recorded as CUDA graphs on a GPU;
- `"compiled"`: the same after torch.compile, which takes a minute or more before the first code;
- `"fused"`: recorded steps of a few fused Triton kernels a layer, on a CUDA device.
"""

Value = TypeVar("Value")

PROGRAMS_KEPT = 2
"""How many programs that were costly to make are kept for each prior, the last ones used."""


class SamplingPrior(Protocol):
    """What sampling asks of a prior."""

    config: Any

    def new_cache(self, batch_size: int) -> Any:
        """An empty cache for so many songs."""

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of such a cache."""

    def prefill(self, codes: Tensor, conditioning: Any, cache: Any) -> Tensor:
        """Logits (N, K) after a prompt of codes (N, P), P >= 0."""

    def step(self, code: Tensor, position: int, conditioning: Any, cache: Any) -> Tensor:
        """Logits (N, K) at `position`, from the code (N,) before it."""


class Step(Protocol):
    """What the loop asks of a prior that has been set up for one window."""

    engine: str
    """Its name among `ENGINES`."""

    def first(self, prompt: Tensor, uniform: Tensor) -> Tensor:
        """Take in the prompt (N, P), P >= 0, in one pass and draw the code (N,) at position P with `uniform` (N,)."""

    def next(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """Draw the code (N,) at `position` with `uniform` (N,); `code` (N,) is the one before it."""

    def finish(self) -> None:
        """Called once after the window's last code.

        Raises:
            FloatingPointError: the prior's numbers were none, so the codes mean nothing.
        """

    def leave(self) -> None:
        """Called once in place of `finish` where the window is not sampled to its end, though nothing went wrong."""


class Program(Protocol):
    """What a prior makes for its device: many steps in one call. Made by the prior's `new_program`."""

    engine: str
    """Its name among `ENGINES`."""
    grain: int
    """The most codes that one call draws."""
    cache: Any
    """What the prior's `prefill` fills before the first call."""
    logits: Tensor
    """(N, K), those of the last step"""

    @property
    def costly(self) -> bool:
        """Whether making it took so long that it is better kept for the next window."""

    def load(self, conditioning: Any) -> None:
        """Take in what conditions the next window."""

    def unload(self) -> None:
        """Let go of it, after the window."""

    def run(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """Draw codes from `position` on: int64 (N,) before it and float32 (N, count) -> int64 (N, count)."""


class EagerStep:
    """One call of the prior a code, on any device.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`]: `new_cache`, `prefill`, `step`.
        conditioning: what the prior's `condition` returned for the window.
        batch_size: songs in the batch.
        settings: how a code is drawn.
    """

    engine = "eager"

    def __init__(self, prior: SamplingPrior, conditioning: Any, batch_size: int, settings: SamplingSettings) -> None:
        self.prior = prior
        self.conditioning = conditioning
        self.settings = settings
        self.cache = prior.new_cache(batch_size)

    def first(self, prompt: Tensor, uniform: Tensor) -> Tensor:
        """See [`Step`]."""
        self.logits = self.prior.prefill(prompt, self.conditioning, self.cache)
        return draw_codes(self.logits, uniform, self.settings)

    def next(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """See [`Step`]."""
        self.logits = self.prior.step(code, position, self.conditioning, self.cache)
        return draw_codes(self.logits, uniform, self.settings)

    def finish(self) -> None:
        """See [`Step`]."""
        check_logits(self.logits, self.prior.config.level)

    def leave(self) -> None:
        """See [`Step`]."""


class ProgramStep:
    """Many codes a call, by a program of the prior.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`].
        conditioning: what the prior's `condition` returned for the window.
        program: made by the prior's `new_program`; nothing else may use it until `finish` or `leave`.
        settings: how a code is drawn.
        give_back: called with the program when the window is done or left and nothing went wrong.
    """

    def __init__(
        self,
        prior: SamplingPrior,
        conditioning: Any,
        program: Program,
        settings: SamplingSettings,
        give_back: Callable[[Program], None] | None = None,
    ) -> None:
        self.prior = prior
        self.conditioning = conditioning
        self.program = program
        self.settings = settings
        self.give_back = give_back
        self.grain = program.grain
        self.engine = program.engine

    def first(self, prompt: Tensor, uniform: Tensor) -> Tensor:
        """See [`Step`]."""
        self.logits = self.prior.prefill(prompt, self.conditioning, self.program.cache)
        self.program.load(self.conditioning)
        return draw_codes(self.logits, uniform, self.settings)

    def next(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """See [`Step`]."""
        return self.run(code, position, uniform.unsqueeze(1)).squeeze(1)

    def run(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """Draw up to `grain` codes from `position` on: int64 (N,) before it and float32 (N, count) ->
        int64 (N, count).
        """
        codes = self.program.run(code, position, uniform)
        self.logits = self.program.logits
        return codes

    def finish(self) -> None:
        """See [`Step`]."""
        check_logits(self.logits, self.prior.config.level)
        self.leave()

    def leave(self) -> None:
        """See [`Step`]."""
        self.program.unload()
        if self.give_back is not None:
            self.give_back(self.program)


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


def make_step(
    prior: SamplingPrior, conditioning: Any, batch_size: int, settings: SamplingSettings, engine: str = "auto"
) -> Step:
    """A step for one window.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`]: `new_cache`, `prefill`, `step`, and for engines other
            than `"eager"` `new_program`.
        conditioning: what the prior's `condition` returned for the window.
        batch_size: songs in the batch.
        settings: how a code is drawn.
        engine: one of `ENGINES`. `"auto"` goes by the prior and the machine alone, never by the batch.

    Raises:
        ValueError: `engine` is none of them or cannot sample this prior.
        RuntimeError: `engine` is `"native"` and there is no C compiler.
    """
    check_engine(engine)
    if engine == "eager" or not hasattr(prior, "new_program"):
        if engine not in ("auto", "eager"):
            raise ValueError(f"`engine` must be 'auto' or 'eager' for a {type(prior).__name__}, got {engine!r}")
        return EagerStep(prior, conditioning, batch_size, settings)
    key = (engine, batch_size, settings, granted_threads(), weight_state(prior.parameters()))
    program = _POOL.take(prior, key)
    if program is None:
        program = _new_program(prior, batch_size, settings, engine)
    if program is None:
        return EagerStep(prior, conditioning, batch_size, settings)
    give_back = (lambda done: _POOL.put(prior, key, done)) if program.costly else None
    return ProgramStep(prior, conditioning, program, settings, give_back)


def check_engine(engine: object) -> str:
    """`engine` itself.

    Raises:
        ValueError: it is none of `ENGINES`.
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}")
    return str(engine)


def _new_program(prior: SamplingPrior, batch_size: int, settings: SamplingSettings, engine: str) -> Program | None:
    """A program; where there is no room for it, once more without those that are kept."""
    try:
        return prior.new_program(batch_size, settings, engine, granted_threads())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, whose error keeps alive what filled the memory.
    release_programs()
    return prior.new_program(batch_size, settings, engine, granted_threads())


class _Pool:
    """Programs that no window uses at the moment, as long as their prior lives."""

    def __init__(self) -> None:
        self._programs: WeakKeyDictionary[Any, list[tuple[Any, Program]]] = WeakKeyDictionary()
        self._shared: WeakKeyDictionary[Any, dict[str, tuple[Hashable, Any]]] = WeakKeyDictionary()

    def take(self, prior: Any, key: Any) -> Program | None:
        """The program of that key, which is then the caller's; those of other weights are dropped."""
        kept = self._programs.get(prior)
        if not kept:
            return None
        kept[:] = [entry for entry in kept if entry[0][-1] == key[-1]]
        for index, (own, program) in enumerate(kept):
            if own == key:
                del kept[index]
                return program
        return None

    def put(self, prior: Any, key: Any, program: Program) -> None:
        kept = self._programs.setdefault(prior, [])
        kept.append((key, program))
        del kept[:-PROGRAMS_KEPT]

    def shared(self, prior: Any, name: str, state: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, once for each name as long as the state stays the same."""
        kept = self._shared.setdefault(prior, {})
        if name not in kept or kept[name][0] != state:
            kept.pop(name, None)  # its memory first
            kept[name] = state, make()
        return kept[name][1]

    def clear(self) -> None:
        self._programs.clear()
        self._shared.clear()


_POOL = _Pool()


def release_programs() -> None:
    """Release the memory of all recorded and compiled steps and packed weights that are kept for the next window."""
    _POOL.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def kept_for_prior(prior: Any, name: str, state: Hashable, make: Callable[[], Value]) -> Value:
    """Something that engines make of a prior's weights, made once and kept as long as the prior lives.

    Args:
        prior: whose it is.
        name: what it is.
        state: of the weights (see `weight_state`); where it differs it is made again.
        make: called to make it; must not hold the prior.
    """
    return _POOL.shared(prior, name, state, make)


def weight_state(weights: Iterable[Tensor]) -> tuple[tuple[int, int], ...]:
    """Address and version of each weight; both stay as they are where `.data` of a weight is changed in its place."""
    return tuple([(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights])


class WindowRun:
    """The sampling of one window, which may rest between its codes.

    Args:
        step: the prior, set up for this window. If it has `run` and `grain` (see [`ProgramStep`]), codes come in rows.
        prompt: int64 (N, P), the codes that are known, P >= 0.
        uniform: float32 (N, M), one number for each code to sample, M >= 1.

    Attributes:
        codes: int64 (N, P + M), the prompt first, on its device; what is not sampled yet holds any numbers.
        done: how many codes are sampled.
    """

    def __init__(self, step: Step, prompt: Tensor, uniform: Tensor) -> None:
        self.step, self.prompt, self.uniform = step, prompt, uniform
        self.known, self.new = prompt.shape[1], uniform.shape[1]
        self.codes = prompt.new_empty((len(prompt), self.known + self.new))
        self.codes[:, : self.known] = prompt
        self.done = 0
        self._last = prompt.new_empty(0)

    def go_on(self, count: int, after_code: Callable[[int], None] | None = None) -> None:
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
        place, run = self.known + self.done, getattr(self.step, "run", None)
        if self.done == 0:
            drawn = self.step.first(self.prompt, self.uniform[:, 0]).unsqueeze(1)
        elif run is None:
            drawn = self.step.next(self._last, place, self.uniform[:, self.done]).unsqueeze(1)
        else:
            count = min(getattr(self.step, "grain", 1), self.new - self.done)
            drawn = run(self._last, place, self.uniform[:, self.done : self.done + count])
        self.codes[:, place : place + drawn.shape[1]] = drawn
        self._last = drawn[:, -1]
        self.done += drawn.shape[1]


def sample_window(
    step: Step, prompt: Tensor, uniform: Tensor, after_code: Callable[[int], None] | None = None
) -> Tensor:
    """Sample one window.

    Args:
        step: as in [`WindowRun`], like `prompt` and `uniform`.
        prompt: int64 (N, P).
        uniform: float32 (N, M).
        after_code: as in [`WindowRun.go_on`].

    Returns:
        int64 (N, P + M), the prompt first, on its device.
    """
    run = WindowRun(step, prompt, uniform)
    run.go_on(run.new, after_code)
    step.finish()
    return run.codes


@contextmanager
def sampling_mode(*modules: Any) -> Iterator[None]:
    """Put modules into evaluation mode, without gradients; afterwards each submodule is as it was, come what may."""
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
