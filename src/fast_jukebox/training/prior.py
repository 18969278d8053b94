"""Training a prior with Hugging Face's Trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import ModelOutput

from fast_jukebox.data.device_codes import DeviceCodeBatches
from fast_jukebox.models.adapters import describe_adapter, has_adapters
from fast_jukebox.sampling.checks import values_checked
from fast_jukebox.training.curves import PICTURE, LossCurves
from fast_jukebox.training.fine_tuning import NEW_SONGS, OLD_SONGS, FineTuning, bits_table
from fast_jukebox.training.trainer import FastJukeboxTrainer

logger = logging.getLogger(__name__)


_RHYTHM_RATE = 10


class PriorTrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] that reports a prior's loss in bits per code as well.

    Training logs `bits_per_code` beside `loss` (nats per code). Evaluation adds `bits_per_code`, `perplexity` and
    `accuracy` (fraction of codes that were the most probable one). Of a prior with lyrics, whose loss is of codes and
    characters together, both also report `bits_per_character`. [`train_and_save`] draws the bits of the songs that are
    trained on and of the held-out ones, in characters and, with matplotlib, into `curves.png`.

    Args:
        args, kwargs: of the base class.
        fine_tuning: of a model that is trained further: its bits before and after are measured, kept and stated.
        old_dataset: with `fine_tuning`: held-out windows of the songs that the model was made from.
    """

    card_kind = "prior"

    def __init__(
        self,
        *args: object,
        callbacks: Sequence[TrainerCallback] | None = None,
        fine_tuning: FineTuning | None = None,
        old_dataset: Dataset[dict[str, Tensor]] | None = None,
        **kwargs: object,
    ) -> None:
        self.fine_tuning, self.old_dataset, self.curves = fine_tuning, old_dataset, LossCurves()
        own = [*(callbacks or ()), self.curves, *([] if fine_tuning is None else [fine_tuning])]
        data = kwargs.get("train_dataset")
        if isinstance(data, DeviceCodeBatches):
            own.append(_BatchNumber(data))
        super().__init__(*args, callbacks=own, **kwargs)
        if isinstance(data, DeviceCodeBatches):
            # It counts its batches itself, and nothing is read on the host at every step.
            self.args.ignore_data_skip, self.args.logging_nan_inf_filter = True, False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """See [`~transformers.Trainer.create_optimizer`]; the genres' rhythm has ten times the learning rate
        and no weight decay: it begins as zeros, and is the smallest part of the loss.
        """
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        labels = getattr(self.trained_model(), "label_conditioner", None)
        rhythm = getattr(labels, "rhythm_embedding", None)
        if new and rhythm is not None and rhythm.requires_grad:
            for group in optimizer.param_groups:
                if any(parameter is rhythm for parameter in group["params"]):
                    group["params"] = [parameter for parameter in group["params"] if parameter is not rhythm]
                    own = {name: value for name, value in group.items() if name != "params"}
            rate = _RHYTHM_RATE * self.args.learning_rate
            optimizer.add_param_group({**own, "params": [rhythm], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def describe(self) -> str:
        model = self.trained_model()
        adapted = f"{describe_adapter(model)} of a base model. " if has_adapters(model) else ""
        return adapted + super().describe()

    def training_metrics(self, means: dict[str, float], loss: float) -> dict[str, float]:
        """See [`FastJukeboxTrainer.training_metrics`]: bits."""
        bits = {name: nats / math.log(2) for name, nats in means.items()}
        return bits if bits else {"bits_per_code": loss / math.log(2)}

    def before_training(self, resumed: bool) -> None:
        """See [`FastJukeboxTrainer.before_training`]: measures a model that is trained further as it was."""
        if self.fine_tuning is not None and not self.is_fsdp_enabled:
            with torch.random.fork_rng():
                self.fine_tuning.begin(lambda: self.bits_per_code(self.eval_dataset), resumed)
            self.curves.before = (self.fine_tuning.first_step, self.fine_tuning.run.before[NEW_SONGS])

    def after_training(self) -> None:
        """See [`FastJukeboxTrainer.after_training`]: the bits after, and the curves."""
        if self.fine_tuning is not None:
            bits = {NEW_SONGS: self.last_metrics()["bits per code"]} | self.bits_per_code(None)
            self.fine_tuning.end(bits)
            if self.is_world_process_zero():
                logger.info("%s", bits_table(self.fine_tuning.run))
        if self.is_world_process_zero():
            self.curves.draw(self.state.log_history, Path(self.args.output_dir or "."))

    def bits_per_code(self, new: Dataset[dict[str, Tensor]] | None) -> dict[str, float]:
        """Bits per code of the model as it is, by name of the held-out songs; nothing is logged.

        Args:
            new: windows of the new songs; the old ones are measured where they are given.
        """
        bits = {}
        for name, data in ((NEW_SONGS, new), (OLD_SONGS, self.old_dataset)):
            if data is not None:
                output = self.evaluation_loop(
                    self.get_eval_dataloader(data), name, prediction_loss_only=True, metric_key_prefix="bits"
                )
                bits[name] = float(output.metrics["bits_bits_per_code"])
        return bits

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """See [`~transformers.Trainer`]: a run that goes on from another's checkpoint has its own learning rate."""
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler, rate = self.lr_scheduler, self.args.learning_rate
        if self.fine_tuning is None or not self.fine_tuning.first_step or not isinstance(scheduler, LambdaLR):
            return
        scheduler.base_lrs = [rate] * len(scheduler.lr_lambdas)
        for group, function in zip(scheduler.optimizer.param_groups, scheduler.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * function(scheduler.last_epoch)

    def training_summary(self) -> str:
        """See [`FastJukeboxTrainer.training_summary`]: the runs of a model that was trained further, and the curves."""
        parts = [super().training_summary()]
        if self.fine_tuning is not None:
            parts.append(self.fine_tuning.describe())
        if Path(self.args.output_dir or ".", PICTURE).is_file():
            parts.append(f"![bits per code over the steps, trained on and held out]({PICTURE})")
        return "\n\n".join(parts)

    def get_train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """See [`~transformers.Trainer.get_train_dataloader`]; complete batches on the device go past accelerate."""
        if isinstance(self.train_dataset, DeviceCodeBatches):
            return DataLoader(self.train_dataset, batch_size=None)
        return super().get_train_dataloader()

    def training_step(self, *args: object, **kwargs: object) -> Tensor:
        """See [`~transformers.Trainer.training_step`]; codes that were checked when they were loaded are not again."""
        checked = values_checked() if isinstance(self.train_dataset, DeviceCodeBatches) else nullcontext()
        # The backward of fused attention takes half of a step in bfloat16 on a CPU, where rows and columns are short.
        unfused = self.args.device.type == "cpu" and self.args.bf16
        with checked, sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext():
            return super().training_step(*args, **kwargs)

    def loss_of(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """See [`FastJukeboxTrainer.loss_of`]: notes the parts of a loss that is of codes and lyrics."""
        loss, outputs = super().loss_of(model, inputs, num_items_in_batch)
        if model.training and outputs.code_loss is not None:
            # Undo the scaling to this batch's fraction of all accumulated batches.
            scale = 1.0 if num_items_in_batch is None else num_items_in_batch / (inputs["labels"] != -100).sum()
            self.note({"bits_per_code": outputs.code_loss * scale, "bits_per_character": outputs.lyric_loss})
        return loss, outputs

    def metrics_of(self, inputs: dict[str, Tensor], outputs: ModelOutput) -> dict[str, Tensor]:
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
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": totals.get("hits", 0.0) / max(totals.get("codes", 1.0), 1),
        }


class _BatchNumber(TrainerCallback):
    """Lets a resumed training go on with the batch after the last one of its checkpoint."""

    def __init__(self, data: DeviceCodeBatches) -> None:
        self.data = data

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: object, **kwargs: object) -> None:
        """Set the number of the next batch."""
        self.data.position = state.global_step * args.gradient_accumulation_steps
