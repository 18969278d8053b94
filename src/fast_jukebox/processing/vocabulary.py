"""Vocabularies of artists, genres and characters, of which a prior's labels are made."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fast_jukebox.processing.text import LYRIC_CHARACTERS, CleanLyrics, clean_lyrics, lower_name, plain_name
from fast_jukebox.utils.files import JsonObject

if TYPE_CHECKING:
    from datasets import Dataset

Rows: TypeAlias = "Dataset | Iterable[Mapping[str, object]]"
"""A dataset, or rows, of songs."""

UNKNOWN = "unknown"
"""The name of id 0."""
_MOST_NAMES = 1_000_000
_MOST_PAIRS = 1000


@dataclass(frozen=True)
class LabelVocabulary:
    """Artists, genres and characters with their ids.

    Args:
        artists: ids by normalised name; 0 is that of `unknown`, which is added where it is missing.
        genres: ids by normalised name, or by word where `genre_words`; 0 as for artists.
        genre_words: a song has a bag of genre words (as the 5B Jukebox and the upsamplers do), and names are written
            with `_` for all but letters and digits; otherwise it has one genre (as the 1B Jukebox does), and names are
            in small letters.
        characters: of lyrics; character i has the id i + 1.
        pairs: artists and genres, as normalised names, that songs have together; one is drawn without metadata.

    Raises:
        ValueError: names or ids that cannot be, or a character that stands there twice.
    """

    artists: dict[str, int] = field(default_factory=dict)
    genres: dict[str, int] = field(default_factory=dict)
    genre_words: bool = False
    characters: str = LYRIC_CHARACTERS[80]
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for kind in ("artists", "genres"):
            object.__setattr__(self, kind, check_names(kind, getattr(self, kind)))
        if not isinstance(self.genre_words, bool):
            raise ValueError(f"`genre_words` must be True or False, got {self.genre_words!r}")
        if not isinstance(self.characters, str) or len(set(self.characters)) != len(self.characters):
            raise ValueError(f"`characters` must be a text in which none stands twice, got {self.characters!r}")
        object.__setattr__(self, "pairs", self._checked_pairs())

    @property
    def num_artists(self) -> int:
        """Ids of artists, the unknown one included."""
        return max(self.artists.values()) + 1

    @property
    def num_genres(self) -> int:
        """Ids of genres, or of genre words, the unknown one included."""
        return max(self.genres.values()) + 1

    def normalise(self, name: str) -> str:
        """A name as this vocabulary writes it."""
        return plain_name(name) if self.genre_words else lower_name(name)

    def artist_id(self, name: str | None, unknown: bool = False) -> int:
        """The id of an artist; 0 for none, for `unknown`, and with `unknown` for those that are not known.

        Raises:
            ValueError: the artist is not known; names the five nearest.
        """
        if not name or name.isspace():
            return 0
        return self._find("artist", self.normalise(name), name, self.artists, unknown)

    def genre_ids(self, genre: str | Iterable[str] | None, unknown: bool = False) -> list[int]:
        """The ids of a genre, or of its words (or of several genres' words) where this is a vocabulary of words.

        Raises:
            ValueError: one is not known; names the five nearest. Or there are several where a song has one.
        """
        several = [genre] if isinstance(genre, str) else list(genre or [])
        names = [self.normalise(name) for name in several if name and not name.isspace()]
        if self.genre_words:
            names = [word for name in names for word in name.split("_") if word]
        elif len(names) > 1:
            raise ValueError(f"`genre` must be one genre where a song has one, got {several!r}")
        return [self._find("genre", name, genre, self.genres, unknown) for name in names] or [0]

    def lyric_ids(self, lyrics: str | None) -> tuple[list[int], CleanLyrics]:
        """The ids of a song's characters, and what became of its lyrics."""
        clean = clean_lyrics(lyrics or "", self.characters)
        ids = {character: index + 1 for index, character in enumerate(self.characters)}
        return [ids[character] for character in clean.text], clean

    def lyric_text(self, ids: Iterable[int]) -> str:
        """The characters of ids; nothing for those that are none."""
        return "".join(self.characters[each - 1] for each in ids if 0 < each <= len(self.characters))

    def to_dict(self) -> JsonObject:
        """The vocabulary as JSON can hold it."""
        return {name: value for name, value in asdict(self).items() if name != "pairs" or value}

    @classmethod
    def from_metadata(
        cls, rows: Rows, *, genre_words: bool = False, characters: str = LYRIC_CHARACTERS[80]
    ) -> LabelVocabulary:
        """The vocabulary of a dataset: its artists and genres in alphabetical order after `unknown`, and the thousand
        most frequent pairs of them.

        Args:
            rows: songs with `artist` and `genre` (a text or a list of texts) where they are known.
            genre_words, characters: see [`LabelVocabulary`].
        """
        return cls(genre_words=genre_words, characters=characters).extended(rows)

    def extended(self, rows: Rows, *, num_artists: int = 1, num_genres: int = 1) -> LabelVocabulary:
        """This vocabulary with the names of further songs that it lacks. Its ids stay; new ones follow, in alphabetical
        order. Pairs of artists and genres that the songs have replace the vocabulary's, so that a model trained further
        on them draws them.

        Args:
            rows: see [`from_metadata`].
            num_artists, num_genres: ids in use at least, such as a prior's, which may have more than there are names.
        """
        rows = rows if hasattr(rows, "column_names") else list(rows)
        lacking: list[dict[str, int]] = []
        for column, known, taken in (
            ("artist", self.artists, max(num_artists, self.num_artists)),
            ("genre", self.genres, max(num_genres, self.num_genres)),
        ):
            names = set(map(self.normalise, names_in(rows, column)))
            if column == "genre":
                names = {word for name in names for word in self._words(name)}
            new = sorted(name for name in names - {UNKNOWN, ""} if self._id(name, known) is None)
            lacking.append(dict(zip(new, count(taken), strict=False)))
        grown = replace(self, artists=self.artists | lacking[0], genres=self.genres | lacking[1])
        counts = Counter(
            (self.normalise(artist), self.normalise(genre))
            for artist, genre in zip(column_of(rows, "artist"), column_of(rows, "genre"), strict=True)
            if isinstance(artist, str) and isinstance(genre, str) and artist and genre
        )
        named = [
            pair
            for pair in sorted(pair for pair, _ in counts.most_common(_MOST_PAIRS))
            if pair[0] in grown.artists and grown.genres.keys() >= set(grown._words(pair[1]))
        ]
        return replace(grown, pairs=tuple(named)) if named else grown

    def _checked_pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs, each of two names; a `ValueError` for one that is none, or too many."""
        pairs = self.pairs
        if not isinstance(pairs, list | tuple) or len(pairs) > _MOST_PAIRS:
            raise ValueError(f"`pairs` must be a list of at most {_MOST_PAIRS} pairs of names, got {pairs!r:.200}")
        for pair in pairs:
            two = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
            if not two or pair[0] not in self.artists or not set(self._words(pair[1])) <= self.genres.keys():
                raise ValueError(f"`pairs` must be of a known artist and a known genre, got {pair!r}")
        return tuple((artist, genre) for artist, genre in pairs)

    def _words(self, genre: str) -> list[str]:
        return [word for word in genre.split("_") if word] if self.genre_words else [genre]

    def _id(self, name: str, ids: Mapping[str, int]) -> int | None:
        """The id of a normalised name, if it is known."""
        if name in ids:
            return ids[name]
        for known, number in ids.items():  # lists may write a name otherwise, as with a decomposed accent
            if not known.isascii() and self.normalise(known) == name:
                return number
        return None

    def _find(self, kind: str, name: str, given: object, ids: Mapping[str, int], unknown: bool) -> int:
        number = self._id(name, ids)
        if number is not None or unknown:
            return number or 0
        nearest = difflib.get_close_matches(name, ids, n=5, cutoff=0.0)
        of = "" if name == given else f" of {given!r}"
        raise ValueError(
            f"`{kind}` must be one of the {len(ids)} that are known, got {name!r}{of}; the nearest are "
            f"{', '.join(map(repr, nearest))}; `unknown=True` takes the unknown one for it"
        )


def column_of(rows: Rows, name: str) -> list[Any]:
    """A column of a dataset or of rows; `None` where a song lacks the value."""
    if hasattr(rows, "column_names"):
        dataset = cast("Dataset", rows)
        return list(dataset[name]) if name in dataset.column_names else [None] * len(dataset)
    return [row.get(name) for row in rows]


def names_in(rows: Rows, column: str) -> list[str]:
    """The names in a column, one after the other; songs without are left out."""
    several = [[value] if isinstance(value, str) else value or [] for value in column_of(rows, column)]
    return [name for names in several for name in names if name]


def check_names(what: str, names: object) -> dict[str, int]:
    """Names with ids, with `unknown`; a `ValueError` naming `what` where they are none."""
    if not isinstance(names, Mapping):
        raise ValueError(f"`{what}` must be ids by name, got {type(names).__name__}")
    for name, number in names.items():
        is_id = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _MOST_NAMES
        if not isinstance(name, str) or not is_id:
            raise ValueError(f"`{what}` must be texts with ids from 0 to {_MOST_NAMES - 1}, got {name!r}: {number!r}")
    return {UNKNOWN: 0, **names}
