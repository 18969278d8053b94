"""Pushes of songs and codes to the Hub, in one commit with a card that states a licence.

Songs are files beside a `metadata.jsonl` a split (the layout of an AudioFolder) or inside Parquet files, codes are
as [`encode_songs`][fast_jukebox.data.codes.encode_songs] wrote them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from fast_jukebox.audio.io import audio_info
from fast_jukebox.data.manifest import MANIFEST, code_shards, read_manifest
from fast_jukebox.data.metadata import METADATA_FILE, metadata_lines
from fast_jukebox.data.scanning import AUDIO_SUFFIXES
from fast_jukebox.data.songs import load_songs, save_songs
from fast_jukebox.hub import dataset_card, push_files
from fast_jukebox.hub.push import PushOptions
from fast_jukebox.utils.files import check_apart
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from datasets import DatasetDict
    from typing_extensions import Unpack

CODES_FILE = re.compile(r"\w+(\.\w+)*-\d{5}\.parquet|codes\.json")
_SOUND = rf"[^/]+({'|'.join(map(re.escape, AUDIO_SUFFIXES))})"
SONGS_FILE = re.compile(rf"data/[^/]+\.parquet|\w+(\.\w+)*/(.*/)?({re.escape(METADATA_FILE)}|{_SOUND})")


def push_songs(
    songs: DatasetDict | str | os.PathLike[str],
    repo_id: str,
    *,
    license: str,
    description: str = "",
    layout: Literal["audiofolder", "parquet"] = "parquet",
    license_name: str | None = None,
    license_link: str | None = None,
    tags: tuple[str, ...] = (),
    **options: Unpack[PushOptions],
) -> str:
    """Push songs as a data set; `load_songs(repo_id)` loads them.

    Songs that an earlier push left there and that are not among these are deleted in the same commit.

    Args:
        songs: what [`load_songs`][fast_jukebox.data.songs.load_songs] returns, or what it takes.
        repo_id: `"organisation/name"`; made where it does not exist.
        license: of the recordings and the music, by the Hub's identifier.
        layout: `"parquet"` is the songs' files inside Parquet files, which `datasets.load_dataset` reads with nothing
            else installed; `"audiofolder"` the files beside a `metadata.jsonl` a split, for which it needs torchcodec.
        license_name, license_link: of a license that is `"other"`.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        ValueError: no license, another layout, or what `load_songs` refuses.
        HubError: no connection, no right to write.
    """
    if layout not in ("audiofolder", "parquet"):
        raise ValueError(f"`layout` must be 'audiofolder' or 'parquet', got {shown(layout)}")
    if isinstance(songs, str | os.PathLike):
        songs = load_songs(songs)
    patterns = {split: f"{split}/**" if layout == "audiofolder" else f"data/{split}-*.parquet" for split in songs}
    count = ", ".join(f"{split}: {len(rows)}" for split, rows in songs.items())
    hours = sum(sum(rows["duration"]) for rows in songs.values()) / 3600
    card = dataset_card(
        name=repo_id,
        description=description or "Songs to train fast-jukebox on.",
        license=license,
        license_name=license_name,
        license_link=license_link,
        splits={split: [pattern] for split, pattern in patterns.items()},
        usage=f'from fast_jukebox.data.songs import load_songs\n\nsongs = load_songs("{repo_id}")',
        table={"songs": count, "hours": round(hours, 3)},
        tags=tags,
    )
    options.setdefault("commit_message", "Upload songs")
    files: dict[str, Path | bytes] = {"README.md": str(card).encode()}
    with TemporaryDirectory() as directory:
        if layout == "audiofolder":
            files |= dict(_audio_folder(songs))
        else:
            files |= {f"data/{path.name}": path for path in save_songs(songs, directory)}
        return push_files(files, repo_id, kind="dataset", replaces=SONGS_FILE, **options)


def push_codes(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    license: str,
    description: str = "",
    vqvae: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    tags: tuple[str, ...] = (),
    **options: Unpack[PushOptions],
) -> str:
    """Push codes as a data set; `load_codes(repo_id)` loads them. Other arguments and errors as [`push_songs`].

    Args:
        folder: as [`encode_songs`][fast_jukebox.data.codes.encode_songs] left it.
        license: of the songs, which can be heard from their codes.
        vqvae: name of the VQ-VAE that the codes are of, for the card.

    Raises:
        ValueError: no license, or the folder does not hold all codes that its manifest states.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    made_with = f"`{vqvae}`" if vqvae else "a VQ-VAE of fast-jukebox"
    hops = ", ".join(map(str, manifest["hop_lengths"]))
    card = dataset_card(
        name=repo_id,
        description=f"{description or 'Songs.'}\n\nAs codes of {made_with}, one for every {hops} samples (bottom level "
        "first): a row is a song, with a column of codes a level and the metadata of the song.",
        license=license,
        license_name=license_name,
        license_link=license_link,
        splits={split: [f"{split}-*.parquet"] for split in manifest["splits"]},
        usage=f'from fast_jukebox.data.codes import load_codes\n\ncodes = load_codes("{repo_id}")',
        table={
            "songs": ", ".join(f"{split}: {count}" for split, count in manifest["splits"].items()),
            "codes in a codebook": manifest["codebook_size"],
            "sampling rate": f"{manifest['sampling_rate']} Hz",
            "SHA-256 of the VQ-VAE's weights": manifest["vqvae"],
        },
        tags=tags,
    )
    options.setdefault("commit_message", "Upload codes")
    files: dict[str, Path | bytes] = {path.name: path for path in [*code_shards(folder), folder / MANIFEST]}
    files["README.md"] = str(card).encode()
    return push_files(files, repo_id, kind="dataset", replaces=CODES_FILE, **options)


def _audio_folder(songs: DatasetDict) -> Iterator[tuple[str, Path | bytes]]:
    """Files by name: the songs, and a `metadata.jsonl` a split whose rows have their names and metadata."""
    check_apart(songs, "splits of `songs`")
    for split, rows in songs.items():
        lines: list[dict[str, object]] = []
        for index, row in enumerate(rows):
            sound = row["audio"]
            data: Path | bytes = Path(sound["path"]) if sound.get("bytes") is None else sound["bytes"]
            name = _plain_name(row.get("file_name"), index, data)
            metadata = {key: value for key, value in row.items() if key not in ("audio", "file_name")}
            lines.append({"file_name": name, **metadata})
            yield f"{split}/{name}", data
        check_apart((str(line["file_name"]) for line in lines), f"`songs` of {split}")
        yield f"{split}/{METADATA_FILE}", metadata_lines(lines)


def _plain_name(name: str | None, index: int, data: Path | bytes) -> str:
    """A name below the split's folder with the suffix of a sound file: the song's own where it is one."""
    path = PurePosixPath((name or "").replace("\\", "/"))
    plain = name and not path.is_absolute() and ".." not in path.parts and ":" not in str(path)
    stem = str(path) if plain and not any(part.startswith(".") for part in path.parts) else f"{index:05d}"
    if stem.lower().endswith(AUDIO_SUFFIXES):
        return stem
    suffix = data.suffix if isinstance(data, Path) else f".{audio_info(data).container.lower()}"
    return f"{stem}{suffix}"
