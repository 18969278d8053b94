"""Accompaniment by rule: chords that fit a melody, a bass, and drums, in the manner of each kind of music."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fast_jukebox.data.tunes.performing import beat_quarters
from fast_jukebox.data.tunes.scores import DRUM_VOICE, Score, ScoreNote

CHORD_VOICE, BASS_VOICE = 5, 6
"""Voices of the accompaniment's notes, which are also their MIDI channels."""
PROGRAMS = {CHORD_VOICE: 25, BASS_VOICE: 32, DRUM_VOICE: 0}
"""General MIDI programs of chords (steel guitar), bass (acoustic bass) and drums (the standard kit)."""
PARTS = ("chords", "bass", "drums")
"""Parts of an accompaniment."""

_BASS_DRUM, _SNARE, _HI_HAT = 36, 38, 42
# Scale degrees in semitones and their triads; the minor scale is the natural one with a major dominant as well.
_CHORDS = {
    "major": ((0, (0, 4, 7)), (5, (5, 9, 0)), (7, (7, 11, 2)), (9, (9, 0, 4)), (2, (2, 5, 9)), (4, (4, 7, 11))),
    "minor": ((0, (0, 3, 7)), (5, (5, 8, 0)), (7, (7, 10, 2)), (10, (10, 2, 5)), (3, (3, 7, 10)), (8, (8, 0, 3))),
    "dorian": ((0, (0, 3, 7)), (10, (10, 2, 5)), (5, (5, 9, 0)), (3, (3, 7, 10)), (7, (7, 10, 2))),
    "mixolydian": ((0, (0, 4, 7)), (10, (10, 2, 5)), (5, (5, 9, 0)), (7, (7, 10, 2)), (2, (2, 5, 9))),
}
_COST_OF_RANK = 0.05
_COST_OF_CHANGE = 0.08


@dataclass(frozen=True)
class Chord:
    """A chord: its root's pitch class and those of its notes, and when it begins and ends, in quarter notes."""

    root: int
    pitch_classes: tuple[int, ...]
    start: float
    end: float


def find_chords(score: Score, quarters: float) -> list[Chord]:
    """A chord for every span of so many quarter notes, counted from the first full bar: the cheapest sequence.

    A chord costs the fraction of its span's melody that it does not hold, notes on the beat counting twice, a little
    for each place down the list of the mode's usual chords, and a little for following another (Viterbi's algorithm).
    The last chord is the tonic's.
    """
    if not quarters > 0:
        raise ValueError(f"`quarters` must be above 0, got {quarters!r}")
    usual = _CHORDS.get(score.mode, _CHORDS["major"])
    chords = [((root + score.tonic) % 12, tuple((each + score.tonic) % 12 for each in triad)) for root, triad in usual]
    first = score.upbeat - math.ceil(score.upbeat / quarters) * quarters
    count = max(math.ceil((score.quarters - first) / quarters - 1e-9), 1)
    melody = [note for note in score.notes if note.voice == 0]
    costs = [
        [
            _misfit(melody, first + span * quarters, quarters, triad, beat_quarters(score)) + _COST_OF_RANK * rank
            for rank, (_, triad) in enumerate(chords)
        ]
        for span in range(count)
    ]
    costs[-1] = [0.0 if rank == 0 else math.inf for rank in range(len(chords))]
    best, came = costs[0], []
    for own in costs[1:]:
        before = [[value + _COST_OF_CHANGE * (a != b) for a, value in enumerate(best)] for b in range(len(chords))]
        came.append([min(range(len(chords)), key=row.__getitem__) for row in before])
        best = [min(row) + cost for row, cost in zip(before, own, strict=True)]
    path = [min(range(len(chords)), key=best.__getitem__)]
    for step in reversed(came):
        path.append(step[path[-1]])
    spans = [(max(first + n * quarters, 0.0), min(first + (n + 1) * quarters, score.quarters)) for n in range(count)]
    return [
        Chord(*chords[chosen], *span) for chosen, span in zip(reversed(path), spans, strict=True) if span[1] > span[0]
    ]


def _misfit(melody: Sequence[ScoreNote], start: float, quarters: float, triad: Sequence[int], beat: float) -> float:
    """Fraction of the melody in a span that is not in a chord."""
    inside = outside = 0.0
    for note in melody:
        length = min(note.onset + note.duration, start + quarters) - max(note.onset, start)
        if length <= 0:
            continue
        weight = length * (2.0 if abs((note.onset - start) / beat - round((note.onset - start) / beat)) < 1e-6 else 1.0)
        if note.pitch % 12 in triad:
            inside += weight
        else:
            outside += weight
    return outside / (inside + outside) if inside + outside else 0.0


def accompany(score: Score, parts: Sequence[str] = ("chords", "bass")) -> Score:
    """The score with an accompaniment: the bass on strong beats, chords between them, and drums.

    Chords change with each half bar, or each bar of three beats. In airs they are held and there are no drums; chorales
    are left as they are.
    """
    if score.genre == "chorale" or not parts:
        return score
    chords, bass, drums = (part in parts for part in PARTS)
    beat = beat_quarters(score)
    bar = 4.0 * score.metre[0] / score.metre[1]
    beats = max(round(bar / beat), 1)
    span = bar if beats in (1, 3) else bar / 2 if beats % 2 == 0 and bar / 2 >= beat else bar
    held = score.genre == "air"
    notes: list[ScoreNote] = []
    for chord in find_chords(score, span):
        place, number = chord.start, 0
        while place < chord.end - 1e-6:
            length = min(chord.end if held else place + beat, chord.end) - place
            strong = number == 0
            if bass and strong:
                notes.append(ScoreNote(place, length, 36 + (chord.root - 36) % 12, BASS_VOICE))
            if chords and (held or not strong or chord.end - chord.start <= beat):
                begin = place if held or not strong else place + beat / 2
                if chord.end - begin > 1e-6:
                    voicing = [52 + (each - 52) % 12 for each in chord.pitch_classes]
                    short = length if held else min(beat / 2, chord.end - begin)
                    notes += [ScoreNote(begin, short, pitch, CHORD_VOICE) for pitch in sorted(voicing)]
            if drums and not held:
                notes.append(ScoreNote(place, beat / 4, _BASS_DRUM if strong else _SNARE, DRUM_VOICE))
                notes.append(ScoreNote(place, beat / 4, _HI_HAT, DRUM_VOICE))
            place, number = chord.end if held else place + beat, number + 1
    both = sorted([*score.notes, *notes], key=lambda note: (note.onset, note.voice, note.pitch))
    return replace(score, notes=tuple(both))
