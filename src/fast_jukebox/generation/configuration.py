"""Sampling settings of a whole model, as `generation_config.json` holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from transformers import GenerationConfig

from fast_jukebox.generation.windows import SCHEDULES
from fast_jukebox.sampling.filtering import SamplingSettings

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


class FastJukeboxGenerationConfig(GenerationConfig):
    """Defaults of [`FastJukeboxGenerationMixin.generate`], saved beside the model as `generation_config.json`.

    Each setting but `duration` is one value for all levels or a list with one for each level, bottom first. `None`
    stands for the default.

    Args:
        duration (`float`, *optional*, defaults to 20.0): seconds of a song.
        schedule (`str` or `list[str]`, *optional*, defaults to `"parallel"`): how the windows of a level follow each
            other, `"parallel"` or `"sequential"`. The top level, which nothing conditions, is sequential in any case;
            in a list its entry says so or is `None`.
        window_fractions (`float` or `list[float]`, *optional*, defaults to 1.0): how much of its context a window of a
            parallel level spans, in (0, 1]. Sequential levels have whole contexts.
        hop_fractions (`float` or `list[float]`, *optional*): how much of a window lies between the starts of two
            windows, in (0, 1]; by default as published for sequential levels, 0.125 at the top and 0.5 below it. What
            parallel windows share, by default an eighth of a context and at most a quarter of a window, joins them.
        temperature (`float` or `list[float]`, *optional*, defaults to 0.99): what logits are divided by, above 0.
        top_k (`int` or `list[int]`, *optional*, defaults to 0): how many of the likeliest codes are kept; 0 keeps all.
        top_p (`float` or `list[float]`, *optional*, defaults to 1.0): probability of the likeliest codes that are kept.
        do_sample (`bool` or `list[bool]`, *optional*, defaults to `True`): draw codes rather than take the likeliest.
        kwargs: further keys are kept and saved, as in [`~transformers.GenerationConfig`].

    Raises:
        ValueError: when made or saved with a value that is not as asked.
    """

    def __init__(
        self,
        duration: float | None = None,
        schedule: str | Sequence[str | None] | None = None,
        window_fractions: float | Sequence[float | None] | None = None,
        hop_fractions: float | Sequence[float | None] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        do_sample: bool | Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> None:
        # Set before the base class's initialiser, which validates at its end.
        self.duration = DEFAULT_DURATION if duration is None else duration
        self.schedule = schedule
        self.window_fractions = window_fractions
        self.hop_fractions = hop_fractions
        super().__init__(
            temperature=0.99 if temperature is None else temperature,
            top_k=0 if top_k is None else top_k,
            top_p=1.0 if top_p is None else top_p,
            do_sample=True if do_sample is None else do_sample,
            **kwargs,
        )

    @classmethod
    def from_model_config(cls, model_config: Any) -> FastJukeboxGenerationConfig:
        """The defaults: no sampling setting is read from a model's configuration."""
        return cls()

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check the values that do not depend on a model.

        Raises:
            ValueError: naming the setting, its value and what is allowed.
        """
        check_duration("duration", self.duration)
        check_settings({name: getattr(self, name) for name in SETTINGS})


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise a `ValueError` unless the values of some of [`SETTINGS`] are in their ranges; of those that are laid out by
    default, `None` is.
    """
    check_schedule(settings.get("schedule"))
    for name, value in settings.items():
        for entry in _entries(value):
            if name in DRAW_SETTINGS:
                SamplingSettings(**{name: entry})
            elif name != "schedule" and entry is not None:
                check_fraction(name, entry)


def _entries(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def per_level(name: str, value: Any, num_levels: int) -> list[Any]:
    """One value a level, bottom first, from one value for all or a list.

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(value, list | tuple):
        if len(value) != num_levels:
            raise ValueError(
                f"`{name}` must be one value or a list of {num_levels}, one for each level, bottom first; got {value!r}"
            )
        return list(value)
    return [value] * num_levels


def default_hop_fraction(parallel: bool, top: bool, window_fraction: float = 1.0) -> float:
    """Hop fraction of a level where nothing says otherwise: see [`FastJukeboxGenerationConfig`]."""
    if parallel:
        return 1.0 - min(0.125 / window_fraction, 0.25)
    return 0.125 if top else 0.5


def check_duration(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is a number of seconds above 0 and at most [`MAX_DURATION_SECONDS`]."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not 0 < value <= MAX_DURATION_SECONDS:
        raise ValueError(
            f"`{name}` must be a number of seconds above 0 and at most {MAX_DURATION_SECONDS:.0f}, got {value!r}"
        )


def check_fraction(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is a number in (0, 1]."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not 0 < value <= 1:
        raise ValueError(f"`{name}` must be in (0, 1], got {value!r}")


def check_schedule(value: Any) -> None:
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
