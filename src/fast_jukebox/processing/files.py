"""The two files of a processor, in a folder or a repository."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers.utils import cached_file

from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.utils.files import JsonObject, read_file, write_file

CONFIG_NAME = "processor_config.json"
VOCABULARY_NAME = "vocabulary.json"
_LARGEST = 2**28
"""Bytes of a file of JSON."""
# Lists of artists and of genres beside published weights: in transformers 4's layout, and OpenAI's two.
_PUBLISHED = (
    ("artists.json", "genres.json"),
    ("v2_artist_ids.txt", "v2_genre_ids.txt"),
    ("v3_artist_ids.txt", "v3_genre_ids.txt"),
)


def find_file(source: str | os.PathLike[str], name: str, **download: object) -> str | None:
    """The path of a file of a folder or repository, fetched if need be; `None` where it is not there."""
    if os.path.isdir(source):
        path = Path(source, str(download.get("subfolder") or ""), name)
        return str(path) if path.is_file() else None
    with clear_hub_errors(source, download.get("revision")):
        return cached_file(source, name, _raise_exceptions_for_missing_entries=False, **download)


def published_lists(source: str | os.PathLike[str], **download: object) -> tuple[list[str], list[str]]:
    """The published lists of artists and of genres that lie in a folder or repository, each empty where none does.

    OpenAI's lists are looked for in folders only, as no repository of models holds them.
    """
    pairs = _PUBLISHED if os.path.isdir(source) else _PUBLISHED[:1]
    found = [[find_file(source, name, **download) for name in names] for names in zip(*pairs, strict=True)]
    artists, genres = ([path for path in paths if path is not None] for paths in found)
    return artists, genres


def read_json(path: str | os.PathLike[str]) -> JsonObject:
    """The mapping in a file of JSON; a `ValueError` where it holds none."""
    try:
        content = json.loads(read_file(path, _LARGEST).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{path}` is damaged, it must be JSON ({error}): save it again, or fetch it again") from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise ValueError(f"`{path}` must hold names with their values, got {found}: save it again, or fetch it again")
    return content


def write_json(path: Path, content: JsonObject) -> None:
    """Write a file of JSON, completely or not at all."""
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
