"""Training against the clock: a schedule over seconds in place of steps, and an end on time."""

from __future__ import annotations

import math
import time

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown


def seconds_spent(state: JsonObject) -> float:
    """Seconds that a [`TrainingClock`] counted, by a trainer's state; 0 where it was not used."""
    kept = state.get("stateful_callbacks", {}).get(TrainingClock.__name__)
    return float(kept["attributes"]["spent"]) if isinstance(kept, dict) else 0.0


class TrainingClock(TrainerCallback, ExportableState):
    """Ends a training when its time is spent, and evaluates and saves at even fractions of it.

    The time runs from the first step on, evaluations included. What a checkpoint had spent is spent when it is resumed.

    Args:
        max_minutes: of training; `None` where only `stop_at` counts.
        stop_at: Unix time in seconds at which training ends, whatever `max_minutes` leaves.
        evaluations: how often it evaluates and saves on the way, the end not counted.

    Raises:
        ValueError: neither limit is given, or a number is out of its range.
    """

    def __init__(self, max_minutes: float | None = None, stop_at: float | None = None, evaluations: int = 0) -> None:
        if max_minutes is None and stop_at is None:
            raise ValueError("`max_minutes` or `stop_at` must be given, got neither")
        for name, value in (("max_minutes", max_minutes), ("stop_at", stop_at)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number, got {shown(value)}")
        if evaluations < 0:
            raise ValueError(f"`evaluations` must be at least 0, got {shown(evaluations)}")
        self.max_minutes, self.stop_at, self.evaluations, self.spent = max_minutes, stop_at, evaluations, 0.0
        self._began: float | None = None
        self._before, self._done = 0.0, 0

    @property
    def seconds(self) -> float:
        """All the training's seconds: those spent before and those that it may still take from its start on."""
        limits = []
        if self.max_minutes is not None:
            limits.append(60 * self.max_minutes)
        if self.stop_at is not None and self._began is not None:
            limits.append(self._before + max(self.stop_at - self._began, 0.0))
        return min(limits, default=math.inf)

    def fraction(self) -> float:
        """Fraction of the time that is spent, in [0, 1]."""
        if self._began is not None:
            self.spent = self._before + time.time() - self._began
        return min(1.0, self.spent / self.seconds) if self.seconds > 0 else 1.0

    def rate(self, step: int, warmup_steps: int = 0) -> float:
        """Learning rate as a fraction of its peak: a warm-up by steps, and half a cosine to zero by the clock."""
        warm = min(1.0, (step + 1) / (warmup_steps + 1))
        return warm * (0.5 + 0.5 * math.cos(math.pi * self.fraction()))

    def state(self) -> dict[str, object]:
        """See [`~transformers.trainer_callback.ExportableState`]: checkpoints keep the time spent."""
        self.fraction()
        return {"args": {"max_minutes": self.max_minutes, "stop_at": self.stop_at}, "attributes": {"spent": self.spent}}

    def on_train_begin(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        """Start the clock, from what a resumed checkpoint had spent."""
        self.spent = seconds_spent(vars(state)) if state.global_step else 0.0
        self._before, self._began = self.spent, time.time()
        self._done = int(self.fraction() * (self.evaluations + 1))

    def on_step_end(self, args: object, state: object, control: TrainerControl, **kwargs: object) -> TrainerControl:
        """Stop and save at the end, evaluate and save where another fraction is done."""
        fraction = self.fraction()
        if fraction >= 1:
            control.should_training_stop = True
            control.should_save = True
        elif int(fraction * (self.evaluations + 1)) > self._done:
            self._done = int(fraction * (self.evaluations + 1))
            control.should_log = control.should_evaluate = control.should_save = True
        return control
