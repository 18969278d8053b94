"""Compile every fused kernel ahead of time, with no GPU at hand: registers, spills and shared memory at real sizes.

`python -m benchmarks.fused_compile --presets fastjukebox-18 --rows 1 12 46 184`
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import tempfile
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
    config.num_hidden_layers = len(config.attention_patterns)
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
    """The kernel built for compute capability 9.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel
    arguments = {**launch.arguments, "step": 5, "more": 1}
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
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    if launch.arguments.get("PDL"):
        options["launch_pdl"] = True
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


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
    options = parser.parse_args()
    settings = SamplingSettings(top_k=100, top_p=0.9)
    for preset in options.presets:
        for level in options.levels:
            for dtype in options.dtypes:
                for rows in options.rows:
                    every = launches(preset, level, rows, getattr(torch, dtype), settings, not options.no_overlap)
                    for name, launch in every.items():
                        row: dict[str, Any] = {
                            **{"model": preset, "level": level, "dtype": dtype, "windows": rows, "kernel": name},
                            **{"programs": math.prod(launch.grid), "warps": launch.num_warps},
                            **resources(compiled(launch)),
                        }
                        print(json.dumps(row) if options.json else " | ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
