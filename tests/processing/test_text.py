import doctest
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.processing import vocabulary as module
from fast_jukebox.processing.vocabulary import LYRIC_CHARACTERS, clean_lyrics, lower_name, plain_name, transliterate


def test_the_examples_in_docstrings_are_true():
    assert doctest.testmod(module).failed == 0


def test_the_published_alphabets():
    newer, older = LYRIC_CHARACTERS[79], LYRIC_CHARACTERS[80]
    assert len(newer) == 78 and len(older) == 79
    assert older.replace("+", "") == newer
    assert older.index("+") == older.index("-") + 1
    assert newer.startswith("ABC") and newer[26:28] == "ab" and newer[52:54] == "01"
    assert newer[62:] == ".,:;!?-'\"()[] \t\n"


@pytest.mark.parametrize(
    ("name", "plain", "lower"),
    [
        ("The Beatles", "the_beatles", "the beatles"),
        ("  Guns N' Roses!", "guns_n_roses", "guns n' roses!"),
        ("R&B / Soul", "r_b_soul", "r&b / soul"),
        ("Beyoncé", "beyonc", "beyoncé"),
        ("___", "", "___"),
    ],
)
def test_names_are_written_as_published(name, plain, lower):
    assert plain_name(name) == plain
    assert lower_name(name) == lower


@settings(deadline=None)
@given(st.text(max_size=40))
def test_plain_names_are_words_joined_once(name):
    plain = plain_name(name)
    assert set(plain) <= set(string.ascii_lowercase + string.digits + "_")
    assert "__" not in plain and plain == plain.strip("_")
    assert plain_name(plain) == plain
    assert lower_name(lower_name(name)) == lower_name(name).lower().strip()


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from([79, 80]))
def test_lyrics_are_of_the_alphabet_and_nothing_is_lost_unseen(text, size):
    characters = LYRIC_CHARACTERS[size]
    clean = clean_lyrics(text, characters)
    assert set(clean.text) <= set(characters)
    assert clean_lyrics(clean.text, characters) == (clean.text, "")
    # What is dropped stood there.
    composed = unicodedata.normalize("NFC", text)
    assert all(character in composed for character in clean.dropped)
    plain = all(character in characters and character != "\\" for character in text)
    if plain:
        assert clean == (text, "")


@settings(deadline=None)
@given(st.characters())
def test_one_character_becomes_ascii(character):
    assert transliterate(character).isascii()


def test_scripts_are_romanised():
    assert clean_lyrics("Füße, Ærø, Łódź", LYRIC_CHARACTERS[79]).text == "Fusse, Aero, Lodz"
    assert clean_lyrics("Калинка, моя", LYRIC_CHARACTERS[79]) == ("Kalinka, moya", "")
    assert clean_lyrics("Ὀδυσσεύς", LYRIC_CHARACTERS[79]).text == "Odysseys"
    assert clean_lyrics("さくら 사랑", LYRIC_CHARACTERS[79]).text == "sakura sarang"
    assert clean_lyrics("“It\u2019s” \u2013 ok…", LYRIC_CHARACTERS[79]).text == '"It\'s" - ok...'


def test_words_of_most_scripts_are_spelt():
    for text in ("月亮代表我的心", "שלום", "مرحبا", "สวัสดี", "नमस्ते", "გამარჯობა"):
        spelt, dropped = clean_lyrics(text, LYRIC_CHARACTERS[79])
        assert spelt.strip() == spelt.lower() and len(spelt) > 2 and len(dropped) < 2, text


def test_what_cannot_be_spelt_is_told():
    assert clean_lyrics("1 + 1 = 2", LYRIC_CHARACTERS[80]) == ("1 + 1  2", "=")
    assert clean_lyrics("1 + 1 = 2", LYRIC_CHARACTERS[79]) == ("1  1  2", "+=")
    assert clean_lyrics("a\r\nb\rc\\d", LYRIC_CHARACTERS[79]) == ("a\nb\nc\nd", "")
    assert clean_lyrics("♪ 漢 😀", LYRIC_CHARACTERS[79]) == (" han ", "♪😀")
    assert clean_lyrics("e\u0301\u200b", LYRIC_CHARACTERS[79]) == ("e", "")


def test_a_character_that_is_spelt_in_part_is_told_as_dropped():
    assert clean_lyrics("жa", "ha") == ("ha", "ж")
    assert clean_lyrics("жa", "zha") == ("zha", "")
