"""Text for a terminal, made safe, and tables in Markdown."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence

_HARMLESS = "\n\t\u200c\u200d"
"""Line breaks, tabs, and the joiners that scripts and emoji need."""
_CONTROLS = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of Unicode: control, format (writing direction among them), surrogates, private use, separators."""

_MOST_SHOWN = 200
"""Characters of a value that an error quotes."""


def printable(text: str | os.PathLike[str], most: int | None = None) -> str:
    r"""The text with control characters written as escapes.

    Colours, cursor movements, links and titles begin with a control character; marks of writing direction make a name
    look like another one.

    Args:
        text: any, or a path; of names that are no UTF-8 the bytes are shown as `\udce9`.
        most: characters to keep; an ellipsis stands for what is left out.
    """
    text = os.fspath(text)
    if most is not None and len(text) > most:
        text = f"{text[:most]}..."
    return "".join(
        character
        if character in _HARMLESS or unicodedata.category(character) not in _CONTROLS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shown(value: object) -> str:
    """The repr of a value for an error, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "an integer of too many digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a `|` in a cell is escaped."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (header, *rows)]
    return "\n".join(f"| {line} |" for line in (lines[0], " | ".join(["---"] * len(header)), *lines[1:]))
