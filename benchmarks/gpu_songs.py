"""Songs: a minute, streams, batches, and another architecture's; parts of `benchmarks.gpu`."""

from __future__ import annotations

import torch

from benchmarks.gpu_bench import Bench
from benchmarks.report import clock, peak_memory, reset_peak_memory
from benchmarks.steps import stream_seconds
from fast_jukebox.models.fast_jukebox import FastJukeboxGenerationOutput, FastJukeboxModel


def made(bench: Bench, model: FastJukeboxModel, **asked: object) -> tuple[float, FastJukeboxGenerationOutput]:
    """Seconds of `generate`, and what it made; the peak of the memory is its own."""
    outputs: list[FastJukeboxGenerationOutput] = []
    reset_peak_memory(bench.device)
    seconds = clock(lambda: outputs.append(model.generate(seed=0, **asked)), bench.device)
    return seconds, outputs[0]


def first(bench: Bench) -> None:
    """The first song of a process, a short one, and the same once more: what preparing takes."""
    bench.emit(model="fastjukebox-18", what="made", s=clock(lambda: bench.model("fastjukebox-18"), bench.device))
    model, duration = bench.model("fastjukebox-18"), 0.5 if bench.toy else 1.0
    first_s, _ = made(bench, model, duration=duration)
    again_s, output = made(bench, model, duration=duration)
    bench.emit(model="fastjukebox-18", audio_s=duration, first_s=first_s, again_s=again_s, engines=output.engines)


def minute(bench: Bench) -> None:
    """A minute of music, and once more."""
    minutes(bench, "parallel")


def short_windows(bench: Bench) -> None:
    """The same with windows of the middle and the bottom level of a quarter of their contexts: a quarter of the steps
    of four times the windows.
    """
    minutes(bench, "parallel, quarter windows", window_fractions=[0.25, 0.25, 1.0])


def minutes(bench: Bench, schedule: str, **asked: object) -> None:
    """A minute of music, and once more, in some way."""
    duration = 1.0 if bench.toy else 60.0
    model = bench.model("fastjukebox-18")
    codes: list[torch.Tensor] = []
    for what in ("first", "again"):
        seconds, output = made(bench, model, duration=duration, **asked)
        bench.emit(
            model="fastjukebox-18",
            schedule=schedule,
            what=what,
            audio_s=duration,
            s=seconds,
            RTF=seconds / duration,
            peak_MB=peak_memory(bench.device) / 1e6,
            finite=bool(torch.isfinite(output.audio).all()),
            same_codes=all(torch.equal(a, b) for a, b in zip(codes, output.codes, strict=True)) if codes else None,
            engines=output.engines,
        )
        codes = output.codes


def minute_by_graph(bench: Bench) -> None:
    """The same minute by the recorded engine."""
    duration = 1.0 if bench.toy else 60.0
    model = bench.model("fastjukebox-18")
    model.generate(duration=1.0, seed=0, engine="graph")
    seconds, _ = made(bench, model, duration=duration, engine="graph")
    bench.emit(model="fastjukebox-18", schedule="parallel", what="graph", audio_s=duration, s=seconds)


def sequential(bench: Bench) -> None:
    """A minute in sequence, counted up from a part of it."""
    duration = 0.5 if bench.toy else 4.0
    model = bench.model("fastjukebox-18")
    model.generate(duration=0.2 if bench.toy else 1.0, seed=0, schedule="sequential")
    seconds, _ = made(bench, model, duration=duration, schedule="sequential")
    bench.emit(
        model="fastjukebox-18", schedule="sequential", audio_s=duration, s=seconds, s_a_minute=60 / duration * seconds
    )


def stream(bench: Bench) -> None:
    """Seconds to the first sound and of compute a second of audio after it, in a process that has sampled before."""
    model = bench.model("fastjukebox-18")
    for what, duration, fraction in (("first", 3.0, 1.0), ("again", 3.0, 1.0), ("quarter windows", 10.0, 0.25)):
        duration, fractions = 1.0 if bench.toy else duration, [fraction, fraction, 1.0]
        first_s, factor = stream_seconds(model, duration=duration, seed=0, window_fractions=fractions)
        bench.emit(model="fastjukebox-18", what=what, audio_s=duration, first_sound_s=first_s, RTF=factor or None)


def songs(bench: Bench) -> None:
    """Sixteen songs at once against one."""
    duration, count = (0.5, 2) if bench.toy else (4.0, 16)
    model = bench.model("fastjukebox-18")
    for number in (1, count):
        seconds = [made(bench, model, duration=duration, num_samples=number)[0] for _ in range(2)]
        bench.emit(
            model="fastjukebox-18",
            songs=number,
            audio_s=duration * number,
            first_s=seconds[0],
            s=seconds[1],
            RTF=seconds[1] / (duration * number),
            peak_MB=peak_memory(bench.device) / 1e6,
        )


def musicgen(bench: Bench) -> None:
    """Seconds of MusicGen-small's architecture."""
    from benchmarks.musicgen import measure_musicgen

    if bench.toy:
        bench.emit(skipped="it has one size")
        return
    seconds, parameters = measure_musicgen(10.0, bench.device, bench.dtype)
    bench.emit(model="MusicGen-small's architecture", audio_s=10.0, s=seconds, parameters=parameters)
