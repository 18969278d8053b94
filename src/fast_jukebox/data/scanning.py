"""Songs of a folder or of a data set of the Hub: found, fetched and looked at, with a reason for each unusable one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from fast_jukebox.audio.io import MAX_DURATION, audio_info, stream_audio
from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.utils.files import path_within

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
"""Files that `load_songs` looks at; others in the folder are left alone."""

METADATA_FILE = "metadata.jsonl"
MAX_METADATA_BYTES = 64 * 2**20
MEASURED = ("audio", "file_name", "duration", "sampling_rate")
"""Columns that are found by looking at a song."""
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SongLimits:
    """What a song must be to be used.

    Attributes:
        min_duration: seconds that it lasts at least.
        max_duration: seconds that it lasts at most; the file's header is asked before anything is read.
        max_bytes: size of its file at most.
        silence: a song whose loudest sample stays below this, of a full scale of 1, is silent.
        whole: decode each file to its end, so that one that is cut off or broken later on is found. Otherwise a file
            is read until it sounds.
    """

    min_duration: float = 1.0
    max_duration: float = MAX_DURATION
    max_bytes: int = 2 * 2**30
    silence: float = 1e-3
    whole: bool = True

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet, naming the field."""
        if not 0 <= self.min_duration <= self.max_duration:
            raise ValueError(f"`min_duration` must be from 0 to `max_duration`, got {self.min_duration!r}")
        if not 0 < self.max_duration < float("inf"):
            raise ValueError(f"`max_duration` must be over 0 and finite, got {self.max_duration!r}")
        if not self.max_bytes > 0:
            raise ValueError(f"`max_bytes` must be over 0, got {self.max_bytes!r}")
        if not 0 <= self.silence < 1:
            raise ValueError(f"`silence` must be in [0, 1), got {self.silence!r}")


