"""Training the classifier of emotional valence with Hugging Face's Trainer."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import EvalPrediction
from transformers.hf_argparser import HfArg
from transformers.utils import ModelOutput

from fast_jukebox.models.valence.classification import classification_metrics
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.checkpoints import read_state
from fast_jukebox.training.trainer import BeforeEachStep, FastJukeboxTrainer
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

_MOMENTUM = 0.9
_SGD_WEIGHT_DECAY = 1e-4


@dataclass(repr=False)  # a new one would show the token
class ValenceTrainingArguments(FastJukeboxTrainingArguments):
    """[`FastJukeboxTrainingArguments`] with what the classifier adds; the defaults are the published recipe's.

    `learning_rate` is 1e-4 where nothing is said, and `metric_for_best_model` the macro ROC-AUC on held-out songs where
    the best weights are kept.

    Raises:
        ValueError: a number out of its range, or a time limit with `adam_fraction` below 1.
    """

    mixup_alpha: float = HfArg(
        default=1.0,
        help="Of mixup (Zhang et al. 2018): clips and labels of a batch are mixed in pairs by a weight drawn from "
        "Beta(alpha, alpha); 0 for none.",
    )
    crop_probability: float = HfArg(
        default=0.33, help="Of each slice of a clip to be cropped and enlarged; 0 for no crops."
    )
    adam_fraction: float = HfArg(
        default=0.5,
        help="Of the steps, in (0, 1], with the Trainer's optimizer (AdamW, by default without weight decay, which is "
        "Adam) at a constant --learning_rate. The rest is SGD with Nesterov momentum 0.9 and weight decay 1e-4. Below "
        "1, --lr_scheduler_type and warm-up do not count; each epoch is evaluated and saved unless --eval_strategy "
        "says otherwise; each switch loads the best weights so far, and so does the end.",
    )
    sgd_learning_rates: list[float] = HfArg(
        default_factory=lambda: [1e-3, 1e-4, 1e-5],
        help="Of SGD, one after the other for equally many steps, each with a new momentum.",
    )

    def __post_init__(self) -> None:
        if not 0 < self.adam_fraction <= 1:
            raise ValueError(f"`adam_fraction` must be above 0 and at most 1, got {shown(self.adam_fraction)}")
        rates = self.sgd_learning_rates
        if not rates or not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise ValueError(f"`sgd_learning_rates` must be numbers of at least 0, got {shown(rates)}")
        if self.learning_rate is None:
            self.learning_rate = 1e-4
        if self.adam_fraction < 1:
            if self.max_minutes is not None or self.stop_at is not None:
                raise ValueError(
                    f"`adam_fraction` must be 1 where `max_minutes` or `stop_at` is set, got {self.adam_fraction!r}: "
                    "the steps of each optimizer are not known then"
                )
            self._evaluate_by_default("epoch")
            self._keep_best()
        metric: str | None = self.metric_for_best_model  # type: ignore[has-type]  # of the base class
        if metric is None and (self.adam_fraction < 1 or self.early_stopping_patience is not None):
            self.metric_for_best_model = "roc_auc"
        super().__post_init__()


class ValenceTrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] with mixup and SGD after Adam; evaluates ROC-AUC, PR-AUC, both axes and calibration."""

    args: ValenceTrainingArguments
    optimizer: torch.optim.Optimizer | None
    card_kind = "valence"

    def __init__(self, *args: object, **kwargs: Any) -> None:
        kwargs.setdefault("compute_metrics", valence_metrics)
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.label_names = ["labels"]
        self._phase = 0  # 0 is Adam, k the k-th rate of SGD
        self._starts: list[int] = []  # step at which each rate of SGD begins
        if self.args.adam_fraction < 1:
            self.add_callback(BeforeEachStep(self.switch))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """See [`~transformers.Trainer.create_optimizer`]: the one that training begins with."""
        if self._phase:  # of an earlier training
            self._phase, self.optimizer = 0, None
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """See [`~transformers.Trainer.create_scheduler`]: constant rates where SGD follows on Adam."""
        if self.args.adam_fraction == 1:
            return super().create_scheduler(num_training_steps, optimizer)
        first, count = self.args.adam_fraction, len(self.args.sgd_learning_rates)
        self._starts = [round(num_training_steps * (first + (1 - first) * k / count)) for k in range(count)]
        self.lr_scheduler = self._schedule(0)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def switch(self, step: int) -> None:
        """Go on from the best weights with the optimizer of a step, where that is another than until now.

        Raises:
            ValueError: the checkpoint with the best weights is gone.
        """
        phase = self._phase_of(step)
        if phase == self._phase:
            return
        best = self.state.best_model_checkpoint
        if best is None:
            logger.warning("Step %d: no evaluation gave a macro ROC-AUC yet; the weights stay as they are", step)
        elif not Path(best).is_dir():
            raise ValueError(f"{best} must be there: it has the best weights, which step {step} goes on from")
        else:
            self._load_best_model()
        self._use_sgd(phase, step)

    def _phase_of(self, step: int) -> int:
        return sum(step >= start for start in self._starts)

    def _rate(self, step: int) -> float:
        phase = self._phase_of(step)
        return float(self.args.sgd_learning_rates[phase - 1] if phase else self.args.learning_rate or 0.0)

    def _schedule(self, step: int) -> LambdaLR:
        """The learning rates from a step on, of the optimizer that is used."""
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = 1.0  # so that the schedule's factors are the rates themselves
        return LambdaLR(optimizer, self._rate, last_epoch=step - 1)

    def _use_sgd(self, phase: int, step: int) -> None:
        old = cast(torch.optim.Optimizer, self.optimizer)
        groups = [{"params": group["params"]} for group in old.param_groups]
        rate = self.args.sgd_learning_rates[phase - 1]
        sgd = torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, weight_decay=_SGD_WEIGHT_DECAY, nesterov=True)
        # accelerate unscales the gradients of all optimizers that it knows: it is to know this one alone.
        self.accelerator._optimizers.remove(old)
        self.optimizer = self.accelerator.prepare_optimizer(sgd)
        self._phase, self.lr_scheduler = phase, self._schedule(step)
        self.callback_handler.optimizer, self.callback_handler.lr_scheduler = self.optimizer, self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """See the base class: a checkpoint has the optimizer of the step before it, and is switched after it."""
        if checkpoint is not None:
            step = read_state(Path(checkpoint)).get("global_step", 0)
            if phase := self._phase_of(step - 1):
                self._use_sgd(phase, step)
        super()._load_optimizer_and_scheduler(checkpoint)

    def describe(self) -> str:
        stated = self.trained_model().config.held_out
        if not stated:
            return super().describe()
        measured = f"Its metrics are of {stated['songs']} held-out songs, apart by {stated['held_out_by']}."
        return f"{super().describe()} {measured}"

    def last_metrics(self) -> dict[str, float]:
        """The metrics on held-out songs that the configuration states, else the last evaluation's."""
        stated = self.trained_model().config.held_out or {}
        held_out = {name.replace("_", " "): value for name, value in stated.items() if isinstance(value, float)}
        return held_out or super().last_metrics()

    def loss_of(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """See [`FastJukeboxTrainer.loss_of`]: clips are mixed in training alone."""
        if model.training and self.args.mixup_alpha > 0:
            alpha = torch.tensor(self.args.mixup_alpha)
            weight = float(torch.distributions.Beta(alpha, alpha).sample())
            order = torch.randperm(len(inputs["labels"]), device=inputs["labels"].device)
            inputs = {name: weight * value + (1 - weight) * value[order] for name, value in inputs.items()}
        outputs = model(**inputs)
        return outputs.loss, outputs


def valence_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of [`classification_metrics`] from a Trainer's predictions."""
    found = prediction.predictions
    probabilities = found[0] if isinstance(found, tuple) else found
    return classification_metrics(torch.from_numpy(np.asarray(probabilities)), torch.from_numpy(prediction.label_ids))
