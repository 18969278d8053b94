"""What every training script does with its command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


def parse_arguments(groups: Sequence[type], arguments: Sequence[str] | None = None) -> tuple[Any, ...]:
    """One object for each dataclass of `groups`, from options, or from a JSON or YAML file that is the only argument.

    Args:
        groups: dataclasses whose fields are the options.
        arguments: in place of the command line.
    """
    parser = HfArgumentParser(groups)  # type: ignore[arg-type]
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        return parser.parse_json_file(arguments[0])
    if len(arguments) == 1 and arguments[0].endswith((".yaml", ".yml")):
        return parser.parse_yaml_file(arguments[0])
    return parser.parse_args_into_dataclasses(arguments)


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` names; `true` is the last of `--output_dir`, if any."""
    wanted = args.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    return get_last_checkpoint(args.output_dir) if str(wanted).lower() == "true" else wanted


def name_base_model(args: Any, source: str | None) -> None:
    """Let the card name the model that is trained further, where it came from the Hub and no other is named.

    Args:
        args: [`~fast_jukebox.training.trainer.FastJukeboxTrainingArguments`]; their `hub_base_model` is set.
        source: folder or Hub name of that model, `None` for a training from nothing.
    """
    if args.hub_base_model is None and source is not None and not os.path.isdir(source):
        args.hub_base_model = source
