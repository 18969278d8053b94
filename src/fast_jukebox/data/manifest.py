"""The manifest of a folder of codes, and the check that all codes are there."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.sessions.fingerprint import weights_digest
from fast_jukebox.utils.files import JsonObject, read_file
from fast_jukebox.utils.text import printable

MANIFEST = "codes.json"
_LARGEST = 2**24
_SHARD = re.compile(r"\w+(\.\w+)*-\d{5}\.parquet")
_TYPES: dict[str, type] = {
    "vqvae": str,
    "splits": dict,
    "sampling_rate": int,
    "hop_lengths": list,
    "codebook_size": int,
}


def songs_manifest(
    songs: Mapping[str, Sequence[JsonObject]], vqvae: FastJukeboxVQVAE, duration: float | None = None
) -> dict[str, object]:
    """Fingerprints of a VQ-VAE and of the first `duration` seconds of songs by split, rows with `duration` and, where
    it is known, `file_name`.
    """
    longest = math.inf if duration is None else duration
    durations = {name: [round(min(row["duration"], longest), 3) for row in split] for name, split in songs.items()}
    names = {
        name: [row["file_name"] for row in split] for name, split in songs.items() if split and "file_name" in split[0]
    }
    return {
        "vqvae": weights_digest(vqvae),
        "songs": _digest(durations),
        "names": _digest(names),
        "splits": {name: len(split) for name, split in songs.items()},
        "sampling_rate": vqvae.config.sampling_rate,
        "hop_lengths": vqvae.config.hop_lengths,
        "codebook_size": vqvae.config.codebook_size,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stated(folder: Path) -> JsonObject:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} holds no {MANIFEST}, which `encode_songs` writes beside the codes")
    try:
        manifest = json.loads(read_file(path, _LARGEST))
        for key, kind in _TYPES.items():
            if not isinstance(manifest[key], kind):
                raise ValueError(f"`{key}` must be of the type {kind.__name__}")
        if not all(isinstance(count, int) and count >= 0 for count in manifest["splits"].values()):
            raise ValueError("`splits` must be numbers of songs")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): fetch the codes again, or delete the folder and "
            "encode the songs again"
        ) from error
    return manifest


def code_shards(folder: Path) -> list[Path]:
    """The shards of a folder of codes by name, without temporary files."""
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


def check_codes_folder(folder: Path) -> None:
    """Raise a `ValueError` for what codes are not to be written into: a file, or a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"codes must be kept in a folder, got the file {str(folder)!r}")
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name[0] != "." and not _SHARD.fullmatch(path.name))
    if others:
        raise ValueError(
            f"codes must be kept in a new or empty folder, or one of codes, got {str(folder)!r}, which holds "
            f"{printable(others[0])!r}"
        )


def shard_rows(shard: Path) -> int:
    """Songs in a shard of codes; 0 where it is damaged, as a power cut leaves files."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(shard).num_rows if shard.is_file() else 0
    except (pyarrow.ArrowException, OSError):
        return 0


def read_manifest(folder: Path) -> JsonObject:
    """The manifest of a folder of codes; a `ValueError` where there is none, or songs that it states are missing."""
    manifest = _stated(folder)
    for split, count in manifest["splits"].items():
        shards = sorted(folder.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].parquet"))
        rows = {shard: shard_rows(shard) for shard in shards}
        for number, (shard, there) in enumerate(rows.items()):
            if not there:
                raise ValueError(f"{shard} is damaged: let `encode_songs` make it again, or fetch it again")
            if int(shard.stem.rsplit("-", 1)[1]) != number:
                raise ValueError(
                    f"{folder} lacks {split}-{number:05d}.parquet: let `encode_songs` make it again, or fetch it again"
                )
        if sum(rows.values()) != count:
            raise ValueError(
                f"{folder} holds the codes of {sum(rows.values())} songs of {split}, and its {MANIFEST} states "
                f"{count}: let `encode_songs` finish it, or fetch it again"
            )
    return manifest


def is_complete(folder: Path) -> bool:
    """All codes that the folder's manifest states are there."""
    try:
        read_manifest(folder)
    except ValueError:
        return False
    return True
