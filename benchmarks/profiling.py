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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.generation import model_of
from benchmarks.report import machine, wait, write_report
from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.models.prior.engines.cuda_graph import DeviceDecoder
from fast_jukebox.models.prior.engines.native import NativeDecoder
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import uniform_noise
from fast_jukebox.sampling.engine import ENGINES, EagerDecoder, open_decoder, sample_window, sampling_mode
from fast_jukebox.sampling.machine import suited_threads

PARTS = {
    "conditioning": (FastJukeboxPrior, "condition"),
    "prompts": (FastJukeboxPrior, "prefill"),
    "native steps": (NativeDecoder, "decode"),
    "steps on the device": (DeviceDecoder, "decode"),
    "eager steps": (EagerDecoder, "decode"),
    "decoding": (FastJukeboxVQVAE, "decode"),
}


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Measure and print; returns the tables' rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a preset, a folder, a Hub name, or embedded")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the song")
    parser.add_argument("--schedule", default="parallel", choices=["parallel", "sequential"])
    parser.add_argument("--level", type=int, default=0, help="whose steps are looked into")
    parser.add_argument("--windows", type=int, default=1, help="side by side in those steps")
    parser.add_argument("--steps", type=int, default=128, help="codes of them")
    parser.add_argument("--operations", type=int, default=12, help="rows of that table")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--threads", type=int, default=None, help="of a CPU")
    parser.add_argument("--output", default=None, help="write OUTPUT-parts and OUTPUT-operations, .json and .md")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = {"machine": machine(args.device), **{name: getattr(args, name) for name in ("model", "dtype", "engine")}}
    print(settings)
    model = model_of(args.model, args)
    tables = {"parts": part_rows(model, args), "operations": operation_rows(model.priors[args.level], args)}
    for name, rows in tables.items():
        if rows:
            print(write_report(rows, settings, f"{args.output}-{name}" if args.output else None))
    return tables


def part_rows(model: FastJukeboxModel, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each part of a song at each level, the rest and the whole."""
    options = {"schedule": args.schedule, "engine": args.engine, "seed": 0}
    model.generate(duration=min(1.0, args.duration), **options)
    seconds: dict[tuple[int | str, str], float] = defaultdict(float)
    with ExitStack() as stack:
        for name, (owner, method) in PARTS.items():
            stack.enter_context(watched(owner, method, name, args.device, seconds))
        begin = time.perf_counter()
        model.generate(duration=args.duration, **options)
        wait(args.device)
        whole = time.perf_counter() - begin
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


def operation_rows(prior: FastJukeboxPrior, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each of the costliest operations of `args.steps` codes of one level."""
    on_gpu = args.device.startswith("cuda")
    config = prior.config
    steps = max(min(args.steps, config.n_ctx) // config.upper_ratio, 1) * config.upper_ratio
    upper = None
    if config.has_upper_level:
        upper = torch.zeros(args.windows, steps // config.upper_ratio, dtype=torch.int64, device=args.device)
    with sampling_mode(prior), suited_threads(prior):
        conditioning = prior.condition(args.windows, steps, upper)
        uniform = uniform_noise(0, range(args.windows), config.level, 0, steps, args.device)
        prompt = torch.zeros(args.windows, 0, dtype=torch.int64, device=args.device)

        def run() -> None:
            sample_window(
                open_decoder(prior, conditioning, args.windows, SamplingSettings(), args.engine), prompt, uniform
            )
            wait(args.device)

        run()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities, acc_events=True) as profiler:
            run()
    microseconds = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, microseconds))
    total = sum(getattr(event, microseconds) for event in events) or 1.0
    return [
        {
            "operation": event.key[:80].replace("|", " "),
            "calls a code": event.count / steps,
            "us a code": getattr(event, microseconds) / steps,
            "share": f"{getattr(event, microseconds) / total:.1%}",
        }
        for event in events[: args.operations]
    ]


if __name__ == "__main__":
    main()
