"""Vocabularies of artists, genres and characters, of which a prior's labels are made, and the text that they spell."""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict, cast

import torch
from anyascii import anyascii
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.sampling.checks import is_number
from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from datasets import Dataset

_MARKS = "'\"()[] \t\n"
LYRIC_CHARACTERS = {
    80: f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}.,:;!?-+{_MARKS}",
    79: f"{string.ascii_uppercase}{string.ascii_lowercase}{string.digits}.,:;!?-{_MARKS}",
}
"""Characters of the published lyric vocabularies by the number of their ids: character i has the id i + 1, and 0 stands
for none. The larger is that of the 5B model, the smaller that of the 1B model.
"""

_SIGNS = {
    **dict.fromkeys("‘’‚‛′ʹʻʼʽˈ´`", "'"),  # noqa: RUF001 (these are what is replaced)
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),  # noqa: RUF001
    **{"\\": "\n", "\r": "\n", "\u2028": "\n", "\u2029": "\n", "¿": "?", "¡": "!", "。": ".", "、": ","},
}
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")


class CleanLyrics(NamedTuple):
    """Lyrics that a vocabulary can spell."""

    text: str
    """the lyrics, of the vocabulary's characters alone"""
    dropped: str
    """the characters that have no place in it, as they stood there, in their order"""


def plain_name(name: str) -> str:
    """A name as the vocabularies of genre words write it.

    >>> plain_name("AC/DC (Live!)"), plain_name("Classic Pop")
    ('ac_dc_live', 'classic_pop')
    """
    return _NOT_PLAIN.sub("_", _composed(name).lower()).strip("_")


def lower_name(name: str) -> str:
    """A name as the vocabularies of complete genres write it.

    >>> lower_name(" Classic Pop ")
    'classic pop'
    """
    return _composed(name).lower().strip()


