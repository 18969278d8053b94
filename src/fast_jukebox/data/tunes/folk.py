"""Irish and Scottish dance tunes and airs of music21's corpus, read from ABC notation.

O'Neill's Music of Ireland (1903) and Ryan's Mammoth Collection (1883) are in the public domain, and their files name
their transcribers and no restriction. Aird's Airs (1778 to 1801) names a web page of its transcriber, who may have
terms there, and is read only where it is asked for. Ornaments are left out, repeats are played.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fast_jukebox.data.tunes.scores import Score, ScoreError, ScoreNote, in_ticks, require

COLLECTIONS = {
    "oneill": ("oneills1850", "O'Neill's Music of Ireland (1903)"),
    "ryan": ("ryansMammoth", "Ryan's Mammoth Collection (1883)"),
    "aird": ("airdsAirs", "Aird's Airs (1778-1801)"),
}
"""Folder in music21's corpus and title of each collection."""

_SECTIONS = (
    (700, "air"), (1115, "jig"), (1175, "slip jig"), (1555, "reel"), (1780, "hornpipe"), (1800, None), (1850, "march"),
)  # fmt: skip
"""O'Neill's own sections: last number and kind; the long dances (1781 to 1800) are of no one kind."""

_RHYTHMS = {
    "air": "air", "clog": "hornpipe", "double jig": "jig", "fling": "strathspey", "highland fling": "strathspey",
    "hornpipe": "hornpipe", "jig": "jig", "march": "march", "reel": "reel", "slip jig": "slip jig",
    "slipjig": "slip jig", "strathspey": "strathspey",
}  # fmt: skip
_TITLE_WORDS = (
    (r"slip jig", "slip jig"), (r"strathspey", "strathspey"), (r"hornpipe", "hornpipe"), (r"\bjig\b|\bjigg\b", "jig"),
    (r"\breel\b", "reel"), (r"march|quick ?step|\btroop\b|retreat", "march"),
)  # fmt: skip
_METRES = {
    "jig": {(6, 8), (12, 8)}, "slip jig": {(9, 8)}, "reel": {(2, 2), (2, 4), (4, 4)},
    "hornpipe": {(2, 2), (2, 4), (4, 4)}, "strathspey": {(2, 2), (4, 4), (2, 4)},
}  # fmt: skip
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_LEAST_QUARTERS, _MOST_QUARTERS = 12.0, 400.0


def read_folk_tunes(collections: Sequence[str]) -> tuple[list[Score], dict[str, str]]:
    """All tunes of some [`COLLECTIONS`] whose kind is known, in the order of the books, about 2 ms each; and the
    reasons of those left out by name. music21 must be there (`ImportError`).
    """
    scores: list[Score] = []
    skipped: dict[str, str] = {}
    names: set[str] = set()
    for collection in collections:
        for name, text in _texts(collection):
            number = 2
            unique = name
            while unique in names:
                unique, number = f"{name}-{number}", number + 1
            names.add(unique)
            try:
                scores.append(read_abc(text, collection, unique))
            except ScoreError as error:
                skipped[unique] = str(error)
    return scores, skipped


def _texts(collection: str) -> Iterator[tuple[str, str]]:
    """Name and ABC text of each tune of a collection."""
    corpus = Path(str(require("music21").__file__)).parent / "corpus" / COLLECTIONS[collection][0]
    files = sorted(corpus.glob("*.abc"))
    if not files:
        raise ImportError(f"music21 is installed without its corpus: there are no scores in {corpus}")
    for path in files:
        for text in re.split(r"(?m)^(?=X:)", path.read_text(encoding="utf-8", errors="replace"))[1:]:
            number = re.match(r"X:\s*(\d+)", text)
            if collection == "ryan" or number is None:
                yield f"{collection}-{re.sub(r'[^A-Za-z0-9-]', '', path.stem)}", text
            else:
                book = f"{path.stem.removeprefix('book')}-" if collection == "aird" else ""
                yield f"{collection}-{book}{int(number[1]):04d}", text


def read_abc(text: str, collection: str, name: str) -> Score:
    """The tune of a text in ABC notation; a `ScoreError` where its kind is unknown or the text cannot be read."""
    abc = require("music21.abcFormat")
    header = {key: value.strip() for key, value in reversed(re.findall(r"(?m)^([A-Z]):(.*)$", text))}
    if re.search(r"(?m)^V:|\[V:|\[K:|\[M:", text):
        raise ScoreError("it has several voices or changes its key or metre within a line")
    # Since version 2 of the notation, music21 lets accidentals hold to the bar line, as the books mean them to.
    handler = abc.ABCHandler(abcVersion=(2, 1, 0))
    try:
        handler.process(text)
        items, key, metre = _items(handler.tokens)
    except ScoreError:
        raise
    except Exception as error:  # music21 raises many kinds on what it cannot read
        raise ScoreError(f"music21 cannot read it: {type(error).__name__}: {error}") from error
    title = _title(header.get("T", name))
    genre = _genre(collection, name, header.get("R", ""), title, metre)
    notes = _notes(_expand(items))
    if not notes:
        raise ScoreError("it has no notes")
    length = notes[-1].onset + notes[-1].duration
    if not _LEAST_QUARTERS <= length <= _MOST_QUARTERS:
        raise ScoreError(f"its length of {length:g} quarter notes is not from {_LEAST_QUARTERS} to {_MOST_QUARTERS}")
    longest_rest = max((b.onset - a.onset - a.duration for a, b in pairwise(notes)), default=0.0)
    if longest_rest > 2:
        raise ScoreError(f"it pauses for {longest_rest:g} quarter notes")
    upbeat = _upbeat(items, 4 * metre[0] / metre[1])
    return Score(name, title, genre, COLLECTIONS[collection][1], *key, metre, tuple(notes), upbeat)


