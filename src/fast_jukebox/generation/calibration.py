"""How long a step takes on this machine, from a stack of any weights and few layers: a second or so a level."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from transformers.initialization import no_init_weights

from fast_jukebox.generation.decoding import decoder_reach, pieces
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import open_decoder, sample_window, sampling_mode
from fast_jukebox.sampling.machine import NARROW, granted_threads, share_out, single_threads, suited_threads

_SECONDS = 0.5
"""What the steps of one timing may take, as far as a few steps allow."""
_FEWEST_STEPS, _MOST_STEPS = 4, 256
"""How many steps are timed."""
_REPEATS = 3
"""How often what comes before the first code is timed; the first time, when things are built, does not count."""
_PATIENCE = 1.0
"""Seconds after which nothing is timed once more: then the first time counts."""
_CPU_ROWS = 64
"""Rows that are timed on a CPU at most; there more of them cost as much each."""


@dataclass(frozen=True)
class Pace:
    """Seconds that sampling takes for a number of rows.

    Attributes:
        step: a step of all rows.
        prompt_code: each code of the rows' prompts, in the one pass that takes them in.
        window: what a window costs once, its conditioning above all.
    """

    step: float
    prompt_code: float
    window: float


def measure_pace(
    prior: Any,
    rows: int,
    length: int,
    settings: SamplingSettings,
    device: torch.device,
    engine: str = "auto",
    prompted: bool = True,
) -> Pace:
    """Time a stack of the prior's sizes: narrow priors at their depth, others as stacks of one and of two cycles of the
    attention patterns, from which it goes on to the prior's depth.

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
    cycle = _cycle(prior.config)
    depth = prior.config.num_hidden_layers
    if depth == cycle or prior.config.hidden_size < NARROW:
        deep = _time_stack(prior, depth, timed, length, settings, device, engine, prompted)
    else:
        shallow = _time_stack(prior, cycle, timed, length, settings, device, engine, prompted)
        deeper = _time_stack(prior, min(2 * cycle, depth), timed, length, settings, device, engine, prompted)
        growth = (depth - cycle) / (min(2 * cycle, depth) - cycle)
        deep = Pace(*(max(b + (a - b) * growth, a) for a, b in zip(_values(deeper), _values(shallow), strict=True)))
    share = rows / timed
    conditioned = _time_conditioning(prior, rows, length, device)
    return Pace(deep.step * share, deep.prompt_code * share, deep.window * share + conditioned)


