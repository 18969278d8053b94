"""Compile every fused kernel ahead of time, at real sizes: registers, spills and shared memory of each.

`python -m benchmarks.fused_compile --rows 1 12 46 184 --processes 2`

Without a GPU they are compiled for compute capability 9.0. On one they are compiled for it, into Triton's cache, from
which processes that start later take them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.prior.engines import fused_tuning
from fast_jukebox.models.prior.engines.fused import FusedDecoder
from fast_jukebox.models.prior.engines.fused_launch import Launch
from fast_jukebox.models.prior.engines.fused_tuning import Tuning
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.sampling.checks import SamplingSettings

ONE, MIDDLE, MANY = (fused_tuning.tuning_for(rows) for rows in (1, 12, 46))

CHOICES: dict[tuple[int, int], list[Tuning]] = {
    (1, 12): [
        MIDDLE,
        replace(MIDDLE, folded=True),
        replace(MIDDLE, folded=True, block=(16, 16, 1024, 3, 4)),
        replace(MIDDLE, folded=True, block=(16, 32, 512, 4, 4), parts=2),
    ],
    (0, 46): [
        MANY,
        replace(MANY, folded=True),
        replace(MANY, block=(64, 32, 256, 4, 4)),
        replace(MANY, block=(64, 32, 128, 6, 4), parts=3),
    ],
    (2, 1): [ONE, replace(ONE, numbers=8192)],
}
"""Of some levels and numbers of windows: choices that `benchmarks.gpu tune` compares, the default first."""


class NoGPU:
    """Stands for Triton's driver where there is no GPU: kernels are compiled for compute capability 9.0."""

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The only one."""
        return device

    def get_current_target(self) -> Any:
        """What is compiled for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


def launches(
    preset: str, level: int, rows: int, dtype: torch.dtype, settings: SamplingSettings, tuning: Tuning | None = None
) -> dict[str, Launch]:
    """The different kernels of a step, by name."""
    config = FastJukeboxConfig.preset(preset).prior_configs[level]
    config.num_hidden_layers = config.layer_period
    with torch.device("meta"):
        prior = FastJukeboxPrior(config).to(dtype)
    decoder = FusedDecoder(prior, rows, settings, tuning)
    found: dict[str, tuple[str, Launch]] = {}
    for launch in [*decoder._layers, decoder._embed, decoder._draw]:
        constants = {key: value for key, value in launch.arguments.items() if key.isupper()}
        name = launch.kernel.fn.__name__
        key = f"{name} {sorted(constants.items())} {launch.options}"
        found.setdefault(key, (f"{name} {launch.arguments.get('EPILOGUE', '')}".strip(), launch))
    return {f"{name} {index}": launch for index, (name, launch) in enumerate(found.values())}


def compiled(launch: Launch) -> Any:
    """The kernel as a launch would have it, for the machine's GPU or for compute capability 9.0."""
    from triton.runtime import driver

    if not torch.cuda.is_available():
        driver.set_active(NoGPU())
    varying = {name: 0 for name in ("step", "more") if name in launch.kernel.arg_names}
    return launch.kernel.warmup(grid=launch.grid, **launch.arguments, **varying, **launch.options)


def rows_of(
    preset: str, level: int, dtype: str, windows: int, settings: SamplingSettings, tuning: Tuning | None, measured: bool
) -> list[dict[str, Any]]:
    """A row for each different kernel of a step."""
    return [
        {
            **{"model": preset, "level": level, "dtype": dtype, "windows": windows, "kernel": name},
            **{"programs": math.prod(launch.grid), "warps": launch.num_warps},
            **(resources(kernel) if measured else {}),
        }
        for name, launch in launches(preset, level, windows, getattr(torch, dtype), settings, tuning).items()
        for kernel in [compiled(launch)]
    ]


def resources(kernel: Any) -> dict[str, int]:
    """Registers a thread, bytes of stack (spills) and of shared memory a program."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        said = subprocess.run(
            [str(tool), "--dump-resource-usage", str(path)], capture_output=True, text=True, check=True
        )
    found = dict(re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", said.stdout))
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]) + int(found["LOCAL"]),
        "shared": int(kernel.metadata.shared),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fastjukebox-18"])
    parser.add_argument("--levels", nargs="+", type=int, default=[2, 0])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 12, 46, 184])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--json", action="store_true", help="a line of JSON a kernel")
    parser.add_argument("--choices", action="store_true", help="also with each of `CHOICES`")
    parser.add_argument("--only-compile", action="store_true", help="say nothing of resources")
    parser.add_argument("--settings", default="{}", help="of the draw, as JSON")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    settings = SamplingSettings(**json.loads(options.settings))
    sizes = [(level, windows) for windows in options.rows for level in options.levels]
    tunings = {(level, windows): list(fused_tuning.forms_for(windows)) for level, windows in sizes}
    if options.choices:
        tunings |= CHOICES  # the first choice of each is the default
    jobs = [
        (preset, level, dtype, windows, settings, tuning, not options.only_compile)
        for (level, windows), own in tunings.items()
        for tuning in own
        for dtype in options.dtypes
        for preset in options.presets
    ]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(rows_of, *zip(*jobs, strict=True)):
            for row in rows:
                print(json.dumps(row) if options.json else " | ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
