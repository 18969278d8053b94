"""Scores to codes: processes play songs into shared memory, and one device encodes them meanwhile.

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
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context, shared_memory
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from fast_jukebox.data.manifest import MANIFEST, songs_manifest
from fast_jukebox.data.tunes.performing import TEMPI, beat_quarters
from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
from fast_jukebox.data.tunes.scores import Score, require
from fast_jukebox.data.tunes.synthesis import Player, soundfont_path
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.utils.files import JsonObject, replacing, write_file

_SCALE = 32767
Outcome: TypeAlias = tuple[int, JsonObject] | str
"""Samples and row of a song, or the reason of a failure."""


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
        beats = self.score.quarters / beat_quarters(self.score)
        return min(beats * 120 / sum(TEMPI[self.score.genre]), self.recipe.longest)


class SongEncoder:
    """Processes that play scores, and a VQ-VAE that encodes what they played.

    ```python
    with SongEncoder(vqvae) as encoder:
        encoder.encode(plan_performances(scores, 3000), splits_of(scores), SongRecipe(), "runs/codes")
    ```

    Args:
        processes: that play; by default as many as the machine has cores, less one.
        batch_size: songs encoded at once, of about the same length.
        longest: seconds of the longest song that any recipe allows; `3 * batch_size + processes` of them fit into the
            shared memory, 16 bits a sample.
        levels: whose codes are kept; all by default.
    """

    def __init__(
        self,
        vqvae: FastJukeboxVQVAE,
        *,
        processes: int | None = None,
        batch_size: int = 16,
        longest: float = 300.0,
        levels: Sequence[int] | None = None,
    ) -> None:
        self.vqvae, self.batch_size, self.longest = vqvae, batch_size, longest
        self.levels = sorted(set(range(vqvae.config.num_levels) if levels is None else levels))
        processes = max(1, (os.cpu_count() or 2) - 1) if processes is None else processes
        rate = vqvae.config.sampling_rate
        self._renderers = _Renderers(rate, processes, 3 * batch_size + processes, longest + 1)

    def __enter__(self) -> SongEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderers.close()

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
            ValueError: the recipe's sampling rate is not the VQ-VAE's, its songs may be longer than the encoder's, or
                the folder holds codes of another recipe.
            OSError: the shards cannot be written.
        """
        rate = self.vqvae.config.sampling_rate
        if recipe.sampling_rate != rate:
            raise ValueError(f"`sampling_rate` of the recipe must be the VQ-VAE's, {rate}, got {recipe.sampling_rate}")
        if recipe.longest > self.longest:
            raise ValueError(f"`longest` of the recipe must be at most {self.longest:g}, got {recipe.longest:g}")
        soundfont = str(soundfont_path(soundfont))  # missing packages and files are named here, not in each process
        require("tinysoundfont")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shards = _Shards(folder, self.vqvae, recipe, self.levels)
        jobs = [_Job(score, take, splits[score.name], recipe, soundfont) for score, take in plan]
        jobs = _ordered([job for job in jobs if job.file_name not in shards.done], 8 * self.batch_size)
        report = EncodingReport(songs=shards.songs)
        ready: dict[str, list[tuple[int, int, JsonObject]]] = {"test": [], "train": []}
        begun = 0
        outcomes = self._renderers.run(jobs, stop_at)
        bar = tqdm(total=len(jobs), desc="songs to codes", unit="song", disable=not progress)
        with bar, contextlib.closing(outcomes):
            for job, slot, outcome in outcomes:
                bar.update()
                begun += 1
                if isinstance(outcome, str):
                    report.failed[job.file_name] = outcome
                    self._renderers.free(slot)
                    continue
                length, row = outcome
                ready[job.split].append((slot, length, {"file_name": job.file_name, **row}))
                if len(ready[job.split]) >= self.batch_size:
                    shards.write(job.split, ready[job.split], self._renderers)
                    ready[job.split] = []
        for split, songs in ready.items():
            if songs:
                shards.write(split, songs, self._renderers)
        report.complete = begun == len(jobs)
        shards.finish()
        return report


