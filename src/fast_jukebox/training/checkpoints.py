"""Checkpoints of a training: which are complete, and which one a run resumes."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fast_jukebox.models.adapters import ADAPTER_WEIGHTS
from fast_jukebox.models.loading import ADAPTER_CONFIG
from fast_jukebox.processing.files import read_json
from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

STATE, RESULTS = "trainer_state.json", "eval_results.json"
"""Files that a training leaves: its log and, once it is finished, its last evaluation."""

_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_OPTIMIZER = ("optimizer.pt", "scheduler.pt")
# What sharded trainings write in place of one file of weights and one optimizer.
_SHARDED = ("pytorch_model_fsdp*", "global_step*", "optimizer_0", "*_state_dict*")


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` names; `true` is the last complete one of `--output_dir`, if any.

    Raises:
        ValueError: the checkpoint that is named is incomplete, or not there; says what is wrong.
    """
    wanted = args.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    only_model = bool(args.save_only_model)
    if str(wanted).lower() == "true":
        found = last_checkpoint(args.output_dir or ".", only_model)
        return None if found is None else str(found)
    problem = checkpoint_problem(Path(wanted), only_model)
    if problem is not None:
        raise ValueError(
            f"`--resume_from_checkpoint` must be true, false or a complete checkpoint, got {shown(wanted)}: {problem}"
        )
    return str(wanted)


def last_checkpoint(folder: str | os.PathLike[str], only_model: bool = False) -> Path | None:
    """The last complete checkpoint of a folder, if any; a warning names those behind it that are incomplete.

    Args:
        folder: with folders `checkpoint-500` and so on.
        only_model: they have no optimizer, as with `--save_only_model true`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None
    steps = {
        int(found[1]): path for path in folder.iterdir() if (found := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    for step in sorted(steps, reverse=True):
        problem = checkpoint_problem(steps[step], only_model)
        if problem is None:
            return steps[step]
        logger.warning("%s is incomplete (%s): an earlier checkpoint is taken, if there is one", steps[step], problem)
    return None


def checkpoint_problem(folder: Path, only_model: bool = False) -> str | None:
    """Problem of a checkpoint, as of one whose process was killed while it was written; None where it is complete."""
    if not folder.is_dir():
        return "there is no such folder"
    sharded = any(next(folder.glob(pattern), None) is not None for pattern in _SHARDED)
    adapter = (folder / ADAPTER_CONFIG).is_file() or (folder / ADAPTER_WEIGHTS).is_file()
    model = (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if adapter else ("config.json",)
    needed = [STATE] if sharded else [STATE, *model, *(() if only_model else _OPTIMIZER)]
    missing = [name for name in needed if not (folder / name).is_file()]
    if not sharded and not adapter and not any((folder / name).is_file() for name in (_WEIGHTS, _INDEX)):
        missing.append(_WEIGHTS)
    if missing:
        return f"it lacks {', '.join(missing)}"
    try:
        if not isinstance(read_json(folder / STATE)["global_step"], int):
            return f"{STATE} is damaged"
        shards = set(read_json(folder / _INDEX)["weight_map"].values()) if (folder / _INDEX).is_file() else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its JSON is damaged: {error}"
    missing = sorted(name for name in shards if not (folder / str(name)).is_file())
    if missing:
        return f"it lacks {missing[0]}"
    for path in sorted(folder.iterdir()):
        if not _is_whole(path):
            return f"{path.name} is damaged"
    return None


def read_state(folder: Path) -> JsonObject:
    """The `trainer_state.json` of a checkpoint or a finished run; empty where there is none that is complete."""
    try:
        state = read_json(folder / STATE)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state.get("global_step"), int) else {}


def _is_whole(path: Path) -> bool:
    """A file has the length that it states; of formats that state none, True."""
    if path.suffix in (".pt", ".pth", ".bin"):
        return zipfile.is_zipfile(path)
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):  # compares its length with the header's
                pass
    except (OSError, ValueError, RecursionError, SafetensorError):
        return False
    return True
