"""Metrics and embeddings of many songs, kept shard by shard, so that a stopped evaluation resumes.

Each function keeps its result in a file at `path`, and reads it from there where it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm

from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, embed_songs
from fast_jukebox.evaluation.likelihood import SongBits, SongWindows, bits_of_levels, predict_song
from fast_jukebox.evaluation.pitch import ClipPitch
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
Check: TypeAlias = Callable[[JsonObject, Item], None]
"""Raises an error for a row that is not of an item."""


@contextmanager
def clear_damage(path: Path) -> Iterator[None]:
    """While a kept file is read and taken apart, which may have been damaged or edited.

    Raises:
        ValueError: names the file, and what to do.
    """
    try:
        yield
    except (
        AttributeError, KeyError, OverflowError, RecursionError, RuntimeError, SafetensorError, TypeError, ValueError
    ) as error:  # fmt: skip
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged ({reason}): delete it, and the same command makes it again") from error


def read_numbers(path: Path) -> dict[str, float]:
    """Numbers by name, kept in a JSON file.

    Raises:
        ValueError: it is damaged.
    """
    with clear_damage(path):
        return {name: float(number) for name, number in json.loads(read_file(path, _LARGEST)).items()}


def measure_songs(measure: Measure, sounds: Sequence[Sound], path: Path, workers: Workers) -> list[JsonObject]:
    """What `measure` gives for each song, kept in a JSON file; it is pickled where there are several workers.

    Raises:
        ValueError: the file is damaged.
    """
    return _kept_rows(path, sounds, partial(_measuring, measure), workers, _check_numbers)


def embed_in_shards(
    network: AudioEmbedding, sounds: Sequence[Sound], path: Path, duration: float, workers: Workers
) -> EmbeddingSet:
    """[`~fast_jukebox.evaluation.embeddings.embed_songs`] of each song's first seconds, kept in a safetensors file; the
    network is pickled where there are several workers.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        shards = _make_parts(path, sounds, partial(_embedding, network, duration), workers)
        sets = [_read_embeddings(part, network, len(own)) for part, own in shards]
        songs = [own.songs + index * SONGS_IN_A_SHARD for index, own in enumerate(sets)]
        tags = [own.tags for own in sets if own.tags is not None]
        windows = torch.cat([own.windows for own in sets])
        joined = EmbeddingSet(
            network.name, network.version, windows, torch.cat(songs), torch.cat(tags) if tags else None
        )
        joined.save(path)
        shutil.rmtree(shards[0][0].parent)
    return _read_embeddings(path, network, len(sounds))


def predict_in_shards(
    load: Callable[[], FastJukeboxModel], songs: Sequence[SongWindows], path: Path, batch_size: int, workers: Workers
) -> list[SongBits]:
    """Bits of priors for windows of songs, one entry a level, bottom first, kept in a JSON file.

    `load` gives the model, once in each process; it is pickled where there are several.

    Raises:
        ValueError: the file is damaged.
    """
    return bits_of_levels(_kept_rows(path, songs, partial(_predicting, load, batch_size), workers, _check_bits))


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
    path: Path, items: Sequence[Item], setup: Callable[[], Work[Item]], workers: Workers, check: Check[Item]
) -> list[JsonObject]:
    if not path.is_file():
        shards = _make_parts(path, items, setup, workers)
        rows = [row for part, own in shards for row in _read_rows(part, own, check)]
        write_file(path, json.dumps(rows))
        shutil.rmtree(shards[0][0].parent)
    return _read_rows(path, items, check)


def _read_rows(path: Path, items: Sequence[Item], check: Check[Item]) -> list[JsonObject]:
    """The rows of a kept file, one an item; a `ValueError` for one that is damaged."""
    with clear_damage(path):
        rows: list[JsonObject] = json.loads(read_file(path, _LARGEST))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it must hold a list of mappings")
        if len(rows) != len(items):
            raise ValueError(f"it must hold {len(items)} of them, got {len(rows)}")
        for row, item in zip(rows, items, strict=True):
            check(row, item)
    return rows


def _check_numbers(row: JsonObject, sound: Sound) -> None:
    for name, value in row.items():
        if name == "clips":
            for clip in value:
                ClipPitch.from_json(clip)
        elif not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, got {value!r:.80}")


def _check_bits(row: JsonObject, song: SongWindows) -> None:
    if row["level"] != song.level:
        raise ValueError(f"level must be {song.level} for this song, got {row['level']!r:.80}")
    for name in ("bits", "hits", "codes"):
        if not isinstance(row[name], int | float):
            raise ValueError(f"{name} must be a number, got {row[name]!r:.80}")


def _read_embeddings(path: Path, network: AudioEmbedding, songs: int) -> EmbeddingSet:
    with clear_damage(path):
        found = EmbeddingSet.load(path)
        if (found.embedding, found.version) != (network.name, network.version):
            raise ValueError(f"it must be of {network.name} {network.version}, got {found.embedding} {found.version}")
        if found.num_songs and not 0 <= int(found.songs.min()) <= int(found.songs.max()) < songs:
            raise ValueError(f"it must be of {songs} songs, got one of number {int(found.songs.max())}")
    return found


def _make_parts(
    path: Path, items: Sequence[Item], setup: Callable[[], Work[Item]], workers: Workers
) -> list[tuple[Path, list[Item]]]:
    """Files of the shards with their items, beside the file that they will be; those that stand are kept."""
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
    return shards


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
