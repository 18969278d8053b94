"""Sampling settings of a whole model, as `generation_config.json` holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

from fast_jukebox.generation.settings import DEFAULT_DURATION, SETTINGS, check_duration, check_settings


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
