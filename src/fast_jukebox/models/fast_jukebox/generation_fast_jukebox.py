"""The `generate` and `stream` methods of a whole model."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from fast_jukebox.generation.config_loading import GenerationConfigLoading
from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig, check_duration
from fast_jukebox.generation.decoding import decode_song
from fast_jukebox.generation.estimate import GenerationEstimate, estimate_generation
from fast_jukebox.generation.metadata import encode_metadata
from fast_jukebox.generation.offload import set_offload
from fast_jukebox.generation.plan import plan_song, resolve_generation_config
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.streaming import SongStream, StreamSampler
from fast_jukebox.sampling.engine import check_engine, sampling_mode
from fast_jukebox.sampling.progress import GenerationCancelled, ProgressCallback

if TYPE_CHECKING:
    import numpy as np

    from fast_jukebox.sessions.session import Session


@dataclass
class FastJukeboxGenerationOutput(ModelOutput):
    """What [`FastJukeboxGenerationMixin.generate`] returns.

    Args:
        audio (float32 `Tensor` (N, T)): the songs, decoded from the lowest level made; at about [-1, 1], not clipped.
        codes (`list` of int64 `Tensor` (N, length) or `None`): of every level, bottom first; `None` for levels not
            made. They cover whole top codes, so up to one top hop more than the audio.
        sampling_rate (`int`): samples a second.
        seed (`int`, or `list[int]` where a list was given): with the same settings it makes the same songs again.
        seams (`list` of int64 `Tensor` (N, windows - 1) or `None`): at every level, where in its codes one window takes
            over from another; `None` for levels not made.
        dropped_lyrics (`list[str]`): where `metadata` was written in words, of each song of it the characters of its
            lyrics that the vocabulary cannot spell.
    """

    audio: Tensor | None = None
    codes: list[Tensor | None] | None = None
    sampling_rate: int | None = None
    seed: int | list[int] | None = None
    seams: list[Tensor | None] | None = None
    dropped_lyrics: list[str] | None = None


class FastJukeboxGenerationMixin(GenerationConfigLoading):
    """Gives a whole model its `generate` and `stream`: songs.

    The model has `vqvae` (`config`, `encode`, `decode`) and `priors`, one a level, bottom first.
    """

    generation_config_class = FastJukeboxGenerationConfig

    def generate(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        prompt: Tensor | np.ndarray | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        start_level: int | None = None,
        stop_level: int = 0,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Tensor | Sequence[Tensor | None] | None = None,
        seed: int | Sequence[int] | None = None,
        schedule: str | Sequence[str | None] | None = None,
        window_fractions: float | Sequence[float | None] | None = None,
        hop_fractions: float | Sequence[float | None] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        do_sample: bool | Sequence[bool] | None = None,
        progress: ProgressCallback | None = None,
        song_ids: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        engine: str = "auto",
        generation_config: GenerationConfig | None = None,
    ) -> FastJukeboxGenerationOutput:
        """Make songs: from nothing, going on from a recording or from codes, or upsampled from the codes of upper
        levels.

        Levels are sampled from the top down, each in windows of one context that overlap. Settings that are `None` come
        from `generation_config`. Those that may differ by level are one value for all or a list, bottom first.

        Args:
            duration: seconds of the result, the prompt included, up to 86400 (a day). By default that of the given
                top codes, else that of `generation_config` (20).
            num_samples: songs, N. Inputs with one row serve all of them; 1 gives way to the rows of the inputs.
            prompt: audio (T,) or (N, T) in [-1, 1] at the model's sampling rate, with which the result begins (as the
                VQ-VAE hears it).
            prompt_duration: seconds of `prompt` to keep, by default all; cut to whole codes of the top level.
            codes: int64 (N or 1, length) for some levels, bottom first; the last entry is the top level's and `None`
                stands for a level not given: `[top]`, `[None, None, top]`, `[bottom, middle, top]`. They are kept; a
                level that is shorter than the song is gone on with, a whole one is only upsampled.
            start_level: the highest level to sample, by default the top; levels above it must be given whole in
                `codes`.
            stop_level: the lowest level to sample, 0 by default; the audio is decoded from it.
            metadata: what is known of the song, `dict(artist=..., genre=..., lyrics=..., total_duration=...,
                offset=..., unknown=...)`, or a list of N such, for a model with a `processor`, which explains them. Or
                int64 (N or 1, width) label vectors for every labelled prior, or a list of them, one a level; after the
                labels stand the characters of the whole song. Each window is told its own offset, counted from the one
                given, its own part of the lyrics, and where the total length is 0 that of the result.
            seed: integer in [0, 2**63); `None` draws one and reports it in the output. Song i of a seed is the same
                whatever the batch, on a GPU up to the rounding of its kernels, which may tip a code. A list gives each
                song its own seed, of which it is song 0.
            schedule: `"parallel"` samples the windows of a level below the top at once and joins them, `"sequential"`
                one after the other, as Jukebox does.
            window_fractions: how much of its context a parallel window spans, in (0, 1].
            hop_fractions: how much of a window lies between the starts of two windows, in (0, 1].
            temperature: what logits are divided by, above 0.
            top_k: keep only so many of the likeliest codes; 0 keeps all.
            top_p: keep only the likeliest codes that sum to this probability, in (0, 1].
            do_sample: draw codes; if `False`, take the likeliest.
            progress: called with a [`GenerationProgress`] a few times a second and after each batch of windows; if it
                returns `False`, or raises, the generation ends.
            song_ids: which song of the seed each row is, by default 0, 1, 2 ...; so a song of a batch can be made
                alone.
            max_batch_size: how many windows, of all songs together, to sample at once; by default as many as free
                memory holds, and half of them where it does not. The codes do not depend on it. GPUs take it up to the
                next size that steps are recorded for: 5 as 8, 20 as 20, 46 as 48.
            engine: what runs a step, one of [`~fast_jukebox.sampling.engine.ENGINES`].
            generation_config: used for this call in place of the model's own.

        Returns:
            A [`FastJukeboxGenerationOutput`] with `audio` (N, T), `codes`, `sampling_rate` and `seed`.

        Raises:
            ValueError: naming the argument, its value and what is allowed, before anything is sampled.
            GenerationCancelled: `progress` returned `False`; carries the codes made so far.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        vqvae = self.vqvae  # type: ignore[attr-defined]
        arguments["metadata"], dropped_lyrics = encode_metadata(self, metadata)
        with sampling_mode(self):
            sampler = self._sampler(arguments)
            sampler.sample_all()
            plan, made = sampler.plan, sampler.final_codes()
            lowest: Any = made[plan.stop_level]
            audio = decode_song(vqvae, lowest, plan.stop_level)[:, : plan.samples]
        return FastJukeboxGenerationOutput(
            audio=audio.clone(),  # outside inference mode, like the codes
            codes=[None if own is None else own.clone() for own in made],
            sampling_rate=vqvae.config.sampling_rate,
            seed=plan.seed,
            seams=[None if own is None else torch.tensor(own.seams, dtype=torch.int64) for own in sampler.levels],
            dropped_lyrics=dropped_lyrics,
        )

    def stream(
        self, duration: float | None = None, *, round_duration: float = 10.0, **arguments: Any
    ) -> Iterator[Tensor]:
        """Make songs that are heard while they are made.

        ```python
        for chunk in model.stream(seed=0):  # without end
            play(chunk[0], model.config.sampling_rate)
        ```

        Joined, the chunks are what `generate` gives with the same arguments, on a GPU up to the rounding of other
        batches, and a stream without end begins like it. Memory does not grow with what has been heard.

        Args:
            duration: seconds of the result, as in `generate`; `None` for songs without end, or where `start_level` is
                below the top, for as long as the given top codes. A prior that is told of time needs a total length in
                `metadata` where the song has no end; beyond it, it is told that the song is about to end.
            round_duration: seconds of audio that are made at once at most. The first rounds are as short as windows
                allow, each of the next makes as much as there was before.
            arguments: those of `generate`.

        Returns:
            An iterator over consecutive float32 (N, samples), the first about 0.2 s long, the later ones longer. It may
            be closed at any time.

        Raises:
            ValueError: at once, as `generate` does.
            GenerationCancelled: from the iterator, where `progress` returned `False`; without codes.
        """
        check_duration("round_duration", round_duration)
        unknown = [name for name in arguments if name not in _DEFAULTS]
        if unknown:
            raise TypeError(f"stream() takes the arguments of generate(), got {unknown[0]!r}")
        with sampling_mode(self):
            sampler = StreamSampler(*self._sampling({**arguments, "duration": duration}, endless=True))
        return self._pieces(SongStream(sampler, self.vqvae, round_duration))  # type: ignore[attr-defined]

    def new_session(self, folder: str | os.PathLike[str], **arguments: Any) -> Session:
        """Begin a session: songs that are kept in a folder while they are made, and can be resumed, branched and cut.

        Args:
            folder: a new or empty folder.
            arguments: see [`~fast_jukebox.sessions.session.Session.create`].

        Returns:
            A [`Session`], of which nothing is sampled before its `run`.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
            SessionError: the folder cannot be written.
        """
        from fast_jukebox.sessions.session import Session

        return Session.create(folder, self, **arguments)

    def set_offload(
        self,
        home: str | None,
        device: torch.device | str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Let the priors live in main memory or on the disk and visit the GPU in turn, so that a model makes songs on
        a GPU that cannot hold it. For sampling, not for training; the codes do not change.

        Args:
            home: `"cpu"`, `"disk"`, or `None` for all priors on the device at once.
            device: where they sample; by default the model's, or the GPU where that is the CPU.
            folder: where `"disk"` keeps the weights, by default the system's temporary folder.

        Raises:
            ValueError: there is no such home or device.
            OSError: the weights cannot be written.
        """
        set_offload(self, home, device, folder)

    def estimate(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        schedule: str | Sequence[str | None] | None = None,
        **options: Any,
    ) -> GenerationEstimate:
        """Time and memory that `generate` will take on this machine, from sizes and a few steps of shallow stacks.

        Takes some ten seconds; weights are not needed, see `estimate_from_config`.

        Args:
            duration: seconds of a song; by default that of `generation_config`.
            num_samples: songs.
            device: where they will be made; by default where the model is.
            dtype: of the priors there; by default the model's.
            schedule: as in `generate`.
            options: see [`~fast_jukebox.generation.estimate.estimate_generation`].

        Returns:
            A [`GenerationEstimate`]; printed, it is a table.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        options.setdefault("generation_config", getattr(self, "generation_config", None))
        return estimate_generation(self, duration, num_samples, device, dtype, schedule, **options)

    @classmethod
    def estimate_from_config(cls, config: Any, *args: Any, **kwargs: Any) -> GenerationEstimate:
        """`estimate` for a configuration, before there are weights; on the CPU unless `device` says otherwise."""
        with torch.device("meta"):
            model: Any = cls(copy.deepcopy(config))  # type: ignore[call-arg]
        return model.estimate(*args, **kwargs)

    def _pieces(self, stream: SongStream) -> Iterator[Tensor]:
        try:
            while True:
                with sampling_mode(self):  # not while the caller has the turn
                    piece = stream.next_piece()
                if piece is None:
                    return
                if piece.shape[1]:
                    yield piece.clone()
        except GenerationCancelled as cancelled:
            cancelled.codes, cancelled.seed = [], stream.plan.seed  # what is still kept has no beginning
            raise
        finally:
            stream.close()

    def _sampler(self, arguments: dict[str, Any]) -> SongSampler:
        """What samples the songs that the arguments of `generate` ask for; they are checked."""
        return SongSampler(*self._sampling(arguments))

    def _sampling(self, arguments: dict[str, Any], endless: bool = False) -> tuple[Any, ...]:
        """What a [`SongSampler`] takes for the arguments of `generate`, which are checked."""
        given = {**_DEFAULTS, **arguments}
        engine, progress = check_engine(given.pop("engine")), given.pop("progress")
        settings = {name: given.pop(name) for name in _SETTINGS}
        own = getattr(self, "generation_config", None)
        config = resolve_generation_config(own, given.pop("generation_config"), settings)
        vqvae, priors = self.vqvae, self.priors  # type: ignore[attr-defined]
        given["metadata"] = encode_metadata(self, given["metadata"])[0]
        plan = plan_song(vqvae, priors, config, endless=endless, **given)
        return plan, priors, vqvae.config.hop_lengths, engine, progress


_SETTINGS = ("schedule", "window_fractions", "hop_fractions", "temperature", "top_k", "top_p", "do_sample")
_DEFAULTS = {
    name: parameter.default
    for name, parameter in signature(FastJukeboxGenerationMixin.generate).parameters.items()
    if name != "self"
}
