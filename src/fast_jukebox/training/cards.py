"""A Trainer whose cards and pushes are the package's: what was trained and how well, without pickles and logs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel, Trainer

from fast_jukebox.hub import push_folder, write_model_card
from fast_jukebox.hub.push_mixin import describe_config
from fast_jukebox.models.adapters import adapter_usage, has_adapters
from fast_jukebox.training.clock import TrainingClock
from fast_jukebox.utils.text import markdown_table

# Metrics of an evaluation that are not of the model.
_TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


class CardTrainer(Trainer):
    """A [`~transformers.Trainer`] that writes and pushes the package's cards."""

    card_kind: ClassVar[str] = "model"
    card_tags: ClassVar[tuple[str, ...]] = ()
    clock: TrainingClock | None = None

    def describe(self) -> str:
        """The card's description of the model, Markdown."""
        return describe_config(self.trained_model().config)

    def base_model(self) -> str | None:
        """The Hub's name of the model that this one was made from, for the card; `None` where there is none."""
        return getattr(self.args, "hub_base_model", None)

    def trained_model(self) -> PreTrainedModel:
        """The model that is trained, as it was given."""
        return self.accelerator.unwrap_model(self.model)

    def create_model_card(
        self,
        *args: object,
        license: str | None = None,
        dataset: str | Sequence[str] | None = None,
        model_name: str | None = None,
        **kwargs: object,
    ) -> None:
        """Write the card into `output_dir`: what was trained, with which settings, and the last evaluation.

        The other arguments of [`~transformers.Trainer.create_model_card`] are accepted and have no effect.

        Raises:
            ValueError: no license, neither here nor in the training arguments.
        """
        if not self.is_world_process_zero():
            return
        license = license or getattr(self.args, "hub_license", None)
        if not license:
            raise ValueError("`hub_license` must name the weights' license before a card is written, got None")
        dataset = dataset or getattr(self.args, "hub_datasets", [])
        name, model = model_name or self.hub_name(), self.trained_model()
        usage = adapter_usage(model, name, self.base_model()) if has_adapters(model) else None
        write_model_card(
            self.args.output_dir,
            name=name,
            description=self.describe(),
            training=self.training_summary(),
            metrics=self.last_metrics(),
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

        A push of what is saved is always waited for, whatever `blocking` says.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        return self._push(self.args.output_dir, commit_message or "Upload model", token, revision)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the model of a checkpoint with its card; transformers would push the folder, pickles and all."""
        strategy = getattr(self.args.hub_strategy, "value", self.args.hub_strategy)
        if not self.is_world_process_zero() or strategy == "end":
            return
        self.create_model_card()
        shutil.copy(Path(self.args.output_dir) / "README.md", checkpoint_folder)
        self._push(checkpoint_folder, f"Training in progress, step {self.state.global_step}")

    def _push(self, folder: str, message: str, token: str | None = None, revision: str | None = None) -> str:
        return push_folder(
            folder,
            self.hub_name(),
            private=self.args.hub_private_repo,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            commit_message=message,
        )

    def hub_name(self) -> str:
        """Repository of the model: `hub_model_id`, or the name of `output_dir`."""
        known = getattr(self, "hub_model_id", None)  # with the namespace, once the repository is made
        return known or self.args.hub_model_id or Path(self.args.output_dir).absolute().name

    def windows_per_step(self) -> int:
        """Windows whose gradients one step of the optimizer has."""
        args = self.args
        return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)

    def training_summary(self) -> str:
        """Settings and length of the training, Markdown."""
        args, state = self.args, self.state
        schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        if self.clock is not None:
            schedule = f"cosine over {self.clock.seconds / 60:.1f} minutes"
        settings = {
            "steps": state.global_step,
            "epochs": round(state.epoch or 0.0, 3),
            "batch size": self.windows_per_step(),
            "learning rate": args.learning_rate,
            "schedule": f"{schedule}, {args.warmup_steps} warm-up",
            "optimizer": getattr(args.optim, "value", args.optim),
            "weight decay": args.weight_decay,
            "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
            "seed": args.seed,
        }
        return markdown_table(["setting", "value"], [[name, str(value)] for name, value in settings.items()])

    def last_metrics(self) -> dict[str, float]:
        """The last evaluation's metrics by name; empty where there was none."""
        for entry in reversed(self.state.log_history):
            if "eval_loss" in entry:
                return {
                    name.removeprefix("eval_").replace("_", " "): float(value)
                    for name, value in entry.items()
                    if name.startswith("eval_") and name.removeprefix("eval_") not in _TIMINGS
                }
        return {}