def _ordered(jobs: list[_Job], group: int) -> list[_Job]:
    """Held-out songs first; within groups, songs of about the same length next to each other."""
    jobs = sorted(jobs, key=lambda job: job.split != "test")
    tests = sum(job.split == "test" for job in jobs)
    ordered: list[_Job] = []
    for part in (jobs[:tests], jobs[tests:]):
        for first in range(0, len(part), group):
            ordered += sorted(part[first : first + group], key=lambda job: job.seconds)
    return ordered


class _Renderers:
    """Processes that play songs into slots of a block of shared memory."""

    def __init__(self, sampling_rate: int, processes: int, slots: int, longest: float) -> None:
        self._capacity = round(longest * sampling_rate)
        self._memory = shared_memory.SharedMemory(create=True, size=2 * slots * self._capacity)
        self._slots = slots
        self._free: list[int] = []
        # The main module, with all that it imports, is loaded once for all processes where they can be forked off one.
        forked = "forkserver" in get_all_start_methods()
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=get_context("forkserver" if forked else "spawn"),
            initializer=_start_worker,
            initargs=(self._memory.name, self._capacity, sampling_rate),
        )

    def close(self) -> None:
        """End the processes and free the memory."""
        self._pool.shutdown(cancel_futures=True)
        self._memory.close()
        self._memory.unlink()

    def run(self, jobs: Sequence[_Job], stop_at: float | None) -> Generator[tuple[_Job, int, Outcome], None, None]:
        """Outcomes as they come: the job, its slot, and (samples, row) or the reason of a failure."""
        waiting: dict[Future[Outcome], tuple[_Job, int]] = {}
        self._free = list(range(self._slots))  # also those that an earlier run held when it failed
        rest = iter(jobs)
        job = next(rest, None)
        try:
            while job is not None or waiting:
                if job is not None and stop_at is not None and time.time() >= stop_at:
                    job = None
                while job is not None and self._free:
                    slot = self._free.pop()
                    waiting[self._pool.submit(_render, slot, job)] = job, slot
                    job = next(rest, None)
                if waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield *waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)  # so that nothing is played into a slot that the next run gives away

    def sound(self, slot: int, length: int) -> np.ndarray:
        """The samples in a slot, int16 (length,), valid until it is freed."""
        return np.ndarray((length,), np.int16, self._memory.buf, 2 * slot * self._capacity)

    def free(self, slot: int) -> None:
        """Release the slot."""
        self._free.append(slot)


_worker: JsonObject = {}


def _start_worker(memory: str, capacity: int, sampling_rate: int) -> None:
    """Find the shared memory, once in each process; soundfonts are loaded when they are first needed."""
    _worker.update(memory=shared_memory.SharedMemory(memory), capacity=capacity, rate=sampling_rate, players={})


def _render(slot: int, job: _Job) -> Outcome:
    """Play a song into a slot: its samples and its row, or why there are none."""
    players = _worker["players"]
    if job.soundfont not in players:
        players[job.soundfont] = Player(job.soundfont, _worker["rate"])
    player = players[job.soundfont]
    try:
        audio, row = render_song(job.score, job.recipe, player, take=job.take, split=job.split, check=False)
    except ValueError as error:
        return str(error)
    target = np.ndarray((len(audio),), np.int16, _worker["memory"].buf, 2 * slot * _worker["capacity"])
    target[:] = np.rint(audio * _SCALE)
    return len(audio), row


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

    def write(self, split: str, songs: list[tuple[int, int, JsonObject]], renderers: _Renderers) -> None:
        """Encode songs and write them as one shard; their slots are freed."""
        import pyarrow as pa
        import pyarrow.parquet

        hop = self.vqvae.config.hop_lengths[-1]
        longest = max(length for _, length, _ in songs)
        batch = torch.zeros(len(songs), -(-longest // hop) * hop, dtype=torch.int16)
        for index, (slot, length, _) in enumerate(songs):
            batch[index, :length] = torch.from_numpy(renderers.sound(slot, length))
            renderers.free(slot)
        codes = self.vqvae.encode(batch.to(self.vqvae.device).float() / _SCALE, levels=self.levels)
        rows = [row for _, _, row in songs]
        columns: dict[str, object] = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
        for level, own in zip(self.levels, codes, strict=True):
            ratio = hop // self.vqvae.config.hop_lengths[level]
            counts = [max(length // hop, 1) * ratio for _, length, _ in songs]
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
