"""Sampling on the clock: steps of every level and size, whole songs, and beside them two yardsticks.

    python -m benchmarks.generation --models fastjukebox-mini-36 fastjukebox-mini-12 fastjukebox-mini-9 --published
    python -m benchmarks.generation --models --songs embedded --schedules parallel sequential --duration 60 --published
    python -m benchmarks.generation --device cuda --dtype bfloat16 --models fastjukebox-72 fastjukebox-24 \
        fastjukebox-18 --songs fastjukebox-18 --published --musicgen --output runs/generation

*Steps*: each of `--models` (presets, folders, Hub names, or `embedded`; the first is the teacher that the others are
compared with) at each level, for one window and for as many as `--duration` has side by side. Weights of presets are
random: the cost does not depend on them. `floor ms` is the bytes of the weights over the bandwidth measured in the same
run. `first call s` is what the first window takes beyond its steps: compiling, recording, warming up.

*Songs*: each of `--songs` makes `--duration` seconds, everything included, once after a short warm-up; `expected s` is
what `estimate` said before. Streaming gives the time to the first sound and the real-time factor (seconds of compute a
second of audio) after it.

*Yardsticks* of the same run: the published loop (see benchmarks/published.py) in steps early, midway and late in a
window, from which a song's seconds are counted up; and MusicGen-small's architecture with random weights in
transformers' `generate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.musicgen import measure_musicgen
from benchmarks.published import PublishedLoop
from benchmarks.report import (
    Row,
    clock,
    machine,
    measured_bandwidth,
    parse,
    parser_of,
    peak_memory,
    report,
    reset_peak_memory,
    timed,
)
from benchmarks.steps import (
    any_labels,
    random_model,
    random_prior,
    stream_seconds,
    upper_codes,
    weight_bytes,
    window_seconds,
)
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.generation.windows import SCHEDULES, Layout, hop_of
from fast_jukebox.pipelines import default_model_path
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.machine import suited_threads

PUBLISHED_HOPS = (0.5, 0.5, 0.125)
OVERLAP = 0.125  # of a parallel window, the default of generation


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Row]]:
    """Measure and print; returns the tables' rows."""
    args = options(arguments)
    settings = {
        "machine": machine(args.device),
        "dtype": args.dtype,
        "engine": args.engine,
        "duration": args.duration,
        "window_fractions": args.window_fractions,
        "bandwidth GB/s": measured_bandwidth(args.device) / 1e9,
    }
    tables = {"steps": step_rows(args, 1e9 * settings["bandwidth GB/s"]), "songs": song_rows(args)}
    report(tables, settings, args.output)
    return tables


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_of(__doc__, sampling=True)
    parser.add_argument(
        "--models", nargs="*", default=["fastjukebox-mini-36", "fastjukebox-mini-12", "fastjukebox-mini-9"]
    )
    parser.add_argument("--songs", nargs="*", default=[], help="models to make whole songs with")
    parser.add_argument("--levels", nargs="+", type=int, default=[2, 1, 0])
    parser.add_argument(
        "--batches", nargs="+", type=int, default=None, help="by default 1 and the windows of --duration"
    )
    parser.add_argument("--steps", type=int, default=256, help="codes a measurement")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of a song")
    parser.add_argument("--schedules", nargs="+", default=["parallel"], choices=SCHEDULES)
    parser.add_argument("--window_fractions", type=float, default=None, help="of the songs, as in `generate`")
    parser.add_argument("--num_samples", type=int, default=1, help="songs at once")
    parser.add_argument("--published", action="store_true", help="measure the published loop as well")
    parser.add_argument("--musicgen", action="store_true", help="measure MusicGen-small's architecture as well")
    parser.add_argument("--no_stream", action="store_true", help="do not stream the songs")
    return parse(parser, arguments)


def config_of(name: str) -> FastJukeboxConfig:
    """Of a preset, a folder, a repository or the embedded default."""
    if name.startswith("fastjukebox-"):
        return FastJukeboxConfig.preset(name)
    return FastJukeboxConfig.from_pretrained(default_model_path() if name == "embedded" else name)


def model_of(name: str, args: argparse.Namespace) -> FastJukeboxModel:
    """Its whole model, with random weights where it is a preset."""
    dtype = getattr(torch, args.dtype)
    if name.startswith("fastjukebox-"):
        return random_model(config_of(name), args.device, dtype)
    model = FastJukeboxModel.from_pretrained(default_model_path() if name == "embedded" else name, dtype=dtype)
    model.vqvae.float()  # as it is loaded
    return model.to(args.device).eval()


