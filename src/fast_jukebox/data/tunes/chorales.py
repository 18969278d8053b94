"""J. S. Bach's chorales as written: the scores that music21 carries, read as notes."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path

from fast_jukebox.data.tunes.scores import Score, ScoreError, ScoreNote, in_ticks, natural_order, require

_VOICES = ("soprano", "alto", "tenor", "bass")


def chorale_paths() -> list[Path]:
    """The files of music21's corpus that may hold a Bach chorale, in the order of their BWV numbers."""
    require("music21")
    corpus = importlib.import_module("music21.corpus")
    paths = [Path(path) for path in corpus.getComposer("bach")]
    paths = [path for path in paths if path.suffix == ".mxl" and path.name.startswith("bwv")]
    return sorted(paths, key=lambda path: natural_order(path.stem))


def read_chorale(path: str | Path) -> Score:
    """The four or five voices of a chorale, without accompanying instruments. Repeats are not expanded.

    A `ScoreError` names a file that cannot be read, lacks a soprano, alto, tenor or bass, or in which all of them pause
    for more than four quarter notes (an instrumental interlude). music21 must be there (`ImportError`).
    """
    music21 = require("music21")
    converter = importlib.import_module("music21.converter")
    path = Path(path)
    try:
        score = converter.parse(path)
    except (ValueError, ArithmeticError, LookupError, music21.exceptions21.Music21Exception) as error:
        raise ScoreError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error
    parts = [part for part in score.parts if (part.partName or "").lower().startswith(_VOICES)]
    found = {voice for voice in _VOICES for part in parts if part.partName.lower().startswith(voice)}
    if found != set(_VOICES):
        raise ScoreError(f"{path.name} is no chorale: its voices are {sorted(found)}, not {sorted(_VOICES)}")
    notes = []
    for voice, part in enumerate(parts):
        for element in part.stripTies().flatten().notes:
            if element.quarterLength > 0:
                times = float(element.offset), float(element.quarterLength)
                notes += [ScoreNote(*times, pitch.midi, voice) for pitch in element.pitches]
    notes = in_ticks(notes)
    end = 0.0
    for note in notes:
        if note.onset - end > 4:
            raise ScoreError(
                f"{path.name} is no chorale for voices alone: they pause for {note.onset - end:g} quarters"
            )
        end = max(end, note.onset + note.duration)
    key = score.analyze("key")
    metre = next(iter(score.recurse().getElementsByClass("TimeSignature")), None)
    first_bar = next(iter(parts[0].getElementsByClass("Measure")), None)
    upbeat = float(first_bar.duration.quarterLength) if first_bar is not None else 0.0
    beats = (metre.numerator, metre.denominator) if metre is not None else (4, 4)
    return Score(
        path.stem,
        _title(path.stem),
        "chorale",
        "Bach's chorales",
        key.tonic.pitchClass,
        key.mode,
        beats,
        tuple(notes),
        upbeat if upbeat < 4 * beats[0] / beats[1] else 0.0,
        composer="Johann Sebastian Bach",
        catalogue="BWV " + path.stem.removeprefix("bwv"),
    )


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
