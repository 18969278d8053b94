"""What every training script does with its command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser


def parse_arguments(groups: Sequence[type], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """One object for each dataclass of `groups`, from options, or from a JSON or YAML file that is the only argument.

    What the package logs at the level INFO, such as the songs and hours of each split, is shown from here on.

    Args:
        groups: dataclasses whose fields are the options.
        arguments: in place of the command line.
    """
    _show_messages()
    parser = HfArgumentParser(groups)  # type: ignore[arg-type]
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        return parser.parse_json_file(arguments[0])
    if len(arguments) == 1 and arguments[0].endswith((".yaml", ".yml")):
        return parser.parse_yaml_file(arguments[0])
    return parser.parse_args_into_dataclasses(arguments)


def _show_messages() -> None:
    """Print the package's messages in the first process; in others warnings alone, as Python does by itself."""
    logger = logging.getLogger("fast_jukebox")
    if logger.handlers or int(os.environ.get("RANK", "0")):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def name_base_model(args: Any, source: str | None) -> None:
    """Let the card name the model that is trained further, where it came from the Hub and no other is named.

    Args:
        args: [`~fast_jukebox.training.trainer.FastJukeboxTrainingArguments`]; their `hub_base_model` is set.
        source: folder or Hub name of that model, `None` for a training from nothing.
    """
    if args.hub_base_model is None and source is not None and not os.path.isdir(source):
        args.hub_base_model = source
