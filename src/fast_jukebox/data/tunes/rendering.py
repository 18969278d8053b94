"""Scores to a folder of songs: a FLAC file a song and `metadata.jsonl`, in the layout of datasets' AudioFolder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import soundfile
from tqdm.auto import tqdm

from fast_jukebox.audio.io import save_audio
from fast_jukebox.data.metadata import METADATA_FILE, json_rows, metadata_lines
from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
from fast_jukebox.data.tunes.scores import Score, natural_order, require
from fast_jukebox.data.tunes.synthesis import Player, soundfont_path
from fast_jukebox.utils.files import JsonObject, check_apart, write_file
from fast_jukebox.utils.workers import Workers, map_shards

_SONGS_BETWEEN_SAVES = 50


@dataclass
class RenderReport:
    """Result of `render_songs`: `songs`, the rows of metadata.jsonl; `rendered` now; `failed`, the reasons by name."""

    songs: list[JsonObject] = field(default_factory=list)
    rendered: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of all songs together."""
        return sum(song["duration"] for song in self.songs)


def render_songs(
    output_dir: str | os.PathLike[str],
    plan: Sequence[tuple[Score, int]],
    splits: Mapping[str, str],
    recipe: SongRecipe,
    *,
    soundfont: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> RenderReport:
    """Play scores into files, and check that the notes sound and nothing clicks.

    Each file is written completely or not at all, and the metadata after every fifty songs and at the end, also on
    errors; called again, songs finished by the same recipe are kept. A song that fails is reported and left out.

    Args:
        plan: scores with the number of their performance, as of `plan_performances`.
        splits: `"train"` or `"test"` by the scores' names.
        processes: number of them; by default one a core.

    Raises:
        ImportError: saying how to install what is missing.
        ValueError: there is no such soundfont, or two scores' names differ by capital letters alone.
        OSError: the files cannot be written.
    """
    soundfont = soundfont_path(soundfont)  # missing packages and files are named here, not in each process
    require("tinysoundfont")
    check_apart(sorted({score.name for score, _ in plan}), "scores of `plan`")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row["file_name"]: row for row in _finished_rows(folder, recipe)}
    report = RenderReport()
    jobs = [_Job(score, take, splits[score.name]) for score, take in plan]
    jobs = list({job.file_name: job for job in jobs if job.file_name not in rows}.values())
    workers = Workers(min(processes or os.cpu_count() or 1, max(len(jobs), 1)))
    setup = partial(_Renderer, folder.absolute(), recipe, soundfont)
    try:
        with tqdm(total=len(jobs), desc="songs", unit="song", disable=not progress) as bar:
            for job, outcome in map_shards(setup, jobs, workers):
                bar.update()
                if isinstance(outcome, str):
                    report.failed[job.file_name.removesuffix(".flac")] = outcome
                    continue
                rows[job.file_name] = {"file_name": job.file_name, **outcome}
                report.rendered += 1
                if report.rendered % _SONGS_BETWEEN_SAVES == 0:
                    _write_rows(folder, rows)
    finally:
        _write_rows(folder, rows)
    report.songs = [rows[name] for name in sorted(rows, key=natural_order)]
    return report


@dataclass(frozen=True)
class _Job:
    """The `take`-th performance of a score."""

    score: Score
    take: int
    split: str

    @property
    def file_name(self) -> str:
        return f"{self.score.name}.flac" if self.take == 0 else f"{self.score.name}.{self.take}.flac"


class _Renderer:
    """The work of one process, with the soundfont loaded: a score to a file, and its row, or why there is none."""

    def __init__(self, folder: Path, recipe: SongRecipe, soundfont: Path) -> None:
        self.folder, self.recipe, self.player = folder, recipe, Player(soundfont, recipe.sampling_rate)

    def __call__(self, job: _Job) -> JsonObject | str:
        try:
            audio, row = render_song(job.score, self.recipe, self.player, take=job.take, split=job.split)
        except ValueError as error:
            return str(error)
        save_audio(self.folder / job.file_name, audio, self.recipe.sampling_rate)
        return row


def _finished_rows(folder: Path, recipe: SongRecipe) -> list[JsonObject]:
    """Rows of the folder's metadata of this recipe whose file is there, and complete."""
    path = folder / METADATA_FILE
    finished = []
    for _, row in json_rows(path) if path.exists() else ():
        if not isinstance(row, dict) or row.get("recipe") != recipe.fingerprint():
            continue
        file, frames = folder / row["file_name"], round(row["duration"] * recipe.sampling_rate)
        if file.exists() and soundfile.info(str(file)).frames == frames:
            finished.append(row)
    return finished


def _write_rows(folder: Path, rows: dict[str, JsonObject]) -> None:
    write_file(folder / METADATA_FILE, metadata_lines(rows[name] for name in sorted(rows, key=natural_order)))
