"""Training a prior with Hugging Face's Trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fast_jukebox.training.trainer import FastJukeboxTrainer


class PriorTrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] that speaks of a prior's loss in bits per code as well.

    Training logs `bits_per_code` beside `loss` (nats per code). Evaluation adds `bits_per_code`, `perplexity` and
    `accuracy` (share of codes that were the most likely one).
    """

    card_kind = "prior"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hits: Tensor | None = None

    def describe(self) -> str:
        """See [`FastJukeboxTrainer.describe`]."""
        config = self.accelerator.unwrap_model(self.model).config
        role = f", conditioned on level {config.level + 1}" if config.has_upper_level else ""
        return (
            f"The prior of level {config.level} (0 is the bottom){role}: a sparse transformer of "
            f"{config.num_hidden_layers} layers and width {config.hidden_size} over {config.n_ctx} codes."
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """See [`~transformers.Trainer.log`]: adds the loss in bits."""
        if "loss" in logs:
            logs["bits_per_code"] = round(float(logs["loss"]) / math.log(2), 5)
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """See [`~transformers.Trainer.evaluation_loop`]: adds bits, perplexity and accuracy."""
        prefix = kwargs.get("metric_key_prefix", "eval")
        self._hits = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, **kwargs)
        hits, codes = self.accelerator.reduce(self._hits, reduction="sum").tolist()
        self._hits = None
        loss = output.metrics[f"{prefix}_loss"]
        output.metrics[f"{prefix}_bits_per_code"] = loss / math.log(2)
        output.metrics[f"{prefix}_perplexity"] = math.exp(loss)
        output.metrics[f"{prefix}_accuracy"] = hits / max(codes, 1)
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """See [`~transformers.Trainer.prediction_step`]: counts hits instead of keeping every logit."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if self._hits is not None:
            labels = inputs["labels"]
            kept = labels != -100
            hits = (outputs.logits.argmax(-1) == labels) & kept
            self._hits += torch.stack([hits.sum(), kept.sum()])
        return loss.detach(), None, None


__all__ = ["PriorTrainer"]
