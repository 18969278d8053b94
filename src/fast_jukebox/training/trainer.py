"""The base class of the package's trainers: training with a time limit, complete checkpoints, metrics from sums."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME, ModelOutput

from fast_jukebox.models.adapters import has_adapters, load_adapter_weights, save_adapter
from fast_jukebox.processing.files import read_json
from fast_jukebox.training.cards import CardTrainer
from fast_jukebox.training.checkpoints import RESULTS, STATE, checkpoint_problem, checkpoint_to_resume, read_state
from fast_jukebox.training.clock import TrainingClock, seconds_spent
from fast_jukebox.training.curves import EarlyStopping, evaluations_without_progress
from fast_jukebox.utils.files import JsonObject, sync_files, write_file

logger = logging.getLogger(__name__)

_ALL_RESULTS = "all_results.json"
_ACCELERATE_MARKS = ("_is_accelerate_prepared", "_original_forward", "forward")
"""Attributes that accelerate leaves in a model that it prepares."""


class FastJukeboxTrainer(CardTrainer):
    """A [`~transformers.Trainer`] with time limits, an early end, complete checkpoints and the package's cards."""

    lr_scheduler: LRScheduler | None

    def __init__(self, *args: object, callbacks: Sequence[TrainerCallback] | None = None, **kwargs: Any) -> None:
        settings: TrainingArguments | None = kwargs.get("args", args[1] if len(args) > 1 else None)
        own = list(callbacks or ())
        max_minutes, stop_at = getattr(settings, "max_minutes", None), getattr(settings, "stop_at", None)
        if settings is not None and (max_minutes is not None or stop_at is not None):
            self.clock = TrainingClock(max_minutes, stop_at, settings.clock_evaluations)
            own.append(self.clock)
        if settings is not None and getattr(settings, "early_stopping_patience", None) is not None:
            own.append(EarlyStopping(settings.early_stopping_patience, settings.early_stopping_threshold))
        pushed = settings is not None and settings.push_to_hub
        if pushed and has_adapters(kwargs.get("model")) and not getattr(settings, "hub_base_model", None):
            raise ValueError("`hub_base_model` must name the adapter's base on the Hub where `push_to_hub` is set")
        self._sums: dict[str, Tensor] | None = None  # of the evaluation that is running
        self._noted: dict[str, Tensor] = {}  # (2,) of each name since the last log: sum and weight
        super().__init__(*args, callbacks=own, **kwargs)

    def learning_rate_factor(self) -> Callable[[int], float] | None:
        """The learning rate at a step as a fraction of its peak, with a time limit by the clock; `None` for one of
        transformers' schedules.
        """
        clock, warmup = self.clock, int(self.args.warmup_steps)
        return None if clock is None else lambda step: clock.rate(step, warmup)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """See [`~transformers.Trainer.create_scheduler`]; by [`learning_rate_factor`] where there is one."""
        factor = self.learning_rate_factor()
        if factor is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def train_and_save(self) -> dict[str, float]:
        """Train, from the checkpoint that the arguments name, save the model, its metrics and the log, evaluate, and
        push if asked to.

        A run that is finished, and resumed, does nothing; one whose last checkpoint is that of its last step is saved
        and evaluated.

        Returns:
            The last evaluation.

        Raises:
            ValueError: the checkpoint that is named is incomplete.
        """
        logger.info("%s", self.announcement())
        checkpoint = checkpoint_to_resume(self.args)
        resumes = str(self.args.resume_from_checkpoint).lower() == "true"
        if resumes and (metrics := self._finished_metrics()) is not None:
            return metrics
        self.before_training(resumed=checkpoint is not None)
        if checkpoint is not None and self._is_finished(read_state(Path(checkpoint))):
            logger.info("%s is of the last step: nothing is left to train", checkpoint)
            self._take_over(checkpoint, is_checkpoint=True)
        else:
            result = self.train(resume_from_checkpoint=checkpoint)
            self.save_metrics("train", result.metrics)
        self.save_model()
        metrics = self.evaluate()
        self.log_metrics("eval", metrics)
        if self.clock is not None:
            self.state.stateful_callbacks[type(self.clock).__name__] = self.clock.state()
        self.after_training()
        self.save_state()
        self.save_metrics("eval", metrics)
        if self.args.push_to_hub:
            self.push_to_hub()
        elif getattr(self.args, "hub_license", None):
            self.create_model_card()
        return metrics

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """See [`~transformers.Trainer.save_metrics`]; but a kill leaves no half of a file, nor does one that is there
        stop the next run.
        """
        if not self.is_world_process_zero():
            return
        folder, written = Path(self.args.output_dir or "."), {f"{split}_results.json": metrics}
        if combined:
            together: dict[str, float] = {}
            with suppress(OSError, ValueError):
                together = read_json(folder / _ALL_RESULTS)
            written = {_ALL_RESULTS: {**together, **metrics}, **written}  # a finished run is known by the last one
        for name, content in written.items():
            write_file(folder / name, json.dumps(content, indent=4, sort_keys=True))

    def before_training(self, resumed: bool) -> None:
        """Called by [`train_and_save`] before the first step, and before a checkpoint is loaded."""

    def after_training(self) -> None:
        """Called by [`train_and_save`] after the last evaluation, before a push."""

    def announcement(self) -> str:
        """One line for people: the model, the data, the length of the training and the folder of the result."""
        args, parameters = self.args, list(self.trained_model().parameters())
        count = sum(parameter.numel() for parameter in parameters)
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        frozen = "" if trained == count else f", {trained:,} of them trained"
        steps = self.planned_steps()
        where = f"{args.device}" if args.world_size == 1 else f"{args.device}, {args.world_size} processes"
        if self.clock is not None:
            length = f"{args.max_minutes:g} minutes" if args.max_minutes else "a time limit"
        else:
            length = "an unknown number of steps" if steps is None else f"{steps} steps"
        windows = f"{len(self.train_dataset)} windows an epoch" if hasattr(self.train_dataset, "__len__") else "windows"
        return (
            f"{self.describe()} {count:,} parameters{frozen}, on {where}. {windows} in batches "
            f"of {self.windows_per_step()}, {length}. Result in {args.output_dir}."
        )

    def planned_steps(self) -> int | None:
        """Steps of the complete training; None where only the data has an end."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        steps = self.steps_per_epoch()
        return None if steps is None else math.ceil(steps * self.args.num_train_epochs)

    def steps_per_epoch(self) -> int | None:
        """Steps in a pass over the data; None where it has no length."""
        try:
            batches = len(self.get_train_dataloader())
        except TypeError:
            return None
        return max(math.ceil(batches / self.args.gradient_accumulation_steps), 1)

    def _finished_metrics(self) -> dict[str, float] | None:
        """The metrics of a run that ended with its last evaluation, whose model is loaded; None of any other run."""
        folder = Path(self.args.output_dir or ".")
        state = read_state(folder)
        if not self._is_finished(state) or checkpoint_problem(folder, only_model=True) is not None:
            return None
        try:
            metrics = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        logger.info("%s is finished, with %d steps: nothing is done", folder, state["global_step"])
        self._take_over(str(folder))
        return metrics

    def _is_finished(self, state: JsonObject) -> bool:
        """A state is that of the last step."""
        if not state:
            return False
        patience = getattr(self.args, "early_stopping_patience", None)
        if patience is not None and evaluations_without_progress(state) >= patience:
            return True
        if self.clock is not None:
            return self.clock.max_minutes is not None and seconds_spent(state) >= 60 * self.clock.max_minutes
        steps = self.planned_steps()
        return steps is not None and state["global_step"] >= steps

    def _take_over(self, folder: str, is_checkpoint: bool = False) -> None:
        """Load the weights and the state of a checkpoint or a finished run without training on; of a checkpoint the
        weights of the best one where that is asked for.
        """
        self._load_from_checkpoint(folder)
        self.state = TrainerState.load_from_json(str(Path(folder) / STATE))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint and is_checkpoint:
            self._load_best_model()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """See [`~transformers.Trainer._load_from_checkpoint`], which would read our configuration as its own."""
        target = self.model if model is None else model
        if has_adapters(target):
            load_adapter_weights(target, resume_from_checkpoint)
            return
        weights = Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME
        if self.is_fsdp_enabled or not weights.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self._issue_warnings_after_load(target.load_state_dict(load_file(weights), strict=False))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """See [`~transformers.Trainer._save`]; of a model with adapters these alone, with the name of their base."""
        model = self.trained_model()
        if not has_adapters(model):
            super()._save(output_dir, state_dict)
            return
        folder = output_dir or self.args.output_dir
        save_adapter(model, folder, getattr(self.args, "hub_base_model", None), state_dict)  # type: ignore[arg-type]

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """See [`~transformers.Trainer._save_checkpoint`]: older checkpoints go only when this one is on the disk."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = self._get_output_dir(trial=trial)
            sync_files(Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            rotate_checkpoints(
                output_dir=folder,
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def loss_of(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """Loss and outputs of a batch, for [`compute_loss`]; what a training batch logs beside is given to [`note`]."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return loss, outputs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> object:
        """See [`~transformers.Trainer.compute_loss`]: the loss of [`loss_of`]."""
        loss, outputs = self.loss_of(model, inputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def note(self, means: Mapping[str, Tensor], weight: int = 1) -> None:
        """Keep a training batch's means for the next log, which has those over all batches and processes."""
        entries = ((name, mean.detach() * weight) for name, mean in means.items())
        _add(self._noted, {name: torch.stack([total, torch.full_like(total, weight)]) for name, total in entries})

    def training_metrics(self, means: dict[str, float], loss: float) -> dict[str, float]:
        """Metrics that are logged beside the loss.

        Args:
            means: of what was given to [`note`] since the last log.
            loss: that is logged.
        """
        return means

    def log(self, logs: dict[str, float], *args: object, **kwargs: object) -> None:
        """See [`~transformers.Trainer.log`]: adds the metrics of `training_metrics` to the loss."""
        if "loss" in logs:
            means = {}
            if self._noted:
                sums = self.accelerator.reduce(torch.stack(list(self._noted.values())), reduction="sum").tolist()
                means = {name: total / weight for name, (total, weight) in zip(self._noted, sums, strict=True)}
                self._noted = {}
            metrics = self.training_metrics(means, float(logs["loss"]))
            logs |= {name: float(f"{own:.6g}") if isinstance(own, float) else own for name, own in metrics.items()}
        super().log(logs, *args, **kwargs)

    def metrics_of(self, inputs: dict[str, Tensor], outputs: ModelOutput) -> dict[str, Tensor]:
        """Sums over the windows of an evaluation's batch, of any shape and the same names in every batch. They are
        added up over all batches and processes, in place of every logit.
        """
        return {}

    def metrics_from(self, sums: dict[str, Tensor], loss: float) -> dict[str, float]:
        """Metrics of an evaluation.

        Args:
            sums: those of `metrics_of` over all windows; empty where there was none.
            loss: the mean loss of a window.
        """
        return {}

    def evaluation_loop(
        self,
        dataloader: DataLoader[dict[str, Tensor]],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """See [`~transformers.Trainer.evaluation_loop`]: adds the metrics of `metrics_from`."""
        prefix = metric_key_prefix
        self._sums = {}
        try:
            with _evaluated_only(self):
                output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, prefix)
            sums = {name: self.accelerator.reduce(total, reduction="sum") for name, total in self._sums.items()}
        finally:
            self._sums = None
        metrics = self.metrics_from(sums, output.metrics[f"{prefix}_loss"])
        output.metrics.update({f"{prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See [`~transformers.Trainer.prediction_step`]: keeps the sums of `metrics_of` alone, unless there are metrics
        of all predictions together.
        """
        if self.compute_metrics is not None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs, own = self.own_windows(self._prepare_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.loss_of(model, inputs, None)
            if self._sums is not None:
                found = self.metrics_of(inputs, outputs)
                _add(self._sums, found if own else {name: torch.zeros_like(value) for name, value in found.items()})
        return loss.detach(), None, None

    def own_windows(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
        """An evaluation's batch without the windows that come twice, and how many windows that leaves.

        Where the last batch of several processes is short, accelerate fills it up with the first windows. Where nothing
        else is left for this process, one is kept, as all must take part in a forward pass; it counts for 0.
        """
        size, state = len(next(iter(inputs.values()))), self.accelerator.gradient_state
        if self.accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return inputs, size
        own = min(max(state.remainder - self.accelerator.process_index * size, 0), size)
        return {name: value[: max(own, 1)] for name, value in inputs.items()}, own


class BeforeEachStep(TrainerCallback):
    """Calls a function with the number of steps that are done: after the evaluation and the checkpoint of the last."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_step_begin(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        self.call(state.global_step)


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        sums[name] = sums[name] + value if name in sums else value


@contextmanager
def _evaluated_only(trainer: Trainer) -> Iterator[None]:
    """Let accelerate forget a model that is evaluated before it is trained.

    It prepares no model twice, so that one that was prepared to be evaluated would then be trained by each process by
    itself, without the others' gradients.

    Args:
        trainer: that evaluates within; where its model is prepared already, or sharded, nothing is changed.
    """
    prepared = trainer.accelerator._models
    if prepared or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        yield
        return
    facts, wrapped = vars(trainer.model), trainer.model_wrapped
    before = {name: facts[name] for name in _ACCELERATE_MARKS if name in facts}
    try:
        yield
    finally:
        prepared.clear()
        for name in _ACCELERATE_MARKS:
            facts.pop(name, None)
        facts.update(before)
        trainer.model_wrapped = wrapped
