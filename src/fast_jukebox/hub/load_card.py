"""Cards that somebody else may have written, within bounds: a card is a text file whose metadata is YAML."""

from __future__ import annotations

import os

import yaml
from huggingface_hub import ModelCard, RepoCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from fast_jukebox.utils.files import read_file

MAX_CARD_BYTES = 2**20
MAX_METADATA_CHARACTERS = 2**17
MAX_BRACKETS = 64


def load_card(path: str | os.PathLike[str], kind: type[RepoCard] = ModelCard, *, strict: bool = True) -> RepoCard:
    """Read a card.

    Args:
        strict: refuse a `model-index` that is not as the Hub wants it; else it is left out.

    Raises:
        ValueError: the file is larger than a card can be or no UTF-8 text, or its metadata is damaged, too long, or
            refers to parts of itself, by which a few bytes can stand for more than the memory holds; names the file.
        OSError: it cannot be read.
    """
    content = read_file(path, MAX_CARD_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} must be UTF-8 text, save it as such: {error}") from error
    try:
        _check_metadata(text)
        card = kind(text, ignore_metadata_errors=not strict)
        str(card.data)  # what cannot be written again, as a number of too many digits, cannot be shown either
    except Exception as error:  # those of the parser and of the card's class, which do not name the file
        raise ValueError(
            f"the metadata of {os.fspath(path)}, between its two lines `---`, cannot be read; mend it: "
            f"{' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    return card


def stated_names(card: RepoCard, field: str) -> list[str]:
    """The names that a card states in a field of its metadata: none, one, or a list of them.

    Raises:
        ValueError: they are no names.
    """
    value = getattr(card.data, field, None)
    names = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"`{field}` of the card must be a list of names, got {value!r:.80}")
    return names


def _check_metadata(text: str) -> None:
    """Raise an error unless the metadata is short and without references."""
    found = REGEX_YAML_BLOCK.search(text)
    block = found[2] if found else ""
    if len(block) > MAX_METADATA_CHARACTERS:
        raise ValueError(f"it has {len(block)} characters, more than {MAX_METADATA_CHARACTERS}")
    depth = deepest = 0
    for character in block:  # the parser takes time by the square of how deep brackets are in one another
        depth += (character in "[{") - (character in "]}" and depth > 0)
        deepest = max(deepest, depth)
    if deepest > MAX_BRACKETS:
        raise ValueError(f"it opens {deepest} brackets in one another, more than {MAX_BRACKETS}")
    for event in yaml.parse(block, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to a part of itself (`*{event.anchor}`), which cards do not need")
