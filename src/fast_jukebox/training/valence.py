"""Training the classifier of emotional valence with Hugging Face's Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction

from fast_jukebox.hub.push_mixin import describe_config
from fast_jukebox.models.valence.classification import classification_figures
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.trainer import FastJukeboxTrainer


@dataclass(repr=False)  # one of its own would show the token
class ValenceTrainingArguments(FastJukeboxTrainingArguments):
    """[`FastJukeboxTrainingArguments`] with what the classifier adds.

    Args:
        mixup_alpha: of mixup (Zhang et al. 2018): clips and labels of a batch are mixed in pairs by a weight drawn from
            Beta(alpha, alpha); 0 for none. The published recipe has 1.
        crop_probability: of each slice of a clip to be cropped and enlarged, as `ValenceClips` does; 0 for none. The
            published recipe has 0.33.
    """

    mixup_alpha: float = field(default=1.0, metadata={"help": "Of mixup's Beta distribution; 0 for no mixup."})
    crop_probability: float = field(
        default=0.33, metadata={"help": "Of each slice of a clip to be cropped and enlarged; 0 for no crops."}
    )


class ValenceTrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] with mixup; it evaluates ROC-AUC, PR-AUC, both axes and calibration."""

    args: ValenceTrainingArguments
    card_kind = "valence"

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("compute_metrics", valence_metrics)
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.label_names = ["labels"]

    def describe(self) -> str:
        """See [`FastJukeboxTrainer.describe`]."""
        config = self.accelerator.unwrap_model(self.model).config
        stated = config.held_out
        if not stated:
            return describe_config(config)
        figures = f"Its figures are of {stated['songs']} held-out songs, apart by {stated['held_out_by']}."
        return f"{describe_config(config)} {figures}"

    def last_figures(self) -> dict[str, float]:
        """The figures on held-out songs that the configuration states, else the last evaluation's."""
        stated = self.accelerator.unwrap_model(self.model).config.held_out or {}
        held_out = {name.replace("_", " "): value for name, value in stated.items() if isinstance(value, float)}
        return held_out or super().last_figures()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> object:
        """See [`~transformers.Trainer.compute_loss`]: clips are mixed in training alone."""
        if model.training and self.args.mixup_alpha > 0:
            alpha = torch.tensor(self.args.mixup_alpha)
            weight = float(torch.distributions.Beta(alpha, alpha).sample())
            order = torch.randperm(len(inputs["labels"]), device=inputs["labels"].device)
            inputs = {name: weight * value + (1 - weight) * value[order] for name, value in inputs.items()}
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def valence_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Figures of [`classification_figures`] from a Trainer's predictions."""
    found = prediction.predictions
    probabilities = found[0] if isinstance(found, tuple) else found
    return classification_figures(torch.from_numpy(np.asarray(probabilities)), torch.from_numpy(prediction.label_ids))
