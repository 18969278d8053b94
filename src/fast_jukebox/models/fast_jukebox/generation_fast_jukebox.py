"""The `generate`, `stream`, `new_session` and `estimate` methods of a complete model."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from fast_jukebox.generation.config_loading import GenerationConfigLoading
from fast_jukebox.generation.decoding import decode_song
from fast_jukebox.generation.estimate import GenerationEstimate, estimate_generation
from fast_jukebox.generation.offload import set_offload
from fast_jukebox.generation.plan import plan_song
from fast_jukebox.generation.request import (
    COMPUTING,
    FROM_NOTHING,
    FastJukeboxGenerationConfig,
    Metadata,
    SongRequest,
    request_arguments,
)
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.streaming import SongStream, StreamSampler
from fast_jukebox.generation.windows import check_duration
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.progress import GenerationCancelled, ProgressCallback
from fast_jukebox.sessions.session import Session


@dataclass
class FastJukeboxGenerationOutput(ModelOutput):
    """Output of [`FastJukeboxGenerationMixin.generate`].

    Args:
        audio (float32 `Tensor` (N, T)): the songs, decoded from the lowest level made; at about [-1, 1], not clipped.
            Those that continue a recording begin with its samples, whose last 30 ms fade into the model's.
        codes (`list` of int64 `Tensor` (N, length) or `None`): of every level, bottom first; `None` for levels not
            made. They end with a top code, up to one top hop after the audio.
        sampling_rate (`int`): samples a second.
        seed (`int`, or `list[int]` where a list was given): with the same settings it makes the same songs again.
        seams (`list` of int64 `Tensor` (N, windows - 1) or `None`): at every level, where in its codes one window takes
            over from another; `None` for levels not made.
        dropped_lyrics (`list[str]`): where `metadata` was written in words, of each song of it the characters of its
            lyrics that the vocabulary cannot spell.
        metadata (`list[dict]`): where a model with labels was asked for no artist, no genre or neither, what each song
            got, with those that were drawn.
        engines (`list` of `str` or `None`): what ran the steps of each level, of
            [`~fast_jukebox.sampling.engine.ENGINES`], several joined by a comma; `None` for levels not sampled.
    """

    audio: Tensor | None = None
    codes: list[Tensor | None] | None = None
    sampling_rate: int | None = None
    seed: int | list[int] | None = None
    seams: list[Tensor | None] | None = None
    dropped_lyrics: list[str] | None = None
    metadata: list[dict[str, object]] | None = None
    engines: list[str | None] | None = None


class FastJukeboxGenerationMixin(GenerationConfigLoading):
    """The generation methods of a complete model.

    The model has `vqvae` (`config`, `encode`, `decode`) and `priors`, one a level, bottom first.
    """

    generation_config_class = FastJukeboxGenerationConfig
    vqvae: PreTrainedModel
    priors: Any  # an nn.ModuleList, whose entries torch knows as modules alone

    @request_arguments()
    def generate(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        prompt: Tensor | np.ndarray | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        start_level: int | None = None,
        stop_level: int = 0,
        metadata: Metadata | None = None,
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
        """Make songs: from nothing, as a continuation of a recording or of codes, or upsampled from the codes of upper
        levels.

        Levels are sampled from the top down, each in overlapping windows of one context. Settings that are `None` come
        from `generation_config`. Those that may differ by level are one value for all or a list, bottom first.

        Args:
            {request}

        Returns:
            A [`FastJukeboxGenerationOutput`] with `audio` (N, T), `codes`, `sampling_rate` and `seed`.

        Raises:
            ValueError: naming the argument, its value and what is allowed, before anything is sampled.
            GenerationCancelled: `progress` returned `False`; carries the codes made so far.
        """
        request = SongRequest(
            duration=duration,
            num_samples=num_samples,
            prompt=prompt,
            prompt_duration=prompt_duration,
            codes=codes,
            start_level=start_level,
            stop_level=stop_level,
            metadata=metadata,
            seed=seed,
            schedule=schedule,
            window_fractions=window_fractions,
            hop_fractions=hop_fractions,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            do_sample=do_sample,
            progress=progress,
            song_ids=song_ids,
            max_batch_size=max_batch_size,
            engine=engine,
            generation_config=generation_config,
        )
        with sampling_mode(self):
            plan = plan_song(self, request)
            sampler = SongSampler(self, plan, request.engine, request.progress)
            sampler.sample_all()
            made = sampler.final_codes()
            lowest = sampler[plan.stop_level]
            audio = decode_song(self.vqvae, lowest.read(0, lowest.final), plan.stop_level)[:, : plan.samples]
            if plan.recording is not None:
                audio = plan.recording.join(audio)
        return FastJukeboxGenerationOutput(
            audio=audio.clone(),  # outside inference mode, like the codes
            codes=[None if own is None else own.clone() for own in made],
            sampling_rate=self.vqvae.config.sampling_rate,
            seed=plan.seed,
            seams=[None if own is None else torch.tensor(own.seams, dtype=torch.int64) for own in sampler.levels],
            dropped_lyrics=plan.dropped_lyrics,
            metadata=plan.drawn,
            engines=[", ".join(sorted(own)) or None for own in sampler.engines],
        )

    @request_arguments(without=["duration"])
    def stream(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        prompt: Tensor | np.ndarray | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        start_level: int | None = None,
        stop_level: int = 0,
        metadata: Metadata | None = None,
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
        *,
        round_duration: float = 10.0,
    ) -> Iterator[Tensor]:
        """Make songs that can be played while they are made.

        ```python
        for chunk in model.stream(seed=0):  # without end
            play(chunk[0], model.config.sampling_rate)
        ```

        Joined, the chunks are what `generate` gives with the same arguments, on a GPU up to the rounding of other
        batches, and a stream without end begins like it. Memory does not grow with what has been played.

        Args:
            duration: seconds of the result, as in `generate`; `None` for songs without end, or where `start_level` is
                below the top, for as long as the given top codes. A prior that is conditioned on time needs a total
                length in `metadata` where the song has no end; after it, it receives the song's last context.
            {request}
            round_duration: seconds of audio that are made at once at most. The first rounds are as short as windows
                allow, each of the next makes as much as there was before.

        Returns:
            An iterator over consecutive float32 (N, samples), the first about 0.2 s long, the later ones longer. It may
            be closed at any time.

        Raises:
            ValueError: at once, as `generate` does.
            GenerationCancelled: from the iterator, where `progress` returned `False`; without codes.
        """
        check_duration("round_duration", round_duration)
        request = SongRequest(
            duration=duration,
            num_samples=num_samples,
            prompt=prompt,
            prompt_duration=prompt_duration,
            codes=codes,
            start_level=start_level,
            stop_level=stop_level,
            metadata=metadata,
            seed=seed,
            schedule=schedule,
            window_fractions=window_fractions,
            hop_fractions=hop_fractions,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            do_sample=do_sample,
            progress=progress,
            song_ids=song_ids,
            max_batch_size=max_batch_size,
            engine=engine,
            generation_config=generation_config,
        )
        with sampling_mode(self):
            plan = plan_song(self, request, endless=True)
            sampler = StreamSampler(self, plan, request.engine, request.progress)
        return self._chunks(SongStream(sampler, self.vqvae, round_duration))

    @request_arguments(without=["stop_level", "start_level", *COMPUTING])
    def new_session(
        self,
        folder: str | os.PathLike[str],
        duration: float | None = None,
        num_samples: int = 1,
        prompt: Tensor | np.ndarray | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        stop_level: int = 0,
        metadata: Metadata | None = None,
        seed: int | Sequence[int] | None = None,
        schedule: str | Sequence[str | None] | None = None,
        window_fractions: float | Sequence[float | None] | None = None,
        hop_fractions: float | Sequence[float | None] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        do_sample: bool | Sequence[bool] | None = None,
        song_ids: Sequence[int] | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        model_name: str | None = None,
    ) -> Session:
        """Begin a session: songs that are kept in a folder while they are made, and can be resumed, branched and cut.

        Args:
            folder: a new or empty folder.
            {request}
            stop_level: the lowest level that the first `run` makes.
            model_name: folder or repository to find the model by; by default where it was loaded from.

        Returns:
            A [`Session`], of which nothing is sampled before its `run`.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
            SessionError: the folder cannot be written.
        """
        request = SongRequest(
            duration=duration,
            num_samples=num_samples,
            prompt=prompt,
            prompt_duration=prompt_duration,
            codes=codes,
            stop_level=stop_level,
            metadata=metadata,
            seed=seed,
            schedule=schedule,
            window_fractions=window_fractions,
            hop_fractions=hop_fractions,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            do_sample=do_sample,
            song_ids=song_ids,
            generation_config=generation_config,
        )
        return Session.create(folder, self, request, model_name=model_name)

    def set_offload(
        self,
        target: str | None,
        device: torch.device | str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Keep the priors in main memory or on the disk and one at a time on the GPU, so that a model makes songs on
        a GPU that cannot hold it. For sampling, not for training; the codes do not change.

        Args:
            target: `"cpu"`, `"disk"`, or `None` for all priors on the device at once.
            device: where they sample; by default the model's, or the GPU where that is the CPU.
            folder: where `"disk"` keeps the weights, by default the system's temporary folder.

        Raises:
            ValueError: there is no such target or device.
            OSError: the weights cannot be written.
        """
        set_offload(self, target, device, folder)

    @request_arguments(without=[*FROM_NOTHING, "duration"])
    def estimate(
        self,
        duration: float | None = None,
        num_samples: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        schedule: str | Sequence[str | None] | None = None,
        *,
        window_fractions: float | Sequence[float | None] | None = None,
        hop_fractions: float | Sequence[float | None] | None = None,
        stop_level: int = 0,
        max_batch_size: int | None = None,
        engine: str = "auto",
        generation_config: GenerationConfig | None = None,
        calibrate: bool = True,
    ) -> GenerationEstimate:
        """Time and memory that `generate` will take on this machine, from sizes and a few steps of shallow stacks.

        Takes some ten seconds; weights are not needed, see `estimate_from_config`.

        Args:
            duration: seconds of a song; by default that of `generation_config`.
            device: where the songs will be made; by default where the model is.
            dtype: of the priors there, such as `torch.bfloat16` or `"bfloat16"`; by default the model's.
            {request}
            calibrate: time a few steps; else times are 0.

        Returns:
            A [`GenerationEstimate`]; printed, it is a table.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        request = SongRequest(
            duration=duration,
            num_samples=num_samples,
            stop_level=stop_level,
            schedule=schedule,
            window_fractions=window_fractions,
            hop_fractions=hop_fractions,
            max_batch_size=max_batch_size,
            engine=engine,
            generation_config=generation_config,
        )
        return estimate_generation(self, request, device, dtype, calibrate)

    @classmethod
    def estimate_from_config(cls, config: PreTrainedConfig, *args: object, **kwargs: object) -> GenerationEstimate:
        """`estimate` for a configuration, before there are weights; on the CPU unless `device` says otherwise."""
        with torch.device("meta"):
            model: PreTrainedModel = cls(copy.deepcopy(config))  # type: ignore[call-arg]
        return model.estimate(*args, **kwargs)

    def _chunks(self, stream: SongStream) -> Iterator[Tensor]:
        try:
            while True:
                with sampling_mode(self):  # not while the caller has the turn
                    chunk = stream.next_chunk()
                if chunk is None:
                    return
                if chunk.shape[1]:
                    yield chunk.clone()
        except GenerationCancelled as cancelled:
            cancelled.codes, cancelled.seed = [], stream.plan.seed  # what is still kept has no beginning
            raise
        finally:
            stream.close()
