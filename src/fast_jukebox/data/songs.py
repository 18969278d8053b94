"""A folder of songs to a `datasets` dataset: checked, split by song, the sound undecoded.

Songs that cannot be used are left out, and reported with the reason. torchcodec is not needed: rows hold
`{"path", "bytes"}`, which [`load_audio`][fast_jukebox.audio.io.load_audio] reads.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from fast_jukebox.data.parquet import check_sound_bytes, check_values, load_shards
from fast_jukebox.data.scanning import (
    MEASURED,
    Song,
    SongLimits,
    check_song,
    content_keys,
    find_dataset,
    report,
    scan_songs,
)
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION, assign_splits, check_fraction, held_out_twice, split_order
from fast_jukebox.processing.vocabulary import column_of
from fast_jukebox.utils.files import check_apart, new_folder
from fast_jukebox.utils.text import printable, shown

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")


def load_songs(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    test_fraction: float = DEFAULT_TEST_FRACTION,
    *,
    limits: SongLimits | None = None,
    progress: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> DatasetDict:
    """Songs, checked and split into `train` and `test`.

    Args:
        source: a folder of sound files, at any depth, with or without a `metadata.jsonl` or `metadata.csv` whose rows
            have `file_name` (relative to its folder) and any other columns, or one such folder a split; a folder that
            `save_songs` made; the name of a data set of these layouts on the Hub; or a dataset with a column `audio`.
        test_fraction: fraction of the songs held out, in [0, 1), chosen by their names; songs of the same content stay
            together. Splits of the metadata, the folders (`train`, `test` and the like) or the dataset take precedence,
            if they are more than one; a song of `train` whose recording is held out as well is left out.
        limits: `SongLimits()` by default. Songs outside them are skipped with a warning that names them.
        revision, token, local_files_only: of a data set on the Hub, as in `from_pretrained`.

    Returns:
        Splits in the order of the songs' names. Columns: `audio` (undecoded, `{"path", "bytes"}`),
        `file_name`, `duration` (seconds) and `sampling_rate` as measured, and those of the metadata.

    Raises:
        ValueError: when no song is left or a Parquet file is missing or damaged, or naming the argument or the line of
            the metadata that is wrong.
        FileNotFoundError: when the folder is not there.
        HubError: when the data set cannot be read from the Hub.
    """
    from datasets import Dataset, DatasetDict

    check_fraction(test_fraction)
    limits = limits or SongLimits()
    own = True
    if isinstance(source, str | os.PathLike):
        folder = find_dataset(source, revision=revision, token=token, local_files_only=local_files_only)
        shards = [path for path in sorted(folder.glob("data/*-of-*.parquet")) if not path.name.startswith(".")]
        if not shards:
            scan = scan_songs(folder, limits=limits, progress=progress)
            report(str(source), scan)
            return _by_split(str(source), _dataset(str(source), scan.songs), test_fraction)
        source, own = _load_parquet(shards), False
    if isinstance(source, Dataset):
        source = DatasetDict({"": source})
    if not isinstance(source, DatasetDict):
        raise ValueError(f"`source` must be a folder, a Dataset or a DatasetDict, got {type(source)}")
    if len(source) == 1 and test_fraction > 0:
        source = DatasetDict({"": next(iter(source.values()))})
    checked = {name: _checked_dataset(name, rows, limits, own, progress) for name, rows in source.items()}
    checked = {name: rows for name, rows in checked.items() if len(rows)}
    if not checked:
        raise ValueError("`source` holds no song that can be used; the warnings name the reasons")
    if "" in checked:
        return _by_split("train", checked[""], test_fraction)
    return DatasetDict(_without_held_out(checked))


def save_songs(songs: DatasetDict, folder: str | os.PathLike[str], *, shard_bytes: int = 400 * 2**20) -> list[Path]:
    """Write songs as Parquet files that contain the sound itself, in the layout of a dataset on the Hub.

    The files `data/SPLIT-00000-of-00003.parquet` and so on appear together once all are written.
    (`datasets.Dataset.to_parquet` alone would store the paths of this machine.)

    Args:
        folder: made where it is missing; its folder `data` must not exist yet, or be empty.

    Raises:
        ValueError: `data` holds files already, or two splits differ by capital letters alone.
    """
    import pyarrow.parquet

    check_apart(songs, "splits of `songs`")
    data = Path(folder) / "data"
    if data.is_dir() and any(data.iterdir()):
        raise ValueError(f"`folder` holds songs already: {data}; name another one or delete them")
    written = []
    with new_folder(data) as temporary:
        for split, rows in songs.items():
            groups = list(_shards(rows, shard_bytes))
            for number, (start, stop) in enumerate(groups):
                name = f"{split}-{number:05d}-of-{len(groups):05d}.parquet"
                table = _with_bytes(rows.select(range(start, stop)))
                # Small row groups, so that a reader need not hold the sound of a file in memory.
                with open(temporary / name, "xb", buffering=0) as file:
                    pyarrow.parquet.write_table(table, file, row_group_size=8, use_dictionary=False)
                written.append(data / name)
    return written


def _divide(
    source: str, names: Sequence[str], given: Iterable[str | None], contents: Sequence[Hashable], test_fraction: float
) -> dict[str, list[int]]:
    """Rows of each split, without songs of `train` whose recording is held out in another split as well."""
    chosen = assign_splits(names, given, test_fraction, contents)
    twice = set(held_out_twice(chosen, contents))
    for row in sorted(twice):
        logger.warning(
            "%s: skipped %s: the same recording is held out in another split", printable(source), printable(names[row])
        )
    parts: dict[str, list[int]] = {split: [] for split in sorted(set(chosen), key=split_order)}
    for row, split in enumerate(chosen):
        if row not in twice:
            parts[split].append(row)
    return {split: rows for split, rows in parts.items() if rows}


def _by_split(source: str, rows: Dataset, test_fraction: float) -> DatasetDict:
    """Songs divided by their names, their column `split` and their contents."""
    from datasets import DatasetDict

    parts = _divide(source, rows["file_name"][:], column_of(rows, "split"), _contents(rows), test_fraction)
    return DatasetDict({split: rows.select(indices) for split, indices in parts.items()})


def _dataset(source: str, songs: list[Song]) -> Dataset:
    """The songs of a folder as one, so that a column has one type in every split, also where all of one lack it."""
    from datasets import Audio, Dataset

    columns = {column: [song[column] for song in songs] for column in songs[0]}
    try:
        return Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    except (TypeError, ValueError, OverflowError) as error:  # pyarrow's errors are of these types
        wrong = next((name for name, values in columns.items() if not _is_column(values)), "")
        raise ValueError(
            f"the metadata of {source} has a column `{wrong}` whose values are of several types, or too large; write "
            f"it as one type in every row: {error}"
        ) from error


def _is_column(values: list[object]) -> bool:
    from datasets import Dataset

    try:
        Dataset.from_dict({"values": values})
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _contents(rows: Dataset) -> list[Hashable]:
    sounds = (row["audio"] for row in rows.select_columns(["audio"]))
    return content_keys(sound["bytes"] or Path(sound["path"]) for sound in sounds)


def _without_held_out(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """The splits, `train` without the recordings that are in others too."""
    from datasets import concatenate_datasets

    if "train" not in splits or len(splits) == 1:
        return splits
    sounds = [rows.select_columns(["file_name", "audio"]) for rows in splits.values()]
    given = [split for split, rows in splits.items() for _ in range(len(rows))]
    complete = concatenate_datasets(sounds)
    rows = _divide("train", complete["file_name"][:], given, _contents(complete), 0.0).get("train", [])
    if len(rows) == len(splits["train"]):
        return splits
    kept = splits["train"].select([row - given.index("train") for row in rows])
    return {name: kept if name == "train" else part for name, part in splits.items() if name != "train" or rows}


def _load_parquet(shards: list[Path]) -> DatasetDict:
    """Songs of Parquet files; a `ValueError` names one that is missing or damaged."""
    import pyarrow
    import pyarrow.parquet

    files: dict[str, list[str]] = {}
    numbers: dict[tuple[str, int], set[int]] = {}
    for shard in shards:
        found = _SHARD.fullmatch(shard.name)
        if found is None:
            raise ValueError(f"{shard} must be named as train-00000-of-00001.parquet is")
        files.setdefault(found[1], []).append(str(shard))
        numbers.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
        try:
            check_values(shard)
            check_sound_bytes(shard)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{shard} is damaged ({error}): fetch it again, or make it again") from error
    for (split, count), there in numbers.items():
        missing = sorted(set(range(count)) - there)
        if missing:
            raise ValueError(
                f"{shards[0].parent} lacks {len(missing)} of the {count} files of {shown(split)}, the first of them "
                f"{split}-{missing[0]:05d}-of-{count:05d}.parquet: fetch them again"
            )
    if len(numbers) > len(files):
        raise ValueError(
            f"{shards[0].parent} holds files of two counts, such as -of-00002 and -of-00003: delete the old"
        )
    return load_shards(files)


def _checked_dataset(split: str, rows: Dataset, limits: SongLimits, own: bool, progress: bool) -> Dataset:
    """The rows whose song can be used, with the measured columns; paths are read where the user made the dataset
    (`own`).
    """
    from datasets import Audio

    if "audio" not in rows.column_names:
        raise ValueError(f"`source` must have a column `audio`, got {rows.column_names}")
    rows = rows.cast_column("audio", Audio(decode=False))
    keep: list[int] = []
    measured: list[tuple[str, float, int]] = []
    for index, row in enumerate(tqdm(rows, desc="checking songs", unit="song", disable=not progress)):
        sound = row["audio"] or {}
        name = row.get("file_name") or sound.get("path") or f"row {index}"
        try:
            if sound.get("bytes") is None and not sound.get("path"):
                raise ValueError("has no sound")
            if sound.get("bytes") is None and not own:
                raise ValueError("names a file in place of its sound, which is not read from a data set")
            source = sound if sound.get("bytes") is not None else Path(sound["path"])
            duration, rate, note = check_song(source, limits)
        except (ValueError, OSError) as error:
            logger.warning("%s: skipped %s: %s", split or "songs", printable(name), error)
            continue
        if note:
            logger.warning("%s: used %s, though not read completely: %s", split or "songs", printable(name), note)
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


def _with_bytes(rows: Dataset) -> object:
    """An Arrow table of the rows, whose audio column holds each file's bytes, and its name without folders."""
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
    schema["audio"] = Audio(decode=False)  # rows are then read without torchcodec; `cast_column` decodes
    column = pyarrow.array(sounds, type=Audio().pa_type)
    table = table.set_column(table.column_names.index("audio"), "audio", column)
    return table.replace_schema_metadata(schema.arrow_schema.metadata)
