"""Update of the metrics on a card, whose other content is kept, and metrics in the forms that the Hub reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from fast_jukebox.hub.cards import (
    Metrics,
    load_card,
    model_card,
    place_picture,
    require_license,
    save_card,
    stated_names,
)

RESULTS_FOLDER = ".eval_results"
"""Folder of a model's repository in which the Hub finds results."""
_METRICS, _TRAINING = "Metrics", "How it was trained"
# New metrics stand before the first of these that a card has.
_AFTER_METRICS = ("Limits", "Licence", "Citation")


def update_model_card(
    directory: str | os.PathLike[str],
    *,
    metrics: Metrics,
    metrics_note: str = "",
    picture: str | os.PathLike[str] | None = None,
    picture_caption: str = "mel spectrogram",
    training: str | None = None,
) -> Path:
    """Update the section "Metrics", the metadata's `model-index` and the picture of the card of a model's directory.

    All other metadata and all other text stay as they are, also what was written by hand.

    Args:
        metrics: in place of the card's; [`stated_metrics`] gives those that are to stay. This and the other arguments
            are those of [`~fast_jukebox.hub.write_model_card`].
        training: `None` keeps the card's text.

    Raises:
        FileNotFoundError: there is no such picture.
        ValueError: the directory has no card, or its card states no license or `datasets` that are no names.
    """
    directory = Path(directory)
    license = require_license(directory)
    path = directory / "README.md"
    card = load_card(path)
    title, sections = _sections(card.text.rstrip() + "\n\n")
    heading = re.search(r"^# (.+)$", title, re.MULTILINE)
    made = model_card(
        name=card.data.get("model_name") or (heading[1].strip() if heading else "") or directory.absolute().name,
        description="",
        training=training or "",
        metrics=metrics,
        license=license,
        license_name=card.data.get("license_name"),
        license_link=card.data.get("license_link"),
        datasets=stated_names(card, "datasets"),
        metrics_note=metrics_note,
    )
    _, new = _sections(made.text)
    if _METRICS not in sections:
        sections = _with_before(sections, next((name for name in _AFTER_METRICS if name in sections), None), _METRICS)
    sections[_METRICS] = new[_METRICS]
    if training is not None:
        if _TRAINING not in sections:
            sections = _with_before(sections, _METRICS, _TRAINING)
        sections[_TRAINING] = new[_TRAINING]
    text = title + "".join(f"## {name}\n{body}" for name, body in sections.items())
    if picture is not None:
        name = place_picture(directory, picture)
        text = _with_picture(text, name, f"![{picture_caption}]({name})")
    card.text = text.rstrip() + "\n"
    for name in ("model_name", "eval_results"):
        setattr(card.data, name, getattr(made.data, name))
    return save_card(card, path)


def stated_metrics(directory: str | os.PathLike[str], groups: Sequence[str]) -> dict[str, dict[str, float | str]]:
    """The metrics of some groups in the `model-index` of a directory's card, if it has one, by group and name."""
    path = Path(directory) / "README.md"
    if not path.is_file():
        return {}
    results = getattr(load_card(path).data, "eval_results", None) or []
    found: dict[str, dict[str, float | str]] = {}
    for result in results:
        for group in groups:
            name = str(result.metric_name or "")
            if name == group or name.startswith(f"{group}, "):
                found.setdefault(group, {})[name[len(group) :].removeprefix(", ")] = result.metric_value
    return found


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and that of each section by its heading; headings in code blocks are text."""
    head, sections, title, is_code = "", {}, None, False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        if line.startswith("## ") and not is_code:
            title = line[3:].strip()
            while title in sections:
                title += " "  # a heading that comes twice is two sections
            sections[title] = ""
        elif title is None:
            head += line
        else:
            sections[title] += line
    return head, sections


def _with_before(sections: dict[str, str], place: str | None, name: str) -> dict[str, str]:
    """The sections with an empty one before another, or at the end."""
    names = list(sections)
    names.insert(len(names) if place is None else names.index(place), name)
    return {heading: sections.get(heading, "") for heading in names}


def _with_picture(text: str, name: str, line: str) -> str:
    """The text with the picture's line, in place of that of the same picture, or else before the metrics."""
    old = re.compile(rf"^!\[[^\]\n]*\]\({re.escape(name)}\)$", re.MULTILINE)
    if old.search(text):
        return old.sub(lambda _: line, text, count=1)
    return text.replace(f"## {_METRICS}\n", f"{line}\n\n## {_METRICS}\n", 1)


def model_index(name: str, entries: Sequence[EvalResult]) -> str:
    """Metadata of a card (YAML) with results alone, to be put on a card by hand."""
    return ModelCardData(model_name=name, eval_results=list(entries)).to_yaml() + "\n"


def eval_results_file(numbers: Mapping[str, float], dataset: str, notes: str) -> str:
    """Text (YAML) of a file of `.eval_results`: an entry for each number, whose name becomes the task's."""
    entries = [EvalResultEntry(dataset, name, value, notes=notes) for name, value in numbers.items()]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
