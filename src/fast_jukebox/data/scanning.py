"""Search and check of the songs in a folder or in a data set of the Hub."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from fast_jukebox.audio.io import MAX_DURATION, audio_info, load_audio, stream_audio
from fast_jukebox.data.metadata import ADDRESS, MAX_METADATA_BYTES, METADATA_FILES, read_metadata, tidy_name
from fast_jukebox.data.splits import split_of_folder
from fast_jukebox.hub import clear_hub_errors, prefer_cache
from fast_jukebox.utils.files import JsonObject, check_folder, path_within
from fast_jukebox.utils.text import printable, shown

logger = logging.getLogger(__name__)

READ_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64"),
)
"""Suffixes of files that libsndfile reads."""

AUDIO_SUFFIXES = (
    *READ_SUFFIXES,
    *(".m4a", ".m4b", ".aac", ".wma", ".amr", ".ape", ".wv", ".mpc", ".ac3", ".dsf", ".dff", ".mka", ".ra"),
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp", ".wmv", ".flv"),
)
"""Suffixes of files that `load_songs` checks; others in the folder are ignored."""

MEASURED = ("audio", "file_name", "duration", "sampling_rate")
"""Columns of every song, which no metadata can set."""

_TAIL = 2048
"""Samples at a song's end that are read again from an offset."""
_NAMED = 3
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

Song: TypeAlias = JsonObject


