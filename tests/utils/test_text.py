from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.utils.text import printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://a\x07link", r"\x1b]8;;http://a\x07link"),
        ("a\rb\x08c", r"a\rb\x08c"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
        ("Zoë 友達 👩‍🎤 [bold]\ttab\nline", "Zoë 友達 👩‍🎤 [bold]\ttab\nline"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text, expected):
    assert printable(text) == expected


@given(st.text(alphabet=st.characters(), max_size=80))
def test_nothing_steers_a_terminal(text):
    printed = printable(text)
    steering = {chr(code) for code in [*range(32), *range(127, 160)]} - set("\n\t")
    assert not steering & set(printed)
    printed.encode()
    assert printable(printed) == printed


def test_long_text_is_cut():
    assert printable("a" * 100, 10) == "a" * 10 + "..."
    assert printable("short", 10) == "short"


def test_a_path_is_shown_too():
    assert printable(Path("songs") / "caf\udce9.wav") == str(Path("songs") / r"caf\udce9.wav")


def test_values_in_errors_are_cut():
    assert shown("a\n") == r"'a\n'" and shown([1, None]) == "[1, None]"
    assert shown("x" * 5000) == f"'{'x' * 199}... (5002 characters)"
    assert shown(list(range(1000))).startswith("[0, 1, 2,") and len(shown(list(range(1000)))) < 230
    assert shown(10**5000) == "an integer of too many digits"
