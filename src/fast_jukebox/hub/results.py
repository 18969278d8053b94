"""Measured numbers in the two forms that the Hub reads: a card's `model-index`, and files in `.eval_results`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from fast_jukebox.hub.cards import save_card

RESULTS_FOLDER = ".eval_results"
"""Folder of a model's repository where the Hub looks for results."""


def merge_eval_results(directory: str | os.PathLike[str], entries: Sequence[EvalResult]) -> Path:
    """Put results into the `model-index` of a model's card; the card's text and all other results stay.

    An entry takes the place of one with the same metric and data set.

    Args:
        directory: of a model with a card.
        entries: as [`~fast_jukebox.hub.cards.eval_results`] makes them.

    Returns:
        The card's path.

    Raises:
        FileNotFoundError: the directory has no card.
        ValueError: the card's metadata cannot be read.
    """
    path = Path(directory) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"results are put on a card, but {directory} has no README.md")
    card = ModelCard.load(path, ignore_metadata_errors=False)
    new = {(entry.metric_type, entry.dataset_name) for entry in entries}
    kept = [entry for entry in card.data.eval_results or [] if (entry.metric_type, entry.dataset_name) not in new]
    card.data.eval_results = [*kept, *entries]
    card.data.model_name = card.data.get("model_name") or Path(directory).absolute().name
    return save_card(card, path)


def model_index(name: str, entries: Sequence[EvalResult]) -> str:
    """A card's metadata (YAML) that holds nothing but results, to be put on a card by hand."""
    return ModelCardData(model_name=name, eval_results=list(entries)).to_yaml() + "\n"


def eval_results_file(numbers: Mapping[str, float], dataset: str, notes: str) -> str:
    """Text (YAML) of a file of `.eval_results`, an entry a number.

    Args:
        numbers: by name, which becomes the task's.
        dataset: the Hub's name of the data; the Hub shows results of data that it has.
        notes: how they were measured.
    """
    entries = [EvalResultEntry(dataset, name, value, notes=notes) for name, value in numbers.items()]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