def _composed(name: str) -> str:
    """A name with its accents in one character each (NFC) and plain spaces, as it is written in most places."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", name))


@lru_cache(maxsize=4096)
def transliterate(character: str) -> str:
    """One character as ASCII, nothing where there is no such spelling.

    Typographic quotes and dashes become plain; letters, digits and other punctuation are spelt as anyascii does, which
    knows most scripts; symbols and emoji are not spelt.

    >>> [transliterate(each) for each in "aé“Æж각カ漢♪"]
    ['a', 'e', '"', 'Ae', 'zh', 'gag', 'ka', 'han', '']
    """
    if character in _SIGNS:
        return _SIGNS[character]
    if character.isascii():
        return character
    if unicodedata.category(character).startswith("S"):
        plain = unicodedata.normalize("NFKD", character)
        return plain if plain.isascii() else ""
    name = unicodedata.name(character, "")
    if name.startswith("HANGUL SYLLABLE "):  # as it is romanised today; anyascii has `lang` for `rang`
        return name.split()[-1].lower()
    spelt = anyascii(character)
    return spelt.lower() if character == character.lower() else spelt  # syllables of scripts without case begin large


def clean_lyrics(text: str, characters: str) -> CleanLyrics:
    r"""Lyrics in a vocabulary's characters; as published, a backslash is a line break.

    >>> clean_lyrics("Où est-il ? ♪\\n", LYRIC_CHARACTERS[80])
    CleanLyrics(text='Ou est-il ? \nn', dropped='♪')
    """
    kept, dropped = [], []
    for character in unicodedata.normalize("NFC", text).replace("\r\n", "\n"):
        spelt = transliterate(character)
        known = "".join(each for each in spelt if each in characters)
        kept.append(known)
        # The loss of accents, marks of direction, and letters that the romanisation leaves out is not reported.
        silent = unicodedata.category(character) in ("Mn", "Cf") or character.lower() in "ъь"
        if len(known) < max(len(spelt), 1) and not silent:
            dropped.append(character)
    return CleanLyrics("".join(kept), "".join(dropped))


def window_lyrics(labels: Tensor, label_length: int, lyric_length: int) -> tuple[Tensor, Tensor]:
    """Label vectors with a song's complete lyrics to label vectors with a window's part of them, as published.

    A window receives `lyric_length` characters around the one at its middle, as if the lyrics were sung evenly from
    beginning to end; at the lyrics' beginning and end the first and last ones. Of shorter lyrics it receives all, after
    as many ids 0 as are missing.

    Args:
        labels: int64 (N, label_length + any number), rows of total length, offset and window length in audio samples,
            artist, genres, and the song's characters, which -1 fills up at the end.
        label_length: columns before the characters.
        lyric_length: characters of a window.

    Returns:
        int64 (N, label_length + lyric_length), and int64 (N,): which of the song's characters stands first in its
        window; negative where 0 comes before.
    """
    head, text = labels.split([label_length, labels.shape[1] - label_length], dim=1)
    counts = (text >= 0).sum(dim=1)
    total, offset, length = head[:, :3].unbind(dim=1)
    # In integers, which is what rounding down the exact place gives.
    middle = counts * (2 * offset + length) // (2 * total).clamp(min=1)
    starts = torch.minimum((middle - lyric_length // 2).clamp(min=0), counts - lyric_length)
    places = starts[:, None] + torch.arange(lyric_length, device=labels.device)  # (N, lyric_length)
    part = F.pad(text, (0, 1)).gather(1, places.clamp(min=0)).masked_fill(places < 0, 0)
    return torch.cat([head, part], dim=1), starts


def join_texts(texts: list[list[int]]) -> Tensor:
    """Characters of several songs as one tensor int64 (N, longest), -1 after the shorter ones."""
    longest = max(map(len, texts), default=0)
    rows = [text + [-1] * (longest - len(text)) for text in texts]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)


MAX_TOTAL_DURATION = 86400
"""Seconds of the longest song that metadata may name, a day."""


class SongWords(TypedDict, total=False):
    """See [`~fast_jukebox.processing.FastJukeboxProcessor.__call__`]."""

    artist: str
    genre: str | Sequence[str]
    lyrics: str
    total_duration: float
    offset: float
    unknown: bool


FIELDS = tuple(SongWords.__annotations__)


def check_song(song: object) -> SongWords:
    """Metadata of a song without values that are `None`; a `ValueError` names what is not as asked."""
    if not isinstance(song, Mapping):
        raise ValueError(f"`metadata` must be a dictionary for each song, got {type(song).__name__}")
    for name, value in song.items():
        if name not in FIELDS:
            nearest = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"`metadata` must have the keys {', '.join(FIELDS)}; got {shown(name)}, did you mean `{nearest}`?"
            )
        wanted = None if value is None else _wanted(name, value)
        if wanted is not None:
            raise ValueError(f"`{name}` must be {wanted}, got {shown(value)}")
    given = {name: value for name, value in song.items() if value is not None}
    if given.get("total_duration") and given.get("offset", 0) >= given["total_duration"]:
        raise ValueError(
            f"`offset` must be below `total_duration`, {given['total_duration']:g} seconds, got {given['offset']:g}"
        )
    return cast(SongWords, given)


def _wanted(name: str, value: object) -> str | None:
    """The kind of value that is wanted, or None where it is of that kind."""
    if name in ("artist", "lyrics"):
        return None if isinstance(value, str) else "a text"
    if name == "genre":
        texts = value if isinstance(value, list | tuple) else [value]
        return None if all(isinstance(text, str) for text in texts) else "a text or a list of texts"
    if name == "unknown":
        return None if isinstance(value, bool) else "True or False"
    known = is_number(value) and 0 <= value <= MAX_TOTAL_DURATION
    return None if known else f"seconds from 0 to {MAX_TOTAL_DURATION}"


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
            raise ValueError(f"`genre_words` must be True or False, got {shown(self.genre_words)}")
        if not isinstance(self.characters, str) or len(set(self.characters)) != len(self.characters):
            raise ValueError(f"`characters` must be a text in which none stands twice, got {shown(self.characters)}")
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
            raise ValueError(f"`genre` must be one genre where a song has one, got {shown(several)}")
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
                raise ValueError(f"`pairs` must be of a known artist and a known genre, got {shown(pair)}")
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
        of = "" if name == given else f" of {shown(given)}"
        raise ValueError(
            f"`{kind}` must be one of the {len(ids)} that are known, got {shown(name)}{of}; the nearest are "
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
            raise ValueError(
                f"`{what}` must be texts with ids from 0 to {_MOST_NAMES - 1}, got {shown(name)}: {shown(number)}"
            )
    return {UNKNOWN: 0, **names}
