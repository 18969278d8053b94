"""How long a step takes on this machine, from a shallow stack of random weights: a second or so a level."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from fast_jukebox.generation.decoding import decoder_reach, pieces
from fast_jukebox.generation.engine import make_step, sample_window, sampling_mode
from fast_jukebox.generation.sampling import SamplingSettings
from fast_jukebox.generation.threads import suited_threads

_SECONDS = 0.5
"""What one timing may take, as far as a few steps allow."""
_FEWEST_STEPS, _MOST_STEPS = 8, 256
"""How many steps are timed."""
_CONDITIONED_ROWS = 2
"""Rows whose conditioning is timed; others cost as much each."""
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
) -> Pace:
    """Time stacks of one and of two cycles of the attention patterns and go on from them to the prior's depth.

    Args:
        prior: of which configuration, class and dtype are read; it may be on the meta device.
        rows: sampled at once.
        length: codes of a window.
        settings: how codes are drawn.
        device: where to time.
        engine: see [`~fast_jukebox.generation.engine.make_step`].
    """
    timed = min(rows, _CPU_ROWS) if device.type == "cpu" else rows
    cycle = min(len(prior.config.attention_patterns), prior.config.num_hidden_layers)
    depth = prior.config.num_hidden_layers
    shallow = _time_stack(prior, cycle, timed, length, settings, device, engine)
    if depth == cycle:
        deep = shallow
    else:
        deeper = _time_stack(prior, min(2 * cycle, depth), timed, length, settings, device, engine)
        growth = (depth - cycle) / (min(2 * cycle, depth) - cycle)
        deep = Pace(*(max(b + (a - b) * growth, a) for a, b in zip(_values(deeper), _values(shallow), strict=True)))
    share = rows / timed
    return Pace(deep.step * share, deep.prompt_code * share, deep.window * share)


def measure_decoding(vqvae: Any, level: int, samples: int, device: torch.device) -> float:
    """Seconds to decode `samples` audio samples of one song from a level, with what pieces share with their neighbours.

    Args:
        vqvae: of which configuration, class and dtype are read; it may be on the meta device.
        level: that is decoded.
        samples: audio samples of the song.
        device: where to time.
    """
    with _random_state_kept():
        real = type(vqvae)(copy.deepcopy(vqvae.config)).to(device=device, dtype=vqvae.dtype)
    hop, reach = vqvae.config.hop_lengths[level], decoder_reach(real, level)
    whole = samples // hop + 1
    work = sum(min(stop + reach, whole) - max(start - reach, 0) for start, stop in pieces(hop, whole))
    count = max(min(whole, vqvae.config.sampling_rate // hop), 1)
    codes = torch.zeros((1, count), dtype=torch.int64, device=device)
    with sampling_mode(real):
        real.decode([codes], level)
        started = _now(device)
        real.decode([codes], level)
        return (_now(device) - started) / count * work


def _values(pace: Pace) -> tuple[float, float, float]:
    return pace.step, pace.prompt_code, pace.window


def _time_stack(
    prior: Any, depth: int, rows: int, length: int, settings: SamplingSettings, device: torch.device, engine: str
) -> Pace:
    config = copy.deepcopy(prior.config)
    config.num_hidden_layers = depth
    with _random_state_kept():
        stack = type(prior)(config).to(device=device, dtype=prior.dtype)
    known = min(2 * config.block_ctx, length // 2)  # beyond the first rows, where there is less to attend to
    short = min(known + _MOST_STEPS, length) // config.upper_ratio * config.upper_ratio
    prompt = torch.zeros((rows, known), dtype=torch.int64, device=device)
    noise = torch.full((rows, short), 0.5, device=device)

    def condition(count: int, length: int) -> Any:
        upper = torch.zeros((count, length // config.upper_ratio), dtype=torch.int64, device=device)
        labels = _labels(config, count).to(device) if config.metadata_length else None
        return stack.condition(count, length, upper_codes=upper if config.upper_downs else None, metadata=labels)

    def seconds(new: int, known: int = known) -> float:
        with suited_threads(stack):
            started = _now(device)
            step = make_step(stack, conditioning, rows, settings, engine)
            sample_window(step, prompt[:, :known], noise[:, :new])
            return _now(device) - started

    with sampling_mode(stack):
        conditioning = condition(rows, short)
        fewest = max(min(_FEWEST_STEPS, short - known), 1)
        seconds(fewest)  # whatever is built for the first window
        one = min(seconds(1), seconds(1))
        few = seconds(fewest)
        guess = max((few - one) / max(fewest - 1, 1), few / fewest / 10)
        many = min(max(int(_SECONDS / guess), fewest), short - known)
        whole = seconds(many)
        step = max((whole - one) / max(many - 1, 1), whole / many / 10)  # the second where the first is lost in noise
        nothing = seconds(1, 0)
        few_rows = min(rows, _CONDITIONED_ROWS)
        started = _now(device)
        condition(few_rows, length)
        conditioned = (_now(device) - started) * rows / few_rows
    return Pace(step, max(one - nothing, 0.0) / max(known, 1), conditioned + max(nothing - step, 0.0))


def _labels(config: Any, rows: int) -> torch.Tensor:
    """Label vectors that any labelled prior takes."""
    labels = torch.zeros((rows, config.metadata_length), dtype=torch.int64)
    labels[:, 0] = int(config.min_duration * config.sampling_rate) + 1
    return labels


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """The caller's random numbers are not touched by those of random weights."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _now(device: torch.device) -> float:
    """The time, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


__all__ = ["Pace", "measure_decoding", "measure_pace"]
