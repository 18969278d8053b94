"""The stages of a distillation: loss, length and learning rate of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

from fast_jukebox.distillation.losses import LOSSES, check_weights
from fast_jukebox.utils.text import shown

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class DistillationStage:
    """One stage.

    Args:
        loss: the name of a loss, `"intermediate"` (Eq. 4), `"prediction"` (Eq. 3) or `"data"` (maximum likelihood on
            the data's codes), or weights of the terms `attention_residual`, `hidden_states`, `attentions`,
            `prediction`, `data` by name.
        epochs: how long, in passes over the data; may be a fraction.
        steps: how long, in steps of the optimizer. One of the two is given.
        learning_rate: at its highest; the training arguments' by default.
        schedule: `"constant"`, `"linear"` or `"cosine"`, the latter two falling to 0 at the stage's end; the training
            arguments' by default.
        warmup_steps: steps over which the learning rate rises from 0, or, below 1, their fraction of the stage; the
            training arguments' by default.
        temperature: of the `prediction` term.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """

    loss: str | Mapping[str, float]
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    warmup_steps: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, or weights by name; got {shown(self.loss)}")
        check_weights(self.weights)
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"a stage has either `epochs` or `steps`, got {shown(self.epochs)} and {shown(self.steps)}"
            )
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ValueError(f"`steps` must be an integer at least 1, got {shown(self.steps)}")
        for name in ("epochs", "learning_rate", "temperature"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise ValueError(f"`{name}` must be a number above 0, got {shown(value)}")
        if self.warmup_steps is not None and not (_is_number(self.warmup_steps) and self.warmup_steps >= 0):
            raise ValueError(f"`warmup_steps` must be a number of at least 0, got {shown(self.warmup_steps)}")
        if self.schedule is not None and self.schedule not in SCHEDULES:
            raise ValueError(f"`schedule` must be one of {', '.join(SCHEDULES)}, got {shown(self.schedule)}")

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the terms, by name."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    @property
    def name(self) -> str:
        """The loss in words."""
        if isinstance(self.loss, str):
            return self.loss
        return " + ".join(f"{weight:g} {name}" for name, weight in self.loss.items() if weight)

    def to_dict(self) -> dict[str, object]:
        """The fields that are set, as `DistillationStage(**...)` takes them."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# Fast Jukebox, "Training": Eq. 4 for 20 epochs, then Eq. 3 for 50.
PAPER_STAGES = (DistillationStage("intermediate", epochs=20), DistillationStage("prediction", epochs=50))


class StageSchedule:
    """Stages laid out over the steps of a training.

    Args:
        stages: one after the other.
        steps_per_epoch: optimizer steps in a pass over the data, None where it has no length.
        learning_rate: of stages without one, above 0.
        schedule: of stages without one, one of `SCHEDULES`.
        warmup_steps: of stages without them.

    Raises:
        ValueError: there are no stages, epochs of data without length, or an unknown schedule.
    """

    def __init__(
        self,
        stages: Sequence[DistillationStage],
        steps_per_epoch: int | None,
        learning_rate: float,
        schedule: str = "constant",
        warmup_steps: float = 0.0,
    ) -> None:
        if not stages:
            raise ValueError("`stages` must have at least one, got none")
        if not learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0, got {shown(learning_rate)}")
        if schedule not in SCHEDULES and any(stage.schedule is None for stage in stages):
            raise ValueError(f"`lr_scheduler_type` must be one of {', '.join(SCHEDULES)}, got {shown(schedule)}")
        self.stages = tuple(stages)
        self.learning_rate, self.schedule, self.warmup_steps = learning_rate, schedule, warmup_steps
        self.lengths = [_length(stage, steps_per_epoch) for stage in stages]
        self.starts = [0, *accumulate(self.lengths)][:-1]

    @property
    def total_steps(self) -> int:
        """Of all stages."""
        return sum(self.lengths)

    def index_at(self, step: int) -> int:
        """Number of the stage of step `step`, from 0; the last from its start on."""
        return max(index for index, start in enumerate(self.starts) if start <= max(step, 0))

    def factor(self, step: int) -> float:
        """Factor of `learning_rate` at a step."""
        index = self.index_at(step)
        stage, length, local = self.stages[index], self.lengths[index], step - self.starts[index]
        peak = 1.0 if stage.learning_rate is None else stage.learning_rate / self.learning_rate
        warmup = self.warmup_steps if stage.warmup_steps is None else stage.warmup_steps
        warmup = math.ceil(warmup * length) if warmup < 1 else int(warmup)
        return peak * _shape(stage.schedule or self.schedule, local, warmup, length)


def parse_stages(stages: object) -> list[DistillationStage]:
    """Stages of a list of them or of mappings of their fields, as a configuration file has them.

    Raises:
        ValueError: an entry is no stage, or has a field that stages do not have.
    """
    if isinstance(stages, str | Mapping) or not isinstance(stages, Sequence) or not stages:
        raise ValueError(f"`stages` must be a list of at least one stage, got {shown(stages)}")
    parsed = []
    for stage in stages:
        if isinstance(stage, Mapping):
            unknown = set(stage) - set(DistillationStage.__dataclass_fields__)
            if unknown or "loss" not in stage:
                fields = ", ".join(DistillationStage.__dataclass_fields__)
                raise ValueError(f"`stages` must have a `loss` and no fields but {fields}; got {dict(stage)}")
            stage = DistillationStage(**stage)
        elif not isinstance(stage, DistillationStage):
            raise ValueError(f"`stages` must be DistillationStage or mappings of its fields, got {shown(stage)}")
        parsed.append(stage)
    return parsed


def _length(stage: DistillationStage, steps_per_epoch: int | None) -> int:
    if stage.steps is not None:
        return stage.steps
    if steps_per_epoch is None:
        raise ValueError(f"`steps` must be given for data without length, got `epochs` {shown(stage.epochs)}")
    return max(math.ceil((stage.epochs or 0.0) * steps_per_epoch - 1e-9), 1)


def _shape(schedule: str, step: int, warmup: int, length: int) -> float:
    """Fraction of the highest learning rate at a step of a stage."""
    if step < warmup:
        return step / warmup
    progress = min((step - warmup) / max(length - warmup, 1), 1.0)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
