"""What the trainers of this package share: a card that says what was trained and how it did, and clean pushes."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME

from fast_jukebox.hub import push_folder, write_model_card
from fast_jukebox.models.adapters import adapter_usage, has_adapters, load_adapter_weights, save_adapter
from fast_jukebox.training.checkpoints import checkpoint_problem, checkpoint_to_resume, read_state
from fast_jukebox.training.clock import TrainingClock
from fast_jukebox.training.curves import EarlyStopping, evaluations_without_progress
from fast_jukebox.training.processes import evaluated_only
from fast_jukebox.utils.files import sync_files

logger = logging.getLogger(__name__)

_RESULTS = "eval_results.json"
# What an evaluation reports that says nothing of the model.
_TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


class FastJukeboxTrainer(Trainer):
    """A [`~transformers.Trainer`] whose cards and pushes are the package's own."""

    card_kind: ClassVar[str] = "model"
    card_tags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings: Any = kwargs.get("args", args[1] if len(args) > 1 else None)
        max_minutes, stop_at = getattr(settings, "max_minutes", None), getattr(settings, "stop_at", None)
        self.clock: TrainingClock | None = None
        if settings is not None and (max_minutes is not None or stop_at is not None):
            self.clock = TrainingClock(max_minutes, stop_at, settings.clock_evaluations)
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), self.clock]
        if getattr(settings, "early_stopping_patience", None) is not None:
            stopping = EarlyStopping(settings.early_stopping_patience, settings.early_stopping_threshold)
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), stopping]
        if has_adapters(kwargs.get("model")) and settings.push_to_hub and not getattr(settings, "hub_base_model", None):
            raise ValueError("`hub_base_model` must name the adapter's base on the Hub where `push_to_hub` is set")
        self._sums: dict[str, Tensor] | None = None  # of an evaluation that is going on
        super().__init__(*args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """See [`~transformers.Trainer.create_scheduler`]; against the clock, its schedule in place of one by steps."""
        clock = self.clock
        if clock is None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler: Any = self.lr_scheduler  # type: ignore[has-type]  # set by the base class
        if scheduler is None:
            warmup = int(self.args.warmup_steps)
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: clock.rate(step, warmup)
            )
            self.lr_scheduler = scheduler
        return scheduler

    def describe(self) -> str:
        """What the card says of the model, Markdown."""
        return f"A `{type(self.accelerator.unwrap_model(self.model)).__name__}` of fast-jukebox."

    def base_model(self) -> str | None:
        """The Hub's name of the model that this one was made from, for the card; `None` where there is none."""
        return getattr(self.args, "hub_base_model", None)

    def train_and_save(self) -> dict[str, float]:
        """What a training script does once all is set up: train, from the checkpoint that the arguments name, save the
        model, its metrics and the log, evaluate, and push if asked to.

        A run that is finished, and resumed, does nothing; one whose last checkpoint is that of its last step is saved
        and evaluated.

        Returns:
            The last evaluation.

        Raises:
            ValueError: the checkpoint that is named is not whole.
        """
        logger.info("%s", self.announcement())
        checkpoint = checkpoint_to_resume(self.args)
        resumes = str(self.args.resume_from_checkpoint).lower() == "true"
        if resumes and (figures := self._finished_figures()) is not None:
            return figures
        self.before_training(resumed=checkpoint is not None)
        if checkpoint is not None and self._is_finished(read_state(Path(checkpoint))):
            logger.info("%s is of the last step: nothing is left to train", checkpoint)
            self._take_over(checkpoint, is_checkpoint=True)
        else:
            result = self.train(resume_from_checkpoint=checkpoint)
            self.save_metrics("train", result.metrics)
        self.save_model()
        figures = self.evaluate()
        self.log_metrics("eval", figures)
        if self.clock is not None:
            self.state.stateful_callbacks[type(self.clock).__name__] = self.clock.state()
        self.after_training()
        self.save_state()
        self.save_metrics("eval", figures)
        if self.args.push_to_hub:
            self.push_to_hub()
        elif getattr(self.args, "hub_license", None):
            self.create_model_card()
        return figures

    def before_training(self, resumed: bool) -> None:
        """What [`train_and_save`] does before the first step, and before a checkpoint is loaded.

        Args:
            resumed: whether a checkpoint is resumed.
        """

    def after_training(self) -> None:
        """What [`train_and_save`] does after the last evaluation, before a push."""

    def announcement(self) -> str:
        """What is trained, on what, for how long, and where the result goes, in a line for people."""
        args, parameters = self.args, list(self.trained_model().parameters())
        count = sum(parameter.numel() for parameter in parameters)
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        frozen = "" if trained == count else f", {trained:,} of them trained"
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        steps = self.planned_steps()
        if self.clock is not None:
            length = f"{args.max_minutes:g} minutes" if args.max_minutes else "a time limit"
        else:
            length = "an unknown number of steps" if steps is None else f"{steps} steps"
        windows = f"{len(self.train_dataset)} windows an epoch" if hasattr(self.train_dataset, "__len__") else "windows"
        return (
            f"{self.describe()} {count:,} parameters{frozen}, on {args.device}. {windows} in batches "
            f"of {batch}, {length}. Result in {args.output_dir}."
        )

    def trained_model(self) -> torch.nn.Module:
        """The model that is trained, as it was given."""
        return self.accelerator.unwrap_model(self.model)

    def planned_steps(self) -> int | None:
        """Steps of the whole training; None where only the data has an end."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        try:
            batches = len(self.get_train_dataloader())
        except TypeError:
            return None
        steps = max(math.ceil(batches / self.args.gradient_accumulation_steps), 1)
        return math.ceil(steps * self.args.num_train_epochs)

    def _finished_figures(self) -> dict[str, float] | None:
        """The figures of a run that ended with its last evaluation, whose model is loaded; None of any other run."""
        folder = Path(self.args.output_dir or ".")
        state = read_state(folder)
        if not self._is_finished(state) or checkpoint_problem(folder, only_model=True) is not None:
            return None
        try:
            figures = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        logger.info("%s is finished, with %d steps: nothing is done", folder, state["global_step"])
        self._take_over(str(folder))
        return figures

    def _is_finished(self, state: dict[str, Any]) -> bool:
        """Whether a state is that of the last step."""
        if not state:
            return False
        patience = getattr(self.args, "early_stopping_patience", None)
        if patience is not None and evaluations_without_progress(state) >= patience:
            return True
        if self.clock is not None:
            kept = state.get("stateful_callbacks", {}).get(type(self.clock).__name__)
            spent = kept["attributes"]["spent"] if isinstance(kept, dict) else 0.0
            return self.clock.max_minutes is not None and spent >= 60 * self.clock.max_minutes
        steps = self.planned_steps()
        return steps is not None and state["global_step"] >= steps

    def _take_over(self, folder: str, is_checkpoint: bool = False) -> None:
        """Load the weights and the state of a checkpoint or a finished run without training on; of a checkpoint the
        weights of the best one where that is asked for.
        """
        self._load_from_checkpoint(folder)
        self.state = TrainerState.load_from_json(str(Path(folder) / "trainer_state.json"))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint and is_checkpoint:
            self._load_best_model()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """See [`~transformers.Trainer._load_from_checkpoint`], which would read our configuration as one of its own."""
        target = self.model if model is None else model
        if has_adapters(target):
            load_adapter_weights(target, resume_from_checkpoint)
            return
        weights = Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME
        if self.is_fsdp_enabled or not weights.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self._issue_warnings_after_load(target.load_state_dict(load_file(weights), strict=False))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """See [`~transformers.Trainer._save`]; of a model with adapters these alone, with the name of their base."""
        model = self.trained_model()
        if not has_adapters(model):
            super()._save(output_dir, state_dict)
            return
        folder = output_dir or self.args.output_dir
        save_adapter(model, folder, getattr(self.args, "hub_base_model", None), state_dict)  # type: ignore[arg-type]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
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

    def metrics_of(self, inputs: dict[str, Any], outputs: Any) -> dict[str, Tensor]:
        """Sums over the windows of an evaluation's batch, of any shape and the same names in every batch. They are
        added up over all batches and processes, in place of every logit.

        Args:
            inputs: the batch, on the device.
            outputs: the model's, without gradients.
        """
        return {}

    def metrics_from(self, sums: dict[str, Tensor], loss: float) -> dict[str, float]:
        """Metrics of an evaluation.

        Args:
            sums: those of `metrics_of` over all windows; empty where there was none.
            loss: the mean loss of a window.
        """
        return {}

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """See [`~transformers.Trainer.evaluation_loop`]: adds the metrics of `metrics_from`."""
        prefix = kwargs.get("metric_key_prefix", "eval")
        self._sums = {}
        try:
            with evaluated_only(self):
                output = super().evaluation_loop(*args, **kwargs)
            sums = {name: self.accelerator.reduce(total, reduction="sum") for name, total in self._sums.items()}
        finally:
            self._sums = None
        metrics = self.metrics_from(sums, output.metrics[f"{prefix}_loss"])
        output.metrics.update({f"{prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See [`~transformers.Trainer.prediction_step`]: keeps the sums of `metrics_of` alone, unless there are metrics
        of all predictions together.
        """
        if self.compute_metrics is not None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs, own = self.own_windows(self._prepare_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            if self._sums is not None:
                for name, value in self.metrics_of(inputs, outputs).items():
                    value = value if own else torch.zeros_like(value)
                    self._sums[name] = self._sums[name] + value if name in self._sums else value
        return loss.detach(), None, None

    def own_windows(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """An evaluation's batch without the windows that come twice, and how many windows that leaves.

        Where the last batch of several processes is short, accelerate fills it up with the first windows. Where nothing
        else is left for this process, one is kept, as all must take part in a forward pass; it counts for 0.
        """
        size, state = len(next(iter(inputs.values()))), self.accelerator.gradient_state
        if self.accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return inputs, size
        own = min(max(state.remainder - self.accelerator.process_index * size, 0), size)
        return {name: value[: max(own, 1)] for name, value in inputs.items()}, own

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card into `output_dir`: what was trained, with which settings, and the last evaluation.

        Takes the arguments of [`~transformers.Trainer.create_model_card`]; `license`, `dataset` and `model_name` count.

        Raises:
            ValueError: no license, neither here nor in the training arguments.
        """
        if not self.is_world_process_zero():
            return
        license = kwargs.get("license") or getattr(self.args, "hub_license", None)
        if not license:
            raise ValueError("`hub_license` must name the weights' license before a card is written, got None")
        dataset = kwargs.get("dataset") or getattr(self.args, "hub_datasets", [])
        name, model = kwargs.get("model_name") or self.hub_name(), self.trained_model()
        usage = adapter_usage(model, name, self.base_model()) if has_adapters(model) else None
        write_model_card(
            self.args.output_dir,
            name=name,
            description=self.describe(),
            training=self.training_summary(),
            metrics=self.last_figures(),
            license=license,
            datasets=[dataset] if isinstance(dataset, str) else list(dataset),
            base_model=self.base_model(),
            kind=self.card_kind,
            tags=(*self.card_tags, "adapter", "lora", "peft") if usage else self.card_tags,
            usage=usage,
        )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Push configuration, weights and card (no pickles, no logs). Returns the commit's address.

        `blocking` is accepted for the Trainer's sake; a push of what is saved is always waited for.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        return push_folder(
            self.args.output_dir,
            self.hub_name(),
            private=self.args.hub_private_repo,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            commit_message=commit_message or "Upload model",
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the model of a checkpoint with its card; transformers would push the folder, pickles and all."""
        strategy = getattr(self.args.hub_strategy, "value", self.args.hub_strategy)
        if not self.is_world_process_zero() or strategy == "end":
            return
        self.create_model_card()
        shutil.copy(Path(self.args.output_dir) / "README.md", checkpoint_folder)
        push_folder(
            checkpoint_folder,
            self.hub_name(),
            private=self.args.hub_private_repo,
            token=self.args.hub_token,
            revision=self.args.hub_revision,
            commit_message=f"Training in progress, step {self.state.global_step}",
        )

    def hub_name(self) -> str:
        """Repository of the model: `hub_model_id`, or the name of `output_dir`."""
        known = getattr(self, "hub_model_id", None)  # with the namespace, once the repository is made
        return known or self.args.hub_model_id or Path(self.args.output_dir).absolute().name

    def training_summary(self) -> str:
        """Settings and length of the training, Markdown."""
        args, state = self.args, self.state
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        if self.clock is not None:
            schedule = f"cosine over {self.clock.seconds / 60:.1f} minutes"
        settings = {
            "steps": state.global_step,
            "epochs": round(state.epoch or 0.0, 3),
            "batch size": batch,
            "learning rate": args.learning_rate,
            "schedule": f"{schedule}, {args.warmup_steps} warm-up",
            "optimizer": getattr(args.optim, "value", args.optim),
            "weight decay": args.weight_decay,
            "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
            "seed": args.seed,
        }
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        return f"| setting | value |\n|---|---|\n{rows}"

    def last_figures(self) -> dict[str, float]:
        """The last evaluation's figures, by name; empty where there was none."""
        for entry in reversed(self.state.log_history):
            if "eval_loss" in entry:
                return {
                    name.removeprefix("eval_").replace("_", " "): float(value)
                    for name, value in entry.items()
                    if name.startswith("eval_") and name.removeprefix("eval_") not in _TIMINGS
                }
        return {}
