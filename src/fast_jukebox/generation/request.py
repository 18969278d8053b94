"""The arguments of `generate`, `stream` and `new_session`: one type that holds, checks and documents them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig

from fast_jukebox.generation.windows import DEFAULT_DURATION, SETTINGS, check_duration, check_settings
from fast_jukebox.sampling.checks import MOST_SONGS, check_count, check_seed
from fast_jukebox.sampling.engine import check_engine
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sampling.protocols import HasParameters
from fast_jukebox.utils.files import clear_json_errors
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel


class FastJukeboxGenerationConfig(GenerationConfig):
    """Defaults of [`FastJukeboxGenerationMixin.generate`], saved beside the model as `generation_config.json`.

    Each setting but `duration` is one value for all levels or a list with one for each level, bottom first. `None`
    stands for the default.

    Args:
        duration (`float`, *optional*, defaults to 20.0): seconds of a song.
        schedule (`str` or `list[str]`, *optional*, defaults to `"parallel"`): see [`SongRequest`]. The top level, which
            nothing conditions, is sequential in any case; in a list its entry says so or is `None`.
        window_fractions (`float` or `list[float]`, *optional*, defaults to 1.0): likewise. Sequential levels have
            complete contexts.
        hop_fractions (`float` or `list[float]`, *optional*): likewise; by default as published for sequential levels,
            0.125 at the top and 0.5 below it. What parallel windows share, by default an eighth of a context and at
            most a quarter of a window, joins them.
        temperature (`float` or `list[float]`, *optional*, defaults to 0.99): likewise.
        top_k (`int` or `list[int]`, *optional*, defaults to 0): likewise.
        top_p (`float` or `list[float]`, *optional*, defaults to 1.0): likewise.
        do_sample (`bool` or `list[bool]`, *optional*, defaults to `True`): likewise.
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
        **kwargs: object,
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
    def from_pretrained(cls, pretrained_model_name: str | os.PathLike[str], *args: object, **kwargs: object) -> Any:
        """Load as [`~transformers.GenerationConfig.from_pretrained`] does.

        Raises:
            ValueError: the file holds no JSON of settings, or a value that is not as asked; names the folder.
            OSError: there is none, or it holds no JSON.
        """
        try:
            with clear_json_errors("generation_config.json", pretrained_model_name):
                return super().from_pretrained(pretrained_model_name, *args, **kwargs)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"`generation_config.json` of `{pretrained_model_name}` must hold settings of `generate`, correct it, "
                f"or fetch or save it again: {error}"
            ) from error

    @classmethod
    def from_model_config(cls, model_config: PreTrainedConfig) -> FastJukeboxGenerationConfig:
        """The defaults: no sampling setting is read from a model's configuration."""
        return cls()

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check the values that do not depend on a model.

        Raises:
            ValueError: naming the setting, its value and what is allowed.
        """
        check_duration("duration", self.duration)
        check_settings({name: getattr(self, name) for name in SETTINGS})


_Function = TypeVar("_Function", bound=Callable[..., object])

Metadata = Mapping[str, object] | Sequence[Mapping[str, object]] | Tensor | Sequence[Tensor | None]
"""Metadata in words, of all songs or of each, or label vectors, for all levels or for each."""

COMPUTING = ("progress", "max_batch_size", "engine")
"""Fields of a [`SongRequest`] that say how to compute, and change no code."""


class SoundConfig(Protocol):
    """Configuration of a VQ-VAE, as far as generation reads it."""

    sampling_rate: int
    codebook_size: int


class SoundLevel(Protocol):
    """One level of a VQ-VAE."""

    @property
    def decoder_reach(self) -> int:
        """Codes to either side that an audio sample may depend on."""


class VQVAE(HasParameters, Protocol):
    """What encodes audio to codes and decodes codes to audio."""

    hop_lengths: Sequence[int]
    """Audio samples that a code of each level stands for, bottom first."""

    @property
    def config(self) -> SoundConfig:
        """Its rate and levels."""

    @property
    def levels(self) -> Sequence[SoundLevel]:
        """Its levels, bottom first."""

    def encode(self, audio: Tensor) -> list[Tensor]:
        """Codes (N, L) of each level, bottom first, of audio (N, T)."""

    def decode(self, codes: Sequence[Tensor], start_level: int = 0, chunk_samples: int | None = None) -> Tensor:
        """Audio (N, T) of the codes (N, L) of a level."""


class SongModel(Protocol):
    """What a request is fulfilled by: a VQ-VAE and one prior for each of its levels, bottom first.

    It may also have `generation_config` and `processor`, see [`FastJukeboxGenerationConfig`] and
    [`~fast_jukebox.processing.FastJukeboxProcessor`].
    """

    vqvae: PreTrainedModel
    priors: Any  # an nn.ModuleList, whose entries torch knows as modules alone


FROM_NOTHING = (
    *("prompt", "prompt_duration", "codes", "start_level", "metadata", "seed", "song_ids", "progress"),
    *("temperature", "top_k", "top_p", "do_sample"),
)
"""Fields of a [`SongRequest`] that an estimate of songs from nothing does not need."""


@dataclass(frozen=True, eq=False)
class SongRequest:
    """Songs to make: from nothing, as a continuation of a recording or of codes, or upsampled from the codes of upper
    levels.

    Levels are sampled from the top down, each in overlapping windows of one context. Settings that are `None` come from
    `generation_config`; those that may differ by level are one value for all or a list, bottom first.

    Args:
        duration: seconds of the result, the prompt included, up to 86400 (a day). By default that of the given top
            codes, else that of `generation_config` (20).
        num_samples: number of songs, N. Inputs with one row serve all of them; where it is 1, the rows of the inputs
            count.
        prompt: audio (T,) or (N, T) in [-1, 1] at the model's sampling rate, with which the result begins: its own
            samples, the last 30 ms of which fade into the model's. The codes are those of its encoding.
        prompt_duration: seconds of `prompt` to keep, by default all; cut to whole codes of the top level.
        codes: int64 (N or 1, length) for some levels, bottom first; the last entry is the top level's and `None` stands
            for a level not given: `[top]`, `[None, None, top]`, `[bottom, middle, top]`. They are kept; a level that is
            shorter than the song is continued, a complete one is only upsampled.
        start_level: the highest level to sample, by default the top; levels above it must be complete in `codes`.
        stop_level: the lowest level to sample, 0 by default; the audio is decoded from it.
        metadata: of the song, `dict(artist=..., genre=..., lyrics=..., total_duration=..., offset=..., unknown=...)`,
            or a list of N such, for a model with a `processor`, which explains them. Or int64 (N or 1, width) label
            vectors for every labelled prior, or a list of them, one a level; after the labels stand the characters of
            the complete lyrics. Each window receives its own offset, counted from the one given, its own part of the
            lyrics, and where the total length is 0 that of the result. An artist, a genre or both that are not
            named, as with `None`, are drawn for each song, of those that the processor knows together, by the song's
            seed, and reported in the output; with `unknown` they stay unknown.
        seed: integer in [0, 2**63); `None` draws one and reports it in the output. Song i of a seed is the same in any
            batch, on a GPU up to the rounding of its kernels, which may change a code. A list gives each song a
            separate seed, of which it is song 0.
        schedule: `"parallel"` samples the windows of a level below the top at once and joins them, `"sequential"` one
            after the other, as Jukebox does.
        window_fractions: fraction of its context that a parallel window spans, in (0, 1].
        hop_fractions: fraction of a window between the starts of two windows, in (0, 1].
        temperature: divisor of the logits, at least 0.001.
        top_k: number of most probable codes that are kept; 0 keeps all.
        top_p: probability that the most probable codes that are kept sum to, in (0, 1].
        do_sample: draw codes; if `False`, take the most probable.
        progress: called with a [`GenerationProgress`] a few times a second and after each batch of windows; if it
            returns `False`, or raises, the generation ends.
        song_ids: which song of the seed each row is, by default 0, 1, 2 ...; so a song of a batch can be made alone.
        max_batch_size: windows, of all songs together, to sample at once at most; by default as many as free memory
            holds, and half of them where it does not. The codes do not depend on it. GPUs take it up to the next size
            that steps are recorded for: 5 as 8, 20 as 20, 46 as 48.
        engine: what runs a step, one of [`~fast_jukebox.sampling.engine.ENGINES`].
        generation_config: used in place of the model's own.

    Raises:
        ValueError: naming the argument, its value and what is allowed, as far as it does not depend on a model.
    """

    duration: float | None = None
    num_samples: int = 1
    prompt: Tensor | np.ndarray | None = None
    prompt_duration: float | None = None
    codes: Sequence[Tensor | None] | None = None
    start_level: int | None = None
    stop_level: int = 0
    metadata: Metadata | None = None
    seed: int | Sequence[int] | None = None
    schedule: str | Sequence[str | None] | None = None
    window_fractions: float | Sequence[float | None] | None = None
    hop_fractions: float | Sequence[float | None] | None = None
    temperature: float | Sequence[float] | None = None
    top_k: int | Sequence[int] | None = None
    top_p: float | Sequence[float] | None = None
    do_sample: bool | Sequence[bool] | None = None
    progress: ProgressCallback | None = None
    song_ids: Sequence[int] | None = None
    max_batch_size: int | None = None
    engine: str = "auto"
    generation_config: GenerationConfig | None = None

    def __post_init__(self) -> None:
        check_count("num_samples", self.num_samples, 1, MOST_SONGS)
        if self.max_batch_size is not None:
            check_count("max_batch_size", self.max_batch_size)
        if self.duration is not None:
            check_duration("duration", self.duration)
        if self.prompt_duration is not None:
            check_duration("prompt_duration", self.prompt_duration)
        if self.prompt is not None and self.codes is not None:
            raise ValueError("`prompt` and `codes` must not both be given: `codes` may begin with those of a recording")
        if self.prompt is None and self.prompt_duration is not None:
            raise ValueError(f"`prompt_duration` must not be given without `prompt`, got {self.prompt_duration!r}")
        for seed in self.seed if isinstance(self.seed, list | tuple) else [self.seed]:
            if seed is not None or self.seed is not None:
                check_seed(seed)
        check_engine(self.engine)
        own: object = self.generation_config
        if not isinstance(own, GenerationConfig | None):
            raise ValueError(f"`generation_config` must be a FastJukeboxGenerationConfig or None, got {shown(own)}")
        check_settings(self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The sampling settings that are not `None`, by their names in [`SETTINGS`]."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `generate`: the fields that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not field.default
        }


FIELDS = tuple(field.name for field in fields(SongRequest))
"""Names of the fields of a [`SongRequest`], in the order of `generate`'s arguments."""


def request_arguments(without: Sequence[str] = ()) -> Callable[[_Function], _Function]:
    """A decorator that puts the documentation of [`SongRequest`]'s fields in place of the line `{request}` in the
    docstring of a function which takes them as arguments.

    Args:
        without: fields that the function does not take, or documents itself.
    """
    texts = "\n".join(text for name, text in _field_texts().items() if name not in without)

    def fill(function: _Function) -> _Function:
        if function.__doc__ is not None:  # there are none under `python -OO`
            function.__doc__ = inspect.cleandoc(function.__doc__).replace("    {request}", texts)
        return function

    return fill


def _field_texts() -> dict[str, str]:
    """The lines of the class's docstring on each field, by its name."""
    section = inspect.cleandoc(SongRequest.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: f"    {name}: {text.rstrip()}" for name, text in zip(found[::2], found[1::2], strict=True)}
