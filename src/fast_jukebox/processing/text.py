"""Names and lyrics as Jukebox's vocabularies have them: plain ASCII, by published rules."""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache
from typing import NamedTuple

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
_CYRILLIC = "а=a б=b в=v г=g д=d е=e ж=zh з=z и=i й=i к=k л=l м=m н=n о=o п=p р=r с=s т=t у=u ф=f х=kh ц=ts ч=ch ш=sh"  # noqa: RUF001
_MORE_CYRILLIC = "щ=shch ъ= ы=y ь= э=e ю=iu я=ia і=i є=ie ґ=g ђ=dj ј=j љ=lj њ=nj ћ=c џ=dz"  # noqa: RUF001
_GREEK = "α=a β=b γ=g δ=d ε=e ζ=z η=e θ=th ι=i κ=k λ=l μ=m ν=n ξ=x ο=o π=p ρ=r σ=s ς=s τ=t υ=u φ=ph χ=kh ψ=ps ω=o"  # noqa: RUF001
_LATIN = "ß=ss æ=ae œ=oe ø=o đ=d ð=d þ=th ł=l ħ=h ı=i ŋ=ng ə=e ŧ=t"  # noqa: RUF001
_LETTERS = dict(pair.split("=") for pair in f"{_LATIN} {_CYRILLIC} {_MORE_CYRILLIC} {_GREEK}".split())
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

    Accents are left out, ligatures and letters with a stroke are spelt, typographic quotes and dashes become plain,
    and Cyrillic, Greek, kana and Hangul letters are romanised one by one.

    >>> [transliterate(each) for each in "aé“Æж각カ漢"]
    ['a', 'e', '"', 'AE', 'zh', 'gag', 'ka', '']
    """
    if character in _SIGNS:
        return _SIGNS[character]
    if character.isascii():
        return character
    name = unicodedata.name(character, "")
    if name.startswith("HANGUL SYLLABLE "):
        return name.split()[-1].lower()
    if name.startswith(("HIRAGANA LETTER ", "KATAKANA LETTER ")):
        return name.split()[-1].lower()
    lower = character.lower()
    if lower in _LETTERS:
        spelt = _LETTERS[lower]
        return spelt if character == lower else spelt.upper()
    pieces = unicodedata.normalize("NFKD", character)
    return "" if pieces == character else "".join(map(transliterate, pieces))


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
