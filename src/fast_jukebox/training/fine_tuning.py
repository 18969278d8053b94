"""Training a model further: bits per code before and after on new songs and old, and runs that add up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from transformers import TrainerCallback, TrainerState

from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.processing.files import find_file, read_json, write_json
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.checkpoints import last_checkpoint, read_state
from fast_jukebox.training.clock import seconds_spent
from fast_jukebox.training.curves import evaluations_without_progress
from fast_jukebox.utils.text import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

RECORD = "fine_tuning.json"
"""The file of runs in the folder of a model that was trained further; the next run reads it."""

LEARNING_RATE, ADAPTER_LEARNING_RATE = 1e-4, 1e-3
NEW_SONGS, OLD_SONGS = "new songs", "old songs"
_MOST_RUNS = 10_000


@dataclass
class Run:
    """One training of a model further.

    Args:
        songs: that were trained on.
        hours: of these songs.
        learning_rate: the peak.
        schedule: of the learning rate.
        steps: of this run alone.
        minutes: of this run alone.
        before: bits per code before the first step, by name of the songs they were measured on.
        after: bits per code of what was saved.
    """

    songs: int
    hours: float
    learning_rate: float
    schedule: str
    steps: int = 0
    minutes: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


class FineTuning(TrainerCallback):
    """The runs that a model was trained further in, kept in the folder of each, from checkpoint to checkpoint.

    Args:
        folder: of the run that begins.
        source: folder or Hub name of the model that is trained further; its runs come first.
        songs: that are trained on.
        args: of the training.
        first_step: that the run begins with, where it goes on from the checkpoint of another.

    Raises:
        ValueError: the record of `source` is damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        source: str | os.PathLike[str],
        songs: Dataset,
        args: FastJukeboxTrainingArguments,
        first_step: int = 0,
    ) -> None:
        self.folder, self.first_step = Path(folder), first_step
        self.earlier = [run for run in read_runs(source) if run.after]
        hours = sum(songs["duration"]) / 3600 if "duration" in songs.column_names else 0.0
        schedule = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        self.run = Run(len(songs), hours, float(args.learning_rate or 0.0), schedule)
        self._began, self._minutes, self._writes = time.monotonic(), 0.0, args.should_save

    def begin(self, measure: Callable[[], dict[str, float]], resumed: bool) -> None:
        """Note the bits before the first step.

        Args:
            measure: bits per code by name of the songs.
            resumed: it may be a run that was interrupted: its bits and minutes are then kept.
        """
        unfinished = [run for run in read_runs(self.folder)[-1:] if resumed and not run.after]
        if unfinished and self.folder.is_dir():
            last = unfinished[0]
            self.run.before, self.run.steps, self.run.minutes = last.before, last.steps, last.minutes
            self._minutes = last.minutes
        else:
            self.run.before = measure()
        self._write()

    def on_train_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_save(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        """Note steps and minutes so far."""
        self._count(state)
        self._write()

    def on_train_end(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        """Note steps and minutes."""
        self._count(state)

    def end(self, after: Mapping[str, float]) -> None:
        """Note the bits of what was saved."""
        self.run.after = dict(after)
        self._write()

    def _count(self, state: TrainerState) -> None:
        self.run.steps = state.global_step - self.first_step
        self.run.minutes = self._minutes + (time.monotonic() - self._began) / 60

    def _write(self) -> None:
        if not self._writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RECORD, {"runs": [asdict(run) for run in (*self.earlier, self.run)]})

    def describe(self) -> str:
        """All runs, and the bits before and after the last one, Markdown."""
        return describe_runs([*self.earlier, self.run])


def bits_table(run: Run) -> str:
    """Bits per code before and after a run, Markdown."""
    rows = []
    for name, after in run.after.items():
        before = run.before.get(name)
        change = ("", "") if before is None else (f"{before:.3f}", f"{after - before:+.3f}")
        rows.append([name, change[0], f"{after:.3f}", change[1]])
    return markdown_table(["bits per code", "before", "after", "change"], rows)


def describe_runs(runs: Sequence[Run]) -> str:
    """Runs that a model was trained further in, such as [`read_runs`] gives, and the bits of the last one, Markdown."""
    if not runs:
        return ""
    rows = [
        [str(number), str(run.songs), f"{run.hours:.3g}", str(run.steps), f"{run.minutes:.1f}",
         f"{run.learning_rate:g}", run.schedule]
        for number, run in enumerate(runs, 1)
    ]  # fmt: skip
    if len(runs) > 1:
        steps, minutes = sum(run.steps for run in runs), sum(run.minutes for run in runs)
        rows.append(["all", "", "", str(steps), f"{minutes:.1f}", "", ""])
    table = markdown_table(["run", "songs", "hours", "steps", "minutes", "learning rate", "schedule"], rows)
    many = "s" if len(runs) > 1 else ""
    return f"Trained further in {len(runs)} run{many}:\n\n{table}\n\n{bits_table(runs[-1])}"


def read_runs(source: str | os.PathLike[str]) -> list[Run]:
    """The runs that a model was trained further in; none where there is no record of them.

    Raises:
        ValueError: the record is damaged.
    """
    path = find_file(source, RECORD)
    if path is None:
        return []
    try:
        runs = read_json(path)["runs"]
        if not isinstance(runs, list) or len(runs) > _MOST_RUNS:
            raise ValueError("`runs` must be a list")
        return [
            Run(
                int(run["songs"]), float(run["hours"]), float(run["learning_rate"]), str(run["schedule"])[:100],
                int(run["steps"]), float(run["minutes"]), _bits(run["before"]), _bits(run["after"]),
            )
            for run in runs
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"`{path}` is damaged ({error}): delete it, and the earlier runs are not counted") from error


def _bits(values: Mapping[str, float]) -> dict[str, float]:
    return {str(name)[:100]: float(bits) for name, bits in values.items()}


def choose_learning_rate(args: FastJukeboxTrainingArguments, adapters: bool = False) -> None:
    """Set the learning rate of a model that is trained further where none is given, and say why.

    Args:
        args: changed.
        adapters: adapters are trained in place of all weights.
    """
    if args.learning_rate_given:
        return
    args.learning_rate = ADAPTER_LEARNING_RATE if adapters else LEARNING_RATE
    why = (
        "adapters begin at nothing and learn little at that of all weights"
        if adapters
        else "a tenth of what priors are trained with from the beginning, so that few songs do not undo what it knows"
    )
    logger.info("learning rate %g, as no `--learning_rate` is given: %s (docs/your-songs.md)", args.learning_rate, why)


def continue_run(args: FastJukeboxTrainingArguments, source: str | os.PathLike[str], prior: FastJukeboxPrior) -> int:
    """Let a training go on where the finished one of another folder ended, as one long training would.

    Steps, epochs or minutes of `args` are then those that come on top, and the last checkpoint of `source` is resumed:
    its weights, moments, place in the data and schedule. Where that is not possible the training begins with the
    weights alone, and a line says why.

    Args:
        args: changed.
        source: the output folder of the earlier training.
        prior: that is trained, made from `source`.

    Returns:
        The step that it goes on from; 0 where it begins with the weights alone.
    """
    state, checkpoint = read_state(Path(source)), last_checkpoint(source) if Path(source).is_dir() else None
    reason = None
    if checkpoint is None or not state:
        reason = "it has no checkpoint (was it trained with `--save_strategy no`?)"
    elif int(checkpoint.name.rsplit("-", 1)[1]) != state["global_step"]:
        reason = f"its last checkpoint is not of its last step, {state['global_step']}"
    elif evaluations_without_progress(state):
        reason = "it was stopped early, and has the weights of its best step"
    elif not _same_shapes(checkpoint, prior):
        reason = "the model has grown since, by names or layers"
    if reason is not None or checkpoint is None:
        logger.info("%s goes on with its weights, and not with its optimizer: %s", source, reason)
        return 0
    if args.max_minutes is not None:
        args.max_minutes += seconds_spent(state) / 60
    elif args.max_steps > 0:
        args.max_steps += state["global_step"]
    else:
        args.num_train_epochs += state["epoch"]
    resumes = str(args.resume_from_checkpoint).lower() == "true"
    if not resumes or last_checkpoint(args.output_dir or ".") is None:
        args.resume_from_checkpoint = str(checkpoint)
    return int(state["global_step"])


def _same_shapes(checkpoint: Path, prior: FastJukeboxPrior) -> bool:
    """The weights of a checkpoint have the names and shapes of a prior's."""
    weights = checkpoint / "model.safetensors"
    if not weights.is_file():
        return False
    with safe_open(weights, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return shapes == {name: tuple(tensor.shape) for name, tensor in prior.state_dict().items()}
