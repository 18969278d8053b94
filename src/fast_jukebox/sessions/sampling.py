"""Sampling of takes: those that differ in their seeds only as one batch, saved after every batch of windows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fast_jukebox.generation.decoding import decoder_reach
from fast_jukebox.generation.levels import Batch
from fast_jukebox.generation.metadata import encode_metadata
from fast_jukebox.generation.plan import SongPlan, plan_song, resolve_generation_config
from fast_jukebox.generation.request import COMPUTING, FastJukeboxGenerationConfig, Metadata, SongModel, SongRequest
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import SETTINGS, Layout, Window
from fast_jukebox.sampling.checks import check_count
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sessions.codes import TakeCodes, part_layouts
from fast_jukebox.sessions.fingerprint import check_model
from fast_jukebox.sessions.notes import (
    Job,
    MetadataRecord,
    Segment,
    SessionNotes,
    Take,
    checked_settings,
    metadata_record,
)
from fast_jukebox.sessions.store import SessionError

Known = dict[int, Tensor]
"""The new codes of every song, (N, new), of each window that is done, by `window.end`."""

Save = Callable[[int, list[Window], slice, Tensor], None]
"""Called with a level, windows, the songs that they were sampled of and their codes (songs, windows, length)."""


class SessionSampler(SongSampler):
    """Samples the windows of a plan that are not done yet; see [`SongSampler`].

    Args:
        model: has `priors`, one a level, bottom first, and `vqvae`.
        plan: what to sample.
        engine: see [`open_decoder`].
        progress: see [`ProgressCallback`].
        known: what is done, of each level.
        segments: label vectors of all levels, and the top code from which on they hold; the first from 0.
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

    def _counts(self, batch: Batch) -> bool:
        return not batch.kind[0]

    def _kind(self, window: Window) -> tuple[bool, int]:
        """True for a window that is known, and the index of its segment."""
        return window.end in self._known[window.level], self._segment(window.level, window)

    def _work(self, batch: Batch) -> Callable[[], Tensor]:
        if not batch.kind[0]:
            return super()._work(batch)
        own = self[batch.level]
        new = [self._known[batch.level][window.end][batch.songs] for window in batch.windows]
        known = [
            torch.cat([own.read(window.start, window.new_start)[batch.songs], codes.to(own.codes)], dim=1)
            for window, codes in zip(batch.windows, new, strict=True)
        ]
        return lambda: torch.stack(known, dim=1)

    def _labels(self, batch: Batch) -> Tensor | None:
        return self._segments[batch.kind[1]][1][batch.level]

    def _made(self, batch: Batch, codes: Tensor) -> None:
        if not batch.kind[0]:
            self._save(batch.level, batch.windows, batch.songs, codes)

    def _segment(self, level: int, window: Window) -> int:
        """Index of the segment at a window's middle; at the top, whose past is never sampled, of the last."""
        last = len(self._segments) - 1
        if level == len(self.priors) - 1:
            return last
        middle = (window.start + window.end) // 2 * self.hop_lengths[level] // self.hop_lengths[-1]
        return max(index for index in range(last + 1) if self._segments[index][0] <= middle or index == 0)

    def _left(self, level: int) -> list[Window]:
        return [window for window in self.plan.windows[level] if window.end not in self._known[level]]


def plan_session(model: SongModel, request: SongRequest) -> tuple[SongPlan, dict[str, object]]:
    """The plan of a new session, of which every level has windows whenever it is made, and its sampling settings.

    Raises:
        ValueError: the model refuses the request, or a session does.
    """
    refused = [name for name in request.arguments() if name in ("start_level", *COMPUTING)]
    if refused:
        raise ValueError(f"`{refused[0]}` is no argument of a new session; `run` takes what is about computing")
    with sampling_mode(model):
        plan = plan_song(model, replace(request, stop_level=0))
    check_count("stop_level", request.stop_level, 0, len(plan.layouts) - 1)
    config = resolve_generation_config(model, request)
    for song in range(plan.num_samples):
        metadata_record(request.metadata, song)  # refused before there is a folder
    return plan, checked_settings({name: getattr(config, name) for name in SETTINGS})


