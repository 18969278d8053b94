"""What every benchmark writes: the machine, the settings, a table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {
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


def timed(work: Callable[[], Any], device: str, repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` runs, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


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


def write_report(rows: Sequence[dict[str, Any]], settings: dict[str, Any], output: str | None) -> str:
    """A Markdown table of `rows`; with `output` also written as `OUTPUT.md` and, with the settings, `OUTPUT.json`."""
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in header) + " |" for row in rows]
    table = "\n".join(lines)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{output}.md").write_text(table + "\n", encoding="utf-8")
        Path(f"{output}.json").write_text(json.dumps({**settings, "rows": list(rows)}, indent=2), encoding="utf-8")
    return table


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
