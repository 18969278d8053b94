"""Scores to codes: processes play songs, and one device encodes them meanwhile.

The result is a folder as of [`~fast_jukebox.data.codes.encode_songs`], without files of sound. Held-out songs come
first, so that a training may begin on the first shards.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from fast_jukebox.data.manifest import MANIFEST, songs_manifest
from fast_jukebox.data.tunes.performing import seconds_about
from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
from fast_jukebox.data.tunes.scores import Score, require
from fast_jukebox.data.tunes.synthesis import Player, soundfont_path
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.utils.files import JsonObject, replacing, write_file
from fast_jukebox.utils.workers import Pool, Workers, finished

_SCALE = 32767
Song: TypeAlias = tuple[np.ndarray, JsonObject]
"""Samples int16 (samples,) and row of a song."""


@dataclass
class EncodingReport:
    """Result of `SongEncoder.encode`: rows of the songs by split, and reasons of failures by name."""

    songs: dict[str, list[JsonObject]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    @property
    def hours(self) -> float:
        """Duration of all songs together."""
        return sum(row["duration"] for rows in self.songs.values() for row in rows) / 3600


@dataclass(frozen=True)
class _Job:
    """One performance to render."""

    score: Score
    take: int
    split: str
    recipe: SongRecipe
    soundfont: str

    @property
    def file_name(self) -> str:
        return f"{self.score.name}.{self.take}.flac"

    @property
    def seconds(self) -> float:
        """About how long it will be."""
        return min(self.recipe.times(self.score) * seconds_about(self.score), self.recipe.longest)


class SongEncoder:
    """Processes that play scores, and a VQ-VAE that encodes what they played.

    ```python
    with SongEncoder(vqvae) as encoder:
        encoder.encode(plan_performances(scores, 3000), splits_of(scores), SongRecipe(), "runs/codes")
    ```

    Args:
        processes: that play; by default as many as the machine has cores, less one.
        batch_size: songs encoded at once, of about the same length.
        levels: whose codes are kept; all by default.
    """

    def __init__(
        self,
        vqvae: FastJukeboxVQVAE,
        *,
        processes: int | None = None,
        batch_size: int = 16,
        levels: Sequence[int] | None = None,
    ) -> None:
        self.vqvae, self.batch_size = vqvae, batch_size
        self.levels = sorted(set(range(vqvae.config.num_levels) if levels is None else levels))
        processes = max(1, (os.cpu_count() or 2) - 1) if processes is None else processes
        self._pool: Pool[_Job, Song | str] = Pool(_Renderer, Workers(processes))

    def __enter__(self) -> SongEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.stop()

    def encode(
        self,
        plan: Sequence[tuple[Score, int]],
        splits: Mapping[str, str],
        recipe: SongRecipe,
        folder: str | os.PathLike[str],
        *,
        soundfont: str | os.PathLike[str] | None = None,
        stop_at: float | None = None,
        progress: bool = True,
    ) -> EncodingReport:
        """Play and encode performances; called again, what is encoded is kept.

        Args:
            plan: of [`~fast_jukebox.data.tunes.recipe.plan_performances`]; those of held-out scores are done first.
            splits: `"train"` or `"test"` by the scores' names.
            stop_at: Unix time after which no further song is begun.

        Raises:
            ImportError: saying how to install what is missing.
            ValueError: the recipe's sampling rate is not the VQ-VAE's, or the folder holds codes of another recipe.
            OSError: the shards cannot be written.
        """
        rate = self.vqvae.config.sampling_rate
        if recipe.sampling_rate != rate:
            raise ValueError(f"`sampling_rate` of the recipe must be the VQ-VAE's, {rate}, got {recipe.sampling_rate}")
        soundfont = str(soundfont_path(soundfont))  # missing packages and files are named here, not in each process
        require("tinysoundfont")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shards = _Shards(folder, self.vqvae, recipe, self.levels)
        jobs = [_Job(score, take, splits[score.name], recipe, soundfont) for score, take in plan]
        jobs = _ordered([job for job in jobs if job.file_name not in shards.done], 8 * self.batch_size)
        report = EncodingReport(songs=shards.songs)
        ready: dict[str, list[Song]] = {"test": [], "train": []}
        begun = 0
        outcomes = self._played(jobs, stop_at)
        bar = tqdm(total=len(jobs), desc="songs to codes", unit="song", disable=not progress)
        # One batch is encoded while the next is received from the processes that play.
        with bar, contextlib.closing(outcomes), ThreadPoolExecutor(1) as encoding:
            written: Future[None] | None = None

            def write(split: str) -> Future[None]:
                if written is not None:
                    written.result()
                songs, ready[split] = ready[split], []
                return encoding.submit(shards.write, split, songs)

            for job, outcome in outcomes:
                bar.update()
                begun += 1
                if isinstance(outcome, str):
                    report.failed[job.file_name] = outcome
                    continue
                ready[job.split].append(outcome)
                if len(ready[job.split]) >= self.batch_size:
                    written = write(job.split)
            for split in ready:
                if ready[split]:
                    written = write(split)
            if written is not None:
                written.result()
        report.complete = begun == len(jobs)
        shards.finish()
        return report

    def _played(self, jobs: Sequence[_Job], stop_at: float | None) -> Generator[tuple[_Job, Song | str], None, None]:
        """The songs, or the reasons why there are none, as they come; some are played ahead of the encoding."""
        waiting: dict[Future[Song | str], _Job] = {}
        try:
            for job in jobs:
                if stop_at is not None and time.time() >= stop_at:
                    break
                waiting[self._pool.submit(job)] = job
                if len(waiting) >= self._pool.count + 2 * self.batch_size:
                    yield from finished(waiting)
            while waiting:
                yield from finished(waiting)
        finally:
            for future in waiting:
                future.cancel()


def _ordered(jobs: list[_Job], group: int) -> list[_Job]:
    """Held-out songs first; within groups, songs of about the same length next to each other."""
    jobs = sorted(jobs, key=lambda job: job.split != "test")
    tests = sum(job.split == "test" for job in jobs)
    ordered: list[_Job] = []
    for part in (jobs[:tests], jobs[tests:]):
        for first in range(0, len(part), group):
            ordered += sorted(part[first : first + group], key=lambda job: job.seconds)
    return ordered


class _Renderer:
    """The work of one process: a performance to its samples and its row, or why there are none."""

    def __init__(self) -> None:
        self._players: dict[tuple[str, int], Player] = {}

    def __call__(self, job: _Job) -> Song | str:
        font = job.soundfont, job.recipe.sampling_rate
        if font not in self._players:
            self._players[font] = Player(*font)
        try:
            audio, row = render_song(
                job.score, job.recipe, self._players[font], take=job.take, split=job.split, check=False
            )
        except ValueError as error:
            return str(error)
        return np.rint(audio * _SCALE).astype(np.int16), {"file_name": job.file_name, **row}


class _Shards:
    """Parquet files of songs' codes, as `encode_songs` writes them; a `ValueError` for a folder of another recipe."""

    def __init__(self, folder: Path, vqvae: FastJukeboxVQVAE, recipe: SongRecipe, levels: Sequence[int]) -> None:
        import pyarrow.parquet

        self.folder, self.vqvae, self.levels = folder, vqvae.eval(), levels
        self.songs: dict[str, list[JsonObject]] = {"test": [], "train": []}
        self.counts = Counter[str]()
        for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9][0-9].parquet")):
            split, number = path.stem.rsplit("-", 1)
            names = [name for name in pyarrow.parquet.read_schema(path).names if not name.startswith("codes_")]
            self.songs[split] += pyarrow.parquet.read_table(path, columns=names).to_pylist()
            self.counts[split] = max(self.counts[split], int(number) + 1)
        found = {row.get("recipe") for rows in self.songs.values() for row in rows} - {recipe.fingerprint()}
        if found:
            raise ValueError(f"{folder} holds codes of another recipe: name another folder or empty this one")
        self.done = {row["file_name"] for rows in self.songs.values() for row in rows}

    def write(self, split: str, songs: list[Song]) -> None:
        """Encode songs and write them as one shard."""
        import pyarrow as pa
        import pyarrow.parquet

        hop = self.vqvae.config.hop_lengths[-1]
        longest = max(len(sound) for sound, _ in songs)
        batch = torch.zeros(len(songs), -(-longest // hop) * hop, dtype=torch.int16)
        for index, (sound, _) in enumerate(songs):
            batch[index, : len(sound)] = torch.from_numpy(sound)
        codes = self.vqvae.encode(batch.to(self.vqvae.device).float() / _SCALE, levels=self.levels)
        rows = [row for _, row in songs]
        columns: dict[str, object] = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
        for level, own in zip(self.levels, codes, strict=True):
            ratio = hop // self.vqvae.config.hop_lengths[level]
            counts = [max(len(sound) // hop, 1) * ratio for sound, _ in songs]
            narrow = own.to(torch.int32).cpu().numpy()
            values = np.concatenate([song[:count] for song, count in zip(narrow, counts, strict=True)])
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            kind = pa.uint16() if self.vqvae.config.codebook_size <= 2**16 else pa.int32()
            columns[f"codes_{level}"] = pa.ListArray.from_arrays(offsets, pa.array(values).cast(kind))
        path = self.folder / f"{split}-{self.counts[split]:05d}.parquet"
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(pa.table(columns), temporary, compression="lz4")
        self.counts[split] += 1
        self.songs[split] += rows

    def finish(self) -> None:
        """Write the manifest, which marks the folder as complete."""
        songs = {split: rows for split, rows in self.songs.items() if rows}
        write_file(self.folder / MANIFEST, json.dumps(songs_manifest(songs, self.vqvae), indent=2))
