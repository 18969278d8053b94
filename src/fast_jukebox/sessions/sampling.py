"""Sampling of takes: those that differ in their seeds only as one batch, saved after every batch of windows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from fast_jukebox.generation.decoding import decoder_reach
from fast_jukebox.generation.metadata import encode_metadata
from fast_jukebox.generation.plan import SongPlan, plan_song
from fast_jukebox.generation.request import SongModel, SongRequest
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import Layout, Window
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.progress import LevelWork, ProgressCallback
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.state import Job
from fast_jukebox.sessions.store import SessionError
from fast_jukebox.sessions.takes import (
    Take,
    WindowCodes,
    metadata_argument,
    part_layouts,
    window_key,
    window_numbers,
)

Known = dict[tuple[int, int, int], Tensor]
"""Of each window that is done, by [`window_key`], the new codes of every song, (N, new)."""

Save = Callable[[int, list[Window], slice, Tensor], None]
"""Called with a level, windows, the songs of which they were sampled and their codes (songs, windows, length)."""


class SessionSampler(SongSampler):
    """Samples the windows of a plan that are not done yet; see [`SongSampler`].

    Args:
        model: has `priors`, one a level, bottom first, and `vqvae`.
        plan: what to sample.
        engine: see [`open_decoder`].
        progress: see [`ProgressCallback`].
        known: what is done, of each level.
        segments: from which top code on which label vectors hold, those of all levels; the first from 0.
        save: see [`Save`]; what it raises ends the sampling.
    """

    def __init__(
        self,
        model: SongModel,
        plan: SongPlan,
        engine: str,
        progress: ProgressCallback | None,
        known: Sequence[Known],
        segments: Sequence[tuple[int, list[Tensor | None]]],
        save: Save,
    ) -> None:
        self._known, self._segments, self._save = known, segments, save
        super().__init__(model, plan, engine, progress)

    def _sample_alike(self, level: int, windows: list[Window]) -> None:
        def kind(window: Window) -> tuple[bool, int]:
            return window_key(window) in self._known[level], self._segment(level, window)

        for (done, segment), alike in groupby(windows, key=kind):
            if done:
                for window in alike:
                    self._place_known(level, window)
            else:
                self.labels[level] = self._segments[segment][1][level]
                super()._sample_alike(level, list(alike))

    def _place_known(self, level: int, window: Window) -> None:
        own = self[level]
        new = self._known[level][window_key(window)].to(own.codes)
        own.place(window, torch.cat([own.read(window.start, window.new_start), new], dim=1), slice(0, len(own.done)))

    def _segment(self, level: int, window: Window) -> int:
        """Which segment a window is told of: that of its middle; at the top, whose past is never sampled, the last."""
        last = len(self._segments) - 1
        if level == len(self.priors) - 1:
            return last
        middle = (window.start + window.end) // 2 * self.hop_lengths[level] // self.hop_lengths[-1]
        return max(index for index in range(last + 1) if self._segments[index][0] <= middle or index == 0)

    def _sample_batch(self, level: int, windows: list[Window], songs: slice) -> Tensor:
        codes = super()._sample_batch(level, windows, songs)
        self._save(level, windows, songs, codes)
        return codes

    def _work(self) -> list[LevelWork]:
        """Without what is done, so that bars and times are of what is left."""
        work = []
        for level, whole in enumerate(super()._work()):
            done = [window for window in self.plan.windows[level] if window_key(window) in self._known[level]]
            new, known = (
                self.plan.num_samples * sum(getattr(window, name) for window in done)
                for name in ("new_length", "prompt_length")
            )
            work.append(
                replace(
                    whole,
                    codes=None if whole.codes is None else whole.codes - new,
                    known=whole.known - known,
                    conditioned=max(whole.conditioned - new - known, 0),
                )
            )
        return work


def batches(codes: TakeCodes, takes: Sequence[Take]) -> Iterator[list[Take]]:
    """Takes in batches that have the same windows left and the same settings and metadata."""

    def likeness(take: Take) -> str:
        record = take.record()
        own = {name: record[name] for name in ("samples", "settings", "segments", "known", "layouts")}
        return json.dumps([own, [sorted(codes.window_codes(take, level)) for level in range(len(take.layouts))]])

    keyed = sorted(((likeness(take), take.number, take) for take in takes), key=lambda entry: entry[:2])
    for _, group in groupby(keyed, key=lambda entry: entry[0]):
        yield [take for _, _, take in group]


def samplers_of(
    model: SongModel, codes: TakeCodes, takes: Sequence[Take], stop_level: int, engine: str, max_batch_size: int | None
) -> list[SongSampler]:
    """Samplers of takes of one batch, one for the metadata of each of their segments. Nothing is sampled.

    Raises:
        ValueError: as `generate`, of what the model refuses.
        SessionError: what the takes begin with cannot be read, or this version of the package has other windows.
    """
    first = takes[0]
    given = zip(*(codes.given(take) for take in takes), strict=True)  # of each level, of each take
    begun = [
        torch.stack([own for own in level if own is not None]) if count else None
        for level, count in zip(given, first.known, strict=True)
    ]
    request = SongRequest(
        duration=first.samples / codes.facts.sampling_rate,
        num_samples=len(takes),
        codes=begun if first.known[-1] else None,
        stop_level=stop_level,
        seed=[take.seed for take in takes],
        song_ids=[take.song for take in takes],
        max_batch_size=max_batch_size,
        engine=engine,
        generation_config=first.config(),
    )
    # What is dropped of lyrics was told when they were first given.
    told = [encode_metadata(model, metadata_argument(segment.metadata), quiet=True)[0] for segment in first.segments]
    with sampling_mode(model):
        plans = [plan_song(model, replace(request, metadata=metadata)) for metadata in told]
        samplers = [SongSampler(model, plan, engine) for plan in plans]
    plan = samplers[-1].plan
    if plan.samples != first.samples or plan.layouts[stop_level:] != list(first.layouts[stop_level:]):
        raise SessionError(
            f"this version of the package samples take {first.number} in other windows than the one that began it"
        )
    return samplers


def check_can_be_made(model: SongModel | None, codes: TakeCodes, takes: Sequence[Take], stop_level: int) -> None:
    """Refuse what `run` would, where there is a model to ask, before it is noted: it would be in the way of all that is
    asked for later.

    Raises:
        ValueError: the model is not the session's, or refuses the takes.
    """
    if model is None:
        return
    codes.facts.check(model, range(stop_level, len(codes.facts.n_ctx)))
    for batch in batches(codes, takes):
        samplers_of(model, codes, batch, stop_level, "auto", None)


def sample_takes(
    model: SongModel,
    codes: TakeCodes,
    takes: list[Take],
    job: Job,
    progress: ProgressCallback | None,
    engine: str,
    max_batch_size: int | None,
) -> None:
    """Sample what a job wants of takes that are of one batch, and save after every batch of windows.

    Raises:
        ValueError: as `samplers_of`.
        SessionError: what is known cannot be read, or a batch cannot be written.
        GenerationCancelled: `progress` said so.
    """
    first = takes[0]
    samplers = samplers_of(model, codes, takes, job.stop_level, engine, max_batch_size)
    sampled = [[codes.window_codes(take, level) for take in takes] for level in range(len(first.layouts))]
    numbers = [window_numbers(layout) for layout in first.layouts]

    def save(level: int, windows: list[Window], songs: slice, made: Tensor) -> None:
        for row, song in enumerate(range(*songs.indices(len(takes)))):
            done = sampled[level][song]
            for index, window in enumerate(windows):
                done[numbers[level][window_key(window)]] = made[row, index, window.prompt_length :].cpu()
            codes.write_window_codes(takes[song], level, done)

    own = samplers[-1]
    with sampling_mode(model):
        SessionSampler(
            model,
            replace(own.plan, layouts=_wanted(model, own.plan, first, job)),
            engine,
            progress,
            known=[_known(*level) for level in zip(numbers, sampled, strict=True)],
            segments=[(segment.start, each.labels) for segment, each in zip(first.segments, samplers, strict=True)],
            save=save,
        ).sample_all()


def _wanted(model: SongModel, plan: SongPlan, take: Take, job: Job) -> list[Layout | None]:
    """The windows that a job needs: of a part also what its sound reaches to."""
    hop, length = model.vqvae.config.hop_lengths[job.stop_level], take.length(job.stop_level)
    start, end = job.start // hop, length if job.end is None else min(-(-job.end // hop), length)
    if start == 0 and end == length:
        return list(plan.layouts)
    reach = decoder_reach(model.vqvae, job.stop_level)
    return part_layouts(take.layouts, job.stop_level, max(start - reach, 0), min(end + reach, length))


def _known(numbers: dict[tuple[int, int, int], int], sampled: Sequence[WindowCodes]) -> Known:
    """The windows of a level that are done, of all songs together."""
    return {
        key: torch.stack([own[number] for own in sampled])
        for key, number in numbers.items()
        if all(number in own for own in sampled)
    }
