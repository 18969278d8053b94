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
_SPLIT_WIDTH = 256


@dataclass(frozen=True)
class Tuning:
    """Choices that change the time of a step and, rounding aside, nothing else.

    Attributes:
        kernel: of a linear layer. "few" multiplies each weight with every row as it is read, and normalises them first;
            "many" multiplies blocks by the tensor cores.
        programs: that a "few" kernel should have at least: two or more for each multiprocessor of a large GPU.
        numbers: 16-bit numbers of the weight, or half as many of 32 bits, that a program of it reads.
        warps: of a program of it.
        block: rows, outputs and inputs of a block of "many", loads under way and warps.
        lanes: groups of its warps that share out the inputs.
        parts: programs that share out the inputs of such a block, where there are so many blocks of inputs.
        folded: whether "many" multiplies rows that are not normalised and normalises the outputs, so that LayerNorm is
            no kernel.
        splits: into how many parts attention splits the slots that it reads; 0 for none.
        entries: 16-bit numbers of the keys, or half as many of 32 bits, that a program of attention reads at once.
        overlap: when the next kernel may begin, where the GPU can do that (Hopper and later): "early" as this one
            begins, "late" once it has multiplied.
    """

    kernel: Literal["few", "many"] = "many"
    programs: int = 256
    numbers: int = 8192
    warps: int = 4
    block: tuple[int, int, int, int, int] = (64, 64, 128, 4, 4)
    lanes: int = 1
    parts: int = 1
    folded: bool = False
    splits: int = 2
    entries: int = 32768
    overlap: Overlap = "late"

    def within(self, shared: int) -> Tuning:
        """The choices with what their kernels hold at once made small enough for so many bytes of shared memory."""
        entries, (rows, outputs, inputs, stages, warps) = self.entries, self.block
        while entries * 9 // 2 > shared:  # keys and values of 16 bits, and an eighth for sums
            entries //= 2
        while (rows + outputs) * inputs * 2 * stages > shared and stages > 1:
            stages -= 1
        return replace(self, entries=entries, block=(rows, outputs, inputs, stages, warps))

    def for_width(self, width: int) -> Tuning:
        """The choices where no layer has more inputs than that: "many" where a program of "few" cannot hold them."""
        return replace(self, kernel="many") if width > _WIDEST_OF_FEW else self

    def for_heads(self, width: int) -> Tuning:
        """The choices for heads of that width: of a few rows, attention to wider ones is split more, as a program takes
        the longer the more it reads.
        """
        more = -(-width // _SPLIT_WIDTH) if self.kernel == "few" else 1
        return replace(self, splits=self.splits * more)


TUNINGS: list[tuple[int, Tuning]] = [
    (1, Tuning(kernel="few", splits=4, entries=16384, numbers=16384, overlap="early")),
    (4, Tuning(kernel="few", splits=4, entries=16384, overlap="early")),
    (16, Tuning(block=(16, 16, 512, 5, 4), lanes=4, splits=4)),
    (64, Tuning(block=(64, 32, 128, 8, 4), parts=2)),
    (128, Tuning()),
    (1 << 30, Tuning(entries=16384)),
]
"""The choices for up to so many rows; for 1, 16 and 64 the quickest of `benchmarks.gpu tune` on an H200 in bfloat16."""


def tuning_for(rows: int) -> Tuning:
    """The choices for a number of rows."""
    return next(tuning for limit, tuning in TUNINGS if rows <= limit)


def forms_for(rows: int) -> list[Tuning]:
    """The choices for a number of rows, and where LayerNorm can be folded the same with it: what a trial compares."""
    own = tuning_for(rows)
    return [own, replace(own, folded=True)] if own.kernel == "many" else [own]


def block_of(count: int) -> int:
    """The power of two, 16 at least, that holds so many."""
    return max(16, 1 << (count - 1).bit_length())


def power_below(count: float) -> int:
    """The largest power of two up to `count`, 1 at least."""
    return 1 << max(0, int(count).bit_length() - 1)