def windows_of(config: FastJukeboxConfig, level: int, duration: float, schedule: str) -> list[Any]:
    """The windows of a level of a song."""
    prior = config.prior_configs[level]
    codes = -(-round(duration * config.sampling_rate) // config.hop_lengths[-1]) * config.hop_lengths[-1]
    length, ratio = codes // config.hop_lengths[level], prior.upper_ratio
    if schedule == "sequential" or not prior.has_upper_level:
        hop = PUBLISHED_HOPS[level] if config.num_levels == 3 else 0.5
        return list(Layout(level, length, prior.n_ctx, hop_of(hop, prior.n_ctx, ratio)).windows())
    hop = hop_of(1 - OVERLAP, prior.n_ctx, ratio)
    return list(Layout(level, length, prior.n_ctx, hop, parallel=True).windows())


def step_rows(args: argparse.Namespace, bandwidth: float) -> list[Row]:
    """A row for each level, model and batch."""
    rows, teacher = [], {}
    for level in args.levels:
        for name in args.models:
            config = config_of(name)
            prior_config = config.prior_configs[level]
            prior = random_prior(prior_config, args.device, getattr(torch, args.dtype))
            parallel = len(windows_of(config, level, args.duration, "parallel")) if prior_config.has_upper_level else 1
            for batch in args.batches or sorted({1, parallel}):
                row = step_row(prior, name, batch, args, bandwidth)
                slow = teacher.setdefault((level, batch), row["step ms"])
                row["speed-up"] = slow / row["step ms"]
                if args.published:
                    row["published ms"] = sum(published_seconds(prior, batch)) / 3 * 1e3
                    row["over published"] = row["published ms"] / row["step ms"]
                rows.append(row)
    return rows


@torch.inference_mode()
def step_row(prior: FastJukeboxPrior, name: str, batch: int, args: argparse.Namespace, bandwidth: float) -> Row:
    """Latency of a step for `batch` windows."""
    config = prior.config
    ratio = config.upper_ratio
    steps = max(min(args.steps, config.n_ctx) // ratio, 1) * ratio
    reset_peak_memory(args.device)
    with sampling_mode(prior), suited_threads(prior):
        seconds, first = window_seconds(prior, batch, steps, args.engine)
    weights = weight_bytes(prior)
    return {
        "level": config.level,
        "model": name,
        "windows": batch,
        "step ms": 1e3 * seconds / steps,
        "codes/s": batch * steps / seconds,
        "first call s": first,
        "weights MB": weights / 1e6,
        "floor ms": 1e3 * weights / bandwidth,
        "share of floor": weights / bandwidth / (seconds / steps),
        "cache MB": prior.new_cache(batch).nbytes / 1e6,
        "peak MB": peak_memory(args.device) / 1e6,
    }


def published_seconds(prior: FastJukeboxPrior, batch: int, steps: int = 8) -> list[float]:
    """Seconds of a step of the published loop early, midway and late in a window."""
    config = prior.config
    loop = PublishedLoop(prior, upper_codes(prior, batch, config.n_ctx), batch, any_labels(prior, batch))
    code = torch.zeros(batch, dtype=torch.int64, device=prior.device)

    @torch.no_grad()
    def run(start: int) -> None:
        loop.skip_to(start)
        for position in range(start, start + steps):
            logits = loop.logits(code, position)
            torch.multinomial(logits.float().softmax(-1), 1)

    starts = [max(1, config.n_ctx * share // 8 // config.row_length * config.row_length + 1) for share in (1, 4, 7)]
    starts = [min(start, config.n_ctx - steps) for start in starts]
    return [timed(lambda start=start: run(start), str(prior.device), repeats=1) / steps for start in starts]


def song_rows(args: argparse.Namespace) -> list[Row]:
    """A row for each model and schedule, and for the yardsticks."""
    rows: list[Row] = []
    for name in args.songs:
        model = model_of(name, args)
        for schedule in args.schedules:
            rows.append(song_row(model, name, schedule, args))
        if args.published:
            seconds = published_song(model, args.duration)
            rows.append(yardstick_row(f"{name}, published loop", "sequential", args.duration, seconds))
    if args.musicgen:
        seconds, parameters = measure_musicgen(args.duration, args.device, getattr(torch, args.dtype))
        rows.append(
            yardstick_row(f"MusicGen-small's architecture, {parameters / 1e6:.0f} M", "", args.duration, seconds)
        )
    return rows


def song_row(model: FastJukeboxModel, name: str, schedule: str, args: argparse.Namespace) -> Row:
    """One model's whole songs."""
    asked = {name: getattr(args, name) for name in ("num_samples", "engine", "window_fractions")}
    expected = model.estimate(args.duration, schedule=schedule, **asked)
    settings = {"schedule": schedule, "seed": 0, **asked}
    model.generate(duration=min(1.0, args.duration), **settings)
    reset_peak_memory(args.device)
    seconds = clock(lambda: model.generate(duration=args.duration, **settings), args.device)
    row = yardstick_row(name, schedule, args.duration * args.num_samples, seconds)
    row["expected s"] = expected.seconds
    row["peak MB"] = peak_memory(args.device) / 1e6
    if not args.no_stream:
        row["first sound s"], row["RTF streaming"] = stream_seconds(model, duration=args.duration, **settings)
    return row


def published_song(model: FastJukeboxModel, duration: float) -> float:
    """Seconds that the published loop takes for a song: windows one after the other, steps as measured, decoding."""
    total = 0.0
    for level, prior in enumerate(model.priors):
        windows = windows_of(model.config, level, duration, "sequential")
        total += sum(window.new_length for window in windows) * sum(published_seconds(prior, 1)) / 3
    samples = (
        round(duration * model.config.sampling_rate) // model.config.hop_lengths[-1] * model.config.hop_lengths[-1]
    )
    codes = torch.zeros(1, samples // model.config.hop_lengths[0], dtype=torch.int64, device=model.device)
    return total + timed(lambda: model.vqvae.decode([codes], 0), str(model.device), repeats=1)


def yardstick_row(name: str, schedule: str, audio: float, seconds: float) -> Row:
    """What every row of the songs' table has."""
    return {
        "model": name,
        "schedule": schedule,
        "audio s": audio,
        "s": seconds,
        "RTF": seconds / audio,
        "expected s": "",
        "peak MB": "",
        "first sound s": "",
        "RTF streaming": "",
    }


if __name__ == "__main__":
    main()
