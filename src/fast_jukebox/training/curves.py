"""The held-out loss over a training: early stopping, a warning of overfitting, and both curves."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fast_jukebox.utils.figures import new_figure, save_figure
from fast_jukebox.utils.files import JsonObject

logger = logging.getLogger(__name__)

Curve = Sequence[tuple[int, float]]
"""Steps and bits per code."""

PICTURE = "curves.png"
_RISE = 1.01  # of the held-out bits above their lowest, which noise does not explain


class EarlyStopping(EarlyStoppingCallback):
    """transformers' `EarlyStoppingCallback`, whose count a resumed training continues.

    Attributes:
        first_step: evaluations before it are not counted.
    """

    first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the count of a resumed checkpoint."""
        super().on_train_begin(args, state, control, **kwargs)
        if state.global_step:
            self.early_stopping_patience_counter = evaluations_without_progress(vars(state))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop after too many evaluations without a better one."""
        if state.global_step >= self.first_step:
            super().on_evaluate(args, state, control, **kwargs)


def evaluations_without_progress(state: JsonObject) -> int:
    """Evaluations in a row that [`EarlyStopping`] found no better, by a trainer's state; 0 where it was not used."""
    kept = state.get("stateful_callbacks", {}).get(EarlyStopping.__name__)
    return int(kept["attributes"]["early_stopping_patience_counter"]) if isinstance(kept, dict) else 0


class LossCurves(TrainerCallback):
    """Bits per code of the songs that are trained on and of the held-out ones.

    The training's are logged at every evaluation too. A warning is logged once where the held-out bits rise while the
    training's fall.
    """

    def __init__(self) -> None:
        self.warned = False
        self.before: tuple[int, float] | None = None  # the step before the first one, and the held-out bits there

    def on_step_end(self, args: object, state: object, control: TrainerControl, **kwargs: object) -> TrainerControl:
        """Log where it is evaluated."""
        control.should_log = control.should_log or control.should_evaluate
        return control

    def on_evaluate(self, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        """Warn of overfitting."""
        if self.warned or not state.is_world_process_zero:
            return
        warning = overfitting(*self._curves(state.log_history))
        if warning is not None:
            self.warned = True
            logger.warning("%s", warning)

    def draw(self, log_history: Sequence[Mapping[str, float]], folder: Path) -> None:
        """Log both curves in characters, and draw them into `curves.png` where matplotlib is installed."""
        train, held_out = self._curves(log_history)
        if not train or len(held_out) < 2:
            return
        logger.info("%s", draw_curves(train, held_out))
        try:
            plot_curves(folder / PICTURE, train, held_out)
        except ImportError:
            logger.info("no %s, which needs matplotlib: pip install 'fast-jukebox[plots]'", PICTURE)

    def _curves(self, log_history: Sequence[Mapping[str, float]]) -> tuple[Curve, Curve]:
        train, held_out = loss_curves(log_history)
        if self.before is not None and not any(step <= self.before[0] for step, _ in held_out):
            held_out = [self.before, *held_out]
        return train, held_out


def loss_curves(log_history: Sequence[Mapping[str, float]]) -> tuple[Curve, Curve]:
    """Training's and held-out bits per code over the steps, as a trainer logged them."""
    train = [(int(entry["step"]), entry["bits_per_code"]) for entry in log_history if "bits_per_code" in entry]
    held_out = {
        int(entry["step"]): entry["eval_bits_per_code"] for entry in log_history if "eval_bits_per_code" in entry
    }
    return train, sorted(held_out.items())


def overfitting(train: Curve, held_out: Curve) -> str | None:
    """A warning where the last two evaluations are more than 1 % above the best before them, while the training's bits
    are lower than they were there; else None.
    """
    if len(held_out) < 3 or not train:
        return None
    best_step, best = min(held_out[:-2], key=lambda point: point[1])
    if min(bits for _, bits in held_out[-2:]) <= _RISE * best:
        return None
    then = [bits for step, bits in train if step <= best_step] or [train[0][1]]
    now = train[-1][1]
    if now >= then[-1]:
        return None
    step, bits = held_out[-1]
    return (
        f"overfitting: held-out songs went from {best:.3f} bits per code at step {best_step} to {bits:.3f} at step "
        f"{step}, while those trained on went from {then[-1]:.3f} to {now:.3f}. The model learns these songs by heart: "
        f"stop near step {best_step} (`--early_stopping_patience 2` does, and keeps the best), train on more songs, or "
        "with a lower `--learning_rate`"
    )


def draw_curves(train: Curve, held_out: Curve, width: int = 64, height: int = 12) -> str:
    """Both curves in `height` lines of characters, `width` between the axes' labels: `.` for the songs that are trained
    on, `o` for the held-out ones, `8` for both. Of no bits, an empty text.
    """
    points = [*train, *held_out]
    if not points:
        return ""
    last = max(step for step, _ in points) or 1
    low, high = min(bits for _, bits in points), max(bits for _, bits in points)
    span = high - low or 1.0
    rows = [[" "] * width for _ in range(height)]
    for curve, mark in ((train, "."), (held_out, "o")):
        for step, bits in curve:
            column = round(step / last * (width - 1))
            row = round((high - bits) / span * (height - 1))
            rows[row][column] = "8" if rows[row][column] not in (" ", mark) else mark
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    lines = [f"{labels.get(number, ''):>8} |{''.join(row).rstrip()}" for number, row in enumerate(rows)]
    axis = f"{'':>8} +{'-' * width}\n{'':>10}0{f'step {last}':>{width - 1}}"
    return "\n".join(["bits per code: . trained on, o held out, 8 both", *lines, axis])


def plot_curves(path: str | os.PathLike[str], train: Curve, held_out: Curve) -> Path:
    """Draw both curves into a PNG file.

    Raises:
        ImportError: matplotlib is not there.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for curve, label, style in ((train, "trained on", "-"), (held_out, "held out", "o-")):
        axes.plot([step for step, _ in curve], [bits for _, bits in curve], style, label=label, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("bits per code")
    axes.legend()
    return save_figure(figure, Path(path), 100)
