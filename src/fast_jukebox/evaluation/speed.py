"""Seconds of a training step and of a sampled code, of priors that differ in depth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from fast_jukebox.data.codes import CodeWindows
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation.losses import LOSSES
from fast_jukebox.distillation.objective import DistillationObjective
from fast_jukebox.models.prior import FastJukeboxPrior

STAGE_WEIGHTS = {"plain": LOSSES["data"], "intermediate": LOSSES["intermediate"], "prediction": LOSSES["prediction"]}


def training_seconds(
    by_depth: dict[int, FastJukeboxPrior], teacher: FastJukeboxPrior, windows: CodeWindows, batch_size: int
) -> dict[str, dict[str, float]]:
    """Seconds of a training step of each depth: `plain`, and for students `intermediate` and `prediction`."""
    batch = stack_items([windows[index % len(windows)] for index in range(batch_size)])
    batch = {name: value.to(teacher.device) for name, value in batch.items()}
    seconds: dict[str, dict[str, float]] = {}
    for depth in by_depth:
        config = type(teacher.config).from_dict(teacher.config.to_dict() | {"num_hidden_layers": depth})
        prior = FastJukeboxPrior(config).to(teacher.device).train()
        objective = DistillationObjective(prior, teacher)
        optimizer = torch.optim.AdamW(prior.parameters(), lr=0.0)
        stages = ["plain"] if depth == teacher.config.num_hidden_layers else list(STAGE_WEIGHTS)
        steps = {stage: partial(_train_step, objective, optimizer, batch, STAGE_WEIGHTS[stage]) for stage in stages}
        seconds[str(depth)] = {stage: fastest(step, 3) for stage, step in steps.items()}
    return seconds


def _train_step(
    objective: DistillationObjective,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> None:
    objective(**batch, weights=weights).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def sampling_seconds(by_depth: dict[int, FastJukeboxPrior], codes: int, seed: int) -> dict[str, float]:
    """Seconds a code of each depth for one song, taken in turns."""
    best = dict.fromkeys(map(str, by_depth), float("inf"))
    for _ in range(3):
        for depth, prior in by_depth.items():
            ratio = prior.config.upper_ratio
            length = min(codes, prior.config.n_ctx) // ratio * ratio
            upper = torch.zeros((1, length // ratio), dtype=torch.int64) if prior.config.has_upper_level else None
            labels = None
            if prior.config.has_labels:  # a song of one window, of the unknown artist and genre
                window = prior.config.n_ctx * prior.config.hop_length
                labels = torch.zeros((1, prior.config.metadata_length), dtype=torch.int64)
                labels[0, 0] = labels[0, 2] = window
            sample = partial(prior.generate, length=length, upper_codes=upper, metadata=labels, seed=seed)
            seconds = fastest(sample, 1)
            best[str(depth)] = min(best[str(depth)], seconds / length)
    return best


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some runs after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