def first_notes(codes: TakeCodes, plan: SongPlan, request: SongRequest, settings: dict[str, object]) -> SessionNotes:
    """The notes of a new session: one take for each song of a plan, of which what is given is written."""
    metadata = request.metadata if plan.drawn is None else plan.drawn
    recorded = None if plan.recording is None else plan.recording.samples.cpu().numpy()  # (1 or N, kept)
    recordings = [] if recorded is None else [codes.write_recording(own) for own in recorded]
    takes = {}
    for song in range(plan.num_samples):
        given = [None if own is None else own[song if own.shape[0] > 1 else 0].cpu().numpy() for own in plan.given]
        known = tuple(0 if own is None else len(own) for own in given)
        takes[song + 1] = Take(
            number=song + 1,
            parent=None,
            origin="recording" if request.prompt is not None else "codes" if request.codes else "new",
            kept=known[-1],
            samples=plan.samples or 0,
            seed=plan.seeds[song],
            song=plan.songs[song],
            settings=settings,
            segments=(Segment(0, metadata_record(metadata, song)),),
            given=codes.write_given(given),
            known=known,
            layouts=tuple(layout for layout in plan.layouts if layout is not None),
            recording=recordings[song if len(recordings) > 1 else 0] if recordings else None,
            recorded=0 if recorded is None else recorded.shape[1],
        )
    job = Job(tuple(takes), request.stop_level)
    return SessionNotes(codes.facts, takes, (job,), plan.seeds[0], 1 if plan.num_samples == 1 else None)


def metadata_argument(record: MetadataRecord) -> Metadata | None:
    """The argument of `generate` that [`metadata_record`] made `record` of."""
    match record:
        case {"words": dict(words)}:
            return words
        case {"labels": list(labels)}:
            return torch.tensor([labels], dtype=torch.int64)
        case {"levels": list(levels)}:
            return [None if each is None else torch.tensor([each], dtype=torch.int64) for each in levels]
    return None


def batches(codes: TakeCodes, takes: Sequence[Take]) -> Iterator[list[Take]]:
    """Takes in batches that have the same windows left and the same settings and metadata."""
    found: dict[str, list[Take]] = {}
    for take in sorted(takes, key=lambda take: take.number):
        record, done = take.record(), [sorted(codes.window_codes(take, level)) for level in range(len(take.layouts))]
        same = {name: record[name] for name in ("samples", "settings", "segments", "known", "layouts")}
        found.setdefault(json.dumps([same, done]), []).append(take)
    yield from found.values()


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
        torch.stack([torch.from_numpy(own) for own in level if own is not None]) if count else None
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
        generation_config=FastJukeboxGenerationConfig.from_dict(dict(first.settings)),
    )
    # The characters that lyrics lose were named when they were first given.
    labels = [encode_metadata(model, metadata_argument(segment.metadata), quiet=True)[0] for segment in first.segments]
    with sampling_mode(model):
        plans = [plan_song(model, replace(request, metadata=metadata)) for metadata in labels]
        samplers = [SongSampler(model, plan, engine) for plan in plans]
    plan = samplers[-1].plan
    if plan.samples != first.samples or plan.layouts[stop_level:] != list(first.layouts[stop_level:]):
        raise SessionError(
            f"this version of the package samples take {first.number} in other windows than the one that began it"
        )
    return samplers


def check_can_be_made(model: SongModel, codes: TakeCodes, takes: Sequence[Take], stop_level: int) -> None:
    """Refuse what `run` would, before it is noted and stops every later `run`.

    Raises:
        ValueError: the model is not the session's, or refuses the takes.
    """
    check_model(codes.facts, model, range(stop_level, len(codes.facts.n_ctx)))
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
    """Sample what a job wants of takes that are of one batch, and save after every batch of windows."""
    first = takes[0]
    samplers = samplers_of(model, codes, takes, job.stop_level, engine, max_batch_size)
    sampled = [[codes.window_codes(take, level) for take in takes] for level in range(len(first.layouts))]
    known = [{end: torch.stack([torch.from_numpy(own[end]) for own in level]) for end in level[0]} for level in sampled]

    def save(level: int, windows: list[Window], songs: slice, made: Tensor) -> None:
        for row, song in enumerate(range(*songs.indices(len(takes)))):
            done = sampled[level][song]
            for index, window in enumerate(windows):
                done[window.end] = made[row, index, window.prompt_length :].cpu().numpy()
            codes.write_window_codes(takes[song], level, done)

    plan = samplers[-1].plan
    plan = replace(plan, layouts=_wanted(model, plan, first, job))
    segments = [(segment.start, own.labels) for segment, own in zip(first.segments, samplers, strict=True)]
    with sampling_mode(model):
        SessionSampler(model, plan, engine, progress, known, segments, save).sample_all()


def _wanted(model: SongModel, plan: SongPlan, take: Take, job: Job) -> list[Layout | None]:
    """The windows that a job needs: of a part, with the codes around it that its sound depends on."""
    hop, length = model.vqvae.hop_lengths[job.stop_level], take.length(job.stop_level)
    start, end = job.start // hop, length if job.end is None else min(-(-job.end // hop), length)
    if start == 0 and end == length:
        return list(plan.layouts)
    reach = decoder_reach(model.vqvae, job.stop_level)
    return part_layouts(take.layouts, job.stop_level, max(start - reach, 0), min(end + reach, length))
