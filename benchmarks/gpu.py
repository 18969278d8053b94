"""What a GPU does with the full sizes, part by part: `benchmarks/gpu.sh MINUTES` runs the parts, most important first.

    python -m benchmarks.gpu correctness steps --output runs/gpu
    python -m benchmarks.gpu --list

Each part appends its rows to `OUTPUT/results.jsonl` as they come; `python -m benchmarks.gpu_tables OUTPUT` makes tables
of them. With `--toy` everything is tiny and runs on a CPU, fused kernels by Triton's interpreter, to try the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import machine, measured_bandwidth, peak_memory, reset_peak_memory, wait
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import open_decoder, release_decoders, sample_window, sampling_mode
from fast_jukebox.sampling.noise import uniform_noise

TOP, MIDDLE, BOTTOM = 2, 1, 0
WINDOWS = {TOP: 1, MIDDLE: 12, BOTTOM: 46}
"""Windows that a level of a minute has side by side."""


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

    def emit(self, **row: Any) -> None:
        """Print a row and append it to the results."""
        line = json.dumps({"part": self.part, **row})
        print(line, flush=True)
        self.output.mkdir(parents=True, exist_ok=True)
        with open(self.output / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

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
        torch.manual_seed(0)
        torch.set_default_dtype(dtype or self.dtype)
        try:
            with torch.device(self.device):
                prior = FastJukeboxPrior(config)
        finally:
            torch.set_default_dtype(torch.float32)
        return prior.to(self.device).eval()

    def model(self, name: str) -> FastJukeboxModel:
        """A whole model of random weights on the device; where `toy` the embedded one."""
        if self.toy:
            from fast_jukebox.pipelines import default_model_path

            return FastJukeboxModel.from_pretrained(default_model_path()).eval()
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(self.device):
                model = FastJukeboxModel(FastJukeboxConfig.preset(name))
        finally:
            torch.set_default_dtype(torch.float32)
        model.vqvae.float()
        return model.to(self.device).eval()

    def free(self) -> None:
        """Give back what the last measurement held."""
        release_decoders()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def window_inputs(bench: Bench, prior: FastJukeboxPrior, batch: int, steps: int) -> tuple[Any, torch.Tensor]:
    """Conditioning and noise of windows of so many codes."""
    config = prior.config
    upper = None
    if config.has_upper_level:
        size = config.upper_codebook_size or config.codebook_size
        upper = torch.randint(0, size, (batch, steps // config.upper_ratio), device=bench.device)
    conditioning = prior.condition(batch, steps, upper)
    return conditioning, uniform_noise(0, range(batch), config.level, 0, steps, bench.device)


def correctness(bench: Bench) -> None:
    """Fused and recorded logits against those of one pass in float32, at every pattern and published width."""
    for level in (BOTTOM, TOP):
        for dtype in (torch.float32,) if bench.toy else (torch.bfloat16, torch.float32, torch.float16):
            rows = (1, 3, 12, 46, 70, 184) if dtype == torch.bfloat16 else (12,)
            rows = (1, 6) if bench.toy else rows
            config = bench.config("fastjukebox-18", level)
            config.layer_types, config.num_hidden_layers = ["row", "column", "previous_row", "dense"], 4
            prior = bench.prior(config, dtype)
            with torch.no_grad():
                for parameter in prior.parameters():  # so that biases and norms matter
                    parameter.add_(torch.randn_like(parameter) * 0.02)
            for batch in rows:
                attempt(bench, correctness_row, prior, batch, "fused")
            del prior
            bench.free()


@torch.no_grad()
def correctness_row(bench: Bench, prior: FastJukeboxPrior, batch: int, engine: str) -> None:
    """Codes of a window by an engine; logits of its last position by it, the plain step and float32."""
    config = prior.config
    length = 8 if bench.toy else (3 * config.row_length + 12) // 4 * 4
    with sampling_mode(prior):
        conditioning, uniform = window_inputs(bench, prior, batch, length)
        prompt = torch.zeros(batch, 0, dtype=torch.int64, device=bench.device)
        begin = time.perf_counter()
        step = open_decoder(prior, conditioning, batch, SamplingSettings(), engine)
        codes = sample_window(step, prompt, uniform)
        wait(bench.device)
        seconds = time.perf_counter() - begin
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
        conditioning, uniform = window_inputs(bench, prior, batch, steps)
        prompt = torch.zeros(batch, 0, dtype=torch.int64, device=bench.device)
        seconds = []
        for _ in range(4 if not bench.toy else 2):
            begin = time.perf_counter()
            sample_window(open_decoder(prior, conditioning, batch, SamplingSettings(), engine), prompt, uniform)
            wait(bench.device)
            seconds.append(time.perf_counter() - begin)
    best = min(seconds[1:])
    weights = sum(weight.nbytes for weight in prior.blocks.parameters()) + prior.code_embedding.weight.nbytes
    bench.emit(
        level=config.level,
        model=name,
        windows=batch,
        engine=engine,
        step_ms=1e3 * best / steps,
        us_a_layer=1e6 * best / steps / config.num_hidden_layers,
        first_call_s=seconds[0] - best,
        weights_MB=weights / 1e6,
        peak_MB=peak_memory(bench.device) / 1e6,
    )


def steps(bench: Bench) -> None:
    """Steps of the students with the windows of a minute, by the fused and the recorded engine."""
    bandwidth = measured_bandwidth(bench.device)
    bench.emit(machine=machine(bench.device), bandwidth_GB_s=bandwidth / 1e9)
    time_steps(bench, [("fastjukebox-18", level, (WINDOWS[level],)) for level in (TOP, BOTTOM, MIDDLE)])


def more_steps(bench: Bench) -> None:
    """Steps of the other sizes and of other numbers of windows."""
    plan = [(f"fastjukebox-{depth}", level, (WINDOWS[level],)) for depth in (72, 24) for level in (TOP, BOTTOM, MIDDLE)]
    plan += [("fastjukebox-18", TOP, (16,)), ("fastjukebox-18", MIDDLE, (1,)), ("fastjukebox-18", BOTTOM, (1, 184))]
    time_steps(bench, plan)


def time_steps(bench: Bench, plan: Sequence[tuple[str, int, tuple[int, ...]]]) -> None:
    """A row for each model, level and number of windows, and each of the two engines."""
    for name, level, batches in plan[:2] if bench.toy else plan:
        prior = bench.prior(bench.config(name, level))
        for batch in batches:
            for engine in ("fused", "graph"):
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


def minute(bench: Bench) -> None:
    """A minute of music in a fresh process, then once more."""
    duration = 1.0 if bench.toy else 60.0
    begin = time.perf_counter()
    model = bench.model("fastjukebox-18")
    wait(bench.device)
    bench.emit(model="fastjukebox-18", what="made", s=time.perf_counter() - begin)
    codes: list[Any] = []
    for what in ("first", "again", "third"):
        reset_peak_memory(bench.device)
        begin = time.perf_counter()
        output = model.generate(duration=duration, seed=0)
        wait(bench.device)
        seconds = time.perf_counter() - begin
        bench.emit(
            model="fastjukebox-18",
            schedule="parallel",
            what=what,
            audio_s=duration,
            s=seconds,
            RTF=seconds / duration,
            peak_MB=peak_memory(bench.device) / 1e6,
            finite=bool(torch.isfinite(output.audio).all()),
            same_codes=all(torch.equal(a, b) for a, b in zip(codes, output.codes, strict=True)) if codes else None,
            engines=getattr(output, "engines", None),
        )
        codes = output.codes


def minute_by_graph(bench: Bench) -> None:
    """The same minute by the recorded engine."""
    duration = 1.0 if bench.toy else 60.0
    model = bench.model("fastjukebox-18")
    model.generate(duration=1.0, seed=0, engine="graph")
    begin = time.perf_counter()
    model.generate(duration=duration, seed=0, engine="graph")
    wait(bench.device)
    seconds = time.perf_counter() - begin
    bench.emit(model="fastjukebox-18", schedule="parallel", what="graph", audio_s=duration, s=seconds)


def sequential(bench: Bench) -> None:
    """A minute in sequence, counted up from a part of it."""
    duration = 0.5 if bench.toy else 4.0
    model = bench.model("fastjukebox-18")
    model.generate(duration=0.2 if bench.toy else 1.0, seed=0, schedule="sequential")
    begin = time.perf_counter()
    model.generate(duration=duration, seed=0, schedule="sequential")
    wait(bench.device)
    seconds = time.perf_counter() - begin
    bench.emit(
        model="fastjukebox-18", schedule="sequential", audio_s=duration, s=seconds, s_a_minute=60 / duration * seconds
    )


def stream(bench: Bench) -> None:
    """Seconds to the first sound and of compute a second of audio after it, in a process that has sampled before."""
    duration = 1.0 if bench.toy else 20.0
    model = bench.model("fastjukebox-18")
    for what in ("first", "again"):
        begin, first, heard = time.perf_counter(), 0.0, 0.0
        for chunk in model.stream(duration=duration, seed=0):
            chunk.cpu()
            if first:
                heard += chunk.shape[-1] / model.config.sampling_rate
            else:
                first = time.perf_counter() - begin
        rest = time.perf_counter() - begin - first
        bench.emit(model="fastjukebox-18", what=what, first_sound_s=first, RTF=rest / heard if heard else None)


def songs(bench: Bench) -> None:
    """Sixteen songs at once against one."""
    duration, count = (0.5, 2) if bench.toy else (20.0, 16)
    model = bench.model("fastjukebox-18")
    model.generate(duration=0.2 if bench.toy else 1.0, seed=0)
    for number in (1, count):
        reset_peak_memory(bench.device)
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            model.generate(duration=duration, num_samples=number, seed=0)
            wait(bench.device)
            seconds.append(time.perf_counter() - begin)
        bench.emit(
            model="fastjukebox-18",
            songs=number,
            audio_s=duration * number,
            first_s=seconds[0],
            s=seconds[1],
            peak_MB=peak_memory(bench.device) / 1e6,
        )


def profile(bench: Bench) -> None:
    """Kernels of a fused step: how many, how long each."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    if bench.device != "cuda":
        bench.emit(skipped="there is no GPU")
        return
    for level in (TOP, BOTTOM, MIDDLE):
        prior, batch = bench.prior(bench.config("fastjukebox-18", level)), WINDOWS[level]
        count = 2 * prior.config.row_length
        with sampling_mode(prior):
            conditioning, uniform = window_inputs(bench, prior, batch, count)
            prompt = torch.zeros(batch, 0, dtype=torch.int64, device=bench.device)
            inputs = (prior, conditioning, batch, SamplingSettings(), "fused")
            sample_window(open_decoder(*inputs), prompt, uniform)
            wait(bench.device)
            with profiler(activities=[ProfilerActivity.CUDA]) as seen:
                sample_window(open_decoder(*inputs), prompt, uniform)
                wait(bench.device)
        averages = seen.key_averages()
        total = sum(event.self_device_time_total for event in averages)
        number = sum(event.count for event in averages if event.self_device_time_total > 0)
        bench.emit(level=level, windows=batch, kernel="all", us_a_step=total / count, a_step=number / count)
        for event in sorted(averages, key=lambda event: -event.self_device_time_total)[:12]:
            bench.emit(
                level=level,
                windows=batch,
                kernel=event.key[:80],
                us_a_step=event.self_device_time_total / count,
                a_step=event.count / count,
                us_each=event.self_device_time_total / max(event.count, 1),
            )
        del prior, inputs
        bench.free()


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


