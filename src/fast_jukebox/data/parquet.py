"""Parquet files from elsewhere, within bounds: their content may be any times larger than the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fast_jukebox.utils.text import printable

if TYPE_CHECKING:
    from datasets import DatasetDict

MAX_ROWS = 2**20
"""Songs in one file."""
MAX_VALUES = 2**29
"""Values in one file of codes, all columns together: 44 hours of song with three levels of the published VQ-VAE."""
MAX_INFLATION = 100
"""Bytes of sound for each byte of a file at most, beside `FREE_BYTES`."""
FREE_BYTES = 2**28

_SOUND = "audio.bytes"


def check_values(shard: Path) -> None:
    """Raise a `ValueError` for a file of too many songs or values, of which equal ones take no space."""
    import pyarrow
    import pyarrow.parquet

    if not shard.is_file():  # a pipe would be waited for without end
        raise ValueError(f"{shard} must be a file, and is none: fetch it again, or make it again")
    try:
        found = pyarrow.parquet.read_metadata(shard)
        groups = [found.row_group(index) for index in range(found.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
    except (pyarrow.ArrowException, OSError):
        return  # its reader reports it
    if found.num_rows > MAX_ROWS or values > MAX_VALUES:
        raise ValueError(
            f"{shard} states {found.num_rows} songs and {values} values, more than {MAX_ROWS} and {MAX_VALUES}, which "
            "is more than one file may have: split it"
        )


def is_readable(shard: Path) -> bool:
    """Whether all of a file can be read; the end of a damaged one, which states its rows, may be sound."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (pyarrow.ArrowException, OSError):
        return False
    return True


def load_shards(files: Mapping[str, Sequence[str]], cache_dir: str | None = None) -> DatasetDict:
    """The splits that some files hold; a `ValueError` names one that cannot be read."""
    import pyarrow
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        return load_dataset("parquet", data_files=files, cache_dir=cache_dir)
    except (DatasetGenerationError, pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, OSError) and reason.errno is not None:  # of the disk, as one that is full
            raise reason from error
        shards = [Path(shard) for split in files.values() for shard in split]
        damaged = next((shard for shard in shards if not is_readable(shard)), shards[0].parent)
        raise ValueError(
            f"{damaged} is damaged ({printable(' '.join(str(reason).split()))}): fetch it again, or make it again"
        ) from error


def check_codes(codes: np.ndarray, codebook_size: int, where: str) -> None:
    """Raise a `ValueError` for codes (length,) that are not in a codebook; `where` says whose they are."""
    for code in (codes.min(), codes.max()) if len(codes) else ():
        if not 0 <= code < codebook_size:
            raise ValueError(
                f"`codebook_size` is {codebook_size}, but {where} has code {code}: these codes are another VQ-VAE's"
            )


def check_sound_bytes(shard: Path) -> None:
    """Raise a `ValueError` for a file of songs whose sound is far larger than the file."""
    import pyarrow.parquet

    size = shard.stat().st_size
    most = MAX_INFLATION * size + FREE_BYTES
    with pyarrow.parquet.ParquetFile(shard) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
        sound = [chunk for chunk in chunks if chunk.path_in_schema == _SOUND]
        total = sum(chunk.total_uncompressed_size for chunk in sound)
        # A value that is repeated is held once, in a dictionary: only reading shows how often.
        if total <= most and any("DICTIONARY" in name for chunk in sound for name in chunk.encodings):
            total = 0
            for batch in file.iter_batches(batch_size=8, columns=[_SOUND]):
                total += batch.nbytes
                if total > most:
                    break
    if total > most:
        raise ValueError(f"{shard} has {size} bytes and holds more than {most} bytes of sound, so it is not read")
