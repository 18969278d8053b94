"""Cost of a sampling step at each level, early and late in the window, for several sizes and batches.

    python -m benchmarks.sampling --presets fastjukebox-mini-36 fastjukebox-mini-12 fastjukebox-mini-9 --batches 1 8
    python -m benchmarks.sampling --presets embedded --weights float32 float16 --batches 1 8 46

Presets are names, folders, Hub repositories or `embedded`. Weights are random: the cost does not depend on them, but on
whether float16 holds them, in which the C engine then reads them (`--weights float16`). Early and late are measured in
turns, the fastest of each told: their ratio says whether a step costs more the further a window has come. `song s` is
what the level's steps of 60 s of music take at this rate, window after window, without prompts and decoding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from benchmarks.generation import config_of
from benchmarks.report import Row, machine, parse, parser_of, report, timed
from benchmarks.steps import any_labels, random_prior, upper_codes
from fast_jukebox import FastJukeboxPrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import open_decoder

SONG_SECONDS = 60.0
EARLY = 100
TURNS = 5


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print; returns the table's rows."""
    parser = parser_of(__doc__, sampling=True)
    parser.add_argument("--presets", nargs="+", default=["fastjukebox-mini-36", "fastjukebox-mini-9"])
    parser.add_argument(
        "--weights", nargs="+", default=["float32"], choices=["float32", "float16"], help="what holds the weights"
    )
    parser.add_argument("--levels", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=64, help="steps a measurement")
    args = parse(parser, arguments)
    rows = []
    for level in args.levels:
        for preset in args.presets:
            prior = random_prior(config_of(preset).prior_configs[level], args.device, getattr(torch, args.dtype))
            for batch in args.batches:
                for weights in args.weights:
                    stored = prior if weights == "float32" else copy.deepcopy(prior).half().to(prior.dtype)
                    row = measure(stored, batch, args.steps, args.engine)
                    rows.append({"level": level, "model": preset, "weights": weights, **row})
    settings = {"machine": machine(args.device), "dtype": args.dtype, "engine": args.engine, "steps": args.steps}
    report({"": rows}, settings, args.output)
    return rows


@torch.inference_mode()
def measure(prior: FastJukeboxPrior, batch: int, steps: int, engine: str) -> Row:
    """The times of a row of the table."""
    config, device = prior.config, str(prior.device)
    turns = [window_from(prior, batch, start, steps, engine) for start in (EARLY, config.n_ctx - steps)]
    seconds: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for turn, own in zip(turns, seconds, strict=True):
            own.append(timed(turn, device, repeats=1) / steps)
    early, late = map(min, seconds)
    codes = SONG_SECONDS * config.sampling_rate / config.hop_length
    return {
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
    conditioning = prior.condition(batch, length, upper_codes(prior, batch, length), any_labels(prior, batch))
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
