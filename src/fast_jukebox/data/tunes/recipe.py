"""The recipe of a dataset of songs, its scores, and the rendering of one song."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from fast_jukebox.data.tunes.accompaniment import PARTS, PROGRAMS, accompany
from fast_jukebox.data.tunes.chorales import chorale_paths, read_chorale
from fast_jukebox.data.tunes.folk import COLLECTIONS, read_folk_tunes
from fast_jukebox.data.tunes.listening import check_notes, check_sound
from fast_jukebox.data.tunes.performing import (
    ACCOMPANYING,
    INSTRUMENTS,
    SUITED,
    TEMPI,
    Performance,
    perform,
    seconds_about,
    to_nearest_scale,
)
from fast_jukebox.data.tunes.scores import DRUM_VOICE, GENRES, TONICS, Score, ScoreError, natural_order
from fast_jukebox.data.tunes.synthesis import Player, soundfont_license
from fast_jukebox.utils.files import JsonObject

_RECIPE_VERSION = 3


@dataclass(frozen=True)
class SongRecipe:
    """All parameters of how the songs sound.

    Attributes:
        seed: of each song's instrument, key, tempo and unevenness, which depend on it and the song's name alone.
        genres: kinds of music that are played, among [`~fast_jukebox.data.tunes.scores.GENRES`].
        instruments: names in [`~fast_jukebox.data.tunes.performing.INSTRUMENTS`]; each song is played by one that suits
            its kind.
        voices: how many voices are played, from the highest down; 1 is the melody alone, `None` is all of them.
        accompaniment: what is added to tunes of one voice by rule, among
            [`~fast_jukebox.data.tunes.accompaniment.PARTS`].
        scales: tonics of the major scales that songs are played in, each in the nearest; none leaves them as written.
            Songs in few scales share their notes, which helps a small model.
        transpositions: lowest and highest transposition in semitones beside that.
        human: from 0, exactly as written, to 1, as unevenly as a person.
        grid: samples of which the notes' beginnings and ends are multiples. With the hop length of a VQ-VAE's top
            level, a repeated note has nearly the same codes.
        beat_grid: samples of which a beat is a multiple, 0 for any tempo. Each kind of music has one tempo then, that
            nearest to the middle of its tempi, and it does not drift. With the samples of a row of a top prior's
            window, beats stand in the same columns, and a bar that comes back is seen by attention to the columns.
        from_first_bar: a score's notes before its first whole bar are left out, so that the first beat of a bar is at
            the song's start.
        loudness_step: MIDI velocities are multiples of it.
        gain_step: decibels of which each song's gain is a multiple.
        sampling_rate: samples a second.
        peak_decibels: the loudest sample of each song at most, relative to full scale.
        tail: seconds that the last note rings on; it fades to zero over their second half.
        shortest: seconds that a song takes about at least; shorter scores are played again from the beginning.
        longest: seconds after which a song is cut off.
    """

    seed: int = 0
    genres: tuple[str, ...] = GENRES
    instruments: tuple[str, ...] = ("piano", "reed organ", "accordion", "guitar", "fiddle", "oboe", "flute", "recorder")
    voices: int | None = 1
    accompaniment: tuple[str, ...] = ()
    scales: tuple[str, ...] = ("G", "D")
    transpositions: tuple[int, int] = (0, 0)
    human: float = 0.3
    grid: int = 128
    beat_grid: int = 0
    from_first_bar: bool = False
    loudness_step: int = 4
    gain_step: float = 3.0
    sampling_rate: int = 44100
    peak_decibels: float = -3.0
    tail: float = 0.8
    shortest: float = 0.0
    longest: float = 300.0

    def __post_init__(self) -> None:
        """Refuse values that cannot be played, naming the field."""
        for name, known in (
            ("genres", GENRES), ("instruments", INSTRUMENTS), ("accompaniment", PARTS), ("scales", TONICS),
        ):  # fmt: skip
            value = getattr(self, name)
            if not set(value) <= set(known) or (not value and name in ("genres", "instruments")):
                raise ValueError(f"`{name}` must be among {list(known)}, got {value!r}")
        if self.voices is not None and not 1 <= self.voices <= 4:
            raise ValueError(f"`voices` must be from 1 to 4, or None for all, got {self.voices!r}")
        if not -12 <= self.transpositions[0] <= self.transpositions[1] <= 12:
            raise ValueError(f"`transpositions` must be lowest and highest in [-12, 12], got {self.transpositions!r}")
        for name, low, high, unit in (
            ("grid", 1, 4096, " samples"), ("beat_grid", 0, 192_000, " samples"),
            ("loudness_step", 1, 20, ""), ("gain_step", 0, 12, " decibels"),
            ("human", 0, 1, ""), ("sampling_rate", 8000, 192_000, ""), ("peak_decibels", -60, 0, ""),
            ("tail", 0, 30, " seconds"), ("shortest", 0, 300, " seconds"),
            ("longest", 1, 600, " seconds"),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"`{name}` must be from {low} to {high}{unit}, got {getattr(self, name)!r}")

    def times(self, score: Score) -> int:
        """How often a score is played in one performance."""
        return max(math.ceil(self.shortest / seconds_about(score)), 1)

    def played(self, score: Score) -> Score:
        """The score with those of its voices that the recipe plays, as often as it is played, and their
        accompaniment.
        """
        if self.voices is not None:
            score = replace(score, notes=tuple(note for note in score.notes if note.voice < (self.voices or 0)))
        bar = 4 * score.metre[0] / score.metre[1]
        whole_bars = math.ceil(score.quarters / bar - 1e-6) * bar
        left_out = score.upbeat if self.from_first_bar else 0.0
        notes = tuple(
            replace(note, onset=note.onset + time * whole_bars - left_out)
            for time in range(self.times(score))
            for note in score.notes
        )
        notes = tuple(note for note in notes if note.onset > -1e-6)
        return accompany(replace(score, notes=notes, upbeat=score.upbeat - left_out), self.accompaniment)

    def performance(self, score: Score, take: int = 0) -> Performance:
        """The `take`-th performance of a score: a function of the recipe, the number and the score's name alone.

        The instrument is among those that suit the kind of music, or all where none does. Octaves are added where it
        lacks the pitches.
        """
        digest = hashlib.sha256(f"{self.seed}/{take}/{score.name}".encode()).digest()
        draw = random.Random(int.from_bytes(digest, "big"))
        instrument = draw.choice([name for name in self.instruments if name in SUITED[score.genre]] or self.instruments)
        transposition = draw.randint(*self.transpositions) + to_nearest_scale(score, self.scales)
        pitches = [note.pitch for note in score.notes if note.voice < ACCOMPANYING]
        low, high = min(pitches) + transposition, max(pitches) + transposition
        played = INSTRUMENTS[instrument]
        while low < played.lowest and high + 12 <= played.highest:
            low, high, transposition = low + 12, high + 12, transposition + 12
        while high > played.highest and low - 12 >= played.lowest:
            low, high, transposition = low - 12, high - 12, transposition - 12
        tempo: float = draw.randint(*TEMPI[score.genre])
        if self.beat_grid:
            grids_a_minute = 60 * self.sampling_rate / self.beat_grid
            middle = sum(TEMPI[score.genre]) / 2
            tempo = grids_a_minute / max(round(grids_a_minute / middle), 1)
        unevenness = draw.getrandbits(32)
        steady = self.beat_grid > 0
        return Performance(instrument, transposition, tempo, self.human, unevenness, self.loudness_step, steady)

    def fingerprint(self) -> str:
        """A short hash of the recipe and of the version of its rendering."""
        text = json.dumps({"version": _RECIPE_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_scores(collections: Sequence[str] = ("oneill", "ryan", "chorales")) -> tuple[list[Score], dict[str, str]]:
    """Scores of music21's corpus: 2 ms a tune, half a second a chorale.

    Args:
        collections: among `oneill`, `ryan`, `aird` and `chorales`.

    Returns:
        The scores, and the reasons of those left out by name. A score with the notes of another is left out.

    Raises:
        ImportError: saying how to install what is missing.
        ValueError: there is no such collection.
    """
    known = [*COLLECTIONS, "chorales"]
    if not collections or not set(collections) <= set(known):
        raise ValueError(f"`collections` must be among {known}, got {list(collections)!r}")
    found, skipped = read_folk_tunes([name for name in collections if name != "chorales"])
    if "chorales" in collections:
        for path in chorale_paths():
            try:
                found.append(read_chorale(path))
            except ScoreError as error:
                skipped[path.stem] = str(error)
    scores: dict[str, Score] = {}
    for score in found:
        first = scores.setdefault(score.fingerprint(), score)
        if first is not score:
            skipped[score.name] = f"has the notes of {first.name}"
    return sorted(scores.values(), key=lambda score: natural_order(score.name)), skipped


def plan_performances(
    scores: Sequence[Score], count: int, *, seed: int = 0, balance: float = 0.5
) -> list[tuple[Score, int]]:
    """`count` performances, rare kinds of music more often than their fraction of the scores.

    Args:
        scores: to choose from; each is played as often as every other of its kind, give or take one.
        count: performances.
        balance: a kind of n scores gets performances in proportion to n to the power `1 - balance`: 0 plays each score
            equally often, 1 each kind.

    Returns:
        Scores with the number of the performance, shuffled.
    """
    draw = random.Random(seed)
    kinds = Counter(score.genre for score in scores)
    weights = {genre: number ** (1 - balance) for genre, number in kinds.items()}
    total = sum(weights.values())
    plan: list[tuple[Score, int]] = []
    for genre in sorted(kinds):
        own = [score for score in scores if score.genre == genre]
        draw.shuffle(own)
        amount = round(count * weights[genre] / total)
        plan += [(own[index % len(own)], index // len(own)) for index in range(amount)]
    draw.shuffle(plan)
    return plan


def plan_with_held_out(
    scores: Sequence[Score], splits: Mapping[str, str], count: int, *, seed: int = 0
) -> list[tuple[Score, int]]:
    """Performances to train on, and a twelfth as many of held-out scores, but at least four.

    Args:
        splits: `"train"` or `"test"` by the scores' names.
    """
    plan = []
    for split, number in (("test", max(4, count // 12)), ("train", count - count // 12)):
        own = [score for score in scores if splits[score.name] == split]
        plan += plan_performances(own, number, seed=seed) if own else []
    return plan


def label_pairs(scores: Iterable[Score], recipe: SongRecipe) -> list[dict[str, str]]:
    """Every pair of `artist` and `genre` that a recipe plays: rows for a vocabulary of labels."""
    genres = sorted({score.genre for score in scores} & set(recipe.genres))
    return [
        {"artist": artist, "genre": genre}
        for genre in genres
        for artist in [name for name in recipe.instruments if name in SUITED[genre]] or recipe.instruments
    ]


def render_song(
    score: Score, recipe: SongRecipe, player: Player, *, take: int = 0, split: str = "train", check: bool = True
) -> tuple[np.ndarray, JsonObject]:
    """Play one score: the audio, float32 (samples,), and its row of metadata without `file_name`.

    Raises:
        ValueError: it is silent, or with `check` has jumps or does not contain the score's notes.
    """
    score = recipe.played(score)
    performance = recipe.performance(score, take)
    notes = perform(score, performance)
    own = INSTRUMENTS[performance.instrument].program
    programs = {channel: PROGRAMS.get(channel, own) for channel in {note.channel for note in notes}}
    audio = player.play(notes, programs, recipe.tail, recipe.longest, recipe.grid)
    peak = float(np.abs(audio).max())
    if not peak > 1e-4:
        raise ValueError(f"{score.name} is silent: its peak is {peak:g}")
    gain = recipe.peak_decibels - 20 * math.log10(peak)
    if recipe.gain_step:
        gain = math.floor(gain / recipe.gain_step) * recipe.gain_step
    audio = audio * np.float32(10 ** (gain / 20))
    row = {
        "title": score.title,
        "artist": performance.instrument,
        "genre": score.genre,
        "accompaniment": " ".join(recipe.accompaniment) if score.genre != "chorale" else "",
        "composer": score.composer or "traditional",
        "catalogue": score.catalogue or "",
        "collection": score.collection,
        "key": TONICS[(score.tonic + performance.transposition) % 12],
        "mode": score.mode,
        "metre": f"{score.metre[0]}/{score.metre[1]}",
        "bpm": round(performance.tempo, 3),
        "transposition": performance.transposition,
        "duration": round(len(audio) / recipe.sampling_rate, 6),
        "sampling_rate": recipe.sampling_rate,
        "split": split,
        "license": "composition: public domain; recording: CC0-1.0; soundfont: "
        f"{player.path.name} ({soundfont_license(player.path)})",
        "score": score.fingerprint(),
        "recipe": recipe.fingerprint(),
    }
    if check:
        pitched = [(note.start, note.end, note.pitch) for note in notes if note.channel != DRUM_VOICE]
        row |= _listen(score, audio, recipe, pitched)
    return audio, row


def _listen(
    score: Score, audio: np.ndarray, recipe: SongRecipe, notes: list[tuple[float, float, int]]
) -> dict[str, float]:
    notes = [note for note in notes if note[1] < len(audio) / recipe.sampling_rate]
    sound, heard = check_sound(audio), check_notes(audio, recipe.sampling_rate, notes)
    if sound.largest_jump > 0.7 or sound.click > 16:
        raise ValueError(f"{score.name} jumps: {sound}")
    if heard.count and (heard.heard < 0.5 or heard.heard < heard.heard_elsewhere + 0.3):
        raise ValueError(f"{score.name} does not sound as written: {heard}")
    return {
        "rms": round(sound.rms, 4),
        "largest_jump": round(sound.largest_jump, 4),
        "click": round(sound.click, 2),
        "notes_heard": round(heard.heard, 4),
        "notes_heard_elsewhere": round(heard.heard_elsewhere, 4),
    }
