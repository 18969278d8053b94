"""Scores as lists of notes with their labels, and the compact file that keeps them."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import ModuleType

from fast_jukebox.utils.files import JsonObject, write_file

GENRES = ("air", "chorale", "hornpipe", "jig", "march", "reel", "slip jig", "strathspey")
"""Kinds of music that the collections hold."""
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
DRUM_VOICE = 9
"""Voice of drums, and their MIDI channel; their pitches are instruments of the drum kit."""
_TICKS = 480
_MOST_SCORES, _MOST_NOTES, _MOST_BYTES = 100_000, 20_000, 256 << 20
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
_INSTALL = "install them with `pip install 'fast-jukebox[songs]'` and `pip install --no-deps tinysoundfont`"


class ScoreError(ValueError):
    """A score that is not music of a known kind, or that cannot be read."""


@dataclass(frozen=True)
class ScoreNote:
    """A sounding note, ties joined: onset and duration in quarter notes, MIDI pitch, and voice (0 is the highest)."""

    onset: float
    duration: float
    pitch: int
    voice: int = 0


@dataclass(frozen=True)
class Score:
    """A piece of music as written.

    Attributes:
        name: unique, fit for a file name, such as `bwv66.6` or `oneill-0701`.
        genre: one of `GENRES`.
        collection: the book that it is from.
        tonic: pitch class of the key, 0 is C.
        mode: of the key, such as `major`.
        metre: beats and beat unit of a bar, such as `(6, 8)`.
        notes: sorted by onset and voice; the first begins at 0.
        upbeat: quarter notes before the first full bar.
    """

    name: str
    title: str
    genre: str
    collection: str
    tonic: int
    mode: str
    metre: tuple[int, int]
    notes: tuple[ScoreNote, ...] = field(repr=False)
    upbeat: float = 0.0
    composer: str | None = None
    catalogue: str | None = None

    @cached_property
    def quarters(self) -> float:
        """Length in quarter notes."""
        return max(note.onset + note.duration for note in self.notes)

    def fingerprint(self) -> str:
        """Hash that is equal for two scores with the same notes, in whatever key they are written."""
        lowest = min(note.pitch for note in self.notes)
        notes = [(note.onset, note.duration, note.pitch - lowest) for note in self.notes]
        return hashlib.sha256(repr(sorted(notes)).encode()).hexdigest()[:16]


def require(module: str) -> ModuleType:
    """Import one of the packages that make the songs; an `ImportError` says how to install them."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"The songs need music21, pretty_midi and tinysoundfont; {_INSTALL}.") from error


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which `bwv9.7` comes before `bwv10.7`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def in_ticks(notes: Iterable[ScoreNote]) -> list[ScoreNote]:
    """Notes with their times rounded to 1/480 of a quarter, the first at 0, sorted by onset, voice and pitch."""
    notes = list(notes)
    first = round(min((note.onset for note in notes), default=0.0) * _TICKS)
    rounded = [
        ScoreNote(
            (round(note.onset * _TICKS) - first) / _TICKS,
            max(round(note.duration * _TICKS), 1) / _TICKS,
            note.pitch,
            note.voice,
        )
        for note in notes
    ]
    return sorted(rounded, key=lambda note: (note.onset, note.voice, note.pitch))


def choose_splits(scores: Iterable[Score], test_fraction: float = 0.08) -> dict[str, str]:
    """`"train"` or `"test"` for each score's name, all settings of one tune on the same side.

    Scores belong to one tune where their titles or the beginnings of their melodies are the same. About `test_fraction`
    of the tunes are held out; which ones is a function of their names and beginnings alone.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    scores = list(scores)
    keys: dict[str, str] = {}
    for score in scores:
        first, *others = _tune_keys(score)
        keys[score.name] = first
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low

    def side(key: str) -> str:
        digest = hashlib.sha256(f"split/{key}".encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") < test_fraction * 2**64 else "train"

    return {name: side(root(key)) for name, key in keys.items()}


def _tune_keys(score: Score) -> list[str]:
    """What settings of one tune have in common: the first 20 steps of the highest voice in semitones, and the title."""
    pitches = [note.pitch for note in score.notes if note.voice == 0][:21]
    keys = ["melody " + ",".join(str(after - before) for before, after in pairwise(pitches))]
    title = re.sub(r"\W+|\b(?:the|a|an|reel|jig|hornpipe|strathspey|march|air)\b", " ", score.title.lower())
    title = " ".join(sorted(title.split()))
    return [*keys, "title " + title] if len(title) > 3 and score.genre != "chorale" else keys


def save_scores(path: str | os.PathLike[str], scores: Iterable[Score]) -> None:
    """Write scores to a gzipped file of JSON lines, about 400 bytes a tune; times are kept to 1/480 of a quarter."""
    lines = []
    for score in scores:
        fields = {name: value for name, value in vars(score).items() if name not in ("notes", "quarters")}
        onsets = [round(note.onset * _TICKS) for note in score.notes]
        fields["notes"] = [
            # Differences of onsets take half the space of onsets.
            [after - before for before, after in zip([0, *onsets], onsets, strict=False)],
            [round(note.duration * _TICKS) for note in score.notes],
            [note.pitch for note in score.notes],
            [note.voice for note in score.notes],
        ]
        lines.append(json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n")
    write_file(path, gzip.compress("".join(lines).encode("utf-8"), mtime=0))


def load_scores(path: str | os.PathLike[str]) -> list[Score]:
    """Scores of a file that `save_scores` wrote; a `ValueError` names what is none."""
    scores = []
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        lines = [line for line in data.decode("utf-8").split("\n") if line]  # titles may hold other ends of lines
        if len(data) > _MOST_BYTES or len(lines) > _MOST_SCORES:
            raise ValueError(f"more than {_MOST_BYTES} bytes or {_MOST_SCORES} scores")
        for line in lines:
            scores.append(_score(json.loads(line)))
    except (*_DAMAGED, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"`{path}`, score {len(scores) + 1}: must be a score of `save_scores`: {error}") from error
    return scores


def _score(fields: JsonObject) -> Score:
    columns = fields.pop("notes")
    if len(columns) != 4 or not 0 < len(columns[0]) <= _MOST_NOTES:
        raise ValueError(f"`notes` must be four lists of 1 to {_MOST_NOTES} numbers")
    notes, onset = [], 0
    for step, duration, pitch, voice in zip(*columns, strict=True):
        onset += step
        if not (0 <= pitch <= 127 and duration > 0 and 0 <= onset <= 10_000 * _TICKS):
            raise ValueError(f"no note has the onset {onset}, the duration {duration} and the pitch {pitch}")
        notes.append(ScoreNote(onset / _TICKS, duration / _TICKS, pitch, voice))
    if not re.fullmatch(r"[\w.\-]+", fields["name"]) or fields["name"].startswith("."):
        raise ValueError(f"`name` must be fit for a file's name, got {fields['name']!r}")
    return Score(**{**fields, "metre": tuple(fields["metre"]), "notes": tuple(notes)})
