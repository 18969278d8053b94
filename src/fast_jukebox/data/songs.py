"""A folder of songs to a `datasets` dataset: checked, split by song, the sound undecoded.

What cannot be used is reported by name with the reason and left out. Nothing here needs torchcodec, which datasets asks
for when it decodes sound or builds an AudioFolder: rows hold `{"path", "bytes"}`, and
[`load_audio`][fast_jukebox.audio.io.load_audio] reads those.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from fast_jukebox.data.scanning import (
    MEASURED,
    METADATA_FILE,
    SongLimits,
    SongScan,
    check_song,
    find_dataset,
    scan_fetched_songs,
    scan_songs,
)
from fast_jukebox.utils.files import writing

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)


def load_songs(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    test_share: float = 0.1,
    *,
    limits: SongLimits | None = None,
    progress: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> DatasetDict:
    """Songs, checked and split into `train` and `test`.

    Args:
        source: a folder of sound files, at any depth, with or without a `metadata.jsonl` whose rows have `file_name`
            (relative to the folder) and any other facts, or one such folder a split; a folder that `save_songs` made;
            the name of a data set of these layouts on the Hub; or a dataset with a column `audio`.
        test_share: share of the songs held out, in [0, 1). Which ones depends on their names alone. Splits that the
            metadata or the dataset has already go first, if they are more than one.
        limits: `SongLimits()` by default. Songs outside them are skipped with a warning that names them.
        progress: show a bar.
        revision, token, local_files_only: of a data set on the Hub, as in `from_pretrained`.

    Returns:
        A DatasetDict, its splits in the order of the songs' names. Columns: `audio` (undecoded, `{"path", "bytes"}`),
        `file_name`, `duration` (seconds) and `sampling_rate` as measured, and those of the metadata.

    Raises:
        ValueError: when no song is left, or naming the argument or the line of the metadata that is wrong.
        FileNotFoundError: when the folder is not there.
        HubError: when the data set cannot be read from the Hub.
    """
    from datasets import Dataset, DatasetDict

    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
        raise ValueError(f"`test_share` must be in [0, 1), got {test_share!r}")
    limits = limits or SongLimits()
    if isinstance(source, str | os.PathLike):
        folder = find_dataset(source, revision=revision, token=token, local_files_only=local_files_only)
        shards = sorted(folder.glob("data/*-of-*.parquet"))
        if not shards:
            scan = scan_fetched_songs(folder, limits, progress)
            scan = scan or scan_songs(folder, limits=limits, progress=progress)
            _report(str(source), scan)
            return _split(scan.songs, test_share)
        source = _load_parquet(shards)
    if isinstance(source, Dataset):
        source = DatasetDict({"": source})
    if not isinstance(source, DatasetDict):
        raise ValueError(f"`source` must be a folder, a Dataset or a DatasetDict, got {type(source)}")
    if len(source) == 1 and test_share > 0:
        source = DatasetDict({"": next(iter(source.values()))})
    checked = {name: _checked_dataset(name, rows, limits, progress) for name, rows in source.items()}
    checked = {name: rows for name, rows in checked.items() if len(rows)}
    if not checked:
        raise ValueError("`source` holds no song that can be used; the warnings name the reasons")
    if "" in checked:
        rows = checked[""]
        names = rows["split"] if "split" in rows.column_names else [None] * len(rows)
        chosen = _assign_splits(rows["file_name"], names, test_share)
        checked = {
            split: rows.select([index for index, name in enumerate(chosen) if name == split])
            for split in sorted(set(chosen), key=_split_order)
        }
    return DatasetDict(checked)


def save_songs(songs: DatasetDict, folder: str | os.PathLike[str], *, shard_bytes: int = 400 * 2**20) -> list[Path]:
    """Write songs as Parquet files that contain the sound itself, in the layout of a dataset on the Hub.

    The files are `data/SPLIT-00000-of-00003.parquet` and so on, each written whole or not at all; upload the folder as
    it is. `datasets.Dataset.to_parquet` alone would store the paths of this machine.

    Args:
        songs: what `load_songs` returns.
        folder: made where it is missing; it must not hold such files yet.
        shard_bytes: sound in one file, about.

    Returns:
        The files written.

    Raises:
        ValueError: when the folder holds Parquet files already.
    """
    import pyarrow.parquet

    data = Path(folder) / "data"
    data.mkdir(parents=True, exist_ok=True)
    if any(data.glob("*.parquet")):
        raise ValueError(f"`folder` holds songs already: {data}; name another one or delete them")
    written = []
    for split, rows in songs.items():
        groups = list(_shards(rows, shard_bytes))
        for number, (start, stop) in enumerate(groups):
            path = data / f"{split}-{number:05d}-of-{len(groups):05d}.parquet"
            table = _with_bytes(rows.select(range(start, stop)))
            # Small row groups, so that a reader need not hold a whole file's sound in memory.
            with writing(path) as file:
                pyarrow.parquet.write_table(table, file, row_group_size=8)
            written.append(path)
    return written


def _report(source: str, scan: SongScan) -> None:
    for name, reason in scan.skipped.items():
        logger.warning("%s: skipped %s: %s", source, name, reason)
    if not scan.songs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(scan.skipped.items())[:3])
        raise ValueError(f"{source} holds no song that can be used ({len(scan.skipped)} skipped; {reasons or 'empty'})")


def _split(songs: list[dict[str, Any]], test_share: float) -> DatasetDict:
    from datasets import Audio, Dataset, DatasetDict

    chosen = _assign_splits([song["file_name"] for song in songs], [song.get("split") for song in songs], test_share)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in sorted(set(chosen), key=_split_order)}
    for song, split in zip(songs, chosen, strict=True):
        rows[split].append(song)
    ordered = [song for split in rows.values() for song in split]
    columns = {column: [song[column] for song in ordered] for column in songs[0]}
    try:
        # As one, so that a column has the same type in every split, also where all songs of one split lack the fact.
        whole = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    except (TypeError, ValueError) as error:  # pyarrow's errors are of these types
        raise ValueError(f"{METADATA_FILE} has a column whose values are of several types: {error}") from error
    splits, start = {}, 0
    for split, its_rows in rows.items():
        splits[split] = whole.select(range(start, start + len(its_rows)))
        start += len(its_rows)
    return DatasetDict(splits)


def _assign_splits(names: Iterable[str], given: Iterable[str | None], test_share: float) -> list[str]:
    """A split for each name: the one given, or by the name's hash, with at least one song in each of train and test.

    Where all are given the same split, it says nothing about what to hold out, and the hash decides.
    """
    names, given = list(names), list(given)
    if test_share > 0 and len(set(given)) == 1:
        given = [None] * len(names)
    order = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    chosen = [
        split or ("test" if order[name] < test_share else "train") for name, split in zip(names, given, strict=True)
    ]
    if not any(given) and len(names) > 1 and test_share > 0:
        ranked = sorted(range(len(names)), key=lambda index: order[names[index]])
        chosen[ranked[0]], chosen[ranked[-1]] = "test", "train"
    return chosen


def _split_order(name: str) -> tuple[int, str]:
    return {"train": 0, "validation": 1, "test": 2}.get(name, 3), name


def _load_parquet(shards: list[Path]) -> DatasetDict:
    from datasets import load_dataset

    files: dict[str, list[str]] = {}
    for shard in shards:
        files.setdefault(shard.name.rsplit("-", 3)[0], []).append(str(shard))
    return load_dataset("parquet", data_files=files)


def _checked_dataset(split: str, rows: Dataset, limits: SongLimits, progress: bool) -> Dataset:
    """The rows whose song can be used, with the measured columns."""
    from datasets import Audio

    if "audio" not in rows.column_names:
        raise ValueError(f"`source` must have a column `audio`, got {rows.column_names}")
    rows = rows.cast_column("audio", Audio(decode=False))
    keep: list[int] = []
    measured: list[tuple[str, float, int]] = []
    for index, row in enumerate(tqdm(rows, desc="looking at songs", unit="song", disable=not progress)):
        sound = row["audio"] or {}
        name = row.get("file_name") or sound.get("path") or f"row {index}"
        try:
            if sound.get("bytes") is None and not sound.get("path"):
                raise ValueError("has no sound")
            duration, rate = check_song(sound if sound.get("bytes") is not None else Path(sound["path"]), limits)
        except (ValueError, OSError) as error:
            logger.warning("%s: skipped %s: %s", split or "songs", name, error)
            continue
        keep.append(index)
        measured.append((name, duration, rate))
    rows = rows.remove_columns([column for column in MEASURED[1:] if column in rows.column_names]).select(keep)
    for position, column in enumerate(MEASURED[1:]):
        rows = rows.add_column(column, [values[position] for values in measured])
    return rows


def _shards(rows: Dataset, shard_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of rows whose sound has about `shard_bytes`."""
    start, total = 0, 0
    for index, sound in enumerate(rows["audio"]):
        total += len(sound["bytes"]) if sound["bytes"] is not None else Path(sound["path"]).stat().st_size
        if total >= shard_bytes:
            yield start, index + 1
            start, total = index + 1, 0
    if start < len(rows):
        yield start, len(rows)


def _with_bytes(rows: Dataset) -> Any:
    """The rows as an Arrow table whose audio column holds each file's bytes, and its name without folders."""
    import pyarrow
    from datasets import Audio

    table = rows.with_format("arrow")[:]
    sounds = [
        {
            "bytes": sound["bytes"] if sound["bytes"] is not None else Path(sound["path"]).read_bytes(),
            "path": Path(sound["path"]).name if sound["path"] else None,
        }
        for sound in rows["audio"]
    ]
    schema = rows.features.copy()
    schema["audio"] = Audio()
    column = pyarrow.array(sounds, type=Audio().pa_type)
    table = table.set_column(table.column_names.index("audio"), "audio", column)
    return table.replace_schema_metadata(schema.arrow_schema.metadata)
