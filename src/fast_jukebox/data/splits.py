"""Splits of songs, by name and content: one rule for every folder, dataset and script."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULT_TEST_FRACTION = 0.1
"""Fraction of the songs that is held out where nothing marks them."""

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Splits by the names of folders that stand for them, as in `datasets`' AudioFolder."""


def check_fraction(test_fraction: float) -> None:
    """Raise a `ValueError` unless a fraction of held-out songs is in [0, 1)."""
    if isinstance(test_fraction, bool) or not isinstance(test_fraction, int | float) or not 0 <= test_fraction < 1:
        raise ValueError(f"`test_fraction` must be in [0, 1), got {shown(test_fraction)}")


def assign_splits(
    names: Iterable[str], given: Iterable[str | None], test_fraction: float, contents: Sequence[Hashable] | None = None
) -> list[str]:
    """A split for each song: the one given, or by the name's hash, with at least one song in each of train and test.

    Where all are given the same split, the hash decides. Songs of the same content go where the first of them goes, or
    where one of them is given. A name is hashed in its composed form (NFC), and an absolute one, or one with `..`,
    without its folders, so that the same songs are held out on every machine.

    Args:
        test_fraction: fraction that is held out, in [0, 1).
        contents: the same for songs of the same bytes; all are different by default.
    """
    names, given = list(names), list(given)
    contents = list(range(len(names))) if contents is None else contents
    if test_fraction > 0 and len(set(given)) == 1:
        given = [None] * len(names)
    leader: dict[Hashable, int] = {}  # by content: the song that the others follow
    for index in sorted(range(len(names)), key=lambda index: (given[index] is None, name_key(names[index]))):
        leader.setdefault(contents[index], index)

    def place(name: str) -> float:
        """A number in [0, 1) for a name, evenly distributed."""
        digest = hashlib.sha256(name_key(name).encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    order = [place(names[leader[content]]) for content in contents]
    chosen = [
        split or given[leader[content]] or ("test" if number < test_fraction else "train")
        for split, content, number in zip(given, contents, order, strict=True)
    ]
    if not any(given) and len(set(order)) > 1 and test_fraction > 0:
        lowest, highest = min(order), max(order)
        forced = {lowest: "test", highest: "train"}
        chosen = [forced.get(number, split) for number, split in zip(order, chosen, strict=True)]
    return chosen


def held_out_twice(splits: Sequence[str], contents: Sequence[Hashable]) -> list[int]:
    """Songs of `train` whose recording is held out in another split as well."""
    held_out = {content for split, content in zip(splits, contents, strict=True) if split != "train"}
    pairs = zip(splits, contents, strict=True)
    return [index for index, (split, content) in enumerate(pairs) if split == "train" and content in held_out]


def split_of_folder(name: str) -> str | None:
    """The split that the folders of a song's name stand for, if any.

    >>> split_of_folder("data/Training/a.wav"), split_of_folder("train.wav")
    ('train', None)
    """
    for part in PurePosixPath(name).parent.parts:
        if part.lower() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[part.lower()]
    return None


def name_key(name: str) -> str:
    """The part of a name that decides its split."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    path = PurePosixPath(name)
    elsewhere = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    return path.name if elsewhere else path.as_posix()


def split_order(name: str) -> tuple[int, str]:
    """For sorting splits: train, validation, test, then others by name."""
    return {"train": 0, "validation": 1, "test": 2}.get(name, 3), name


def describe_splits(songs: Mapping[str, Dataset]) -> str:
    """Songs and hours of each split, in a line for people."""
    parts = []
    for name, rows in songs.items():
        hours = f", {sum(rows['duration']) / 3600:.3g} hours" if "duration" in rows.column_names else ""
        parts.append(f"{name}: {len(rows)} song{'' if len(rows) == 1 else 's'}{hours}")
    return "; ".join(parts)
