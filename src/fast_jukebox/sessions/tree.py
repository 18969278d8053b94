"""The tree of a session's takes, drawn as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sessions.notes import MetadataRecord, Take
from fast_jukebox.utils.text import printable


def tree_lines(
    takes: Sequence[Take], kept: int | None, fractions: Mapping[int, Sequence[float]], rate: int
) -> list[str]:
    """The tree of takes as text, a take a line.

    Args:
        takes: all of them.
        kept: number of the one that is kept, or `None`.
        fractions: how much of each level of each take is made, in [0, 1], bottom first.
        rate: audio samples a second.
    """
    children: dict[int | None, list[Take]] = {}
    for take in takes:
        children.setdefault(take.parent, []).append(take)
    lines: list[str] = []
    waiting = [(take, "", "") for take in reversed(children.get(None, []))]
    while waiting:  # a chain of takes may be longer than calls can be deep
        take, lead, below = waiting.pop()
        lines.append(f"{lead}{_line(take, kept, fractions[take.number], rate)}")
        own = children.get(take.number, [])
        for child in reversed(own):
            last = child is own[-1]
            waiting.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    return lines


def _line(take: Take, kept: int | None, fractions: Sequence[float], rate: int) -> str:
    levels = [
        f"{level_name(level, len(fractions))} {'done' if fraction >= 1 else f'{int(100 * fraction)} %'}"
        for level, fraction in reversed(list(enumerate(fractions)))
        if fraction > 0
    ]
    mark = "  <- kept" if take.number == kept else ""
    made = ", ".join(levels) or "nothing made yet"
    facts = [take.origin, f"{take.samples / rate:g} s", f"seed {take.seed}", *_words(take.metadata)]
    return f"take {take.number}: {', '.join(facts)}; {made}{mark}"


def _words(metadata: MetadataRecord) -> list[str]:
    """Metadata in words, for one line."""
    match metadata:
        case {"words": dict(words)}:
            genre = words.get("genre")
            names = [words.get("artist"), *(genre if isinstance(genre, list) else [genre])]
            sung = ["sung"] if words.get("lyrics") else []
            return [*(printable(str(name), 60) for name in names if name), *sung]
    return []
