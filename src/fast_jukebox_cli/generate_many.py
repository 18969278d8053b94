"""Many songs with their metadata, sampled into a folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from fast_jukebox.data.metadata import METADATA_FILE, json_rows, metadata_lines
from fast_jukebox.evaluation.systems import FACTS, claim_songs, sample_songs
from fast_jukebox.generation.metadata import complete_metadata, draw_metadata, encode_metadata
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.processing.vocabulary import check_song
from fast_jukebox.utils.files import clear_temporary, write_file
from fast_jukebox.utils.workers import Workers
from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name
from fast_jukebox_cli.options import SongSettings
from fast_jukebox_cli.words import words_for

_LARGEST = 2**28
_MOST_SONGS = 10**6


def generate_many(
    output: Path,
    *,
    num_samples: int | None,
    requests: Path | None,
    words: dict[str, object] | None,
    settings: SongSettings,
    seed: int,
    batch_size: int,
    model: ModelSource,
    device: str,
    workers: Workers,
    quiet: bool,
) -> int:
    """Sample many songs into a folder with their metadata; returns how many are there. `words` are the metadata of
    every song; the other arguments are the command's options.

    Raises:
        ValueError: anything that cannot be, or a folder of songs that were sampled otherwise; found before sampling.
    """
    if not 1 <= batch_size <= 4096:
        raise ValueError(f"`batch_size` must be from 1 to 4096, got {batch_size}")
    if (num_samples is None) == (requests is None) or (requests is not None and words):
        raise ValueError(
            "one of `num_samples` and `requests` must be given, the latter without `--artist` and `--genre`"
        )
    if output.is_dir() and any(output.iterdir()) and not (output / FACTS).is_file():
        raise ValueError(
            f"`output` must be a new or empty folder, or one to resume, got {str(output)!r}, which holds something else"
        )
    rows = None if requests is None else read_requests(requests)
    count = num_samples if rows is None else len(rows)
    if count is None or not 1 <= count <= _MOST_SONGS:
        raise ValueError(f"`num_samples` must be from 1 to {_MOST_SONGS}, got {count}")
    if (output / song_name(count)).exists():
        raise ValueError(
            f"`num_samples` must be at least the number of songs that {str(output)!r} holds, which have a line each in "
            f"its {METADATA_FILE}, got {count}"
        )
    request = SongRequest(**settings, seed=seed)
    where = chosen_device(device)
    loaded = load_model(model, where if workers.in_process else torch.device("cpu"))
    metadata = words_for(loaded, words) if rows is None else rows
    seeds, songs = [seed] * count, range(count)
    drawn = (
        draw_metadata(loaded, seeds, songs)
        if metadata is None
        else complete_metadata(loaded, metadata, seeds, songs)  # of the songs of their numbers, as they are sampled
    )
    metadata = drawn or metadata
    if metadata is not None:
        encode_metadata(loaded, metadata)  # says what is wrong with them, before the first song
    digest = hashlib.sha256(json.dumps(words if rows is None else rows, sort_keys=True).encode()).hexdigest()
    claim_songs(output, loaded, {**settings, "seed": seed, "metadata": digest})
    clear_temporary(output)
    paths = [output / song_name(number) for number in range(count)]
    name = model_name(model.name)
    elsewhere = replace(model, name=str(Path(name).absolute()) if Path(name).is_dir() else name)
    load = (lambda: loaded) if workers.in_process else partial(load_model, elsewhere, where)
    with tqdm(total=count, desc="sampling", unit="song", disable=quiet) as bar:
        sample_songs(
            load,
            paths,
            replace(request, metadata=metadata),
            batch_size=batch_size,
            after=lambda done: bar.update(done - bar.n),
            workers=workers,
        )
        bar.update(count - bar.n)
    each = metadata if isinstance(metadata, list) else [metadata or {}] * count
    kept = ("artist", "genre", "lyrics")
    lines = (
        {"file_name": path.name, "song": number, "seed": seed, **{name: own.get(name) for name in kept}}
        for number, (path, own) in enumerate(zip(paths, each, strict=True))
    )
    write_file(output / METADATA_FILE, metadata_lines(lines))
    return count


def song_name(number: int) -> str:
    """The file of a song."""
    return f"song-{number:05d}.flac"


def read_requests(path: Path) -> list[dict[str, object]]:
    """Metadata of songs, of a JSON Lines file; a `ValueError` names a line that is wrong."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"`--requests` must have at most {_LARGEST} bytes, got {path.stat().st_size} in {str(path)!r}")
    rows = []
    for where, row in json_rows(path):
        try:
            rows.append(dict(check_song(row)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not rows:
        raise ValueError(f"`--requests` must have a song a line, got nothing in {str(path)!r}")
    return rows
