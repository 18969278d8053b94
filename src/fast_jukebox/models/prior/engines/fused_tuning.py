"""Choices of the fused engine: which kernel multiplies, in what blocks, and when kernels overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Overlap = Literal["none", "early", "late"]

OVERLAPS: dict[str, int] = {"none": 0, "early": 1, "late": 2}
"""As kernels take them."""

SHARED_OF_HOPPER = 227 * 1024
"""Bytes of shared memory that a program may have on Hopper."""

_WIDEST_OF_FEW = 16384
_LARGEST_OF_SOME = 65536


@dataclass(frozen=True)
class Tuning:
    """Choices that change the time of a step and, rounding aside, nothing else.

    Attributes:
        kernel: of a linear layer. "few" multiplies each weight with every row as it is read; "some" reads all inputs of
            a block of 16 rows at once and multiplies by the tensor cores; "many" multiplies blocks of inputs in turn by
            the tensor cores. The first two normalise as well.
        norm_apart: normalise in a separate kernel there too.
        programs: that a "few" kernel should have at least: two or more for each multiprocessor of a large GPU.
        numbers: 16-bit numbers of the weight, or half as many of 32 bits, that a program of it reads.
        warps: of a program of it.
        some: outputs of a program of "some" and its warps.
        block: rows, outputs and inputs of a block of "many", loads under way and warps.
        parts: programs that share out the inputs of such a block, where there are so many blocks of inputs.
        splits: into how many parts attention splits the slots that it reads; 0 for none.
        merged: let the split that is done last merge them all; otherwise the next layer does as it reads them.
        entries: 16-bit numbers of the keys, or half as many of 32 bits, that a program of attention reads at once.
        overlap: when the next kernel may begin, where the GPU can do that (Hopper and later): "early" as this one
            begins, "late" once it has multiplied.
    """

    kernel: Literal["few", "some", "many"] = "many"
    norm_apart: bool = False
    programs: int = 256
    numbers: int = 8192
    warps: int = 4
    some: tuple[int, int] = (16, 8)
    block: tuple[int, int, int, int, int] = (64, 64, 128, 4, 4)
    parts: int = 1
    splits: int = 0
    merged: bool = False
    entries: int = 32768
    overlap: Overlap = "none"

    def within(self, shared: int) -> Tuning:
        """The choices with what their kernels hold at once made small enough for so many bytes of shared memory."""
        entries, (rows, outputs, inputs, stages, warps) = self.entries, self.block
        while entries * 9 // 2 > shared:  # keys and values of 16 bits, and an eighth for sums
            entries //= 2
        while (rows + outputs) * inputs * 2 * stages > shared and stages > 1:
            stages -= 1
        return replace(self, entries=entries, block=(rows, outputs, inputs, stages, warps))

    def kernel_for(self, width: int, bytes_each: int) -> str:
        """The kernel of a linear layer of so many inputs: "many" where a program of another could not hold them."""
        if self.kernel == "few" and width > _WIDEST_OF_FEW:
            return "many"
        if self.kernel == "some" and block_of(width) * 16 * bytes_each > _LARGEST_OF_SOME:
            return "many"
        return self.kernel


TUNINGS: list[tuple[int, Tuning]] = [
    (1, Tuning(kernel="few", splits=4, entries=16384, numbers=16384, overlap="early")),
    (4, Tuning(kernel="few", splits=4, entries=16384, overlap="early")),
    (16, Tuning(block=(16, 16, 256, 4, 4))),
    (64, Tuning(block=(64, 32, 128, 4, 4))),
    (128, Tuning()),
    (1 << 30, Tuning(entries=16384)),
]
"""The choices for up to so many rows; for 1, 16 and 64 the quickest of `benchmarks.gpu tune` on an H200 in bfloat16."""


def tuning_for(rows: int) -> Tuning:
    """The choices for a number of rows."""
    return next(tuning for limit, tuning in TUNINGS if rows <= limit)


def block_of(count: int) -> int:
    """The power of two, 16 at least, that holds so many."""
    return max(16, 1 << (count - 1).bit_length())


def power_below(count: float) -> int:
    """The largest power of two up to `count`, 1 at least."""
    return 1 << max(0, int(count).bit_length() - 1)
