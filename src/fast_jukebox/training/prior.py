"""Training a prior with Hugging Face's Trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from fast_jukebox.data.device_codes import DeviceCodeBatches
from fast_jukebox.sampling.inputs import values_checked
from fast_jukebox.training.trainer import FastJukeboxTrainer


class PriorTrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] that speaks of a prior's loss in bits per code as well.

    Training logs `bits_per_code` beside `loss` (nats per code). Evaluation adds `bits_per_code`, `perplexity` and
    `accuracy` (share of codes that were the most likely one). Of a prior with lyrics, whose loss is of codes and
    characters together, both also tell `bits_per_character`.
    """

    card_kind = "prior"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        data = kwargs.get("train_dataset")
        if isinstance(data, DeviceCodeBatches):
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), _BatchNumber(data)]
        super().__init__(*args, **kwargs)
        if isinstance(data, DeviceCodeBatches):
            # It counts its batches itself, and nothing is read on the host at every step.
            self.args.ignore_data_skip, self.args.logging_nan_inf_filter = True, False
        self._nats: Tensor | None = None

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
            nats = float(logs["loss"])
            if self._nats is not None:
                batches, code, character = self.accelerator.reduce(self._nats, reduction="sum").tolist()
                nats, logs["bits_per_character"] = code / batches, round(character / batches / math.log(2), 5)
                self._nats = None
            logs["bits_per_code"] = round(nats / math.log(2), 5)
        super().log(logs, *args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """See [`~transformers.Trainer.get_train_dataloader`]; whole batches on the device go past accelerate."""
        if isinstance(self.train_dataset, DeviceCodeBatches):
            return DataLoader(self.train_dataset, batch_size=None)
        return super().get_train_dataloader()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """See [`~transformers.Trainer.training_step`]; codes that were checked when they were loaded are not again."""
        if isinstance(self.train_dataset, DeviceCodeBatches):
            with values_checked():
                return super().training_step(*args, **kwargs)
        return super().training_step(*args, **kwargs)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """See [`~transformers.Trainer.compute_loss`]: remembers the parts of a loss that is of codes and lyrics."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and outputs.code_loss is not None:
            # The share of all accumulated batches that this one is, undone.
            share = 1.0 if num_items_in_batch is None else num_items_in_batch / (inputs["labels"] != -100).sum()
            code, character = outputs.code_loss.detach() * share, outputs.lyric_loss.detach()
            entry = torch.stack([torch.ones_like(character), code, character])
            self._nats = entry if self._nats is None else self._nats + entry
        return (loss, outputs) if return_outputs else loss

    def metrics_of(self, inputs: dict[str, Any], outputs: Any) -> dict[str, Tensor]:
        """See [`FastJukeboxTrainer.metrics_of`]: codes and those that were the most probable; of lyrics the losses."""
        kept = inputs["labels"] != -100  # (N, n_ctx)
        codes = kept.sum().float()
        sums = {"codes": codes, "hits": ((outputs.logits.argmax(-1) == inputs["labels"]) & kept).sum().float()}
        if outputs.code_loss is not None:
            windows = torch.full_like(codes, len(kept))
            sums |= {"windows": windows, "nats": outputs.code_loss * codes, "characters": outputs.lyric_loss * windows}
        return sums

    def metrics_from(self, sums: dict[str, Tensor], loss: float) -> dict[str, float]:
        """See [`FastJukeboxTrainer.metrics_from`]: bits, perplexity and accuracy."""
        totals = {name: float(value) for name, value in sums.items()}
        metrics = {}
        if "nats" in totals:  # the loss is of codes and characters together
            loss = totals["nats"] / max(totals["codes"], 1)
            metrics["bits_per_character"] = totals["characters"] / max(totals["windows"], 1) / math.log(2)
        return metrics | {
            "bits_per_code": loss / math.log(2),
            "perplexity": math.exp(loss),
            "accuracy": totals.get("hits", 0.0) / max(totals.get("codes", 1.0), 1),
        }


class _BatchNumber(TrainerCallback):
    """Lets a resumed training go on with the batch after the last one of its checkpoint."""

    def __init__(self, data: DeviceCodeBatches) -> None:
        self.data = data

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the number of the next batch."""
        self.data.position = state.global_step * args.gradient_accumulation_steps
