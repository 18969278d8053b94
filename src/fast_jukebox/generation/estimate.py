"""Estimate of what a generation takes, before weights are loaded: memory from sizes, time from a few windows of shallow
stacks of any weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import torch
from tqdm import tqdm

from fast_jukebox.generation.decoding import LAST_SAMPLES, decode_song, decoding_bytes
from fast_jukebox.generation.levels import Batch, level_batches
from fast_jukebox.generation.plan import resolve_generation_config, song_lengths
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import SETTINGS, Layout, draw_settings, song_layouts
from fast_jukebox.sampling.checks import SamplingSettings, check_device, check_levels, level_name
from fast_jukebox.sampling.engine import WindowSampling, sampling_mode
from fast_jukebox.sampling.machine import (
    MEMORY_SHARE,
    NARROW,
    Workers,
    device_of,
    free_memory,
    granted_threads,
    process_memory,
    row_bytes,
)
from fast_jukebox.sampling.protocols import SizedPrior
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel

_ANY = 2**31
"""Rows at once where nothing limits them."""

_SECONDS = 0.5
"""What the steps of one timing may take, as far as a few steps allow."""
_FEWEST_STEPS, _MOST_STEPS = 8, 256
"""How many steps are timed."""
_PATIENCE = 1.0
"""Seconds after which nothing is timed once more: then the first time counts."""
_CPU_ROWS = 64
"""Rows that are timed on a CPU at most; there more of them cost as much each."""

LATER = 90_000_000
"""Bytes of main memory that the first song brings: parts of the libraries that are loaded when they are used, and what
the C library keeps of freed tensors. As measured with the embedded model; nothing else here tells them."""

_Model = TypeVar("_Model", bound="PreTrainedModel")


@dataclass(frozen=True)
class LevelEstimate:
    """What one level takes.

    Attributes:
        name: bottom, middle or top.
        codes: to sample, of all songs, those that two windows both sample counted twice.
        steps: one after the other, in batches of `rows` rows.
        rows: windows, of all songs together, that are sampled at once.
        seconds: time to sample them; where levels are sampled at the same time, of one thread.
        last_seconds: of them, the time of the last batch.
        chain_seconds: of them, the time of batches that wait for one another, which threads cannot share out.
        weights: bytes of the prior.
        copies: bytes of the copy of the weights that the engine reads; 0 where it reads the weights themselves.
        memory: bytes that sampling needs beside the weights: caches, conditioning, noise and logits of a batch.
    """

    name: str
    codes: int
    steps: int
    rows: int
    seconds: float
    last_seconds: float
    chain_seconds: float
    weights: int
    copies: int
    memory: int


@dataclass(frozen=True)
class GenerationEstimate:
    """What a generation takes; printed, it is a table.

    Attributes:
        duration: seconds of a song.
        num_samples: songs.
        device: where they are made.
        levels: those that are sampled, bottom first.
        vqvae_weights: bytes of the VQ-VAE.
        threads: that sample the levels at the same time; 0 where levels follow one another.
        decode_seconds: time to decode the codes.
        device_memory: bytes on a GPU at most at once; 0 on a CPU.
        ram: bytes of main memory that the process holds at most at once, the libraries included.
        decode_memory: bytes that decoding needs beside the weights and the sound.
        libraries: bytes of them that Python, torch and the other libraries take, and what else the process holds.
        disk: bytes of the songs as 16-bit WAV files.
        weights_on_disk: bytes of the model's files.
    """

    duration: float
    num_samples: int
    device: str
    levels: tuple[LevelEstimate, ...]
    vqvae_weights: int
    threads: int
    decode_seconds: float
    device_memory: int
    ram: int
    decode_memory: int
    libraries: int
    disk: int
    weights_on_disk: int

    @property
    def seconds(self) -> float:
        """Time for everything but loading the model.

        Levels at the same time take what the threads share out, or what cannot be shared: the batches of a level that
        wait for one another, and then the last one of each level below.
        """
        work = sum(level.seconds for level in self.levels)
        if self.threads:
            last = accumulate([level.last_seconds for level in self.levels], initial=0.0)
            alone = [level.chain_seconds + below for level, below in zip(self.levels, last, strict=False)]
            work = max(work / self.threads, *alone)
        return self.decode_seconds + work

    def __str__(self) -> str:
        head = ("level", "codes", "steps", "at once", "time", "weights", "memory")
        rows = [
            (
                each.name,
                f"{each.codes:,}",
                f"{each.steps:,}",
                str(each.rows),
                tqdm.format_interval(each.seconds),
                _bytes(each.weights),
                _bytes(each.copies + each.memory),
            )
            for each in reversed(self.levels)
        ]
        decoding = (_bytes(self.vqvae_weights), _bytes(self.decode_memory))
        rows.append(("decoding", "", "", "", tqdm.format_interval(self.decode_seconds), *decoding))
        table = [head, *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        songs = f"{self.num_samples} songs of " if self.num_samples > 1 else ""
        shared = f", levels on {self.threads} threads at the same time" if self.threads else ""
        pace = self.duration * self.num_samples / self.seconds if self.seconds else math.inf
        needed = tqdm.format_interval(self.seconds)
        lines += [
            f"{songs}{self.duration:g} s on {self.device}: {needed}, {pace:.2f} s of music a second{shared}",
            f"memory: {_bytes(self.device_memory)} on the GPU, {_bytes(self.ram)} of RAM, "
            f"of which the libraries take {_bytes(self.libraries)}",
            f"disk: {_bytes(self.disk)} for the sound, {_bytes(self.weights_on_disk)} for the model",
        ]
        return "\n".join(lines)


def estimate_generation(
    model: PreTrainedModel,
    request: SongRequest,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    calibrate: bool = True,
) -> GenerationEstimate:
    """Estimate a call of `model.generate` on this machine.

    Of the model only configuration and class are read, so it may be on the meta device, where it has no weights. Times
    are those of weights that float16 holds, as of files in float16; with others narrow priors on a CPU take up to twice
    as long.

    Args:
        model: a whole model.
        request: songs from nothing; its prompt, codes, metadata and seeds are not read.
        device: where they will be made; by default where the model is.
        dtype: of the priors there, such as `torch.bfloat16` or `"bfloat16"`; by default the model's.
        calibrate: time a few steps (up to about ten seconds); else times are 0.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    config = resolve_generation_config(model, request)
    duration = config.duration if request.duration is None else request.duration
    num_samples, stop_level, max_batch_size = request.num_samples, request.stop_level, request.max_batch_size
    hops, rate = model.vqvae.hop_lengths, model.vqvae.config.sampling_rate
    check_levels(None, stop_level, len(hops))
    where = _device(device, model)
    loaded = weight_bytes(model) if device_of(model).type == "cpu" else 0
    libraries = max(process_memory() - loaded, 0)
    samples, lengths = song_lengths(duration, [None] * len(hops), hops, rate)
    chosen = {name: getattr(config, name) for name in SETTINGS}
    settings = draw_settings(chosen, len(hops))
    contexts = [prior.config.n_ctx for prior in model.priors]
    layouts = song_layouts(chosen, lengths, hops, contexts, [0] * len(hops))
    shadow = _shadow(model, dtype)
    weights = [weight_bytes(prior) for prior in shadow.priors]
    vqvae_weights = weight_bytes(shadow.vqvae)
    free = free_memory(where)
    if free is not None and not _same_device(device_of(model), where):
        free = max(free - sum(weights) - vqvae_weights, 0)
    made = range(stop_level, len(hops))
    able = len(made) > 1 and all(shadow.priors[level].overlaps(request.engine, where) for level in made)
    threads = torch.get_num_threads() if able and torch.get_num_threads() > 1 else 0
    levels = []
    for level in made:
        prior, layout = shadow.priors[level], layouts[level]
        windows, follows = list(layout.windows()), level < made[-1]
        most = _most_rows(prior, layout, free, max_batch_size)
        batches = [
            part
            for batch in level_batches(windows, num_samples, layout.parallel, threads, follows)
            for part in batch.parts(most)
        ]
        rows = max(batch.rows for batch in batches)
        times = [0.0] * len(batches)
        if calibrate:
            times = _batch_seconds(prior, batches, settings[level], where, request.engine, threads)
        levels.append(
            LevelEstimate(
                name=level_name(level, len(hops)),
                codes=sum(batch.rows * batch.steps for batch in batches),
                steps=sum(batch.steps for batch in batches),
                rows=rows,
                seconds=sum(times),
                last_seconds=times[-1],
                chain_seconds=max(times) if layout.parallel else _longest_songs(batches, times),
                weights=weights[level],
                copies=prior.packed_nbytes(request.engine, where),
                memory=rows * row_bytes(prior, max(batch.length for batch in batches)),
            )
        )
    on_cpu = where.type == "cpu"
    sound = 4 * samples * num_samples
    at_once = torch.get_num_threads() if on_cpu else 1
    decoding = decoding_bytes(shadow.vqvae, stop_level, -(-samples // hops[stop_level]), at_once)
    sampling = max(threads, 1) * max(level.memory for level in levels)
    held = sum(weights) + vqvae_weights + sum(level.copies for level in levels)
    held += max(sampling, decoding + sound)  # the sound once more, as its chunks are joined
    return GenerationEstimate(
        duration=duration,
        num_samples=num_samples,
        device=str(where),
        levels=tuple(levels),
        threads=threads,
        vqvae_weights=vqvae_weights,
        decode_seconds=num_samples * measure_decoding(shadow.vqvae, stop_level, samples, where) if calibrate else 0.0,
        device_memory=0 if on_cpu else held,
        decode_memory=decoding,
        ram=libraries + LATER + sound + (held if on_cpu else sum(weights) + vqvae_weights),
        libraries=libraries,
        disk=num_samples * (44 + 2 * samples),
        weights_on_disk=weight_bytes(model),
    )


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and of the buffers that are saved with it."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _most_rows(prior: SizedPrior, layout: Layout, free: int | None, max_batch_size: int | None) -> int:
    most = _ANY if max_batch_size is None else max_batch_size
    if free is None:
        return most
    return max(1, min(most, int(MEMORY_SHARE * free) // row_bytes(prior, layout.size)))


def _longest_songs(batches: Sequence[Batch], times: Sequence[float]) -> float:
    """Seconds of the songs of a sequential level that take longest, window after window."""
    longest: dict[int, float] = {}
    for batch, seconds in zip(batches, times, strict=True):
        longest[batch.number] = max(seconds, longest.get(batch.number, 0.0))
    return sum(longest.values())


def _batch_seconds(
    prior: PreTrainedModel,
    batches: Sequence[Batch],
    settings: SamplingSettings,
    device: torch.device,
    engine: str,
    threads: int,
) -> list[float]:
    """Seconds of each batch, from the pace of the widest kind; others cost in proportion to their rows on a CPU."""
    rows = max(batch.rows for batch in batches)
    longest, prompted = max(batch.length for batch in batches), any(batch.length > batch.steps for batch in batches)
    with Workers[int, Pace](1 if threads else 0) as workers:  # as each of several threads does it, or with all of them
        workers.start(0, lambda: measure_pace(prior, rows, longest, settings, device, engine, prompted))
        pace = workers.next()[1]()
    return [
        (pace.window + (batch.length - batch.steps) * pace.prompt_code + batch.steps * pace.step)
        * (batch.rows / rows if device.type == "cpu" else 1.0)
        for batch in batches
    ]


@dataclass(frozen=True)
class Pace:
    """Seconds that sampling takes for a number of rows, conditioning included.

    Attributes:
        window: of a window, once.
        prompt_code: of each code of the rows' prompts.
        step: of each code that is sampled.
    """

    window: float
    prompt_code: float
    step: float


def measure_pace(
    prior: PreTrainedModel,
    rows: int,
    length: int,
    settings: SamplingSettings,
    device: torch.device,
    engine: str = "auto",
    prompted: bool = True,
) -> Pace:
    """Time windows of a stack of the prior's sizes: narrow priors at their depth, others at one and two cycles of the
    attention patterns, from which the rest follows.

    Args:
        prior: of which configuration, class and dtype are read; it may be on the meta device.
        rows: sampled at once.
        length: codes of a window.
        settings: how codes are drawn.
        device: where to time.
        engine: see [`~fast_jukebox.sampling.engine.open_decoder`].
        prompted: whether any window begins with a prompt; else `prompt_code` is not timed, and 0.
    """
    timed = min(rows, _CPU_ROWS) if device.type == "cpu" else rows
    depth = prior.config.num_hidden_layers
    cycle = min(prior.config.layer_period, depth)
    shallow, deep = (depth, depth) if prior.config.hidden_size < NARROW else (cycle, min(2 * cycle, depth))
    first = last = _time_stack(prior, shallow, timed, length, settings, device, engine, prompted)
    if deep > shallow:
        last = _time_stack(prior, deep, timed, length, settings, device, engine, prompted)
    growth = (depth - shallow) / max(deep - shallow, 1)
    parts = zip((first.window, first.prompt_code, first.step), (last.window, last.prompt_code, last.step), strict=True)
    return Pace(*(max(low + (high - low) * growth, high) * rows / timed for low, high in parts))


def _time_stack(
    prior: PreTrainedModel,
    depth: int,
    rows: int,
    length: int,
    settings: SamplingSettings,
    device: torch.device,
    engine: str,
    prompted: bool,
) -> Pace:
    """The pace of a prior of another depth, from windows of two lengths."""
    config = copy.deepcopy(prior.config)
    config.num_hidden_layers = depth
    stack, unit = _any_weights(type(prior), config, device, prior.dtype), config.upper_ratio

    def window(known: int, new: int) -> tuple[float, float]:
        """Seconds up to the first code, and of each code after it."""
        upper = torch.zeros((rows, (known + new) // unit), dtype=torch.int64, device=device)
        labels = torch.zeros((rows, config.metadata_length), dtype=torch.int64, device=device)
        labels[:, :1] = int(config.min_duration * config.sampling_rate) + 1  # a total length that is allowed
        prompt = torch.zeros((rows, known), dtype=torch.int64, device=device)
        noise = torch.full((rows, new), 0.5, device=device)
        times: list[tuple[float, float]] = []
        while len(times) < 3 and sum(begun + step for begun, step in times) < _PATIENCE:
            started = _now(device)
            sampling = WindowSampling(
                stack,
                known + new,
                prompt,
                upper if config.upsampling_strides else None,
                labels if config.metadata_length else None,
                settings,
                noise,
                engine,
            )
            sampling.sample(known + 1)
            first = _now(device)
            sampling.sample()
            times.append((first - started, (_now(device) - first) / (new - 1) if new > 1 else first - started))
        # The first time, when things are built, does not count where there is another.
        begun, step = zip(*(times[1:] or times), strict=True)
        return min(begun), min(step)

    with sampling_mode(stack):
        once, _ = window(unit - 1, 1)
        few = max(_FEWEST_STEPS // unit, 2) * unit
        _, step = window(0, few)
        many = max(min(int(_SECONDS / max(step, 1e-6)), _MOST_STEPS, length) // unit * unit, few)
        begun, step = window(0, many)
        conditioned = max(begun - once, 0.0) / many
        prompt_code = max(window(many - 1, 1)[0] - once, 0.0) / many if prompted else 0.0
    return Pace(once, prompt_code, step + conditioned)


def measure_decoding(vqvae: PreTrainedModel, level: int, samples: int, device: torch.device) -> float:
    """Seconds to decode `samples` audio samples of one song from a level; long songs from their beginning.

    Args:
        vqvae: of which configuration, class and dtype are read; it may be on the meta device.
        level: that is decoded.
        samples: audio samples of the song.
        device: where to time.
    """
    real = _any_weights(type(vqvae), copy.deepcopy(vqvae.config), device, vqvae.dtype)
    hop = vqvae.hop_lengths[level]
    count = max(min(samples, 2 * LAST_SAMPLES) // hop, 1)
    codes = torch.zeros((1, count), dtype=torch.int64, device=device)
    with sampling_mode(real):
        seconds: list[float] = []
        while len(seconds) < 2 and sum(seconds) < _PATIENCE:
            started = _now(device)
            decode_song(real, codes, level)
            seconds.append(_now(device) - started)
    return min(seconds) * samples / (count * hop)


def _now(device: torch.device) -> float:
    """The time, once the device has done what was asked of it; where one of a CPU's threads works, its own processor
    time, which other programs do not lengthen.
    """
    if device.type == "cpu" and granted_threads() == 1:
        return time.thread_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _any_weights(kind: type[_Model], config: object, device: torch.device, dtype: torch.dtype) -> _Model:
    """A model whose weights are all the same, which is quicker than drawing them."""
    from transformers.initialization import no_init_weights

    with torch.random.fork_rng(devices=[]), no_init_weights(), torch.no_grad():
        model = kind(config).to(device=device, dtype=dtype)
        for weight in model.parameters():
            weight.fill_(2.0**-13)  # neither overflows nor vanishes, however deep; and float16 holds it
    return model


def _shadow(model: PreTrainedModel, dtype: torch.dtype | str | None) -> PreTrainedModel:
    """The model without weights, its priors in another dtype where one is named."""
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    with torch.device("meta"):
        shadow = type(model)(copy.deepcopy(model.config))
    shadow.vqvae.to(model.vqvae.dtype)
    for part, own in zip(shadow.priors, model.priors, strict=True):
        chosen = own.dtype if dtype is None else named
        if chosen not in (torch.float32, torch.bfloat16, torch.float16):
            got = chosen if dtype is None else dtype
            raise ValueError(f"`dtype` must be float32, bfloat16 or float16, got {shown(got)}")
        part.to(chosen)
    return shadow


def _device(device: torch.device | str | None, model: PreTrainedModel) -> torch.device:
    """The device to estimate for: the one named, or where the model is; the CPU for one that is nowhere."""
    where = check_device(device)
    if where is not None:
        return where
    own = device_of(model)
    return torch.device("cpu") if own.type == "meta" else own


def _same_device(first: torch.device, second: torch.device) -> bool:
    """Whether two devices are one; `cuda` without a number is any of them."""
    return first.type == second.type and (first.index == second.index or None in (first.index, second.index))


def _bytes(count: int) -> str:
    """`1500000` as `1.5 MB`."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