@dataclass
class SongScan:
    """What `scan_songs` found: `songs`, the rows that can be used, and `skipped`, the reason by name for the others."""

    songs: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def find_dataset(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """A folder as it is, or the folder that a data set of the Hub was fetched to.

    Args:
        source: a folder, or `"organisation/name"`.
        revision: branch, tag or commit hash.
        token: of the Hub; the one logged in with by default.
        local_files_only: take it from the cache.

    Raises:
        FileNotFoundError: there is no such folder, and it cannot be a name.
        HubError: there is no such data set or revision, no right to read it, no connection, or, offline, it is not
            wholly in the cache.
    """
    if Path(source).is_dir():
        return Path(source)
    if not isinstance(source, str) or not _REPOSITORY.fullmatch(source):
        raise FileNotFoundError(f"there is no folder {str(source)!r}")
    with clear_hub_errors(source, revision, kind="dataset"):
        return Path(
            snapshot_download(
                source, repo_type="dataset", revision=revision, token=token, local_files_only=local_files_only
            )
        )


def scan_songs(folder: str | os.PathLike[str], *, limits: SongLimits | None = None, progress: bool = False) -> SongScan:
    """Look at every song of a folder, as `load_songs` does, and say which can be used and why the others cannot."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    facts = _read_metadata(folder / METADATA_FILE)
    names = {path.relative_to(folder).as_posix() for path in _audio_files(folder)}
    columns = sorted({key for row in facts.values() for key in row} - set(MEASURED))
    scan = SongScan()
    for name in tqdm(sorted(names | set(facts)), desc="looking at songs", unit="song", disable=not progress):
        try:
            path = _song_path(folder, name)
            seconds, rate = check_song(path, limits or SongLimits())
        except (ValueError, OSError) as error:
            scan.skipped[name] = str(error)
            continue
        row = {"audio": str(path), "file_name": name, "duration": seconds, "sampling_rate": rate}
        scan.songs.append(row | {column: facts.get(name, {}).get(column) for column in columns})
    return scan


def scan_fetched_songs(folder: Path, limits: SongLimits, progress: bool = False) -> SongScan | None:
    """Songs of a folder with a `metadata.jsonl` a split (`train/` and others), or of one that came from the Hub.

    Returns:
        As [`scan_songs`], each row with its split where there are splits; None for
        every other folder.
    """
    splits = {path.name: path for path in sorted(folder.iterdir()) if (path / METADATA_FILE).is_file()}
    store = folder.parent.parent / "blobs"  # where the links of a folder in the client's cache lead to
    fetched = folder.parent.name == "snapshots" and store.is_dir()
    if (folder / METADATA_FILE).is_file() or not (fetched or "train" in splits):
        splits = {}
    if not splits and not fetched:
        return None
    scan = SongScan()
    rows: list[tuple[Path, str, dict[str, Any]]] = []
    for split, root in splits.items() or [("", folder)]:
        facts = _read_metadata(root / METADATA_FILE)
        names = {path.relative_to(root).as_posix() for path in _audio_files(root)}
        given = {"split": split} if split else {}
        rows += [(root, name, given | facts.get(name, {})) for name in sorted(names | set(facts))]
    columns = sorted({key for _, _, facts in rows for key in facts} - set(MEASURED))
    for root, name, facts in tqdm(rows, desc="looking at songs", unit="song", disable=not progress):
        try:
            path = _song_path(root, name, (store.resolve(),) if fetched else ())
            seconds, rate = check_song(path, limits)
        except (ValueError, OSError) as error:
            scan.skipped[(root / name).relative_to(folder).as_posix()] = str(error)
            continue
        row = {"audio": str(path), "file_name": name, "duration": seconds, "sampling_rate": rate}
        scan.songs.append(row | {column: facts.get(column) for column in columns})
    return scan


def _audio_files(folder: Path) -> Iterator[Path]:
    """Sound files at any depth, by suffix; hidden files and folders and folders behind links are left alone."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(AUDIO_SUFFIXES):
                yield Path(root) / name


def _read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by `file_name`; empty where there is no file."""
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ValueError(f"{path} is larger than {MAX_METADATA_BYTES} bytes")
    rows: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise ValueError(f"{path}, line {number}: must be an object with a `file_name`, got {line[:80]!r}")
        name = Path(row["file_name"]).as_posix()
        if name in rows:
            raise ValueError(f"{path}, line {number}: `file_name` {name!r} stands there twice")
        split = row.get("split")
        if split is not None and not (isinstance(split, str) and _SPLIT_NAME.fullmatch(split)):
            raise ValueError(f"{path}, line {number}: `split` must be a word such as 'train', got {split!r}")
        rows[name] = row
    return rows


def _song_path(folder: Path, name: str, also: tuple[Path, ...] = ()) -> Path:
    """The absolute path of a song, which must lie in the folder, or in `also`, when every link is followed."""
    path = path_within(folder, name, also)
    if not path.is_file():
        raise ValueError("is named in the metadata but is not there")
    if path.stat().st_size == 0:
        raise ValueError("is empty")
    return path


def check_song(source: Any, limits: SongLimits) -> tuple[float, int]:
    """Duration and sampling rate of a song that can be used; a ValueError with the reason for one that cannot."""
    size = source.stat().st_size if isinstance(source, Path) else len(source.get("bytes") or b"")
    if size > limits.max_bytes:
        raise ValueError(f"has {size} bytes, more than `max_bytes` ({limits.max_bytes})")
    info = audio_info(source)
    if info.duration is not None and info.duration < limits.min_duration:
        raise ValueError(f"lasts {info.duration:.3g} s, less than `min_duration` ({limits.min_duration:g} s)")
    if info.duration is not None and info.duration > limits.max_duration:
        raise ValueError(f"lasts {info.duration:.6g} s, more than `max_duration` ({limits.max_duration:g} s)")
    frames, peak = 0, 0.0
    for block in stream_audio(source, info.sampling_rate, max_duration=limits.max_duration):
        frames += len(block)
        peak = max(peak, float(block.abs().max()))
        if not limits.whole and peak >= limits.silence and info.frames is not None:
            return info.frames / info.sampling_rate, info.sampling_rate
    seconds = frames / info.sampling_rate
    if info.duration is not None and seconds < info.duration - 0.1:
        raise ValueError(f"is cut off: {seconds:.6g} s of {info.duration:.6g} s can be read")
    if frames == 0 or seconds < limits.min_duration:
        raise ValueError(f"lasts {seconds:.3g} s, less than `min_duration` ({limits.min_duration:g} s)")
    if peak < limits.silence:
        raise ValueError(f"is silent: its loudest sample is {peak:.2g}, below `silence` ({limits.silence:g})")
    return seconds, info.sampling_rate
