"""Scores to a folder of songs: a FLAC file a song and `metadata.jsonl`, in the layout of datasets' AudioFolder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import soundfile
from tqdm.auto import tqdm

from fast_jukebox.audio.io import save_audio
from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
from fast_jukebox.data.tunes.scores import Score, natural_order
from fast_jukebox.data.tunes.synthesis import Player
from fast_jukebox.utils.files import JsonObject, write_file

METADATA_FILE = "metadata.jsonl"
_SONGS_BETWEEN_SAVES = 50


@dataclass
class RenderReport:
    """What `render_songs` did: `songs`, the rows of metadata.jsonl; `rendered` now; `failed`, the reasons by name."""

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
    """Play scores into files, and listen to each: do its notes sound, does nothing click?

    Each file is written whole or not at all, and the metadata after every fifty songs and at the end, also on errors;
    called again, what is finished by the same recipe is kept. A song that fails is reported and left out.

    Args:
        output_dir: made where it is missing.
        plan: scores with the number of their performance, such as `plan_performances` gives.
        splits: `"train"` or `"test"` by the scores' names.
        recipe: how they are played.
        soundfont: see [`~fast_jukebox.data.tunes.synthesis.Player`].
        processes: that play; by default one a core.
        progress: show a bar.

    Raises:
        ImportError: saying how to install what is missing.
        ValueError: there is no such soundfont.
        OSError: the files cannot be written.
    """
    player = Player(soundfont, recipe.sampling_rate)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row["file_name"]: row for row in _finished_rows(folder, recipe)}
    report = RenderReport()
    jobs = {_file_name(score, take): (score, take) for score, take in plan}
    jobs = {name: job for name, job in jobs.items() if name not in rows}
    processes = min(processes or os.cpu_count() or 1, max(len(jobs), 1))

    def keep(name: str, outcome: JsonObject | str) -> None:
        if isinstance(outcome, str):
            report.failed[name.removesuffix(".flac")] = outcome
            return
        rows[name] = {"file_name": name, **outcome}
        report.rendered += 1
        if report.rendered % _SONGS_BETWEEN_SAVES == 0:
            _write_rows(folder, rows)

    bar = tqdm(total=len(jobs), desc="songs", unit="song", disable=not progress)
    try:
        if processes == 1:
            for name, (score, take) in jobs.items():
                keep(name, _render_file(folder / name, score, take, splits[score.name], recipe, player))
                bar.update()
        else:
            with ProcessPoolExecutor(
                processes, get_context("spawn"), initializer=_start, initargs=(soundfont, recipe)
            ) as pool:
                futures = {
                    pool.submit(_render_in_worker, folder / name, score, take, splits[score.name]): name
                    for name, (score, take) in jobs.items()
                }
                try:
                    for future in as_completed(futures):
                        keep(futures[future], future.result())
                        bar.update()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        bar.close()
        _write_rows(folder, rows)
    report.songs = [rows[name] for name in sorted(rows, key=natural_order)]
    return report


def _file_name(score: Score, take: int) -> str:
    return f"{score.name}.flac" if take == 0 else f"{score.name}.{take}.flac"


_worker: JsonObject = {}


def _start(soundfont: Any, recipe: SongRecipe) -> None:
    """Load the soundfont, once in each process."""
    _worker.update(recipe=recipe, player=Player(soundfont, recipe.sampling_rate))


def _render_in_worker(path: Path, score: Score, take: int, split: str) -> JsonObject | str:
    return _render_file(path, score, take, split, _worker["recipe"], _worker["player"])


def _render_file(
    path: Path, score: Score, take: int, split: str, recipe: SongRecipe, player: Player
) -> JsonObject | str:
    """Play a score into a file: its row, or why there is none."""
    try:
        audio, row = render_song(score, recipe, player, take=take, split=split)
    except ValueError as error:
        return str(error)
    save_audio(path, audio, recipe.sampling_rate)
    return row


def _finished_rows(folder: Path, recipe: SongRecipe) -> list[JsonObject]:
    """Rows of the folder's metadata whose file is there, as long as it should be and made by this recipe."""
    path = folder / METADATA_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.split("\n") if line]
    finished = []
    for row in rows:
        file = folder / row["file_name"]
        if row.get("recipe") == recipe.fingerprint() and file.exists():
            info = soundfile.info(str(file))
            if info.frames == round(row["duration"] * recipe.sampling_rate):
                finished.append(row)
    return finished


def _write_rows(folder: Path, rows: dict[str, JsonObject]) -> None:
    lines = [json.dumps(rows[name], ensure_ascii=False) + "\n" for name in sorted(rows, key=natural_order)]
    write_file(folder / METADATA_FILE, "".join(lines))
