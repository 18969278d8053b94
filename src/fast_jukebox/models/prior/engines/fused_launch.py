"""Launches of the fused engine's kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fast_jukebox.models.prior.block import LAYER_NORM_EPS
from fast_jukebox.models.prior.engines.fused_tuning import Tuning, block_of, power_below


class Launch(NamedTuple):
    """A kernel with all it is launched with, but for the step."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3

    @property
    def options(self) -> dict[str, Any]:
        """How it is compiled and launched."""
        options: dict[str, object] = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        if self.arguments.get("PDL"):
            options["launch_pdl"] = True
        return options

    def __call__(self, **varying: int) -> None:
        """Launch it with those of the numbers that it takes."""
        taken = {name: value for name, value in varying.items() if name in self.kernel.arg_names}
        self.kernel[self.grid](**self.arguments, **taken, **self.options)


class Scratch(NamedTuple):
    """Memory in which programs that share out a sum leave their parts; see `fused_linear.linear_of_many`."""

    sums: Tensor
    """float32, of as many numbers as any launch needs"""
    done: Tensor
    """int32, zeros, likewise"""


def kernel(name: str) -> Any:
    """A kernel. They are imported where they are first used: they need Triton, which only comes with torch on Linux."""
    from fast_jukebox.models.prior.engines import fused_kernels, fused_linear

    return getattr(fused_linear if name.startswith("linear") else fused_kernels, name)


def linear_of_few(arguments: dict[str, Any], rows: int, tuning: Tuning) -> Launch:
    """The launch of a linear layer by the kernel "few"; see [`Tuning`]."""
    width, outputs = arguments["WIDTH"], arguments["OUTPUTS"]
    block_in = block_of(width)
    # All that a program reads is under way at once.
    numbers = tuning.numbers * 2 // arguments["weight_ptr"].element_size()
    block_out = max(2, min(numbers // block_in, power_below(outputs / tuning.programs)))
    arguments = {
        **arguments,
        "EPS": LAYER_NORM_EPS,
        "ROWS": rows,
        "BLOCK_OUT": block_out,
        "BLOCK_IN": block_in,
    }
    warps = 8 if block_in * block_out > 16384 else tuning.warps
    return Launch(kernel("linear_of_few"), (-(-outputs // block_out),), arguments, num_warps=warps)


def linear_of_many(arguments: dict[str, Any], rows: int, tuning: Tuning, scratch: Scratch) -> Launch:
    """The launch of a linear layer by the kernel "many"."""
    width, outputs = arguments["WIDTH"], arguments["OUTPUTS"]
    most, block_out, block_in, stages, warps = tuning.block
    block_rows = min(most, block_of(rows))
    if arguments["weight_ptr"].dtype == torch.float32:
        block_in //= 4
    block_in = max(16, min(block_in, block_of(width)))
    blocks = -(-width // block_in)
    span = -(-blocks // max(1, min(tuning.parts, blocks))) * block_in
    parts = -(-width // span)
    arguments = {
        **arguments,
        "rows": rows,
        "sums_ptr": scratch.sums,
        "done_ptr": scratch.done,
        "BLOCK_ROWS": block_rows,
        "BLOCK_OUT": block_out,
        "BLOCK_IN": block_in,
        "BLOCK_LINES": block_of(-(-min(span, width) * arguments["weight_ptr"].element_size() // 128)),
        "LANES": min(tuning.lanes, block_in // 16),
        "PARTS": parts,
        "SPAN": span,
        "EPS": LAYER_NORM_EPS,
        "BLOCKS": block_of(-(-width // block_out)),
    }
    grid = (-(-rows // block_rows), -(-outputs // block_out), parts)
    return Launch(kernel("linear_of_many"), grid, arguments, num_warps=warps, num_stages=stages)


def new_scratch(rows: int, heads: int, most_outputs: int, tuning: Tuning, device: torch.device) -> Scratch:
    """Scratch memory for so many rows and for layers of at most so many outputs."""
    shared = tuning.kernel == "many" and tuning.parts > 1
    sums = torch.zeros(tuning.parts * rows * most_outputs if shared else 1, device=device)
    blocks = -(-rows // 16) * -(-most_outputs // 16) if shared else 1
    return Scratch(sums, torch.zeros(max(blocks, rows * heads), dtype=torch.int32, device=device))