def musicgen(bench: Bench) -> None:
    """Seconds of MusicGen-small's architecture."""
    from benchmarks.musicgen import measure_musicgen

    if bench.toy:
        bench.emit(skipped="it has one size")
        return
    seconds, parameters = measure_musicgen(30.0, bench.device, bench.dtype)
    bench.emit(model="MusicGen-small's architecture", audio_s=30.0, s=seconds, parameters=parameters)


def training(bench: Bench) -> None:
    """Codes a second of training steps in bfloat16 autocast, with and without torch.compile."""
    plan = [
        ("fastjukebox-mini-9", TOP, 64, False),
        ("fastjukebox-mini-9", BOTTOM, 48, False),
        ("fastjukebox-18", TOP, 8, False),
        ("fastjukebox-18", BOTTOM, 4, False),
        ("fastjukebox-72", TOP, 4, True),
    ]
    for name, level, batch, checkpointing in plan[: 1 if bench.toy else None]:
        for compile_it in (False, True) if bench.device == "cuda" else (False,):
            attempt(bench, training_row, name, level, 2 if bench.toy else batch, checkpointing, compile_it)
            torch.compiler.reset()
            bench.free()


def training_row(bench: Bench, name: str, level: int, batch: int, checkpointing: bool, compile_it: bool) -> None:
    """One row of `training`."""
    prior = bench.prior(bench.config(name, level), torch.float32).train()
    config = prior.config
    if checkpointing:
        prior.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-4, fused=bench.device == "cuda")
    codes = torch.randint(0, config.codebook_size, (batch, config.n_ctx), device=bench.device)
    upper = None
    if config.has_upper_level:
        size = config.upper_codebook_size or config.codebook_size
        upper = torch.randint(0, size, (batch, config.n_ctx // config.upper_ratio), device=bench.device)
    model: Callable[..., Any] = torch.compile(prior) if compile_it else prior
    reset_peak_memory(bench.device)
    seconds = []
    for _ in range(8):
        begin = time.perf_counter()
        with torch.autocast(bench.device, dtype=torch.bfloat16, enabled=bench.device == "cuda"):
            loss = model(codes, upper_codes=upper, labels=codes).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(bench.device)
        seconds.append(time.perf_counter() - begin)
    step = sorted(seconds[3:])[2]
    parameters = sum(parameter.numel() for parameter in prior.parameters())
    bench.emit(
        level=level,
        model=name,
        batch=batch,
        checkpointing=checkpointing,
        compiled=compile_it,
        step_ms=1e3 * step,
        first_s=seconds[0],
        codes_a_second=codes.numel() / step,
        TFLOP_s=6 * parameters * codes.numel() / step / 1e12,
        peak_MB=peak_memory(bench.device) / 1e6,
    )


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
    from fast_jukebox.models.prior.engines import fused

    if not path.is_file():
        return
    for rows, fields in json.loads(path.read_text(encoding="utf-8")):
        best = fused.Tuning(**{**fields, "block": tuple(fields["block"])})
        fused.TUNINGS = [
            (limit, best if tuning is fused.tuning_for(rows) else tuning) for limit, tuning in fused.TUNINGS
        ]


@torch.no_grad()
def timed_choice(bench: Bench, prior: FastJukeboxPrior, batch: int, tuning: Any) -> tuple[float, torch.Tensor]:
    """Milliseconds of a step of a decoder with some choices, and the logits of a first step."""
    from fast_jukebox.models.prior.engines.fused import FusedDecoder

    torch.manual_seed(0)
    decoder = FusedDecoder(prior, batch, SamplingSettings(), tuning)
    length = decoder.steps_per_call if bench.toy else 3 * decoder.steps_per_call
    conditioning, uniform = window_inputs(bench, prior, batch, (length + 4) // 4 * 4)
    decoder.load(conditioning)
    code = torch.zeros(batch, dtype=torch.int64, device=bench.device)
    decoder.decode(code, 1, uniform[:, :1])
    logits = decoder.logits.float().clone()
    best = float("inf")
    for _ in range(1 if bench.toy else 4):
        wait(bench.device)
        begin = time.perf_counter()
        for start in range(0, length, decoder.steps_per_call):
            decoder.decode(code, 1 + start, uniform[:, start : start + decoder.steps_per_call])
        wait(bench.device)
        best = min(best, time.perf_counter() - begin)
    return 1e3 * best / length, logits


PARTS: dict[str, tuple[Callable[[Bench], None], int]] = {
    "correctness": (correctness, 45),
    "tune": (tune, 70),
    "steps": (steps, 45),
    "minute": (minute, 120),
    "profile": (profile, 60),
    "stream": (stream, 60),
    "songs": (songs, 120),
    "training": (training, 240),
    "compiled": (compiled, 150),
    "sequential": (sequential, 90),
    "published": (published, 60),
    "musicgen": (musicgen, 90),
    "minute_by_graph": (minute_by_graph, 100),
    "more_steps": (more_steps, 120),
}
"""Each part and the seconds that it may take, in the order of a whole run."""


def attempt(bench: Bench, work: Callable[..., None], *arguments: Any) -> None:
    """Do one measurement; what it raises becomes a row."""
    try:
        work(bench, *arguments)
    except Exception as error:
        traceback.print_exc()
        named = [argument for argument in arguments if isinstance(argument, str | int | dict)]
        bench.emit(failed=work.__name__, arguments=named, error=f"{type(error).__name__}: {error}"[:400])


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module; returns 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--toy", action="store_true", help="tiny sizes, also on a CPU")
    parser.add_argument("--list", action="store_true", help="print the parts of a whole run with their seconds")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{name} {seconds}" for name, (_, seconds) in PARTS.items()))
        return 0
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown or not options.parts:
        parser.error(f"PART must be of {', '.join(PARTS)}; got {unknown or 'none'}")
    if options.toy and not torch.cuda.is_available():
        from benchmarks.triton_interpreter import repair
        from fast_jukebox.models.prior.engines import fused

        repair()
        if not fused.interpreted():
            parser.error("--toy needs TRITON_INTERPRET=1 in the environment where there is no GPU")
        # Each decoder costs the interpreter milliseconds.
        fused.TUNINGS = [(limit, dataclasses.replace(tuning, programs=2)) for limit, tuning in fused.TUNINGS]
    bench, failed = Bench(options.output, options.toy), False
    use_tuning(options.output / "tuning.json")
    for name in options.parts:
        bench.part, begin = name, time.perf_counter()
        try:
            PARTS[name][0](bench)
        except Exception as error:
            traceback.print_exc()
            failed = True
            bench.emit(failed=name, error=f"{type(error).__name__}: {error}"[:400])
        bench.emit(took_s=time.perf_counter() - begin)
        bench.free()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
