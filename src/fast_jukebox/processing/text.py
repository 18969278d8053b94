"""Text of songs: metadata that people write, names and lyrics as plain ASCII, and the lyrics of a window."""

from __future__ import annotations

import difflib
import math
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypedDict, cast

import torch
from anyascii import anyascii
from torch import Tensor
from torch.nn import functional as F

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
                f"`metadata` must have the keys {', '.join(FIELDS)}; got {name!r}, did you mean `{nearest}`?"
            )
        wanted = None if value is None else _wanted(name, value)
        if wanted is not None:
            raise ValueError(f"`{name}` must be {wanted}, got {value!r}")
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
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and 0 <= cast(float, value) <= MAX_TOTAL_DURATION:
        return None
    return f"seconds from 0 to {MAX_TOTAL_DURATION}"