def measure_decoding(vqvae: Any, level: int, samples: int, device: torch.device) -> float:
    """Seconds to decode `samples` audio samples of one song from a level, with what pieces share with their neighbours.

    Args:
        vqvae: of which configuration, class and dtype are read; it may be on the meta device.
        level: that is decoded.
        samples: audio samples of the song.
        device: where to time.
    """
    real = _any_weights(type(vqvae), copy.deepcopy(vqvae.config), device, vqvae.dtype)
    hop, reach = vqvae.config.hop_lengths[level], decoder_reach(real, level)
    whole = samples // hop + 1
    spans = list(pieces(hop, whole))
    work = sum(min(stop + reach, whole) - max(start - reach, 0) for start, stop in spans)
    count = max(min(whole, vqvae.config.sampling_rate // hop), 1)
    codes = torch.zeros((1, count), dtype=torch.int64, device=device)
    with sampling_mode(real), single_threads() if device.type == "cpu" else nullcontext():
        at_once = min(granted_threads(), len(spans)) if device.type == "cpu" else 1
        seconds = _least(lambda: share_out(lambda _: real.decode([codes], level), at_once), device)
    return seconds / at_once / count * work


def _values(pace: Pace) -> tuple[float, float, float]:
    return pace.step, pace.prompt_code, pace.window


def _time_conditioning(prior: Any, rows: int, length: int, device: torch.device) -> float:
    """Seconds to condition so many windows of `length` codes; on a CPU from few, where that is long from short ones."""
    stack, condition = _stack(prior, _cycle(prior.config), device)
    short = _short(prior.config, length)
    with sampling_mode(stack), suited_threads(stack):
        few = _at_once(rows, device)
        if device.type != "cpu":
            return _least(lambda: condition(rows, length), device)
        seconds = _least(lambda: condition(few, short), device) * length / short
        if seconds < _SECONDS:
            seconds = _least(lambda: condition(few, length), device)
        return seconds * rows / few


def _time_stack(
    prior: Any,
    depth: int,
    rows: int,
    length: int,
    settings: SamplingSettings,
    device: torch.device,
    engine: str,
    prompted: bool,
) -> Pace:
    """The pace of a prior of another depth, conditioning apart."""
    stack, condition = _stack(prior, depth, device)
    short = _short(prior.config, length)

    def window(conditioning: Any, rows: int, known: int, new: int) -> list[tuple[int, float]]:
        """Codes and seconds since the start, as the loop counts them."""
        prompt = torch.zeros((rows, known), dtype=torch.int64, device=device)
        noise = torch.full((rows, new), 0.5, device=device)
        times: list[tuple[int, float]] = []
        started = _now(device)
        decoder = open_decoder(stack, conditioning, rows, settings, engine)
        sample_window(decoder, prompt, noise, lambda count: times.append((count, _now(device) - started)))
        return times

    with sampling_mode(stack), suited_threads(stack):
        one = condition(1, short)
        every = type(one).joined([one] * rows)
        warm = window(every, rows, 0, min(_FEWEST_STEPS, short))
        many = min(max(int(_SECONDS / max(_step_seconds(warm), 1e-6)), _FEWEST_STEPS), short)
        times = window(every, rows, 0, many)
        first, step = times[0][1], _step_seconds(times)
        prompt_code, known = 0.0, short - 1
        if prompted and known:
            few = _at_once(rows, device)
            some = type(one).joined([one] * few)
            nothing = _least(lambda: window(some, few, 0, 1), device)
            filled = _least(lambda: window(some, few, known, 1), device)
            prompt_code = max(filled - nothing, 0.0) / known * rows / few
    return Pace(step, prompt_code, max(first - step, 0.0))


def _stack(prior: Any, depth: int, device: torch.device) -> tuple[Any, Callable[[int, int], Any]]:
    """A prior of any weights and another depth, and what conditions windows, so many of so many codes, on anything."""
    config = copy.deepcopy(prior.config)
    config.num_hidden_layers = depth
    stack = _any_weights(type(prior), config, device, prior.dtype)

    def condition(count: int, length: int) -> Any:
        upper = torch.zeros((count, length // config.upper_ratio), dtype=torch.int64, device=device)
        labels = _labels(config, count).to(device) if config.metadata_length else None
        return stack.condition(count, length, upper_codes=upper if config.upsampling_strides else None, metadata=labels)

    return stack, condition


def _cycle(config: Any) -> int:
    """Layers after which the attention patterns repeat, of those that there are."""
    return min(config.layer_period, config.num_hidden_layers)


def _short(config: Any, length: int) -> int:
    """Codes of a short window, whole codes of the level above."""
    return max(min(_MOST_STEPS, length) // config.upper_ratio, 1) * config.upper_ratio


def _at_once(rows: int, device: torch.device) -> int:
    """How many rows are conditioned, or take in their prompts, at once: on a CPU one for each thread, and one by one
    where each operation is shared by all threads.
    """
    if device.type != "cpu":
        return rows
    return min(rows, granted_threads() if torch.get_num_threads() == 1 else 1)


def _step_seconds(times: Sequence[tuple[int, float]]) -> float:
    """Seconds of a step, the median of what the loop counted after the first code."""
    steps = [(late - early) / (done - before) for (before, early), (done, late) in pairwise(times)]
    return median(steps) if steps else times[0][1]


def _least(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes where nothing disturbs it."""
    seconds = []
    for _ in range(_REPEATS):
        started = _now(device)
        work()
        seconds.append(_now(device) - started)
        if sum(seconds) > _PATIENCE:
            break
    return min(seconds[1:] or seconds)


def _any_weights(kind: Any, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model whose weights are all the same, which is quicker than drawing them."""
    with torch.random.fork_rng(devices=[]), no_init_weights(), torch.no_grad():
        model = kind(config).to(device=device, dtype=dtype)
        for weight in model.parameters():
            weight.fill_(1e-4)  # neither overflows nor vanishes, however deep
    return model


def _labels(config: Any, rows: int) -> torch.Tensor:
    """Label vectors that any labelled prior takes."""
    labels = torch.zeros((rows, config.metadata_length), dtype=torch.int64)
    labels[:, 0] = int(config.min_duration * config.sampling_rate) + 1
    return labels


def _now(device: torch.device) -> float:
    """The time, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
