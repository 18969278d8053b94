"""Settings of generation: their names, their ranges, and the windows that they give each level. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from fast_jukebox.generation.windows import SCHEDULES, Layout, hop_of, size_of
from fast_jukebox.sampling.checks import SamplingSettings

_Value = TypeVar("_Value")

DEFAULT_DURATION = 20.0
"""Seconds of a song where nothing says otherwise."""

MAX_DURATION_SECONDS = 24 * 3600.0
"""The longest song that one call makes: a day."""

DRAW_SETTINGS = tuple(field.name for field in fields(SamplingSettings))
"""Settings of how a code is drawn from its logits."""

WINDOW_SETTINGS = ("schedule", "window_fractions", "hop_fractions")
"""Settings of how the windows of a level are laid out."""

SETTINGS = (*WINDOW_SETTINGS, *DRAW_SETTINGS)
"""All sampling settings: one value for all levels, or a list with one for each, bottom first."""


def check_settings(settings: Mapping[str, object]) -> None:
    """Raise a `ValueError` unless the values of some of [`SETTINGS`] are in their ranges; of those of windows, `None`
    is.
    """
    check_schedule(settings.get("schedule"))
    for name, value in settings.items():
        for entry in _entries(value):
            if name in DRAW_SETTINGS:
                SamplingSettings(**{name: entry})
            elif name != "schedule" and entry is not None:
                check_fraction(name, entry)


def _entries(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else [value]


def per_level(name: str, value: _Value | Sequence[_Value], num_levels: int) -> list[_Value]:
    """One value a level, bottom first, from one value for all or a list.

    Raises:
        ValueError: a list of another length.
    """
    if not isinstance(value, list | tuple):
        return [value] * num_levels  # type: ignore[list-item]  # a text is one value, not a sequence of them
    if len(value) != num_levels:
        raise ValueError(
            f"`{name}` must be one value or a list of {num_levels}, one for each level, bottom first; got {value!r}"
        )
    return list(value)


def draw_settings(settings: Mapping[str, object], num_levels: int) -> list[SamplingSettings]:
    """How codes are drawn at each level, bottom first.

    Raises:
        ValueError: a list has another number of levels.
    """
    columns = [per_level(name, settings[name], num_levels) for name in DRAW_SETTINGS]
    return [SamplingSettings(*row) for row in zip(*columns, strict=True)]


def song_layouts(
    settings: Mapping[str, object],
    lengths: Sequence[int | None],
    hop_lengths: Sequence[int],
    n_ctx: Sequence[int],
    given: Sequence[int],
) -> list[Layout]:
    """The windows of each level of a song. All lists have an entry a level, bottom first.

    The top level's first window is sampled a hop at a time, like those after it, so that the levels below need not wait
    for a whole context.

    Args:
        settings: values of [`WINDOW_SETTINGS`].
        lengths: codes of the song; `None` for one without end.
        hop_lengths: audio samples a code stands for.
        n_ctx: codes of a context.
        given: codes known at the song's beginning.

    Raises:
        ValueError: a list in `settings` has another number of levels.
    """
    count = len(hop_lengths)
    columns = [per_level(name, settings.get(name), count) for name in WINDOW_SETTINGS]
    layouts = []
    for level, (schedule, window_fraction, hop_fraction) in enumerate(zip(*columns, strict=True)):
        top = level == count - 1
        ratio = 1 if top else hop_lengths[level + 1] // hop_lengths[level]
        parallel = not top and schedule != "sequential"
        share = check_fraction("window_fractions", window_fraction) if parallel and window_fraction is not None else 1.0
        default = default_hop_fraction(parallel, top, share)
        size = size_of(share, n_ctx[level], ratio)
        hop = hop_of(default if hop_fraction is None else check_fraction("hop_fractions", hop_fraction), size, ratio)
        layouts.append(Layout(level, lengths[level], size, hop, given[level], parallel, stretch=hop if top else None))
    return layouts


def default_hop_fraction(parallel: bool, top: bool, window_fraction: float = 1.0) -> float:
    """Hop fraction of a level where nothing says otherwise: see [`FastJukeboxGenerationConfig`]."""
    if parallel:
        return 1.0 - min(0.125 / window_fraction, 0.25)
    return 0.125 if top else 0.5


def check_duration(name: str, value: object) -> float:
    """`value` itself.

    Raises:
        ValueError: it is no number of seconds above 0 and at most [`MAX_DURATION_SECONDS`].
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not 0 < value <= MAX_DURATION_SECONDS
    ):
        raise ValueError(
            f"`{name}` must be a number of seconds above 0 and at most {MAX_DURATION_SECONDS:.0f}, got {value!r}"
        )
    return value


def check_fraction(name: str, value: object) -> float:
    """`value` itself.

    Raises:
        ValueError: it is no number in (0, 1].
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must be in (0, 1], got {value!r}")
    return value


def check_schedule(value: object) -> None:
    """Raise a `ValueError` unless `value` is one of `SCHEDULES`, or a list of them whose last entry, the top level's,
    is sequential; `None` stands for the default.
    """
    allowed = " or ".join(map(repr, SCHEDULES))
    for entry in _entries(value):
        if entry is not None and entry not in SCHEDULES:
            raise ValueError(f"`schedule` must be {allowed}, or a list of them, bottom first; got {value!r}")
    if isinstance(value, list | tuple) and value and value[-1] == "parallel":
        raise ValueError(
            "`schedule` must end with 'sequential': windows of the top level, which nothing conditions, cannot be "
            f"sampled apart; got {value!r}"
        )
