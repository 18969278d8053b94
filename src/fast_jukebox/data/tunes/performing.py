"""A score to sounding notes in seconds: instrument, tempo, loudness, and the unevenness of people."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fast_jukebox.data.tunes.scores import DRUM_VOICE, TONICS, Score


@dataclass(frozen=True)
class Instrument:
    """A sound of a General MIDI soundfont: its program, counted from 0, and the MIDI pitches it is played at."""

    program: int
    lowest: int
    highest: int


INSTRUMENTS = {
    "piano": Instrument(0, 36, 96), "harpsichord": Instrument(6, 36, 89), "church organ": Instrument(19, 36, 91),
    "reed organ": Instrument(20, 36, 91), "accordion": Instrument(21, 53, 91), "guitar": Instrument(25, 40, 84),
    "fiddle": Instrument(40, 55, 96), "harp": Instrument(46, 40, 96), "strings": Instrument(48, 36, 96),
    "slow strings": Instrument(49, 36, 96), "choir": Instrument(52, 40, 84), "voice": Instrument(53, 40, 84),
    "oboe": Instrument(68, 58, 91), "flute": Instrument(73, 60, 96), "recorder": Instrument(74, 62, 98),
}  # fmt: skip
"""Instruments that a recipe may name."""

_DANCES = ("fiddle", "flute", "recorder", "accordion", "guitar", "harp", "piano")
SUITED = {
    "air": ("fiddle", "flute", "recorder", "oboe", "harp", "guitar", "piano", "reed organ"),
    "chorale": ("piano", "church organ", "reed organ", "oboe", "flute", "strings", "choir"),
    "march": ("fiddle", "flute", "recorder", "oboe", "accordion", "piano"),
    **dict.fromkeys(("hornpipe", "jig", "reel", "slip jig", "strathspey"), _DANCES),
}
"""Instruments that play each kind of music, where a recipe names them."""

TEMPI = {
    "air": (66, 92), "chorale": (66, 96), "hornpipe": (72, 88), "jig": (104, 120), "march": (88, 108),
    "reel": (92, 110), "slip jig": (104, 120), "strathspey": (58, 70),
}  # fmt: skip
"""Slowest and fastest tempo of each kind, in beats a minute."""

_ACCENTS = {"chorale": 4.0, "air": 6.0}
_LEGATO = {"chorale": 0.98, "air": 0.96, "march": 0.85, "strathspey": 0.88}
# How a beat's even parts are played: (written, played) points of a unit of so many beats, straight lines between them.
_GROOVES: dict[str, tuple[float, tuple[tuple[float, float], ...]]] = {
    "hornpipe": (0.5, ((0.0, 0.0), (0.5, 0.58), (1.0, 1.0))),
    "reel": (0.5, ((0.0, 0.0), (0.5, 0.525), (1.0, 1.0))),
    "jig": (1.0, ((0.0, 0.0), (1 / 3, 0.36), (2 / 3, 0.67), (1.0, 1.0))),
    "slip jig": (1.0, ((0.0, 0.0), (1 / 3, 0.36), (2 / 3, 0.67), (1.0, 1.0))),
}
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_VOICE_LOUDNESS = (8, -4, -4, 2)
ACCOMPANYING = 5
"""The first voice that accompanies the others."""
_ACCOMPANYING_LOUDNESS = -20


@dataclass(frozen=True)
class Performance:
    """Parameters of a performance.

    Attributes:
        instrument: a name in `INSTRUMENTS`.
        transposition: semitones up.
        tempo: beats a minute; see `beat_quarters`.
        human: 0 plays exactly as written and all notes equally loud, 1 as unevenly as a person.
        seed: of the unevenness.
        loudness_step: MIDI velocities are multiples of it.
        steady: the tempo does not drift, whatever `human` is.
    """

    instrument: str
    transposition: int
    tempo: float
    human: float = 1.0
    seed: int = 0
    loudness_step: int = 1
    steady: bool = False


@dataclass(frozen=True)
class SoundingNote:
    """A note of a recording: start and end in seconds, MIDI pitch, velocity from 1 to 127, and MIDI channel."""

    start: float
    end: float
    pitch: int
    velocity: int
    channel: int = 0


def beat_quarters(score: Score) -> float:
    """Quarter notes in a beat: 1.5 in 6/8, 9/8 and 12/8, 2 in 2/2 and in the common time of dances, else the unit."""
    beats, unit = score.metre
    if unit == 8 and beats % 3 == 0:
        return 1.5
    if (beats, unit) == (4, 4) and score.genre in ("reel", "hornpipe", "strathspey"):
        return 2.0
    return 4.0 / unit


def seconds_about(score: Score) -> float:
    """Seconds that a score takes at the middle of the tempi of its kind."""
    return score.quarters / beat_quarters(score) * 120 / sum(TEMPI[score.genre])


def to_nearest_scale(score: Score, scales: Sequence[str]) -> int:
    """Semitones from the major scale that holds most of a score's time to the nearest of `scales`, upwards of two."""
    if not scales:
        return 0
    weights = [0.0] * 12
    for note in score.notes:
        if note.voice != DRUM_VOICE:
            weights[note.pitch % 12] += note.duration
    own = max(range(12), key=lambda tonic: sum(weights[(tonic + step) % 12] for step in _MAJOR))
    moves = [(TONICS.index(scale) - own + 5) % 12 - 5 for scale in scales]
    return min(moves, key=lambda move: (abs(move), -move))


