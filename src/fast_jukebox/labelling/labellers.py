"""Measured labels of a clip: key, tempo, instruments, genre and moods. Below a threshold there is no label."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

from torch import Tensor

from fast_jukebox.audio.resample import resample_audio
from fast_jukebox.evaluation.musicnn import MusicnnEmbedding
from fast_jukebox.evaluation.notes import find_notes, shortest_clip
from fast_jukebox.evaluation.pitch import correlated_key, pitch_class_seconds
from fast_jukebox.utils.text import shown

Label: TypeAlias = "str | float | list[str]"
"""Text; the number `bpm`; the list `moods`."""


class Labeller(Protocol):
    """A function from a clip to labels. It is pickled where several processes label.

    Attributes:
        name: with its settings: labels measured under another name are not reused.
    """

    name: str

    def __call__(self, audio: Tensor, sampling_rate: int) -> Mapping[str, Label]:
        """Labels of a clip, float32 (samples,), mono: by `"key"`, `"bpm"`, `"genre"`, `"instrument"`, `"moods"`,
        `"artist"`, `"title"` or `"description"`; only those that it is sure of.
        """
        ...


class KeyLabeller:
    """Key and mode, such as `"F# minor"`: pitch classes of the notes, and the profiles of Albrecht and Shanahan (2013).

    Args:
        lead: by how much the key's correlation must exceed the next key's.

    Raises:
        ValueError: `lead` is not in [0, 2].
    """

    def __init__(self, lead: float = 0.08) -> None:
        if not 0 <= lead <= 2:
            raise ValueError(f"`lead` must be in [0, 2], got {shown(lead)}")
        self.lead = lead
        self.name = f"pitch profile, lead {lead:g}"

    def __call__(self, audio: Tensor, sampling_rate: int) -> Mapping[str, Label]:
        if sampling_rate < 8000 or len(audio) < shortest_clip(sampling_rate):
            return {}
        notes = find_notes(audio, sampling_rate)
        if not notes.noted_fraction >= _FEWEST_NOTED:  # NaN for silence
            return {}
        key, lead = correlated_key(pitch_class_seconds(notes))
        return {"key": str(key)} if lead >= self.lead else {}


class TempoLabeller:
    """Tempo in beats a minute by libsonare, its octave folded.

    Which of 70 and 140 is the tempo is a convention: the one nearest to `centre` in octaves is taken.

    Args:
        centre: beats a minute; the result lies in [centre / sqrt(2), centre * sqrt(2)).
        confidence: what libsonare must state at least, from 0 to 1. Noise has up to 0.47.

    Raises:
        ImportError: libsonare is not installed.
        ValueError: `centre` or `confidence` is out of range.
    """

    def __init__(self, centre: float = 100.0, confidence: float = 0.6) -> None:
        if not 20 <= centre <= 400:
            raise ValueError(f"`centre` must be from 20 to 400 beats a minute, got {shown(centre)}")
        if not 0 <= confidence <= 1:
            raise ValueError(f"`confidence` must be in [0, 1], got {shown(confidence)}")
        try:
            import libsonare
        except ImportError as error:
            raise ImportError(
                'the tempo is measured by libsonare: pip install "fast-jukebox[labels]", or choose other labellers'
            ) from error
        self.centre, self.confidence = centre, confidence
        self.name = f"libsonare {libsonare.__version__}, about {centre:g}, confidence {confidence:g}"

    def __call__(self, audio: Tensor, sampling_rate: int) -> Mapping[str, Label]:
        import libsonare

        samples = resample_audio(audio, sampling_rate, _TEMPO_RATE)
        if len(samples) < _TEMPO_SECONDS * _TEMPO_RATE:
            return {}
        found = libsonare.analyze_bpm(samples.numpy(), _TEMPO_RATE)
        if not (found.confidence >= self.confidence and math.isfinite(found.bpm) and found.bpm > 0):
            return {}
        return {"bpm": round(fold_tempo(found.bpm, self.centre), 1)}


def fold_tempo(bpm: float, centre: float) -> float:
    """A tempo times the power of two that brings it nearest to `centre`.

    >>> fold_tempo(200.0, 100.0), fold_tempo(35.0, 100.0)
    (100.0, 140.0)
    """
    return bpm * 2.0 ** -math.floor(math.log2(bpm / centre) + 0.5)


class TagLabeller:
    """Instruments, genre and moods by the two musicnn taggers that come with the package.

    Args:
        threshold: mean probability over a clip that a tag must have. Pink noise has up to 0.36.

    Raises:
        ValueError: `threshold` is not in (0, 1).
    """

    def __init__(self, threshold: float = 0.4) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"`threshold` must be in (0, 1), got {shown(threshold)}")
        self.threshold = threshold
        self.name = f"musicnn, threshold {threshold:g}"

    @cached_property
    def _taggers(self) -> list[MusicnnEmbedding]:
        return [MusicnnEmbedding(name) for name in ("musicnn_mtt", "musicnn_msd")]

    def __getstate__(self) -> dict[str, object]:
        """All but the networks, which each process loads."""
        return {"threshold": self.threshold, "name": self.name}

    def __call__(self, audio: Tensor, sampling_rate: int) -> Mapping[str, Label]:
        samples = resample_audio(audio, sampling_rate, MusicnnEmbedding.sampling_rate)
        if len(samples) < MusicnnEmbedding.window_samples:
            return {}
        heard: dict[str, float] = {}
        for tagger in self._taggers:
            means = tagger.embed_and_tag(samples[None])[1][0].mean(dim=0)  # (windows, K) -> (K,)
            for tag, probability in zip(tagger.tags, means.tolist(), strict=True):
                heard[tag] = max(probability, heard.get(tag, 0.0))
        instruments, genres, moods = (self._chosen(words, heard) for words in (_INSTRUMENTS, _GENRES, _MOODS))
        found: dict[str, Label] = {}
        if instruments:
            found["instrument"] = ", ".join(instruments[:_MOST_WORDS])
        if genres:
            found["genre"] = genres[0]
        if moods:
            found["moods"] = moods[:_MOST_WORDS]
        return found

    def _chosen(self, words: Mapping[str, Sequence[str]], heard: Mapping[str, float]) -> list[str]:
        """Words of which a tag is heard, the most probable one first."""
        values = {word: max(heard[tag] for tag in tags) for word, tags in words.items()}
        return sorted((word for word in values if values[word] >= self.threshold), key=lambda word: -values[word])


LABELLERS = {"key": KeyLabeller, "tempo": TempoLabeller, "tags": TagLabeller}
"""Labellers by name, see [`load_labeller`]."""


def load_labeller(name: str) -> Labeller:
    """The labeller of a name.

    Args:
        name: one of [`LABELLERS`], or `module:attribute` of your class or function that makes one.

    Raises:
        ValueError: there is no such labeller.
    """
    if name in LABELLERS:
        made: Labeller = LABELLERS[name]()
        return made
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ImportError("it has no colon")
        own: Labeller = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"`labeller` must be {', '.join(LABELLERS)} or MODULE:NAME of your own, got {shown(name)}: {error}"
        ) from error
    if not (callable(own) and isinstance(getattr(own, "name", None), str)):
        raise ValueError(
            f"`labeller` {shown(name)} must make something that can be called and has a `name`, got {shown(own)}"
        )
    return own


_FEWEST_NOTED = 0.1
"""Fraction of the time in which notes must be heard for a key."""
_TEMPO_RATE, _TEMPO_SECONDS = 22050, 5.0
_MOST_WORDS = 3


def _same(*words: str) -> dict[str, tuple[str, ...]]:
    return {word.lower(): (word,) for word in words}


# Words of labels, and the tags of either network that stand for them.
_INSTRUMENTS: dict[str, tuple[str, ...]] = {
    **_same("guitar", "strings", "drums", "piano", "violin", "harpsichord", "flute", "sitar", "harp", "cello"),
    "synthesizer": ("synth",),
    "choir": ("choir", "choral"),
    "voice": ("vocal", "vocals", "voice", "singing"),
    "female voice": ("female", "woman", "female vocal", "female voice", "female vocalist", "female vocalists"),
    "male voice": ("male", "man", "male vocal", "male voice", "male vocalists"),
}
_GENRES: dict[str, tuple[str, ...]] = {
    **_same("techno", "electronic", "rock", "ambient", "opera", "pop", "new age", "dance", "country", "metal", "jazz"),
    **_same("alternative", "indie", "alternative rock", "classic rock", "soul", "indie rock", "electronica", "folk"),
    **_same("punk", "blues", "hard rock", "experimental", "Hip-Hop", "funk", "electro", "heavy metal", "House"),
    **_same("Progressive rock", "indie pop", "indian"),
    "classical": ("classical", "classic"),
    "r&b": ("rnb",),
}
_MOODS: dict[str, tuple[str, ...]] = {
    **_same("happy", "sad", "Mellow", "party", "beautiful", "sexy", "catchy", "easy listening"),
    "chill": ("chill", "chillout"),
}
