"""Lists of names that were published with Jukebox's weights, and the priors that they fit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from fast_jukebox.processing.vocabulary import LYRIC_CHARACTERS, check_names
from fast_jukebox.utils.files import read_text
from fast_jukebox.utils.text import shown

Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"
_OLDER = ".v2"
_LARGEST = 2**24
"""Bytes of a list at most; the published ones have up to 200,000."""


class PriorConfig(Protocol):
    """The configuration of a prior, as far as its labels are concerned."""

    level: int
    sampling_rate: int
    num_artists: int
    num_genres: int
    max_genres: int
    lyric_length: int
    lyric_vocab_size: int


class ModelConfig(Protocol):
    """The configuration of a model, as far as its labels are concerned: that of each prior, bottom first."""

    prior_configs: list[PriorConfig]


class NameList(NamedTuple):
    """Names with their ids, as a published file holds them."""

    ids: dict[str, int]
    genre_words: bool | None
    """kind of their vocabulary, where the file states it"""

    @property
    def size(self) -> int:
        """Ids there are."""
        return max(self.ids.values(), default=0) + 1


def read_names(path: str | os.PathLike[str]) -> list[NameList]:
    """The names in a published file: lines `name;id` (OpenAI's lists), or JSON (transformers 4's), which may hold those
    of both kinds of vocabularies and marks the names of one with `.v2`.

    Raises:
        ValueError: it is neither; names the line. Or it is longer than such a list can be.
        OSError: there is no such file, or it is no regular one.
    """
    path = Path(path)
    try:
        text = read_text(path, _LARGEST)
        if path.suffix.lower() != ".json":
            return [NameList(_lines(path, text), None)]
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith("`"):
            raise
        raise ValueError(
            f"`{path}` must be UTF-8 text, and JSON where its name says so; save it so, or fetch it again: {error}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"`{path}` must hold names with their ids, got {type(found).__name__}; fetch it again")
    older = {name.removesuffix(_OLDER): number for name, number in found.items() if name.endswith(_OLDER)}
    newer = {name: number for name, number in found.items() if not name.endswith(_OLDER)}
    lists = [(older, True), (newer, False if older else None)]
    return [NameList(check_names(str(path), ids), words) for ids, words in lists if ids]


def read_lists(paths: Paths) -> list[NameList]:
    """The names in one published file or in several; see [`read_names`]."""
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    return [names for path in several for names in read_names(path)]


def fitting_names(field_name: str, lists: Sequence[NameList], config: PriorConfig) -> dict[str, int]:
    """The names of the list of as many ids as a prior has, or of the longest that fits; a `ValueError` without one."""
    rows, words = getattr(config, field_name), config.max_genres > 1
    fitting = [own for own in lists if own.size <= rows]
    if not fitting:
        raise ValueError(
            f"`{field_name.removeprefix('num_')}` must hold a list of at most {rows} ids for the prior of level "
            f"{config.level}, got {', '.join(str(own.size) for own in lists) or 'none'}"
        )
    return max(fitting, key=lambda own: (own.size == rows, own.genre_words in (None, words), own.size)).ids


def characters_of(config: PriorConfig) -> str:
    """The published characters that make as many ids as a prior has; a `ValueError` where there are none."""
    if config.lyric_vocab_size not in LYRIC_CHARACTERS:
        raise ValueError(
            f"`lyric_vocab_size` must be {' or '.join(map(str, sorted(LYRIC_CHARACTERS)))} where the vocabulary names "
            f"no characters, got {config.lyric_vocab_size}"
        )
    return LYRIC_CHARACTERS[config.lyric_vocab_size]


def _lines(path: Path, text: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, separator, last = line.strip().rpartition(";")
        if not separator or not last.strip().isdecimal():
            raise ValueError(f"`{path}`, line {number}: must be a name, a semicolon and its id, got {shown(line[:80])}")
        ids[name.lower()] = int(last)
    return check_names(str(path), ids)
