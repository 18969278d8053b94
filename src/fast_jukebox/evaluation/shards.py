"""What is measured of many songs, shard by shard and kept as it is made, so that a stopped evaluation resumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from tqdm.auto import tqdm

from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, embed_songs
from fast_jukebox.sampling.machine import single_threads
from fast_jukebox.utils.files import clear_temporary, write_file
from fast_jukebox.utils.workers import Workers, map_shards

SONGS_IN_A_SHARD = 8

Measure: TypeAlias = Callable[[Sound], Mapping[str, float]]
_Shard: TypeAlias = tuple[Path, Sequence[Sound]]


def measure_songs(measure: Measure, sounds: Sequence[Sound], path: Path, workers: Workers) -> list[dict[str, float]]:
    """Numbers of each song, kept in a JSON file and read from it where it is there.

    Args:
        measure: numbers of a song by name; pickled where there are several workers.
        sounds: the songs.
        path: of the file.
        workers: processes that measure.
    """
    if not path.is_file():
        parts = _make_parts(path, sounds, partial(_Measuring, measure), workers)
        rows = [row for part in parts for row in json.loads(part.read_text(encoding="utf-8"))]
        write_file(path, json.dumps(rows))
        shutil.rmtree(parts[0].parent)
    found: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def embed_in_shards(
    network: AudioEmbedding, sounds: Sequence[Sound], path: Path, duration: float, workers: Workers
) -> EmbeddingSet:
    """Embeddings of songs, kept in a safetensors file and read from it where it is there.

    Args:
        network: pickled where there are several workers.
        sounds: the songs, as [`~fast_jukebox.evaluation.embeddings.embed_songs`] takes them.
        path: of the file.
        duration: seconds from the start of each.
        workers: processes that embed.
    """
    if not path.is_file():
        parts = _make_parts(path, sounds, partial(_Embedding, network, duration), workers)
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


def _make_parts(
    path: Path, sounds: Sequence[Sound], setup: Callable[[], Callable[[_Shard], None]], workers: Workers
) -> list[Path]:
    """Files of the shards, beside the file that they will be; those that stand are kept."""
    folder = path.absolute().with_name(f"{path.stem}-parts")
    folder.mkdir(parents=True, exist_ok=True)
    clear_temporary(folder)
    # Workers may stand in another folder.
    sounds = [os.path.abspath(sound) if isinstance(sound, str | os.PathLike) else sound for sound in sounds]
    shards = [
        (folder / f"{first:06d}{path.suffix}", sounds[first : first + SONGS_IN_A_SHARD])
        for first in range(0, len(sounds), SONGS_IN_A_SHARD)
    ]
    missing = [shard for shard in shards if not shard[0].is_file()]
    left = sum(len(own) for _, own in missing)
    with tqdm(total=len(sounds), initial=len(sounds) - left, desc=path.stem, unit="song") as bar:
        for (_, own), _ in map_shards(setup, missing, workers):
            bar.update(len(own))
    return [part for part, _ in shards]


class _Measuring:
    """The work of one process: numbers of the songs of a shard."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def __call__(self, shard: _Shard) -> None:
        with single_threads():
            write_file(shard[0], json.dumps([dict(self.measure(sound)) for sound in shard[1]]))


class _Embedding:
    """The work of one process: embeddings of the songs of a shard."""

    def __init__(self, network: AudioEmbedding, duration: float) -> None:
        self.network, self.duration = network, duration

    def __call__(self, shard: _Shard) -> None:
        with single_threads():
            embed_songs(self.network, shard[1], duration=self.duration).save(shard[0])