@dataclass(frozen=True)
class SongLimits:
    """Limits of the songs that are used.

    Attributes:
        max_duration: in seconds; checked before anything is decoded.
        max_bytes: of a file.
        silence: a song whose loudest sample stays below this, of a full scale of 1, is silent.
        complete: decode each file to its end, so that later damage is found, and its end again from an offset, as
            training does. Otherwise a file is read until it sounds.
        max_metadata_bytes: of a `metadata.jsonl` or `metadata.csv`.
    """

    min_duration: float = 1.0
    max_duration: float = MAX_DURATION
    max_bytes: int = 2 * 2**30
    silence: float = 1e-3
    complete: bool = True
    max_metadata_bytes: int = MAX_METADATA_BYTES

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet, naming the field."""
        if not 0 <= self.min_duration <= self.max_duration:
            raise ValueError(f"`min_duration` must be from 0 to `max_duration`, got {shown(self.min_duration)}")
        if not 0 < self.max_duration < float("inf"):
            raise ValueError(f"`max_duration` must be over 0 and finite, got {shown(self.max_duration)}")
        for name in ("max_bytes", "max_metadata_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be over 0, got {shown(getattr(self, name))}")
        if not 0 <= self.silence < 1:
            raise ValueError(f"`silence` must be in [0, 1), got {shown(self.silence)}")


@dataclass
class SongScan:
    """The songs that can be used, the reasons by name for others, and by name what of a used song is not read."""

    songs: list[Song] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def find_dataset(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """A folder, or the folder that a data set of the Hub was fetched to.

    Raises:
        FileNotFoundError: there is no such folder, and it cannot be a name.
        PermissionError: it is a folder that may not be read.
        HubError: there is no such data set or revision, no right to read it, no connection, or, offline, it is not
            completely in the cache.
    """
    check_folder(source)
    if Path(source).is_dir():
        if revision is not None:
            logger.warning("`revision` %r is ignored: %s is a folder", revision, printable(source))
        return Path(source)
    if not isinstance(source, str) or not _REPOSITORY.fullmatch(source):
        raise FileNotFoundError(f"there is no folder {str(source)!r}")
    download = prefer_cache(source, {"local_files_only": local_files_only}, kind="dataset")
    with clear_hub_errors(source, revision, kind="dataset"):
        return Path(snapshot_download(source, repo_type="dataset", revision=revision, token=token, **download))


def scan_songs(folder: str | os.PathLike[str], *, limits: SongLimits | None = None, progress: bool = False) -> SongScan:
    """Check every song of a folder, as `load_songs` does.

    Args:
        folder: any layout that [`~fast_jukebox.data.songs.load_songs`] reads but Parquet.

    Raises:
        ValueError: a line of the metadata is wrong.
        FileNotFoundError: there is no such folder.
    """
    folder, limits = Path(folder), limits or SongLimits()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {printable(folder)!r}")
    store = folder.parent.parent / "blobs"  # where the links of a folder in the Hub client's cache lead to
    links = (store.resolve(),) if folder.parent.name == "snapshots" and store.is_dir() else ()
    rows = list(_rows(folder, limits, fetched=bool(links)))
    columns = sorted({key for _, _, metadata in rows for key in metadata} - set(MEASURED))
    scan = SongScan(skipped={path.relative_to(folder).as_posix(): "may not be read" for path in _unreadable(folder)})
    for root, name, metadata in tqdm(rows, desc="checking songs", unit="song", disable=not progress):
        path = root / name
        try:
            path = path_within(root, name, links)
            if not _is_file(path):
                if ADDRESS.match(name):
                    raise ValueError("is an address in the metadata, where the name of a file must stand: download it")
                raise ValueError("is named in the metadata but is not there")
            seconds, rate, note = check_song(path, limits)
        except (ValueError, OSError) as error:
            shown = name if ADDRESS.match(name) else (root.relative_to(folder) / name).as_posix()
            scan.skipped[shown] = str(error).removeprefix(f"{printable(path)} ")
            continue
        if note:
            scan.notes[name] = note
        row = {"audio": str(path), "file_name": name, "duration": seconds, "sampling_rate": rate}
        scan.songs.append(row | {column: metadata.get(column) for column in columns})
    return scan


def report(source: str, scan: SongScan) -> None:
    """Warn of every song that was skipped or is not read completely, a line a reason; a `ValueError` without any."""
    for verb, found in (("skipped", scan.skipped), ("used, though not read completely:", scan.notes)):
        names: dict[str, list[str]] = defaultdict(list)
        for name, reason in found.items():
            names[reason].append(printable(name))
        for reason, its_names in names.items():
            more = f" and {len(its_names) - _NAMED} more" if len(its_names) > _NAMED + 1 else ""
            listed = ", ".join(its_names[:_NAMED] if more else its_names)
            logger.warning("%s: %s %s%s: %s", printable(source), verb, listed, more, reason)
    if not scan.songs:
        reasons = "; ".join(f"{printable(name)}: {reason}" for name, reason in list(scan.skipped.items())[:_NAMED])
        raise ValueError(
            f"{printable(source)} holds no song that can be used ({len(scan.skipped)} skipped; "
            f"{reasons or _other_files(Path(source))})"
        )


def check_song(source: Path | JsonObject, limits: SongLimits) -> tuple[float, int, str | None]:
    """Duration in seconds and sampling rate of a song that can be used, and what of it is not read, if any.

    A `ValueError` states why it cannot be used, an `OSError` why it cannot be opened.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source.get("bytes") or b"")
    if size > limits.max_bytes:
        raise ValueError(f"has {size} bytes, more than `max_bytes` ({limits.max_bytes})")
    if isinstance(source, Path) and any("\ud800" <= letter <= "\udfff" for letter in str(source)):
        raise ValueError("has a name that is no UTF-8 text, which a dataset cannot hold: rename it")
    info = audio_info(source)
    if info.missing is not None:
        raise ValueError(f"is cut off: {info.missing}")
    if info.duration is not None and info.duration < limits.min_duration:
        raise ValueError(f"lasts {info.duration:.3g} s, less than `min_duration` ({limits.min_duration:g} s)")
    if info.duration is not None and info.duration > limits.max_duration:
        raise ValueError(f"lasts {info.duration:.6g} s, more than `max_duration` ({limits.max_duration:g} s)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not read is reported with the song
        frames, peak, tail = 0, 0.0, torch.zeros(0)
        for block in stream_audio(source, info.sampling_rate, max_duration=limits.max_duration):
            frames += len(block)
            peak = max(peak, float(block.abs().max()))
            tail = torch.cat([tail, block])[-_TAIL:]
            if not limits.complete and peak >= limits.silence and info.frames is not None:
                return info.frames / info.sampling_rate, info.sampling_rate, info.left_out
        seconds = frames / info.sampling_rate
        if info.duration is not None and seconds < info.duration - 0.1:
            raise ValueError(f"is cut off: {seconds:.6g} s of {info.duration:.6g} s can be read")
        if frames == 0 or seconds < limits.min_duration:
            raise ValueError(f"lasts {seconds:.3g} s, less than `min_duration` ({limits.min_duration:g} s)")
        if peak < limits.silence:
            raise ValueError(f"is silent: its loudest sample is {peak:.2g}, below `silence` ({limits.silence:g})")
        again = load_audio(source, info.sampling_rate, offset=(frames - len(tail)) / info.sampling_rate)
        if again.shape != tail.shape or not torch.allclose(again, tail, atol=1e-3):
            raise ValueError("gives another sound when it is read from an offset: convert it to FLAC")
    return seconds, info.sampling_rate, info.left_out


def content_keys(sources: Iterable[Path | bytes]) -> list[Hashable]:
    """Keys that are equal for sounds of the same bytes, of files (only those of the same size are read) or of bytes, of
    which one is held at a time.
    """
    found = [
        (source.stat().st_size, source) if isinstance(source, Path) else (len(source), _digest(source))
        for source in sources
    ]
    counts = Counter(size for size, _ in found)
    return [
        (size, source if isinstance(source, str) else _digest(source) if counts[size] > 1 else "")
        for size, source in found
    ]


def _digest(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.blake2b(source).hexdigest()
    digest = hashlib.blake2b()
    with source.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _rows(folder: Path, limits: SongLimits, fetched: bool) -> Iterator[tuple[Path, str, Song]]:
    """The folder that a song's name is relative to, the name, and the song's metadata.

    Where each split has a folder with metadata (`train/metadata.jsonl` and others), names are relative to those, as
    [`~fast_jukebox.data.push.push_songs`] writes them. Else folders such as `train` and `test` are splits where the
    metadata names none.
    """
    splits = {path.name: path for path in sorted(folder.iterdir()) if _has_metadata(path)}
    elsewhere = any(name.split("/", 1)[0] not in splits for name in _sound_names(folder))
    if _has_metadata(folder) or elsewhere or not (fetched or "train" in splits):
        splits = {}
    if splits:
        for split, root in splits.items():
            found = _described(root, limits)
            yield from ((root, name, {"split": split} | found[name]) for name in sorted(found))
        return
    found = _described(folder, limits)
    by_folder = {name: split_of_folder(name) for name in found}
    kinds = {split for split in by_folder.values() if split}
    if any(row.get("split") for row in found.values()) or "train" not in kinds or len(kinds) < 2:
        by_folder = {}
    for name in sorted(found):
        its_split = by_folder.get(name)
        yield folder, name, ({"split": its_split} if its_split else {}) | found[name]


def _is_file(path: Path) -> bool:
    """False too where the name is too long for a file."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _has_metadata(folder: Path) -> bool:
    return any((folder / name).is_file() for name in METADATA_FILES)


def _described(root: Path, limits: SongLimits) -> dict[str, Song]:
    """Metadata of each song below a folder by its name there, also of songs that are named and missing."""
    found: dict[str, Song] = {name: {} for name in _sound_names(root)}
    composed = {unicodedata.normalize("NFC", name): name for name in found}
    for below in sorted({below for below, name in _files(root) if name in METADATA_FILES}):
        for given, metadata in read_metadata(root / below, limits.max_metadata_bytes).items():
            name = tidy_name(root, (below / given).as_posix())
            if name not in found:  # on the disk the name may be written otherwise (NFD), and Windows writes folders so
                asked = unicodedata.normalize("NFC", name)
                name = composed.get(asked) or composed.get(asked.replace("\\", "/"), name)
            if name not in found and _is_file(root / name):  # where capital letters and small ones are the same
                alike = [other for other in found if other.casefold() == name.casefold()]
                name = next((other for other in alike if (root / other).samefile(root / name)), name)
            if name not in found and ADDRESS.match(given):
                name = given  # whose slashes are not those of folders
            if found.get(name):
                raise ValueError(f"{root / below}: the metadata names {shown(name)} twice")
            found[name] = metadata
    return found


def _sound_names(root: Path) -> Iterator[str]:
    """Sound files below a folder, by suffix."""
    return ((below / name).as_posix() for below, name in _files(root) if name.lower().endswith(AUDIO_SUFFIXES))


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Folder, relative to `root`, and name of each file; hidden files and folders behind links are left out."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(root)
        yield from ((below, name) for name in sorted(files) if not name.startswith("."))


def _unreadable(folder: Path) -> list[Path]:
    """Folders below one that this user may not read."""
    errors: list[OSError] = []
    for _ in os.walk(folder, onerror=errors.append):
        pass
    return [Path(error.filename) for error in errors if isinstance(error, PermissionError)]


def _other_files(folder: Path) -> str:
    """A summary of a folder without songs."""
    suffixes: Counter[str] = Counter()
    suffixes.update(Path(name).suffix.lower() or "no suffix" for _, name in _files(folder))
    if not suffixes:
        return "it is empty"
    listed = ", ".join(f"{count} of {suffix}" for suffix, count in suffixes.most_common(_NAMED))
    return f"it holds other files: {printable(listed)}"
