"""Update of a card's metrics; the rest of the card is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fast_jukebox.hub.cards import Figures, model_card, place_picture, require_license, save_card
from fast_jukebox.hub.load_card import load_card

_FIGURES, _TRAINING = "Figures", "How it was trained"
# New figures stand before the first of these that a card has.
_AFTER_FIGURES = ("Limits", "Licence", "Citation")


def update_model_card(
    directory: str | os.PathLike[str],
    *,
    figures: Figures,
    figures_note: str = "",
    evaluated_on: str = "held-out songs",
    picture: str | os.PathLike[str] | None = None,
    picture_caption: str = "mel spectrogram",
    training: str | None = None,
) -> Path:
    """Put what was measured anew on the card of a model's directory; return its path.

    Renewed are the section "Figures", the metadata's `model-index` and the picture. All other metadata (`base_model`,
    `tags`, `license` and so on) and all other text stay as they are, also what was written by hand.

    Args:
        directory: of the model, with a card that states its license.
        figures: in place of the card's, as [`~fast_jukebox.hub.model_card`] takes them; [`stated_figures`] gives those
            that are to stay.
        figures_note: how they were measured, Markdown.
        evaluated_on: name of the data that they were measured on.
        picture: a file, copied into the directory as [`~fast_jukebox.hub.write_model_card`] does; its line takes the
            place of an older one of the same name.
        picture_caption: what the picture shows.
        training: in place of the card's text on the training, Markdown; `None` keeps that.

    Raises:
        FileNotFoundError: there is no such picture.
        ValueError: the directory has no card, or its card states no license.
    """
    directory = Path(directory)
    license = require_license(directory)
    path = directory / "README.md"
    card = load_card(path)
    title, sections = _sections(card.text.rstrip() + "\n\n")
    made = model_card(
        name=card.data.get("model_name") or _title(title) or directory.absolute().name,
        description="",
        training=training or "",
        figures=figures,
        license=license,
        license_name=card.data.get("license_name"),
        license_link=card.data.get("license_link"),
        datasets=card.data.get("datasets") or (),
        figures_note=figures_note,
        evaluated_on=evaluated_on,
    )
    _, new = _sections(made.text)
    if _FIGURES not in sections:
        places = [name for name in _AFTER_FIGURES if name in sections]
        sections = _with_before(sections, places[0] if places else None, _FIGURES)
    sections[_FIGURES] = new[_FIGURES]
    if training is not None:
        if _TRAINING not in sections:
            sections = _with_before(sections, _FIGURES, _TRAINING)
        sections[_TRAINING] = new[_TRAINING]
    text = title + "".join(f"## {name}\n{body}" for name, body in sections.items())
    if picture is not None:
        name = place_picture(directory, picture)
        text = _with_picture(text, name, f"![{picture_caption}]({name})")
    card.text = text.rstrip() + "\n"
    for name in ("model_name", "eval_results"):
        setattr(card.data, name, getattr(made.data, name))
    return save_card(card, path)


def stated_figures(directory: str | os.PathLike[str], groups: Sequence[str]) -> dict[str, dict[str, object]]:
    """The figures of some groups that the card in a directory has in its `model-index`, as `model_card` takes them.

    Groups that it does not hold are left out; so are all where there is no card.
    """
    path = Path(directory) / "README.md"
    if not path.is_file():
        return {}
    results = getattr(load_card(path).data, "eval_results", None) or []
    found: dict[str, dict[str, object]] = {}
    for result in results:
        for group in groups:
            name = result.metric_name or ""
            if name == group or name.startswith(f"{group}, "):
                found.setdefault(group, {})[name[len(group) :].removeprefix(", ")] = result.metric_value
    return found


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the text of each section by its heading, code blocks kept whole."""
    head, sections, own, is_code = "", {}, None, False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        if line.startswith("## ") and not is_code:
            own = line[3:].strip()
            while own in sections:
                own += " "  # a heading that comes twice is two sections
            sections[own] = ""
        elif own is None:
            head += line
        else:
            sections[own] += line
    return head, sections


def _title(head: str) -> str | None:
    found = re.search(r"^# (.+)$", head, re.MULTILINE)
    return found[1].strip() if found else None


def _with_before(sections: dict[str, str], place: str | None, name: str) -> dict[str, str]:
    """The sections with an empty one before another, or at the end."""
    names = list(sections)
    names.insert(len(names) if place is None else names.index(place), name)
    return {own: sections.get(own, "") for own in names}


def _with_picture(text: str, name: str, line: str) -> str:
    """The text with the picture's line, where one of the same picture stood, or else before the figures."""
    old = re.compile(rf"^!\[[^\]\n]*\]\({re.escape(name)}\)$", re.MULTILINE)
    if old.search(text):
        return old.sub(lambda _: line, text, count=1)
    return text.replace(f"## {_FIGURES}\n", f"{line}\n\n## {_FIGURES}\n", 1)
