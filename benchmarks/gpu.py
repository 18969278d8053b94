"""What a GPU does with the full sizes, part by part: `benchmarks/gpu.sh MINUTES` runs the parts, most important first.

    python -m benchmarks.gpu correctness steps --output runs/gpu
    python -m benchmarks.gpu --list

Each part appends its rows to `OUTPUT/results.jsonl` as they come; `python -m benchmarks.gpu_tables OUTPUT` makes tables
of them. With `--toy` everything is tiny and runs on a CPU, fused kernels by Triton's interpreter, to try the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch

from benchmarks import gpu_songs, gpu_steps, gpu_training
from benchmarks.gpu_bench import Bench, OutOfTime
from benchmarks.report import machine, measured_bandwidth


class Part(NamedTuple):
    """A part of a run: what it does, the seconds that it may take, and the parts that share a process, by a name."""

    work: Callable[[Bench], None]
    seconds: int
    process: str


PARTS: dict[str, Part] = {
    "training": Part(gpu_training.training, 40, "training"),
    "compiled": Part(gpu_steps.compiled, 45, "compiled"),
    "tune": Part(gpu_steps.tune, 30, "steps"),
    "trial": Part(gpu_steps.trial, 30, "steps"),
    "correctness": Part(gpu_steps.correctness, 30, "steps"),
    "steps": Part(gpu_steps.steps, 20, "steps"),
    "more_steps": Part(gpu_steps.more_steps, 40, "steps"),
    "first": Part(gpu_songs.first, 40, "songs"),
    "minute": Part(gpu_songs.minute, 80, "songs"),
    "short_windows": Part(gpu_songs.short_windows, 50, "songs"),
    "stream": Part(gpu_songs.stream, 30, "songs"),
    "songs": Part(gpu_songs.songs, 60, "songs"),
    "sequential": Part(gpu_songs.sequential, 30, "songs"),
    "profile": Part(gpu_steps.profile, 30, "kernels"),
    "together": Part(gpu_steps.together, 20, "kernels"),
    "graph_steps": Part(gpu_steps.graph_steps, 30, "kernels"),
    "published": Part(gpu_steps.published, 30, "others"),
    "musicgen": Part(gpu_songs.musicgen, 60, "others"),
    "compiled_training": Part(gpu_training.compiled_training, 70, "compiled_training"),
    "other_dtypes": Part(gpu_steps.other_dtypes, 45, "dtypes"),
    "minute_by_graph": Part(gpu_songs.minute_by_graph, 100, "graph"),
}
"""Each part, in the order of a whole run; the first two need no fused kernel, which are being compiled meanwhile."""

TOY_PATIENCE = 20
"""How much longer than on a GPU a toy run may take for a part: a CPU may be busy with other things."""


def lines_of(parts: Sequence[str], patience: int) -> list[str]:
    """For each process of a run its seconds and its parts, in a line."""
    lines = []
    for process in dict.fromkeys(PARTS[name].process for name in parts):
        names = [name for name in parts if PARTS[name].process == process]
        lines.append(" ".join([str(20 + patience * sum(PARTS[name].seconds for name in names)), *names]))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module; returns 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--toy", action="store_true", help="tiny sizes, also on a CPU")
    parser.add_argument("--list", action="store_true", help="print the parts of each process of a run, and its seconds")
    parser.add_argument("--begun", action="store_true", help="leave out parts that have begun in OUTPUT before")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown or not (options.parts or options.list):
        parser.error(f"PART must be of {', '.join(PARTS)}; got {unknown or 'none'}")
    if options.list:
        print("\n".join(lines_of(options.parts or list(PARTS), TOY_PATIENCE if options.toy else 1)))
        return 0
    if options.toy and not torch.cuda.is_available():
        _interpret(parser)
    bench, failed = Bench(options.output, options.toy), False
    begun = bench.begun()
    if not begun:
        bench.part = options.parts[0]
        bench.emit(machine=machine(bench.device), bandwidth_GB_s=measured_bandwidth(bench.device) / 1e9)
    signal.signal(signal.SIGALRM, _out_of_time)
    for name in options.parts:
        if not (options.begun and name in begun):
            gpu_steps.use_tuning(options.output / "tuning.json")
            try:
                failed |= not run(bench, name)
            except RuntimeError:
                traceback.print_exc()
                return 3  # another process has to do the rest
    return int(failed)


def run(bench: Bench, name: str) -> bool:
    """Run a part in its time; returns whether it came to its end."""
    bench.part, begin, error = name, time.perf_counter(), None
    bench.emit(began=True)
    signal.alarm(PARTS[name].seconds * (TOY_PATIENCE if bench.toy else 1))
    try:
        PARTS[name].work(bench)
    except (Exception, OutOfTime) as caught:
        traceback.print_exc()
        error = caught
    finally:
        signal.alarm(0)
    if error is not None:
        bench.emit(failed=name, error=f"{type(error).__name__}: {error}"[:400])
    bench.emit(took_s=time.perf_counter() - begin)
    if error is not None and bench.device == "cuda":
        torch.cuda.synchronize()  # raises where the device is of no more use to this process
    bench.free()
    return error is None


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime("the part's seconds are over")


def _interpret(parser: argparse.ArgumentParser) -> None:
    """Let Triton's interpreter stand for the GPU."""
    from benchmarks.triton_interpreter import repair
    from fast_jukebox.models.prior.engines import fused, fused_tuning

    repair()
    if not fused.interpreted():
        parser.error("--toy needs TRITON_INTERPRET=1 in the environment where there is no GPU")
    # Each program costs the interpreter milliseconds.
    fused_tuning.TUNINGS = [(limit, dataclasses.replace(tuning, programs=2)) for limit, tuning in fused_tuning.TUNINGS]


if __name__ == "__main__":
    sys.exit(main())