@dataclass(frozen=True)
class _Item:
    """A note, a rest or a bar line of a tune: `pitch` is None for rests, `bar` for all but bar lines."""

    duration: float = 0.0
    pitch: int | None = None
    bar: str | None = None
    tied: bool = False


def _items(tokens: Sequence[Any]) -> tuple[list[_Item], tuple[int, str], tuple[int, int]]:
    """Notes and bar lines in the order of the text, the key and the metre."""
    items: list[_Item] = []
    key: tuple[int, str] | None = None
    metre: tuple[int, int] | None = None
    for token in tokens:
        kind = type(token).__name__
        if kind == "ABCMetadata" and token.tag == "K" and key is None:
            found = token.getKeySignatureObject()
            tonic = getattr(found, "tonic", None)
            if tonic is None:
                raise ScoreError(f"its key {token.data!r} is not known")
            key = tonic.pitchClass, found.mode
        elif kind == "ABCMetadata" and token.tag == "M":
            found = token.getTimeSignatureObject()
            if found is None or (metre is not None and metre != (found.numerator, found.denominator)):
                raise ScoreError("it has no metre or changes it")
            metre = found.numerator, found.denominator
        elif kind == "ABCBar":
            items.append(_Item(bar=token.repeatForm or token.barStyle))
        elif kind == "ABCTie" and items and items[-1].pitch is not None:
            items[-1] = _Item(items[-1].duration, items[-1].pitch, None, True)
        elif kind in ("ABCNote", "ABCChord") and not token.inGrace:
            duration = float(token.quarterLength)
            if token.activeTuplet is not None:
                duration *= float(token.activeTuplet.tupletMultiplier())
            if duration > 0:
                items.append(_Item(duration, _pitch(token)))
    if key is None or metre is None:
        raise ScoreError("it states no key or no metre")
    return items, key, metre


def _pitch(token: Any) -> int | None:
    """MIDI pitch of a note, of the highest note of a chord; None of a rest."""
    if token.isRest:
        return None
    names = [note.pitchName for note in token.subTokens] if type(token).__name__ == "ABCChord" else [token.pitchName]
    pitches = []
    for name in names:
        found = re.fullmatch(r"([A-G])([#n-]*)(\d)", name or "")
        if found is None:
            raise ScoreError(f"it has a note {name!r}")
        step, accidental, octave = found.groups()
        pitches.append(12 * (int(octave) + 1) + _SEMITONES[step] + accidental.count("#") - accidental.count("-"))
    return max(pitches)


def _expand(items: Sequence[_Item]) -> list[_Item]:
    """The notes as they are played: repeated sections twice, with their first and second endings."""
    played: list[_Item] = []
    body: list[_Item] = []
    ending: list[_Item] | None = None
    again = False  # the first ending is done: the body comes once more before the second
    for item in items:
        if item.bar is None:
            if again:
                played, body, again = played + body, [], False
            (body if ending is None else ending).append(item)
        elif item.bar == "first" and ending is None:
            ending = []
        elif item.bar == "end":
            played += [*body, *(ending if ending is not None else body)]
            again, ending = ending is not None, None
            if not again:
                body = []
        elif item.bar in ("start", "light-light", "heavy-light", "light-heavy") and ending is None and not again:
            played, body = played + body, []
    return played + body + (ending or [])


def _upbeat(items: Sequence[_Item], bar: float) -> float:
    """Quarter notes before the first bar line, if they are fewer than those of a bar."""
    before = 0.0
    for item in items:
        if item.bar is not None and before:
            break
        before += item.duration
    return before if before < bar - 1e-6 else 0.0


def _notes(items: Sequence[_Item]) -> list[ScoreNote]:
    """Notes with their onsets, ties joined, from the first note on."""
    notes: list[ScoreNote] = []
    onset = 0.0
    tied = False
    for item in items:
        if item.pitch is not None:
            last = notes[-1] if notes else None
            if (
                tied
                and last is not None
                and last.pitch == item.pitch
                and abs(last.onset + last.duration - onset) < 1e-6
            ):
                notes[-1] = ScoreNote(last.onset, last.duration + item.duration, last.pitch)
            else:
                notes.append(ScoreNote(onset, item.duration, item.pitch))
        tied = item.tied
        onset += item.duration
    return in_ticks(notes)


def _title(text: str) -> str:
    """A printed title: `Girl I Left Behind Me, The` and `THE GIRL` in their usual order and letters."""
    text = re.sub(r"\s+", " ", text).strip(' .,"')
    text = re.sub(r"\s*--\s*", " ", text)
    found = re.fullmatch(r"(.+?)\.?,? (The|A|An)", text)
    if found:
        text = f"{found[2]} {found[1]}"
    return text.title().replace("'S", "'s") if text.isupper() else text


def _genre(collection: str, name: str, rhythm: str, title: str, metre: tuple[int, int]) -> str:
    """The kind of a tune by its text, its book's section or its title; a `ScoreError` where none says it rightly."""
    genre = _RHYTHMS.get(rhythm.lower())
    if genre is None and rhythm and collection != "oneill":
        raise ScoreError(f"its kind {rhythm!r} is none of those known")
    if genre is None and collection == "oneill":
        number = int(name.split("-")[1])
        genre = next((kind for last, kind in _SECTIONS if number <= last), None)
    elif genre is None:
        genre = next((kind for words, kind in _TITLE_WORDS if re.search(words, title.lower())), None)
        genre = genre or ("air" if collection == "aird" else None)
    if genre is None:
        raise ScoreError("its kind is not stated")
    if genre in _METRES and metre not in _METRES[genre]:
        raise ScoreError(f"it is called a {genre} in a metre of {metre[0]}/{metre[1]}")
    return genre
