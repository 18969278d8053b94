"""What benchmarks share: options, clocks, and what they write: the machine, the settings, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from fast_jukebox.sampling.engine import ENGINES
from fast_jukebox.utils.text import markdown_table

Row = dict[str, Any]


def parser_of(description: str | None, *, sampling: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has, and those of sampling."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="of a CPU")
    parser.add_argument("--output", default=None, help="write the tables as .json and .md, whose names begin so")
    if sampling:
        parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
        parser.add_argument("--engine", default="auto", choices=ENGINES)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with as many threads as they ask for from here on."""
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def machine(device: str) -> Row:
    """What the figures were measured on."""
    facts: Row = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def clock(work: Callable[[], Any], device: str) -> float:
    """Seconds of a run."""
    wait(device)
    begin = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begin


def timed(work: Callable[[], Any], device: str, repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` runs, after one that is not counted."""
    return min([clock(work, device) for _ in range(repeats + 1)][1:])


def measured_bandwidth(device: str) -> float:
    """Bytes a second that the device reads, in one large sum."""
    values = torch.ones(2**28 if device.startswith("cuda") else 2**26, device=device)
    return values.nbytes / timed(values.sum, device, repeats=5)


def reset_peak_memory(device: str) -> None:
    """Let [`peak_memory`] count from here, where the device can."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Bytes: of a GPU the most that tensors held, of a CPU the most that the process held, ever."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(tables: Mapping[str, Sequence[Row]], settings: Row, output: str | None) -> None:
    """Print the settings and tables of rows; with `output` write `OUTPUT-NAME.md` and, with the settings, `.json`.

    Args:
        tables: by name; of an empty name the files are `OUTPUT.md` and `OUTPUT.json`.
        settings: of all of them.
        output: beginning of the files' names.
    """
    print(settings)
    for name, rows in tables.items():
        if not rows:
            continue
        table = markdown_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        print(table)
        if output:
            path = f"{output}-{name}" if name else output
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{path}.md").write_text(table + "\n", encoding="utf-8")
            Path(f"{path}.json").write_text(json.dumps({**settings, "rows": list(rows)}, indent=2), encoding="utf-8")


def wait(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
