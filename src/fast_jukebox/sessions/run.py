"""What a session does when it runs: takes that are alike, sampled together as one batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig, check_duration
from fast_jukebox.generation.decoding import decoder_reach
from fast_jukebox.generation.metadata import encode_metadata
from fast_jukebox.generation.plan import SongPlan, level_layout, level_settings, plan_song
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import Layout, Window
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.fingerprint import ModelFacts
from fast_jukebox.sessions.sampler import Known, SessionSampler
from fast_jukebox.sessions.store import SessionError
from fast_jukebox.sessions.takes import (
    Pieces,
    Take,
    metadata_argument,
    part_layouts,
    window_key,
    window_numbers,
)


@dataclass(frozen=True)
class Job:
    """Something that was asked for and may not be done yet.

    Attributes:
        takes: their numbers.
        stop_level: the lowest level to make.
        start: the first audio sample wanted; 0 for the beginning.
        end: the one after the last, or `None` for the end.
    """

    takes: tuple[int, ...]
    stop_level: int
    start: int = 0
    end: int | None = None


def take_layouts(facts: ModelFacts, settings: dict[str, Any], samples: int, known: Sequence[int]) -> tuple[Layout, ...]:
    """The windows of each level of a song that begins with `known` codes, as `generate` lays them out.

    Raises:
        ValueError: the song is longer than one can be, or a setting does not fit the model.
    """
    hops = facts.hop_lengths
    check_duration("duration", samples / facts.sampling_rate)
    _, shapes = level_settings(FastJukeboxGenerationConfig(**settings), len(hops))
    top_codes = -(-samples // hops[-1])
    return tuple(
        level_layout(
            level,
            top_codes * (hops[-1] // hop),
            facts.n_ctx[level],
            shapes[level],
            ratio=upper // hop,
            given=known[level],
            top=level == len(hops) - 1,
        )
        for level, (hop, upper) in enumerate(zip(hops, [*hops[1:], hops[-1]], strict=True))
    )


def alike(codes: TakeCodes, takes: Sequence[Take]) -> Iterator[list[Take]]:
    """Takes in groups of which the same windows are left and that are told the same."""

    def likeness(take: Take) -> str:
        record = take.record()
        own = {name: record[name] for name in ("samples", "settings", "stretches", "known", "layouts")}
        return json.dumps([own, [sorted(codes.pieces(take, level)) for level in range(len(take.layouts))]])

    keyed = sorted(((likeness(take), take.number, take) for take in takes), key=lambda entry: entry[:2])
    for _, group in groupby(keyed, key=lambda entry: entry[0]):
        yield [take for _, _, take in group]


def samplers_of(
    model: Any, codes: TakeCodes, takes: Sequence[Take], stop_level: int, engine: str, max_batch_size: int | None
) -> list[SongSampler]:
    """What would sample takes that are `alike`, anew for what each of their stretches is told. Nothing is sampled.

    Raises:
        ValueError: as `generate`, of what the model refuses.
        SessionError: what the takes begin with cannot be read, or this version of the package has other windows.
    """
    first = takes[0]
    given = [codes.given(take) for take in takes]
    begun = [
        None if count == 0 else torch.stack([own[level] for own in given]) for level, count in enumerate(first.known)
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
    told = [encode_metadata(model, metadata_argument(stretch.metadata), quiet=True)[0] for stretch in first.stretches]
    with sampling_mode(model):
        plans = [plan_song(model, replace(request, metadata=metadata)) for metadata in told]
        samplers = [SongSampler(model, plan, engine) for plan in plans]
    plan = samplers[-1].plan
    if plan.samples != first.samples or plan.layouts[stop_level:] != list(first.layouts[stop_level:]):
        raise SessionError(
            f"this version of the package samples take {first.number} in other windows than the one that began it"
        )
    return samplers


def sample_takes(
    model: Any,
    codes: TakeCodes,
    takes: list[Take],
    job: Job,
    progress: ProgressCallback | None,
    engine: str,
    max_batch_size: int | None,
) -> None:
    """Sample what a job wants of takes that are `alike`, and save after every batch of windows.

    Raises:
        ValueError: as `samplers_of`.
        SessionError: what is known cannot be read, or a batch cannot be written.
        GenerationCancelled: `progress` said so.
    """
    first = takes[0]
    samplers = samplers_of(model, codes, takes, job.stop_level, engine, max_batch_size)
    pieces = [[codes.pieces(take, level) for take in takes] for level in range(len(first.layouts))]
    numbers = [window_numbers(layout) for layout in first.layouts]

    def save(level: int, windows: list[Window], songs: slice, made: Tensor) -> None:
        for row, song in enumerate(range(*songs.indices(len(takes)))):
            done = pieces[level][song]
            for index, window in enumerate(windows):
                done[numbers[level][window_key(window)]] = made[row, index, window.prompt_length :].cpu()
            codes.write_pieces(takes[song], level, done)

    own = samplers[-1]
    with sampling_mode(model):
        SessionSampler(
            model,
            replace(own.plan, layouts=_wanted(model, own.plan, first, job)),
            engine,
            progress,
            known=[_known(*level) for level in zip(numbers, pieces, strict=True)],
            stretches=[(stretch.start, each.labels) for stretch, each in zip(first.stretches, samplers, strict=True)],
            save=save,
        ).sample_all()


def _wanted(model: Any, plan: SongPlan, take: Take, job: Job) -> list[Layout | None]:
    """The windows that a job needs: of a part also what its sound reaches to."""
    hop, length = model.vqvae.config.hop_lengths[job.stop_level], take.length(job.stop_level)
    start, end = job.start // hop, length if job.end is None else min(-(-job.end // hop), length)
    if start == 0 and end == length:
        return list(plan.layouts)
    reach = decoder_reach(model.vqvae, job.stop_level)
    return part_layouts(take.layouts, job.stop_level, max(start - reach, 0), min(end + reach, length))


def _known(numbers: dict[tuple[int, int, int], int], pieces: Sequence[Pieces]) -> Known:
    """The windows of a level that are done, of all songs together."""
    return {
        key: torch.stack([own[number] for own in pieces])
        for key, number in numbers.items()
        if all(number in own for own in pieces)
    }
