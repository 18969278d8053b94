"""Labels of clips as rows: known ones of the song first, then measured ones of the clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from fast_jukebox.labelling.labellers import Label
from fast_jukebox.utils.text import printable

LABELS = ("key", "artist", "description", "bpm", "genre", "title", "instrument", "moods")
"""Labels of a clip, each of which may be null."""

ROW_KEYS = (
    *("key", "artist", "sample_rate", "file_extension", "description", "duration", "bpm", "genre", "title"),
    *("instrument", "moods", "path"),
)
"""Keys of a row of `train.jsonl`: those of audiocraft's music rows."""

METADATA, FILE_TAGS, COMPOSED = "metadata", "file tags", "composed of the other labels"

_LONGEST = 200
_MOST_MOODS = 16


def tidy_label(name: str, value: object) -> Label | None:
    """A label as rows have it, or `None` where the value cannot be one.

    Args:
        value: anything. Text becomes one printable line of at most 200 characters; lists become text with commas, but
            for moods, of which text becomes a list.
    """
    if name == "bpm":
        try:
            number = float(cast(float, value))
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) and 0 < number <= 1000 and not isinstance(value, bool) else None
    given = value if isinstance(value, list | tuple) else [value]
    texts = [printable(str(word), _LONGEST) for word in given[:_MOST_MOODS] if isinstance(word, str | int | float)]
    words = [word for word in (" ".join(text.split()) for text in texts) if word]
    if not words:
        return None
    return words if name == "moods" else ", ".join(words)[:_LONGEST]


def known_labels(row: Mapping[str, object], tags: Mapping[str, str]) -> dict[str, tuple[Label, str]]:
    """Labels of a song with their source: the metadata beside it, else the file's own tags.

    Args:
        row: of [`~fast_jukebox.data.songs.load_songs`]; a `mode` such as "minor" goes with the `key`.
        tags: of [`~fast_jukebox.audio.io.audio_tags`].
    """
    found: dict[str, tuple[Label, str]] = {}
    for source, values in (
        (FILE_TAGS, {name: tags.get(name) for name in ("artist", "title", "genre")}),
        (METADATA, row),
    ):
        for name in LABELS:
            label = tidy_label(name, values.get(name))
            if label is not None:
                found[name] = (label, source)
    key, mode = found.get("key"), row.get("mode")
    if key is not None and mode in ("major", "minor") and " " not in str(key[0]):
        found["key"] = (f"{key[0]} {mode}", METADATA)
    return found


def all_labels(
    known: Mapping[str, tuple[Label, str]], measured: Mapping[str, tuple[Label, str]]
) -> tuple[dict[str, Label | None], dict[str, str | None]]:
    """Labels of a clip by name, and the source of each; both `None` where nothing is known."""
    both = {**measured, **known}
    labels: dict[str, Label | None] = {name: both[name][0] if name in both else None for name in LABELS}
    sources = {name: both[name][1] if name in both else None for name in LABELS}
    if labels["description"] is None and (text := describe(labels)):
        labels["description"], sources["description"] = text, COMPOSED
    return labels, sources


def describe(labels: Mapping[str, Label | None]) -> str:
    """A description of a clip by its labels; empty where they state nothing of the sound.

    >>> describe({"genre": "folk", "instrument": "flute, harp", "moods": ["happy"], "key": "D major", "bpm": 96.0})
    'happy folk music with flute, harp, in D major, at 96 beats a minute'
    """
    moods, genre, bpm = labels.get("moods"), labels.get("genre"), labels.get("bpm")
    kind = [" and ".join(moods) if isinstance(moods, list) else "", str(genre or ""), "music"]
    parts = [" ".join(word for word in kind if word)]
    if labels.get("instrument"):
        parts[0] += f" with {labels['instrument']}"
    if labels.get("key"):
        parts.append(f"in {labels['key']}")
    if isinstance(bpm, float):
        parts.append(f"at {bpm:g} beats a minute")
    return ", ".join(parts) if parts != ["music"] else ""
