"""Where the time goes: the parts of a whole song, and the operations of a step.

    python -m benchmarks.profiling --model embedded --duration 60
    python -m benchmarks.profiling --device cuda --dtype bfloat16 --model fastjukebox-18 --duration 60 --windows 40

*Parts*: seconds of a song in conditioning, prompts (one parallel pass each), steps and decoding, level by level; the
rest is what was in none of them. A GPU is waited for after each part, so it is more than an unwatched song takes.
On a CPU, windows are shared out between threads, whose seconds are added: `--threads 1` makes the parts add up.

*Operations*: what a row of steps of one level calls, the costliest first: kernels on a GPU, torch's operations on a CPU
(the native engine is one call of C and shows as nothing).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.generation import model_of
from benchmarks.report import Row, clock, machine, parse, parser_of, report, wait
from benchmarks.steps import window_sampler
from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.models.prior.engines.cuda_graph import DeviceDecoder
from fast_jukebox.models.prior.engines.native import NativeDecoder
from fast_jukebox.sampling.engine import EagerDecoder, sampling_mode
from fast_jukebox.sampling.machine import suited_threads

PARTS = {
    "conditioning": (FastJukeboxPrior, "condition"),
    "prompts": (FastJukeboxPrior, "prefill"),
    "native steps": (NativeDecoder, "decode"),
    "steps on the device": (DeviceDecoder, "decode"),
    "eager steps": (EagerDecoder, "decode"),
    "decoding": (FastJukeboxVQVAE, "decode"),
}


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Row]]:
    """Measure and print; returns the tables' rows."""
    parser = parser_of(__doc__, sampling=True)
    parser.add_argument("--model", default="embedded", help="a preset, a folder, a Hub name, or embedded")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the song")
    parser.add_argument("--schedule", default="parallel", choices=["parallel", "sequential"])
    parser.add_argument("--level", type=int, default=0, help="whose steps are looked into")
    parser.add_argument("--windows", type=int, default=1, help="side by side in those steps")
    parser.add_argument("--steps", type=int, default=128, help="codes of them")
    parser.add_argument("--operations", type=int, default=12, help="rows of that table")
    args = parse(parser, arguments)
    settings = {"machine": machine(args.device), **{name: getattr(args, name) for name in ("model", "dtype", "engine")}}
    model = model_of(args.model, args)
    tables = {"parts": part_rows(model, args), "operations": operation_rows(model.priors[args.level], args)}
    report(tables, settings, args.output)
    return tables


def part_rows(model: FastJukeboxModel, args: argparse.Namespace) -> list[Row]:
    """A row for each part of a song at each level, the rest and the whole."""
    options = {"schedule": args.schedule, "engine": args.engine, "seed": 0}
    model.generate(duration=min(1.0, args.duration), **options)
    seconds: dict[tuple[int | str, str], float] = defaultdict(float)
    with ExitStack() as stack:
        for name, (owner, method) in PARTS.items():
            stack.enter_context(watched(owner, method, name, args.device, seconds))
        whole = clock(lambda: model.generate(duration=args.duration, **options), args.device)
    order = sorted(seconds, key=lambda key: (-key[0] if isinstance(key[0], int) else 1, list(PARTS).index(key[1])))
    rows = [{"level": level, "part": part, "s": seconds[level, part]} for level, part in order]
    rows.append({"level": "", "part": "the rest", "s": whole - sum(seconds.values())})
    rows.append({"level": "", "part": "the whole song", "s": whole})
    return [{**row, "share": f"{row['s'] / whole:.1%}"} for row in rows]


@contextmanager
def watched(owner: type, method: str, part: str, device: str, seconds: dict[tuple[int | str, str], float]) -> Iterator:
    """Add to `seconds` how long each call of a method takes, until the block ends."""
    original = getattr(owner, method)

    def timed_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return original(self, *args, **kwargs)
        finally:
            wait(device)
            config = getattr(getattr(self, "prior", self), "config", self)
            seconds[getattr(config, "level", "sound"), part] += time.perf_counter() - begin

    setattr(owner, method, timed_call)
    try:
        yield
    finally:
        setattr(owner, method, original)


def operation_rows(prior: FastJukeboxPrior, args: argparse.Namespace) -> list[Row]:
    """A row for each of the costliest operations of `args.steps` codes of one level."""
    config = prior.config
    steps = max(min(args.steps, config.n_ctx) // config.upper_ratio, 1) * config.upper_ratio
    with sampling_mode(prior), suited_threads(prior):
        found = operations(window_sampler(prior, args.windows, steps, args.engine), args.device)
    total = sum(spent for _, _, spent in found) or 1.0
    return [
        {
            "operation": name.replace("|", " "),
            "calls a code": count / steps,
            "us a code": spent / steps,
            "share": f"{spent / total:.1%}",
        }
        for name, count, spent in found[: args.operations]
    ]


def operations(run: Callable[[], object], device: str) -> list[tuple[str, int, float]]:
    """Name, calls and microseconds of each operation of a second run, the costliest first: kernels where on a GPU."""
    on_gpu = device.startswith("cuda")
    spent = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    run()
    wait(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        run()
        wait(device)
    found = [(event.key[:80], event.count, getattr(event, spent)) for event in profiler.key_averages()]
    return sorted(found, key=lambda row: -row[2])


if __name__ == "__main__":
    main()
