"""Cost of a sampling step at each level, early and late in the window, for several sizes and batches.

    python -m benchmarks.sampling --presets fastjukebox-mini-36 fastjukebox-mini-12 fastjukebox-mini-9 --batches 1 8

Weights are random: the cost does not depend on them. Early and late are measured in turns, the fastest of each told:
their ratio says whether a step costs more the further a window has come. `song s` is what the level's steps of 60 s of
music take at this rate, window after window, without prompts and decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.report import Row, machine, parse, parser_of, report, timed
from benchmarks.steps import random_prior, upper_codes
from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import open_decoder

SONG_SECONDS = 60.0
EARLY = 100
TURNS = 5


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print; returns the table's rows."""
    parser = parser_of(__doc__, sampling=True)
    parser.add_argument("--presets", nargs="+", default=["fastjukebox-mini-36", "fastjukebox-mini-9"])
    parser.add_argument("--levels", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=64, help="steps a measurement")
    args = parse(parser, arguments)
    rows = []
    for level in args.levels:
        for preset in args.presets:
            config = FastJukeboxConfig.preset(preset).prior_configs[level]
            prior = random_prior(config, args.device, getattr(torch, args.dtype))
            rows += [measure(prior, preset, batch, args.steps, args.engine) for batch in args.batches]
    settings = {"machine": machine(args.device), "dtype": args.dtype, "engine": args.engine, "steps": args.steps}
    report({"": rows}, settings, args.output)
    return rows


@torch.inference_mode()
def measure(prior: FastJukeboxPrior, preset: str, batch: int, steps: int, engine: str) -> Row:
    """One row of the table."""
    config, device = prior.config, str(prior.device)
    turns = [window_from(prior, batch, start, steps, engine) for start in (EARLY, config.n_ctx - steps)]
    seconds: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for turn, own in zip(turns, seconds, strict=True):
            own.append(timed(turn, device, repeats=1) / steps)
    early, late = map(min, seconds)
    codes = SONG_SECONDS * config.sampling_rate / config.hop_length
    return {
        "level": config.level,
        "model": preset,
        "batch": batch,
        "early ms": 1e3 * early,
        "late ms": 1e3 * late,
        "late over early": late / early,
        "codes/s": batch / late,
        "cache MB": prior.new_cache(batch).nbytes / 1e6,
        "song s": codes * (early + late) / 2,
    }


def window_from(prior: FastJukeboxPrior, batch: int, start: int, steps: int, engine: str) -> Callable[[], None]:
    """What samples `steps` codes from a position on, over and over, in a window whose first codes are known."""
    length = prior.config.n_ctx
    start = min(start, length - steps)
    conditioning = prior.condition(batch, length, upper_codes(prior, batch, length))
    decoder = open_decoder(prior, conditioning, batch, SamplingSettings(), engine)
    uniform = torch.full((batch, steps), 0.5, device=prior.device)
    first = decoder.prefill(torch.zeros(batch, start - 1, dtype=torch.int64, device=prior.device), uniform[:, 0])

    def sample() -> None:
        decoder.cache.length = start
        code, done = first, 0
        while done < steps:
            count = min(decoder.steps_per_call, steps - done)
            code = decoder.decode(code, start + done, uniform[:, done : done + count])[:, -1]
            done += count

    return sample


if __name__ == "__main__":
    main()
