"""Names and lyrics as Jukebox's vocabularies have them: plain ASCII, by published rules."""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from anyascii import anyascii

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
    """A name as the vocabularies of whole genres write it.

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
        if len(known) < max(len(spelt), 1) and not _is_silent(character):
            dropped.append(character)
    return CleanLyrics("".join(kept), "".join(dropped))


def _is_silent(character: str) -> bool:
    """Accents and marks of direction, and the letters that the romanisation leaves out, are no loss."""
    return unicodedata.category(character) in ("Mn", "Cf") or character.lower() in "ъь"
