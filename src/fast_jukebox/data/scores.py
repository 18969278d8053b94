"""The chorales as written: the scores that music21 carries, read as notes."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_VOICES = ("soprano", "alto", "tenor", "bass")
_INSTALL = "install them with `pip install 'fast-jukebox[songs]'` and `pip install --no-deps tinysoundfont`"


class NoChoraleError(ValueError):
    """A score of the corpus that is not a chorale for voices."""


@dataclass(frozen=True)
class ScoreNote:
    """A sounding note, ties joined: onset and duration in quarter notes, MIDI pitch, and voice (0 is the soprano)."""

    onset: float
    duration: float
    pitch: int
    voice: int


@dataclass(frozen=True)
class Chorale:
    """A chorale as written: its name in the corpus (such as `bwv66.6`), facts and notes (sorted by onset and voice)."""

    name: str
    title: str
    tonic: int
    mode: str
    notes: tuple[ScoreNote, ...]

    @property
    def catalogue(self) -> str:
        """The number in the Bach-Werke-Verzeichnis, such as `BWV 66.6`."""
        return "BWV " + self.name.removeprefix("bwv")

    @property
    def quarters(self) -> float:
        """Length in quarter notes."""
        return max(note.onset + note.duration for note in self.notes)

    def fingerprint(self) -> str:
        """Equal for two chorales with the same notes, in whatever key they are written."""
        lowest = min(note.pitch for note in self.notes)
        notes = [(note.onset, note.duration, note.pitch - lowest) for note in self.notes]
        return hashlib.sha256(repr(sorted(notes)).encode()).hexdigest()[:16]


def require(module: str) -> Any:
    """Import one of the packages that make the chorales; an ImportError says how to install them."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"The chorales need music21, pretty_midi and tinysoundfont; {_INSTALL}.") from error


def chorale_paths() -> list[Path]:
    """The files of music21's corpus that may hold a Bach chorale, in the order of their BWV numbers."""
    require("music21")
    corpus = importlib.import_module("music21.corpus")
    paths = [Path(path) for path in corpus.getComposer("bach")]
    paths = [path for path in paths if path.suffix == ".mxl" and path.name.startswith("bwv")]
    return sorted(paths, key=lambda path: natural_order(path.stem))


def natural_order(name: str) -> list[Any]:
    """A sort key by which `bwv9.7` comes before `bwv10.7`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def read_chorale(path: str | Path) -> Chorale:
    """Read the four or five voices of a chorale, without accompanying instruments. Repeats are not expanded.

    Args:
        path: a score that music21 reads.

    Raises:
        ImportError: where music21 is missing.
        NoChoraleError: naming the file, when it lacks a soprano, alto, tenor or bass, or when all of them pause for
            more than four quarter notes (an instrumental interlude).
    """
    require("music21")
    converter = importlib.import_module("music21.converter")
    path = Path(path)
    score = converter.parse(path)
    parts = [part for part in score.parts if (part.partName or "").lower().startswith(_VOICES)]
    found = {voice for voice in _VOICES for part in parts if part.partName.lower().startswith(voice)}
    if found != set(_VOICES):
        raise NoChoraleError(f"{path.name} is no chorale: its voices are {sorted(found)}, not {sorted(_VOICES)}")
    notes = []
    for voice, part in enumerate(parts):
        for element in part.stripTies().flatten().notes:
            if element.quarterLength > 0:
                times = round(float(element.offset), 6), round(float(element.quarterLength), 6)
                notes += [ScoreNote(*times, pitch.midi, voice) for pitch in element.pitches]
    start = min(note.onset for note in notes)
    notes = [ScoreNote(note.onset - start, note.duration, note.pitch, note.voice) for note in notes]
    notes.sort(key=lambda note: (note.onset, note.voice, note.pitch))
    _refuse_interludes(path.name, notes)
    key = score.analyze("key")
    return Chorale(path.stem, _title(path.stem), key.tonic.pitchClass, key.mode, tuple(notes))


def _refuse_interludes(name: str, notes: Iterable[ScoreNote], longest: float = 4.0) -> None:
    end = 0.0
    for note in notes:
        if note.onset - end > longest:
            raise NoChoraleError(f"{name} is no chorale for voices alone: they pause for {note.onset - end:g} quarters")
        end = max(end, note.onset + note.duration)


@lru_cache
def _titles() -> dict[str, str]:
    """Titles by the corpus's names, as far as music21's lists know them."""
    chorales = importlib.import_module("music21.corpus.chorales")
    rows = [*chorales.ChoraleListRKBWV().byRiemenschneider.values(), *chorales.ChoraleList().byBWV.values()]
    return {f"bwv{row['bwv']}": row["title"].replace("\u2019", "'").replace("AAch", "Ach").strip() for row in rows}


def _title(name: str) -> str:
    """The title of a chorale, or of the version (`bwv112.5-sc`) that it is one of, or its number."""
    titles = _titles()
    return titles.get(name) or titles.get(name.partition("-")[0]) or "Chorale BWV " + name.removeprefix("bwv")
