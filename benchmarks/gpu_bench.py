"""Where the parts of `benchmarks.gpu` run and write, and what they have in common."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps import random_model, random_prior
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.sampling.weights import release_decoders

TOP, MIDDLE, BOTTOM = 2, 1, 0
WINDOWS = {TOP: 1, MIDDLE: 12, BOTTOM: 46}
"""Windows that a level of a minute has side by side."""


class OutOfTime(BaseException):
    """A part has had its seconds; no part catches it."""


class Bench:
    """Where the parts run and write.

    Args:
        output: folder of `results.jsonl`.
        toy: tiny sizes, on a CPU where there is no GPU.
    """

    def __init__(self, output: Path, toy: bool = False) -> None:
        self.output, self.toy = output, toy
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cpu" and not toy:
            raise SystemExit("there is no CUDA device; --toy tries the script on a CPU")
        self.dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        self.part = ""
        self._models: dict[str, FastJukeboxModel] = {}

    def emit(self, **row: Any) -> None:
        """Print a row and append it to the results."""
        line = json.dumps({"part": self.part, **row})
        print(line, flush=True)
        self.output.mkdir(parents=True, exist_ok=True)
        with open(self.output / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def begun(self) -> set[str]:
        """Parts that have begun in the folder before."""
        path = self.output / "results.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {row["part"] for row in map(json.loads, lines) if "began" in row}

    def config(self, name: str, level: int) -> FastJukeboxPriorConfig:
        """A preset's prior, tiny where `toy`."""
        config = FastJukeboxConfig.preset(name).prior_configs[level]
        if self.toy:
            config.hidden_size, config.n_ctx, config.num_rows, config.codebook_size = 16, 64, 32, 16
            config.num_hidden_layers = min(config.num_hidden_layers // 18, 2) + 1
            if config.has_upper_level:
                config.upper_codebook_size, config.conditioner_width, config.conditioner_depth = 16, 8, 1
        return config

    def prior(self, config: FastJukeboxPriorConfig, dtype: torch.dtype | None = None) -> FastJukeboxPrior:
        """A prior of random weights on the device, made there."""
        return random_prior(config, self.device, dtype or self.dtype)

    def model(self, name: str) -> FastJukeboxModel:
        """A whole model of random weights on the device, made once; where `toy` the embedded one."""
        if name not in self._models and self.toy:
            self._models[name] = FastJukeboxModel.from_pretrained(default_model_path()).eval()
        elif name not in self._models:
            self._models[name] = random_model(FastJukeboxConfig.preset(name), self.device, self.dtype)
        return self._models[name]

    def free(self) -> None:
        """Give back what the last measurement held."""
        release_decoders()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def attempt(bench: Bench, work: Callable[..., None], *arguments: Any) -> None:
    """Do one measurement; what it raises becomes a row."""
    try:
        work(bench, *arguments)
    except Exception as error:
        traceback.print_exc()
        named = [argument for argument in arguments if isinstance(argument, str | int | dict)]
        bench.emit(failed=work.__name__, arguments=named, error=f"{type(error).__name__}: {error}"[:400])
