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
from pathlib import Path
from typing import Any

import torch

from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.prior.engines.fused import FusedProgram, Launch
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.sampling.filtering import SamplingSettings

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}


def launches(
    preset: str, level: int, rows: int, dtype: torch.dtype, settings: SamplingSettings, overlap: bool
) -> dict[str, Launch]:
    """The different kernels of a step, by name."""
    config = FastJukeboxConfig.preset(preset).prior_configs[level]
    config.num_hidden_layers = config.layer_period
    with torch.device("meta"):
        prior = FastJukeboxPrior(config).to(dtype)
    program = FusedProgram(prior, rows, settings, overlap=overlap)
    kernels = {"embed": program._embed, "draw": program._draw}
    for index, launch in enumerate(program._layers):
        name = launch.kernel.fn.__name__
        epilogue = launch.arguments.get("EPILOGUE")
        kernels[f"{name} {epilogue}" if epilogue else name if name == "normalise" else f"{name} {index}"] = launch
    return kernels


def compiled(launch: Launch) -> Any:
    """The kernel built for the machine's GPU, or for compute capability 9.0 where there is none."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel
    varying = {name: 0 for name in ("step", "more") if name in kernel.arg_names}
    if torch.cuda.is_available():
        return kernel.warmup(grid=launch.grid, **launch.arguments, **varying, **launch.options)
    arguments = {**launch.arguments, **varying}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if kernel.params[index].is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=launch.options)


def rows_of(
    preset: str, level: int, dtype: str, windows: int, overlap: bool, settings: SamplingSettings, measured: bool
) -> list[dict[str, Any]]:
    """A row for each different kernel of a step."""
    found: dict[str, dict[str, Any]] = {}
    for name, launch in launches(preset, level, windows, getattr(torch, dtype), settings, overlap).items():
        constants = {key: value for key, value in launch.arguments.items() if key.isupper()}
        kernel = compiled(launch)
        found[f"{launch.kernel.fn.__name__} {sorted(constants.items())}"] = {
            **{"model": preset, "level": level, "dtype": dtype, "windows": windows, "kernel": name},
            **{"programs": math.prod(launch.grid), "warps": launch.num_warps},
            **(resources(kernel) if measured else {}),
        }
    return list(found.values())


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
    parser.add_argument("--no-overlap", action="store_true")
    parser.add_argument("--only-compile", action="store_true", help="say nothing of resources")
    parser.add_argument("--settings", default="{}", help="of the draw, as JSON")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    settings = SamplingSettings(**json.loads(options.settings))
    jobs = [
        (preset, level, dtype, windows, not options.no_overlap, settings, not options.only_compile)
        for windows in options.rows
        for dtype in options.dtypes
        for preset in options.presets
        for level in options.levels
    ]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(rows_of, *zip(*jobs, strict=True)):
            for row in rows:
                print(json.dumps(row) if options.json else " | ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
