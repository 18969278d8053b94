"""The models of the studio, as pages show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fast_jukebox.generation.metadata import lyric_length_of
from fast_jukebox.models.fast_jukebox.modeling_fast_jukebox import FastJukeboxModel
from fast_jukebox.sampling.checks import level_name

ANY = ""
"""Value of a field where no artist or genre is asked for."""


@dataclass
class StudioModel:
    """A model under the name that the pages show.

    Attributes:
        name: shown.
        model: ready to sample.
        source: folder or repository that it came from.
    """

    name: str
    model: FastJukeboxModel
    source: str

    @property
    def rate(self) -> int:
        """Samples a second."""
        return int(self.model.vqvae.config.sampling_rate)

    @property
    def top(self) -> int:
        """The number of the top level."""
        return len(self.model.priors) - 1

    @property
    def level_names(self) -> list[str]:
        """Of each level, bottom first."""
        return [level_name(level, self.top + 1) for level in range(self.top + 1)]

    @property
    def sings(self) -> bool:
        """It takes lyrics."""
        return any(lyric_length_of(prior.config) for prior in self.model.priors)

    @property
    def labelled(self) -> bool:
        """A prior takes labels."""
        return any(prior.config.metadata_length for prior in self.model.priors)

    @property
    def draws_labels(self) -> bool:
        """It draws an artist and a genre where none is asked for."""
        return bool(getattr(getattr(self.model, "processor", None), "pairs", ()))

    def names(self, kind: str) -> list[str]:
        """Names of its vocabularies, `"artists"` or `"genres"`, in alphabetical order."""
        processor = getattr(self.model, "processor", None)
        found: set[str] = set()
        for vocabulary in [] if processor is None else processor.vocabularies:
            found |= {name for name, number in getattr(vocabulary, kind).items() if number}
        return sorted(found)

    def top_temperature(self) -> float:
        """The top level's temperature where nothing else is asked for."""
        return self.temperatures()[-1]

    def temperatures(self, top: float | None = None) -> list[float]:
        """Temperatures of all levels, bottom first, with another one at the top where it is given."""
        own = self.model.generation_config.temperature
        own = 0.99 if own is None else own
        found = [float(each) for each in own] if isinstance(own, Sequence) else [float(own)] * (self.top + 1)
        return found if top is None else [*found[:-1], top]

    def metadata(self, artist: object, genre: object, lyrics: str) -> dict[str, object] | None:
        """`metadata` of a song from the fields of a page; `None` leaves the labels to the model."""
        words: dict[str, object] = {}
        if self.labelled:
            given = {"artist": artist, "genre": genre, "lyrics": lyrics if self.sings else None}
            words = {name: value.strip() for name, value in given.items() if isinstance(value, str) and value.strip()}
        return words if words or (self.labelled and not self.draws_labels) else None


def described(words: Mapping[str, object] | None) -> str:
    """Labels in a few words, such as `jig by fiddle`."""
    words = words or {}
    genre = words.get("genre")
    genre = " ".join(genre) if isinstance(genre, list) else genre
    named = " by ".join(str(each) for each in (genre, words.get("artist")) if each)
    return ", ".join(part for part in (named, "with lyrics" if words.get("lyrics") else "") if part)
