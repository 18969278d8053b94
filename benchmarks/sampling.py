"""Cost of a sampling step at each level, early and late in the window, for several sizes and batches.

    python -m benchmarks.sampling --presets fastjukebox-mini-36 fastjukebox-mini-12 fastjukebox-mini-9 --batches 1 8

Weights are random: the cost does not depend on them. `song s` is what the level's steps of 60 s of music take at this
rate, window after window, without prompts and decoding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.report import machine, timed, write_report
from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior, FastJukeboxPriorConfig

SONG_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print; returns the table's rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["fastjukebox-mini-36", "fastjukebox-mini-9"])
    parser.add_argument("--levels", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=64, help="steps a measurement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=None, help="of a CPU")
    parser.add_argument("--output", default=None, help="write OUTPUT.json and OUTPUT.md")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for level in args.levels:
        for preset in args.presets:
            config = FastJukeboxConfig.preset(preset).prior_configs[level]
            prior = FastJukeboxPrior(config).to(args.device, getattr(torch, args.dtype)).eval()
            rows += [measure(prior, preset, batch, args.steps) for batch in args.batches]
    settings = {"machine": machine(args.device), "dtype": args.dtype, "steps": args.steps}
    print(settings)
    print(write_report(rows, settings, args.output))
    return rows


def measure(prior: FastJukeboxPrior, preset: str, batch: int, steps: int) -> dict[str, Any]:
    """One row of the table."""
    config = prior.config
    early = _step_seconds(prior, batch, min(100, config.n_ctx // 4), steps)
    late = _step_seconds(prior, batch, config.n_ctx - steps - 1, steps)
    codes = SONG_SECONDS * config.sampling_rate / config.hop_length
    return {
        "level": config.level,
        "model": preset,
        "batch": batch,
        "early ms": 1e3 * early,
        "late ms": 1e3 * late,
        "codes/s": batch / late,
        "cache MB": prior.new_cache(batch).nbytes / 1e6,
        "song s": codes * (early + late) / 2,
    }


@torch.inference_mode()
def _step_seconds(prior: FastJukeboxPrior, batch: int, start: int, steps: int) -> float:
    """Seconds of one step, over `steps` of them from position `start` on."""
    config: FastJukeboxPriorConfig = prior.config
    device = prior.position_embedding.device
    upper = None
    if config.has_upper_level:
        upper = torch.zeros(batch, config.n_ctx // config.upper_ratio, dtype=torch.int64, device=device)
    conditioning = prior.condition(batch, config.n_ctx, upper)
    cache = prior.new_cache(batch)
    prompt = torch.zeros(batch, start - 1, dtype=torch.int64, device=device)
    prior.prefill(prompt, conditioning, cache)
    code = torch.zeros(batch, dtype=torch.int64, device=device)

    def run() -> None:
        cache.length = start
        for position in range(start, start + steps):
            prior.step(code, position, conditioning, cache)

    return timed(run, str(device)) / steps


if __name__ == "__main__":
    main()
