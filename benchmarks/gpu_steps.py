"""Steps: right, timed, tuned, side by side, by kernel; parts of `benchmarks.gpu`."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_bench import BOTTOM, MIDDLE, TOP, WINDOWS, Bench, attempt
from benchmarks.report import clock, peak_memory, reset_peak_memory, timed, wait
from benchmarks.steps import weight_bytes, window_inputs, window_sampler, window_seconds
from fast_jukebox import FastJukeboxPrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.machine import usual_rows

A_MINUTE = [("fastjukebox-18", level, (WINDOWS[level],)) for level in (TOP, BOTTOM, MIDDLE)]


def correctness(bench: Bench) -> None:
    """Fused logits against those of one pass in float32, at the published widths."""
    dtype = torch.float32 if bench.toy else torch.bfloat16
    compare(bench, dtype, {BOTTOM: (1, 6), TOP: (1,)} if bench.toy else {BOTTOM: (1, 12, 46), TOP: (1,)})


def other_dtypes(bench: Bench) -> None:
    """The same in float32 and float16, with dense attention and for other numbers of windows."""
    for dtype in (torch.float32, torch.float16):
        compare(bench, dtype, {BOTTOM: (2,)} if bench.toy else {BOTTOM: (1, 12, 46, 184), TOP: (4,)}, dense=True)


def compare(bench: Bench, dtype: torch.dtype, rows: dict[int, tuple[int, ...]], dense: bool = False) -> None:
    """A row for each level and number of windows."""
    for level, batches in rows.items():
        config = bench.config("fastjukebox-18", level)
        config.layer_types = ["row", "column", "previous_row", *(["dense"] if dense else [])]
        config.num_hidden_layers = len(config.layer_types)
        prior = bench.prior(config, dtype)
        with torch.no_grad():
            for parameter in prior.parameters():  # so that biases and norms matter
                parameter.add_(torch.randn_like(parameter) * 0.02)
        for batch in batches:
            attempt(bench, correctness_row, prior, batch, "fused")
        del prior
        bench.free()


@torch.no_grad()
def correctness_row(bench: Bench, prior: FastJukeboxPrior, batch: int, engine: str) -> None:
    """Codes of a window by an engine; logits of its last position by it, the plain step and float32."""
    config = prior.config
    length = 8 if bench.toy else (3 * config.row_length + 12) // 4 * 4
    with sampling_mode(prior):
        conditioning, _ = window_inputs(prior, batch, length)
        run, made = window_sampler(prior, batch, length, engine, conditioning), list[Any]()
        seconds = clock(lambda: made.extend(run()), bench.device)
        codes, step = made
        plain = prior.prefill(codes[:, :-1], conditioning, prior.new_cache(batch)).float()
        dtype, exact_prior = prior.position_embedding.dtype, prior.float()
        positions = None if conditioning.positions is None else conditioning.positions.float()
        exact_conditioning = dataclasses.replace(conditioning, start=conditioning.start.float(), positions=positions)
        exact = exact_prior.prefill(codes[:, :-1], exact_conditioning, exact_prior.new_cache(batch))
        prior.to(dtype)
    scale = exact.abs().max()
    error, plain_error = ((x.float() - exact).abs().max() / scale for x in (step.logits, plain))
    bench.emit(
        level=config.level,
        windows=batch,
        dtype=str(dtype).removeprefix("torch."),
        engine=engine,
        error=float(error),
        plain_error=float(plain_error),
        agrees=bool(error <= 2 * plain_error + 1e-5),
        seconds=seconds,
    )


@torch.inference_mode()
def step_row(bench: Bench, prior: FastJukeboxPrior, name: str, batch: int, engine: str) -> None:
    """Latency of a step of `batch` windows."""
    config = prior.config
    steps = 4 * config.row_length if not bench.toy else 8
    reset_peak_memory(bench.device)
    with sampling_mode(prior):
        best, first = window_seconds(prior, batch, steps, engine, runs=2 if bench.toy else 4)
    bench.emit(
        level=config.level,
        model=name,
        windows=batch,
        engine=engine,
        step_ms=1e3 * best / steps,
        us_a_layer=1e6 * best / steps / config.num_hidden_layers,
        first_call_s=first,
        weights_MB=weight_bytes(prior) / 1e6,
        peak_MB=peak_memory(bench.device) / 1e6,
    )


def steps(bench: Bench) -> None:
    """Steps of the students with the windows of a minute."""
    time_steps(bench, A_MINUTE)


def graph_steps(bench: Bench) -> None:
    """The same by the recorded engine."""
    time_steps(bench, A_MINUTE, "graph")


def more_steps(bench: Bench) -> None:
    """Steps of the other sizes, and of other numbers of windows."""
    plan = [(f"fastjukebox-{depth}", level, (WINDOWS[level],)) for level in (TOP, BOTTOM, MIDDLE) for depth in (72, 24)]
    plan += [("fastjukebox-18", BOTTOM, (1, 128))]
    time_steps(bench, plan)


def time_steps(bench: Bench, plan: Sequence[tuple[str, int, tuple[int, ...]]], engine: str = "fused") -> None:
    """A row for each model, level and number of windows."""
    for name, level, batches in plan[:2] if bench.toy else plan:
        prior = bench.prior(bench.config(name, level))
        for batch in batches:
            attempt(bench, step_row, prior, name, 2 if bench.toy else batch, engine)
            bench.free()
        del prior
        bench.free()


def compiled(bench: Bench) -> None:
    """Steps by torch.compile."""
    for level in (TOP, BOTTOM):
        prior = bench.prior(bench.config("fastjukebox-18", level))
        attempt(bench, step_row, prior, "fastjukebox-18", 1 if bench.toy else WINDOWS[level], "compiled")
        del prior
        bench.free()


def trial(bench: Bench) -> None:
    """What `engine="auto"` finds out about the sizes of a minute and of a short song, and how long that takes."""
    for level in (TOP, MIDDLE, BOTTOM):
        prior = bench.prior(bench.config("fastjukebox-18", level))
        for batch in (2,) if bench.toy else sorted({1, usual_rows(WINDOWS[level])}):
            attempt(bench, trial_row, prior, batch)
            bench.free()
        del prior


def trial_row(bench: Bench, prior: FastJukeboxPrior, batch: int) -> None:
    """One row of `trial`; the verdict is remembered."""
    from fast_jukebox.models.prior.engines.fused_trial import remember, trial_name, try_fused

    begin = time.perf_counter()
    verdict = try_fused(prior, batch)
    seconds = time.perf_counter() - begin
    if not bench.toy:
        remember(trial_name(prior, batch), verdict)
    bench.emit(level=prior.config.level, windows=batch, **verdict, s=seconds)


def together(bench: Bench) -> None:
    """Steps of levels alone and at the same time, each on a stream of its own."""
    for sizes in (((TOP, 1), (MIDDLE, 4)), ((TOP, 1), (MIDDLE, 12)), ((TOP, 1), (MIDDLE, 4), (BOTTOM, 16))):
        attempt(bench, together_rows, [(level, min(batch, 2)) for level, batch in sizes] if bench.toy else sizes)
        bench.free()


@torch.no_grad()
def together_rows(bench: Bench, sizes: Sequence[tuple[int, int]]) -> None:
    """Rows of `together` for levels and their numbers of windows."""
    from fast_jukebox.models.prior.engines.fused import FusedDecoder

    runs = []
    for level, batch in sizes:
        prior = bench.prior(bench.config("fastjukebox-18", level))
        decoder = FusedDecoder(prior, batch, SamplingSettings())
        calls = 2 if bench.toy else 12
        conditioning, uniform = window_inputs(prior, batch, calls * decoder.steps_per_call + 4)
        decoder.load(conditioning)
        code = torch.zeros(batch, dtype=torch.int64, device=bench.device)
        runs.append((decoder, code, uniform, torch.cuda.Stream() if bench.device == "cuda" else None, prior))
    wait(bench.device)
    alone = [timed_runs(bench, [run], calls)[0] for run in runs]
    for (level, batch), one, many in zip(sizes, alone, timed_runs(bench, runs, calls), strict=True):
        bench.emit(sizes=str(list(sizes)), level=level, windows=batch, alone_ms=one, together_ms=many)


def timed_runs(bench: Bench, runs: Sequence[tuple[Any, ...]], calls: int) -> list[float]:
    """Milliseconds of a step of each of some decoders that run at the same time, `calls` rows of steps each."""
    seconds = []
    for _ in range(2):  # the first time warms up
        ends = []
        wait(bench.device)
        first = mark(bench)
        for call in range(calls):
            for decoder, code, uniform, stream, _ in runs:
                if call == 0 and stream is not None:
                    stream.wait_event(first)
                count = decoder.steps_per_call
                with nullcontext() if stream is None else torch.cuda.stream(stream):
                    decoder.decode(code, 1 + call * count, uniform[:, call * count : (call + 1) * count])
                    if call == calls - 1:
                        ends.append(mark(bench))
        wait(bench.device)
        seconds = [
            (first.elapsed_time(end) if bench.device == "cuda" else 1e3 * (end - first))
            / (calls * run[0].steps_per_call)
            for end, run in zip(ends, runs, strict=True)
        ]
    return seconds


def mark(bench: Bench) -> Any:
    """A moment: an event of the current stream, without a GPU seconds."""
    if bench.device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def profile(bench: Bench) -> None:
    """Kernels of a fused step: how many, how long each; without a GPU the operations of torch around them."""
    from benchmarks.profiling import operations

    for level in (TOP, BOTTOM, MIDDLE):
        prior, batch = bench.prior(bench.config("fastjukebox-18", level)), 2 if bench.toy else WINDOWS[level]
        count = 4 if bench.toy else 2 * prior.config.row_length
        with sampling_mode(prior):
            found = operations(window_sampler(prior, batch, count, "fused"), bench.device)
        total = sum(spent for _, _, spent in found)
        number = sum(calls for _, calls, spent in found if spent > 0)
        bench.emit(level=level, windows=batch, kernel="all", us_a_step=total / count, a_step=number / count)
        for name, calls, spent in found[:12]:
            bench.emit(
                level=level,
                windows=batch,
                kernel=name,
                us_a_step=spent / count,
                a_step=calls / count,
                us_each=spent / max(calls, 1),
            )
        del prior
        bench.free()


def tune(bench: Bench) -> None:
    """Step times of the fused engine by its choices; the parts that follow in a run use the best."""
    from benchmarks.fused_compile import CHOICES

    best: list[list[Any]] = []
    for (level, batch), choices in CHOICES.items():
        prior = bench.prior(bench.config("fastjukebox-18", level))
        rows = 2 if bench.toy else batch
        fastest, wanted = float("inf"), None
        for index, tuning in enumerate(choices[:2] if bench.toy else choices):
            try:
                milliseconds, logits = timed_choice(bench, prior, rows, tuning)
            except Exception as error:
                traceback.print_exc()
                bench.emit(
                    level=level, windows=rows, failed=str(tuning), error=f"{type(error).__name__}: {error}"[:300]
                )
                continue
            wanted = logits if wanted is None else wanted
            difference = float((logits - wanted).norm() / wanted.norm())
            fields = {
                key: value for key, value in asdict(tuning).items() if not index or value != getattr(choices[0], key)
            }
            bench.emit(level=level, windows=rows, step_ms=milliseconds, difference=difference, choice=str(fields))
            if milliseconds < fastest and difference < 0.05:
                fastest = milliseconds
                best = [entry for entry in best if entry[0] != batch] + [[batch, asdict(tuning)]]
                (bench.output / "tuning.json").write_text(json.dumps(best), encoding="utf-8")
            bench.free()
        del prior
        bench.free()


def use_tuning(path: Path) -> None:
    """Make what `tune` found the fused engine's choices in this process."""
    from fast_jukebox.models.prior.engines import fused_tuning

    if not path.is_file():
        return
    for rows, fields in json.loads(path.read_text(encoding="utf-8")):
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        best, old = fused_tuning.Tuning(**{**fields, **lists}), fused_tuning.tuning_for(rows)
        fused_tuning.TUNINGS = [(limit, best if tuning is old else tuning) for limit, tuning in fused_tuning.TUNINGS]


