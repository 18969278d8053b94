"""Metrics and embeddings of many songs, kept shard by shard, so that a stopped evaluation resumes.

Each function keeps its result in a file at `path`, and reads it from there where it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from tqdm.auto import tqdm

from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, embed_songs
from fast_jukebox.evaluation.likelihood import SongBits, SongWindows, bits_of_levels, predict_song
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.sampling.machine import share_out, single_threads
from fast_jukebox.utils.files import JsonObject, clear_temporary, read_file, write_file
from fast_jukebox.utils.workers import Workers, map_shards

SONGS_IN_A_SHARD = 8
_LARGEST = 2**30

Measure: TypeAlias = Callable[[Sound], Mapping[str, object]]
Item = TypeVar("Item")
Result = TypeVar("Result")
Work: TypeAlias = Callable[[tuple[Path, Sequence[Item]]], None]
"""The work of one process: makes the file of a shard of its items."""


def measure_songs(measure: Measure, sounds: Sequence[Sound], path: Path, workers: Workers) -> list[JsonObject]:
    """What `measure` gives for each song, kept in a JSON file; it is pickled where there are several workers."""
    return _kept_rows(path, sounds, partial(_measuring, measure), workers)


def embed_in_shards(
    network: AudioEmbedding, sounds: Sequence[Sound], path: Path, duration: float, workers: Workers
) -> EmbeddingSet:
    """[`~fast_jukebox.evaluation.embeddings.embed_songs`] of each song's first seconds, kept in a safetensors file; the
    network is pickled where there are several workers.
    """
    if not path.is_file():
        parts = _make_parts(path, sounds, partial(_embedding, network, duration), workers)
        sets = [EmbeddingSet.load(part) for part in parts]
        songs = [own.songs + index * SONGS_IN_A_SHARD for index, own in enumerate(sets)]
        tags = [own.tags for own in sets if own.tags is not None]
        windows = torch.cat([own.windows for own in sets])
        joined = EmbeddingSet(
            network.name, network.version, windows, torch.cat(songs), torch.cat(tags) if tags else None
        )
        joined.save(path)
        shutil.rmtree(parts[0].parent)
    return EmbeddingSet.load(path)


def predict_in_shards(
    load: Callable[[], FastJukeboxModel], songs: Sequence[SongWindows], path: Path, batch_size: int, workers: Workers
) -> list[SongBits]:
    """Bits of priors for windows of songs, one entry a level, bottom first, kept in a JSON file.

    `load` gives the model, once in each process; it is pickled where there are several.
    """
    return bits_of_levels(_kept_rows(path, songs, partial(_predicting, load, batch_size), workers))


def each_on_a_thread(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> list[Result]:
    """`work` of each item; on a CPU each thread takes one, so that results do not depend on how many there are."""
    if device.type != "cpu":
        return [work(item) for item in items]
    with single_threads():
        return share_out(lambda index: work(items[index]), len(items))


def reachable(item: object) -> Any:
    """A file's absolute path, as workers may stand in another folder; anything else as it is."""
    return os.path.abspath(item) if isinstance(item, str | os.PathLike) else item


def _kept_rows(
    path: Path, items: Sequence[Item], setup: Callable[[], Work[Item]], workers: Workers
) -> list[JsonObject]:
    if not path.is_file():
        parts = _make_parts(path, items, setup, workers)
        rows = [row for part in parts for row in _read_rows(part)]
        write_file(path, json.dumps(rows))
        shutil.rmtree(parts[0].parent)
    return _read_rows(path, len(items))


def _read_rows(path: Path, count: int | None = None) -> list[JsonObject]:
    """The rows of a kept file, which must be `count`; a `ValueError` for one that is damaged."""
    try:
        rows = json.loads(read_file(path, _LARGEST))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it must hold a list of mappings")
        if count not in (None, len(rows)):
            raise ValueError(f"it must hold {count} of them, got {len(rows)}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and the same command makes it again") from error
    return rows


def _make_parts(path: Path, items: Sequence[Item], setup: Callable[[], Work[Item]], workers: Workers) -> list[Path]:
    """Files of the shards, beside the file that they will be; those that stand are kept."""
    folder = path.absolute().with_name(f"{path.stem}-parts")
    folder.mkdir(parents=True, exist_ok=True)
    clear_temporary(folder)
    found = [reachable(item) for item in items]
    shards = [
        (folder / f"{first:06d}{path.suffix}", found[first : first + SONGS_IN_A_SHARD])
        for first in range(0, len(found), SONGS_IN_A_SHARD)
    ]
    missing = [shard for shard in shards if not shard[0].is_file()]
    left = sum(len(own) for _, own in missing)
    with tqdm(total=len(found), initial=len(found) - left, desc=path.stem, unit="song") as bar:
        for (_, own), _ in map_shards(setup, missing, workers):
            bar.update(len(own))
    return [part for part, _ in shards]


# Each gives a process its work, after it has loaded what it works with.


def _measuring(measure: Measure) -> Work[Sound]:
    def work(shard: tuple[Path, Sequence[Sound]]) -> None:
        with single_threads():
            write_file(shard[0], json.dumps([dict(measure(sound)) for sound in shard[1]]))

    return work


def _embedding(network: AudioEmbedding, duration: float) -> Work[Sound]:
    def work(shard: tuple[Path, Sequence[Sound]]) -> None:
        with single_threads():
            embed_songs(network, shard[1], duration=duration).save(shard[0])

    return work


def _predicting(load: Callable[[], FastJukeboxModel], batch_size: int) -> Work[SongWindows]:
    model = load()

    def work(shard: tuple[Path, Sequence[SongWindows]]) -> None:
        predict = partial(predict_song, model, batch_size=batch_size)
        write_file(shard[0], json.dumps(each_on_a_thread(predict, shard[1], model.device)))

    return work