def perform(score: Score, performance: Performance) -> list[SoundingNote]:
    """The score's notes as they sound, sorted by start; the first begins at 0 or a few milliseconds after it.

    Where `human` is above 0: the tempo drifts by up to 1.5 % (not with `steady`), onsets scatter by 6 ms, even notes of
    dances swing, beats are louder than what is between them, phrases of four bars rise and fall, and notes end a little
    early.
    """
    human, draw = performance.human, random.Random(performance.seed)
    beat = beat_quarters(score)
    seconds = 60.0 / performance.tempo / beat
    period, phase = draw.uniform(24, 64), draw.uniform(0, 2 * math.pi)
    drift = 0.0 if performance.steady else 0.015 * human * period / (2 * math.pi)
    legato = 1 - human * (1 - _LEGATO.get(score.genre, 0.9))
    unit, points = _GROOVES.get(score.genre, (1.0, ((0.0, 0.0), (1.0, 1.0))))

    def when(quarters: float) -> float:
        """Seconds at which a place of the score is played."""
        place = quarters - score.upbeat
        step = unit * beat
        swung = place + human * (step * _along(points, place / step % 1.0) - place % step)
        drifted = drift * (math.cos(phase) - math.cos(2 * math.pi * place / period + phase))
        return seconds * (swung + score.upbeat + drifted)

    start, several = when(0.0), len({note.voice for note in score.notes}) > 1
    bar = 4.0 * score.metre[0] / score.metre[1]
    sounding = []
    for note in score.notes:
        onset = max(when(note.onset) - start + human * max(-0.015, min(0.015, draw.gauss(0, 0.006))), 0.0)
        end = when(note.onset + note.duration) - start
        loudness = 84.0
        if several:
            accompanies = note.voice >= ACCOMPANYING
            loudness += _ACCOMPANYING_LOUDNESS if accompanies else _VOICE_LOUDNESS[min(note.voice, 3)]
        loudness += human * (_accent(score, note.onset - score.upbeat, beat, bar) + draw.gauss(0, 2.5))
        loudness += human * 5 * math.sin(math.pi * ((note.onset - score.upbeat) / (4 * bar) % 1.0))
        end = max(onset + (end - onset) * legato, onset + 0.03)
        step = performance.loudness_step
        velocity = round(max(30.0, min(120.0, loudness)) / step) * step
        pitch = note.pitch if note.voice == DRUM_VOICE else note.pitch + performance.transposition
        sounding.append(SoundingNote(onset, end, pitch, velocity, note.voice))
    return sorted(sounding, key=lambda note: (note.start, note.channel, note.pitch))


def _accent(score: Score, place: float, beat: float, bar: float) -> float:
    """Velocity added at a place of the bar: most on its first beat, less on the others, none between them."""
    size = _ACCENTS.get(score.genre, 9.0)
    if abs(place / bar - round(place / bar)) < 1e-4:
        return size
    return 0.6 * size if abs(place / beat - round(place / beat)) < 1e-4 else 0.0


def _along(points: Sequence[tuple[float, float]], x: float) -> float:
    """Straight lines between points with rising first coordinates, from 0 to 1."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
