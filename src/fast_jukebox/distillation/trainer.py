"""Distilling a prior with Hugging Face's Trainer."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.hf_argparser import HfArg
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import ModelOutput

from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.losses import TERMS, check_weights, data_cross_entropy, kl_divergence
from fast_jukebox.distillation.objective import DistillationObjective
from fast_jukebox.distillation.stages import PAPER_STAGES, DistillationStage, StageSchedule, parse_stages
from fast_jukebox.distillation.student import initialize_student
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.curves import EarlyStopping
from fast_jukebox.training.trainer import BeforeEachStep, FastJukeboxTrainer
from fast_jukebox.utils.files import JsonObject, read_text
from fast_jukebox.utils.text import markdown_table, shown

PROJECTION = "projection.safetensors"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGEST_STAGES = 2**20
"""Bytes of a file of stages at most."""


@dataclass(repr=False)  # a new one would show the token
class DistillationArguments(FastJukeboxTrainingArguments):
    """[`~fast_jukebox.training.arguments.FastJukeboxTrainingArguments`] of a distillation.

    The stages say how long it lasts, not `num_train_epochs`; `max_steps` stops earlier without changing the stages'
    schedules.

    Raises:
        ValueError: a stage that makes no sense, an unknown dtype, or another `num_train_epochs` than the default.
    """

    stages: Sequence[DistillationStage | dict[str, object]] | str | None = HfArg(
        default=None,
        help="Stages, or mappings of their fields, as JSON, or the name of a JSON file; by default the paper's, 20 "
        "epochs of Eq. 4 and 50 of Eq. 3.",
    )
    initialize_from_teacher: bool = HfArg(
        default=True,
        help="Let the student begin with the teacher's embeddings, conditioners and mapped layers, not as it is given.",
    )
    teacher_dtype: str | None = HfArg(
        default=None, help="float32, bfloat16 or float16: what the teacher computes in; as it is given by default."
    )
    teacher_name: str | None = HfArg(default=None, help="The Hub's name of the teacher, for the card.")

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = list(PAPER_STAGES) if self.stages is None else self.stages
        self.stages = parse_stages(_read_json(stages) if isinstance(stages, str) else stages)
        if self.teacher_dtype is not None and self.teacher_dtype not in _DTYPES:
            raise ValueError(f"`teacher_dtype` must be one of {', '.join(_DTYPES)}, got {shown(self.teacher_dtype)}")
        default = type(self).__dataclass_fields__["num_train_epochs"].default
        if self.num_train_epochs != default:
            raise ValueError(
                f"`num_train_epochs` must be left alone, the `stages` say how long they last; got "
                f"{shown(self.num_train_epochs)}"
            )

    def to_dict(self) -> JsonObject:
        own: JsonObject = super().to_dict()
        return own | {"stages": [stage.to_dict() for stage in parse_stages(self.stages)]}


class DistillationTrainer(FastJukeboxTrainer):
    """A [`~fast_jukebox.training.trainer.FastJukeboxTrainer`] of a student with a teacher, in stages.

    One optimizer and one schedule run through all stages, and the step says which stage it is, so that a run resumes
    inside or between stages like any other. At the start of a stage the optimizer's moments, which are another loss's,
    are dropped. What is trained is a [`DistillationObjective`] (`trainer.model`); checkpoints and saved models hold the
    student alone (`trainer.student`) and load as such.

    Training logs `loss`, each of its terms unweighted, and the number of the stage. Evaluation gives, in any stage,
    `loss` (nats a code), `bits_per_code`, `perplexity` and `accuracy` on the data's codes, `teacher_bits_per_code`,
    `kl_to_teacher` (bits a code), `agreement` (fraction of positions where both find the same code the most
    probable) and each term.

    Args:
        model: the student.
        teacher: is taken over: put into evaluation mode, frozen, moved to the device and cast to `teacher_dtype`.
        args: `DistillationArguments()` by default; not changed.
        layer_map: by default the one of [`LayerMap.from_configs`].
        kwargs: of [`~transformers.Trainer`].

    Raises:
        ValueError: student and teacher do not fit, or the map is of other models; shows both.
    """

    card_kind = "prior"
    card_tags = ("knowledge-distillation",)
    objective: DistillationObjective

    def __init__(
        self,
        model: FastJukeboxPrior,
        teacher: FastJukeboxPrior,
        args: DistillationArguments | None = None,
        layer_map: LayerMap | None = None,
        **kwargs: Any,
    ) -> None:
        args = DistillationArguments() if args is None else copy.copy(args)
        self.stages = parse_stages(args.stages)
        self.objective = DistillationObjective(model, teacher, layer_map)
        layer_map = self.objective.layer_map
        for stage in self.stages:
            self.objective.check_terms(stage.weights)
        if args.n_gpu > 1:
            raise ValueError(f"`n_gpu` must be 1 a process (start one for each, as torchrun does), got {args.n_gpu}")
        model.config.teacher_layers = list(layer_map.teacher_layers)
        if args.initialize_from_teacher:
            initialize_student(model, teacher, layer_map)
        dtype = _DTYPES[args.teacher_dtype] if args.teacher_dtype else teacher.dtype
        teacher.to(device=args.device, dtype=dtype)
        self.schedule: StageSchedule | None = None
        self._max_steps = args.max_steps
        names = {"prediction", "data"}.union(*(check_weights(stage.weights) for stage in self.stages))
        self._evaluated = {name: 1.0 for name in TERMS if name in names}
        super().__init__(model=self.objective, args=args, **kwargs)
        self.add_callback(BeforeEachStep(self._drop_moments))

    @property
    def student(self) -> FastJukeboxPrior:
        """The model that is trained."""
        return self.objective.student

    @property
    def layer_map(self) -> LayerMap:
        """The teacher layer of each student layer."""
        return self.objective.layer_map

    def train(self, *args: object, **kwargs: object) -> TrainOutput:
        """See [`~transformers.Trainer.train`]; lasts as long as the stages do."""
        self.args.max_steps = self.planned_steps()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStopping) and self.schedule is not None:
                # The stages before the last do not lower the loss that is measured, and the last one is to come.
                callback.first_step = self.schedule.starts[-1] + 1
        return super().train(*args, **kwargs)

    def plan(self) -> StageSchedule:
        """The stages laid out over the training data."""
        kind, rate = self.args.lr_scheduler_type, self.args.learning_rate
        shape = getattr(kind, "value", kind)
        self.schedule = StageSchedule(self.stages, self.steps_per_epoch(), rate, shape, self.args.warmup_steps)
        return self.schedule

    def planned_steps(self) -> int:
        """See [`FastJukeboxTrainer.planned_steps`]: the stages', or `max_steps`."""
        total = self.plan().total_steps
        return min(total, self._max_steps) if self._max_steps > 0 else total

    def trained_model(self) -> nn.Module:
        """See [`FastJukeboxTrainer.trained_model`]: the student."""
        return self.student

    def learning_rate_factor(self) -> Callable[[int], float]:
        """See [`FastJukeboxTrainer.learning_rate_factor`]: the stages' learning rates, one after the other."""
        return (self.schedule or self.plan()).factor

    def _drop_moments(self, step: int) -> None:
        """At the start of each stage but the first: they are of another loss."""
        if self.schedule is not None and step in self.schedule.starts[1:]:
            self.optimizer.state.clear()

    def loss_of(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """See [`FastJukeboxTrainer.loss_of`]: the step's stage's; in evaluation on the data's codes, with all terms."""
        if model.training and self.schedule is not None:
            stage = self.schedule.stages[self.schedule.index_at(self.state.global_step)]
            asked: dict[str, object] = {"weights": dict(stage.weights), "temperature": stage.temperature}
        else:
            asked = {"weights": self._evaluated}
        loss, outputs = super().loss_of(model, {**inputs, **asked}, num_items_in_batch)  # type: ignore[dict-item]  # of the objective's forward
        if not model.training:
            return outputs.terms["data"], outputs
        self.note(outputs.terms, weight=len(inputs["codes"]))
        return loss, outputs

    def training_metrics(self, means: dict[str, float], loss: float) -> dict[str, float]:
        """See [`FastJukeboxTrainer.training_metrics`]: each term, and the number of the stage."""
        stage = None if self.schedule is None else self.schedule.index_at(self.state.global_step - 1)
        return means if stage is None else means | {"stage": stage}

    def metrics_of(self, inputs: dict[str, Tensor], outputs: ModelOutput) -> dict[str, Tensor]:
        """See [`FastJukeboxTrainer.metrics_of`]: means over the batch, times its windows."""
        labels = inputs.get("labels", inputs["codes"])
        ours, theirs = outputs.logits.argmax(-1), outputs.teacher_logits.argmax(-1)
        kept = labels != -100  # (N, n_ctx)
        means = {
            **{name: outputs.terms[name] for name in self._evaluated},
            "teacher": data_cross_entropy(outputs.teacher_logits, labels),
            "kl": kl_divergence(outputs.logits, outputs.teacher_logits),
            "agreement": (ours == theirs).float().mean(),
            "accuracy": ((ours == labels) & kept).sum() / kept.sum().clamp(min=1),
        }
        windows = torch.tensor(float(len(labels)), device=labels.device)
        return {"windows": windows, **{name: mean.float() * windows for name, mean in means.items()}}

    def metrics_from(self, sums: dict[str, Tensor], loss: float) -> dict[str, float]:
        """See [`FastJukeboxTrainer.metrics_from`]: those of the class's description."""
        windows = max(float(sums["windows"]), 1.0) if sums else 1.0
        means = {name: float(total) / windows for name, total in sums.items() if name != "windows"}
        if not means:
            return {}
        nats = means.pop("data")
        return {
            "bits_per_code": nats / math.log(2),
            "perplexity": math.exp(min(nats, 700.0)),
            "teacher_bits_per_code": means.pop("teacher") / math.log(2),
            "kl_to_teacher": means.pop("kl") / math.log(2),
            **means,
        }

    def describe(self) -> str:
        depth = self.objective.teacher.config.num_hidden_layers
        return f"{super().describe().removesuffix('.')}, distilled from one of {depth} layers."

    def training_summary(self) -> str:
        """See [`FastJukeboxTrainer.training_summary`]: adds stages and layer map."""
        schedule = self.schedule or self.plan()
        rows = []
        for stage, start, length in zip(schedule.stages, schedule.starts, schedule.lengths, strict=True):
            done = min(max(self.state.global_step - start, 0), length)
            steps = str(length) if done == length else f"{done} of {length}"
            rate, shape = stage.learning_rate or schedule.learning_rate, stage.schedule or schedule.schedule
            rows.append([stage.name, steps, f"{rate:g}", shape, f"{stage.temperature:g}"])
        begin = "the teacher's mapped layers" if self.args.initialize_from_teacher else "random weights"
        return "\n".join(
            [
                super().training_summary(),
                f"\nIn stages, each with fresh optimizer moments; the student began with {begin}:\n",
                markdown_table(["loss", "steps", "learning rate", "schedule", "temperature"], rows),
                "\nWhich layer learnt from which, counted from 0:\n",
                str(self.layer_map),
            ]
        )

    def base_model(self) -> str | None:
        """See [`FastJukeboxTrainer.base_model`]: the teacher."""
        return self.args.teacher_name or super().base_model()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        complete = self.objective.state_dict() if state_dict is None else state_dict
        prefix = "student."
        ours = {name.removeprefix(prefix): value for name, value in complete.items() if name.startswith(prefix)}
        self.student.save_pretrained(folder, state_dict=ours)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """With the projection, which like them is needed to train on and for nothing else."""
        super()._save_optimizer_and_scheduler(output_dir)
        projection = self.objective.projection.state_dict()
        if projection and self.args.should_save and not self.is_fsdp_enabled:
            save_file(projection, Path(output_dir) / PROJECTION)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.student).from_pretrained(resume_from_checkpoint)
        self.student.load_state_dict(saved.state_dict())
        projection = Path(resume_from_checkpoint) / PROJECTION
        if projection.is_file():
            self.objective.projection.load_state_dict(load_file(projection))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


def _read_json(text: str) -> object:
    """The value of JSON, or of a JSON file."""
    try:
        given = text.lstrip().startswith(("[", "{"))
        source = text if given else read_text(text, _LARGEST_STAGES)
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`stages` must be JSON or the name of a file of it, got {text!r:.200}: {error}") from error
