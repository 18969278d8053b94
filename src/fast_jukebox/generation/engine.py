"""The one sampling loop: a window of codes, code by code.

What differs between machines is the step that the loop is given: a step knows the prior, its caches and how a code is
drawn, so that one which runs all of it on a device without returning to the host fits in the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from fast_jukebox.generation.checks import device_of
from fast_jukebox.generation.sampling import SamplingSettings, draw_codes

if TYPE_CHECKING:
    from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior

NARROW = 512
"""Width of a prior below which a step on a CPU is quickest on one thread."""


class Step(Protocol):
    """What the loop asks of a prior that has been set up for one window."""

    def first(self, prompt: Tensor, uniform: Tensor) -> Tensor:
        """Take in the prompt (N, P), P >= 0, in one pass and draw the code (N,) at position P with `uniform` (N,)."""

    def next(self, code: Tensor, position: int, uniform: Tensor) -> Tensor:
        """Draw the code (N,) at `position` with `uniform` (N,); `code` (N,) is the one before it."""

    def finish(self) -> None:
        """Called once after the window's last code.

        Raises:
            FloatingPointError: the prior's numbers were none, so the codes mean nothing.
        """


class EagerStep:
    """One call of the prior a code, on any device.

    Args:
        prior: has the sampling protocol of [`FastJukeboxPrior`]: `new_cache`, `prefill`, `step`.
        conditioning: what the prior's `condition` returned for the window.
        batch_size: songs in the batch.
        settings: how a code is drawn.
    """

    def __init__(self, prior: FastJukeboxPrior, conditioning: Any, batch_size: int, settings: SamplingSettings) -> None:
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
        """See [`Step`]. One look at the last logits, as what goes wrong stays in the caches."""
        if torch.isnan(self.logits).any():
            raise FloatingPointError(
                f"the prior of level {self.prior.config.level} gave logits that are NaN in {self.logits.dtype}; if its "
                "weights are sound, load it in a wider dtype such as torch.bfloat16 or torch.float32"
            )


def sample_window(
    step: Step, prompt: Tensor, uniform: Tensor, after_code: Callable[[int], None] | None = None
) -> Tensor:
    """Sample one window.

    Args:
        step: the prior, set up for this window.
        prompt: int64 (N, P), the codes that are known, P >= 0.
        uniform: float32 (N, M), one number for each code to sample, M >= 1.
        after_code: called after each code with how many are done, for progress; what it raises ends the sampling.

    Returns:
        int64 (N, P + M), the prompt first, on its device.
    """
    songs, known = prompt.shape
    new = uniform.shape[1]
    codes = prompt.new_empty((songs, known + new))
    codes[:, :known] = prompt
    columns = uniform.unbind(dim=1)
    code = step.first(prompt, columns[0])
    for index in range(new):
        if index:
            code = step.next(code, known + index, columns[index])
        codes[:, known + index] = code
        if after_code is not None:
            after_code(index + 1)
    step.finish()
    return codes


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


@contextmanager
def suited_threads(prior: Any) -> Iterator[None]:
    """On a CPU, sample narrow priors on one thread; afterwards torch has as many as before, come what may.

    A step of a narrow prior is made of operations of a few microseconds, which take longer to share out than to do (a
    busy machine makes it many times longer). The width alone decides, so that the numbers do not depend on the batch.
    """
    width = getattr(prior.config, "hidden_size", NARROW)
    threads = torch.get_num_threads()
    if width >= NARROW or threads == 1 or device_of(prior).type != "cpu":
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


__all__ = ["EagerStep", "Step", "sample_window", "sampling_mode", "suited_threads"]
