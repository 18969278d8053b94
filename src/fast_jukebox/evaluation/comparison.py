"""Two sets of songs compared by everything that their embeddings allow, with intervals and floors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fast_jukebox.evaluation.distance import (
    Estimate,
    Floor,
    Statistic,
    bootstrap,
    checked_sets,
    frechet_statistic,
    kernel_statistic,
    median_distance,
    real_floor,
    tag_statistic,
)
from fast_jukebox.evaluation.embeddings import EmbeddingSet
from fast_jukebox.evaluation.pitch import ClipPitch, distance_within, jensen_shannon, mean_profile
from fast_jukebox.utils.text import shown

FEW_SONGS = 50
"""Below so many songs distances depend much on which they are: the report says so."""


@dataclass(frozen=True)
class Comparison:
    """One number of a set of songs."""

    estimate: Estimate
    floor: Floor


def compare_sets(
    samples: EmbeddingSet,
    reference: EmbeddingSet,
    *,
    measures: tuple[str, ...] = ("frechet_distance", "kernel_distance", "tag_divergence"),
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Distances of a set of songs from a reference, named after the embedding: `kernel_distance_musicnn_mtt`.

    Where windows are not more than the embedding's dimensions, the Frechet distance is one with shrunk covariances and
    is called `frechet_distance_shrunk_...`: the two are not comparable. Tags are compared where both sets have them.

    Args:
        resamples: of the bootstrap over the samples' songs; the reference is held fixed.
        seed: of the bootstrap and of the draws.

    Raises:
        ValueError: sets of two embeddings, too few windows, or values that are not finite.
    """
    samples.check_same_embedding(reference)
    found = {}
    for measure in measures:
        if measure not in ("frechet_distance", "kernel_distance", "tag_divergence"):
            raise ValueError(
                f"`measures` must be frechet_distance, kernel_distance or tag_divergence, got {shown(measure)}"
            )
        values = samples.windows, reference.windows
        if measure == "tag_divergence":
            if samples.tags is None or reference.tags is None:
                continue
            values = samples.tags, reference.tags
        own, others = checked_sets(*values, measure)
        name, least = f"{measure}_{samples.embedding}", 0.0
        make: Callable[[Tensor, Tensor], Statistic] = tag_statistic
        if measure == "frechet_distance":
            shrinkage = min(len(own), len(others)) <= own.shape[1]
            name = f"frechet_distance{'_shrunk' if shrinkage else ''}_{samples.embedding}"
            make = partial(frechet_statistic, shrinkage=shrinkage)
        elif measure == "kernel_distance":
            least = -math.inf  # an unbiased estimate of 0 is negative half of the time
            # Of the floors too, so that they have one yardstick.
            make = partial(kernel_statistic, bandwidth=median_distance(others))
        interval = bootstrap(make(own, others), samples.songs, resamples, seed, centred=True, least=least)
        floor = real_floor(partial(_number, make), others, reference.songs, samples.num_songs, seed=seed)
        found[name] = Comparison(interval, floor)
    return found


def compare_pitch(
    songs: Sequence[Sequence[ClipPitch]],
    reference: Sequence[Sequence[ClipPitch]],
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Pitch content of a set of songs: `pitch_classes`, the mean over its clips, and `pitch_distance`, the
    Jensen-Shannon divergence in bits between its mean aligned profile and the reference's.

    The floor of the distance is that of as many clips of one half of the reference from the other half.

    Args:
        songs: the clips of each song; those without a key do not count.
        reference: of each song of the reference, which is held fixed.
        resamples: of the bootstrap over the songs.
        seed: of the bootstrap.

    Returns:
        Nothing where no clip of the songs has a key.
    """
    clips = [(number, clip) for number, song in enumerate(songs) for clip in song if clip.has_key]
    if not clips:
        return {}
    numbers = [number for number, _ in clips]
    classes = torch.tensor([clip.pitch_classes for _, clip in clips], dtype=torch.float64)
    profiles = torch.stack([clip.aligned_profile for _, clip in clips]).double()  # (clips, 12)
    mean = mean_profile([clip for song in reference for clip in song])
    used = bootstrap(lambda weights: float(weights @ classes / weights.sum()), numbers, resamples, seed)
    distance = bootstrap(
        lambda weights: jensen_shannon(weights @ profiles, mean), numbers, resamples, seed, centred=True, least=0.0
    )
    floor = distance_within(reference, count=sum(map(len, songs)))
    return {
        "pitch_classes": Comparison(used, Floor(math.nan, math.nan, 0)),
        "pitch_distance": Comparison(distance, Floor(floor, math.nan, len(songs))),
    }


def comparison_numbers(found: Mapping[str, Comparison]) -> dict[str, float]:
    """Flat numbers: each name, with `_low`, `_high` (the interval), `_floor` and `_floor_deviation` after it."""
    numbers: dict[str, float] = {}
    for name, each in found.items():
        numbers |= estimate_numbers(name, each.estimate)
        numbers |= {f"{name}_floor": each.floor.value, f"{name}_floor_deviation": each.floor.deviation}
    return numbers


def estimate_numbers(name: str, estimate: Estimate) -> dict[str, float]:
    """Flat numbers of one estimate: its name, and with `_low` and `_high` after it the interval."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _number(make: Callable[[Tensor, Tensor], Statistic], samples: Tensor, reference: Tensor) -> float:
    """A statistic of all windows; NaN where the reference is large enough for it, but not its two parts."""
    try:
        return make(samples, reference)(torch.ones(len(samples), dtype=torch.float64))
    except ValueError:
        return math.nan