def published(bench: Bench) -> None:
    """The published loop's steps, early, midway and late in a window."""
    from benchmarks.generation import published_seconds

    for level in (TOP, BOTTOM):
        prior = bench.prior(bench.config("fastjukebox-18", level))
        for batch in sorted({1, WINDOWS[level]}) if not bench.toy else (1,):
            seconds = published_seconds(prior, batch)
            bench.emit(level=level, model="fastjukebox-18", windows=batch, ms=[1e3 * second for second in seconds])
        del prior
        bench.free()


@torch.no_grad()
def timed_choice(bench: Bench, prior: FastJukeboxPrior, batch: int, tuning: Any) -> tuple[float, torch.Tensor]:
    """Milliseconds of a step of a decoder with some choices, and the logits of a first step."""
    from fast_jukebox.models.prior.engines.fused import FusedDecoder

    torch.manual_seed(0)
    decoder = FusedDecoder(prior, batch, SamplingSettings(), tuning)
    length = decoder.steps_per_call if bench.toy else 3 * decoder.steps_per_call
    conditioning, uniform = window_inputs(prior, batch, (length + 4) // 4 * 4)
    decoder.load(conditioning)
    code = torch.zeros(batch, dtype=torch.int64, device=bench.device)
    decoder.decode(code, 1, uniform[:, :1])
    logits = decoder.logits.float().clone()

    def steps_again() -> None:
        for start in range(0, length, decoder.steps_per_call):
            decoder.decode(code, 1 + start, uniform[:, start : start + decoder.steps_per_call])

    return 1e3 * timed(steps_again, bench.device, repeats=1 if bench.toy else 3) / length, logits
