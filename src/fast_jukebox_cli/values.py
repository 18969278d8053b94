"""What stands after an option, as numbers and words, and errors that name the option. Loads nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from typer.models import OptionInfo

_OTHER_NAMES = {"path": "output", "num_samples": "songs", "home": "offload"}
"""Options that are called otherwise where the work is done."""


def numbers(name: str, text: str | None, kind: type[float] | type[int]) -> Any:
    """`0.98` as a number, `0.99,0.99,0.98` as a list of them, nothing as `None`.

    Raises:
        ValueError: another text; names the option.
    """
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError as error:
        wanted = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"`--{name}` must be one of the {wanted} or several with commas, got {text!r}") from error
    return values if len(values) > 1 else values[0]


def choices(text: str | None) -> Any:
    """`parallel` as a word, `parallel,sequential` as a list of them, nothing as `None`."""
    return text.split(",") if text is not None and "," in text else text


def file(name: str, path: Path | None) -> Path | None:
    """A file that is there.

    Raises:
        ValueError: it is not; names the option.
    """
    if path is not None and not path.expanduser().is_file():
        raise ValueError(f"`--{name}` must be a file, got {str(path)!r}")
    return None if path is None else path.expanduser()


def output_file(name: str, output: Path, suffixes: Sequence[str], others: str = "") -> Path:
    """The absolute path of a file that can be written, found out before the work, not after.

    Args:
        name: of the option.
        output: where to write.
        suffixes: that it may have.
        others: what else it may be, to be told.

    Raises:
        ValueError: it cannot be written; names the option.
    """
    output = output.expanduser().absolute()
    if output.suffix.lower() not in suffixes:
        raise ValueError(f"`--{name}` must end in {' or '.join(suffixes)}{others}, got {str(output)!r}")
    if output.is_dir():
        raise ValueError(f"`--{name}` must be a file, got the folder {str(output)!r}")
    if not output.parent.is_dir():
        raise ValueError(f"`--{name}` must lie in a folder that exists, got {str(output)!r}")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ValueError(f"`--{name}` must lie in a folder that can be written to, got {str(output)!r}")
    return output


def with_options(message: str, command: Callable[..., Any]) -> str:
    """An error's message in which arguments of Python bear the names that a command gives them as options."""
    hints = get_type_hints(command, include_extras=True)
    options = {name for name, hint in hints.items() if _is_option(hint)}

    def named(found: re.Match[str]) -> str:
        name = found[1] if found[1] in options else _OTHER_NAMES.get(found[1], "")
        return f"`--{name.replace('_', '-')}`" if name in options else found[0]

    if "artist" in options:
        message = message.replace("`metadata` must", "what is told of the song (`--artist` and the like) must")
    return re.sub(r"`(\w+)(?:=True)?`", named, message)


def _is_option(hint: Any) -> bool:
    return any(isinstance(each, OptionInfo) for each in getattr(hint, "__metadata__", ()))
