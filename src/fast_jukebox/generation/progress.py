"""How far a generation is: what a callback receives, the clock behind it, and bars for a terminal or a notebook."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor

_INTERVAL = 0.25
"""Seconds between two calls of a callback, at least."""


_BOUND_ROWS = {"cpu": 1}
"""A step's time grows with its rows about as `rows + _BOUND_ROWS` does, by the type of device: on a CPU nearly in
proportion, as measured with the embedded model; elsewhere reading the weights takes as long as the arithmetic of
`_BOUND_ROWS_ELSEWHERE` rows, the ratio of a GPU's arithmetic to its bandwidth. Used for levels that are not begun."""
_BOUND_ROWS_ELSEWHERE = 160


@dataclass(frozen=True)
class GenerationProgress:
    """Where a generation stands. Codes are counted for every song, and twice where two windows both sample a position.

    Attributes:
        level: the level being sampled; 0 is the bottom.
        level_name: bottom, middle or top.
        window: how many windows of the level are done or being sampled.
        windows: windows of the level; `None` for songs without end, as all totals.
        level_codes_done: codes of this level that are sampled.
        level_codes_total: codes of this level to sample.
        codes_done: codes of all levels that are sampled.
        codes_total: codes of all levels to sample.
        share: how much of the whole job's time has passed, in [0, 1], by the estimate of `seconds_left`.
        seconds_left: estimate for all levels, from what a code has cost so far at each level; `None` until there is
            one.
    """

    level: int
    level_name: str
    window: int
    windows: int | None
    level_codes_done: int
    level_codes_total: int | None
    codes_done: int
    codes_total: int | None
    share: float | None
    seconds_left: float | None


ProgressCallback = Callable[[GenerationProgress], "bool | None"]
"""Called a few times a second while sampling, and at the end of every batch of windows. If it returns `False`, the
generation ends with [`GenerationCancelled`], which carries the codes made so far. What it raises ends the generation
too and reaches the caller. Either way nothing is left behind in the model."""


class GenerationCancelled(RuntimeError):
    """The progress callback returned `False`.

    Attributes:
        codes: int64 (N, length) of each level, bottom first, as far as they would not have changed any more; `None` for
            levels that were not to be made. `generate(codes=..., seed=...)` takes them and goes on. Empty for a stream.
        seed: the seed, or one for each song.
    """

    def __init__(self) -> None:
        super().__init__("the generation was cancelled by its progress callback")
        self.codes: list[Tensor | None] = []
        self.seed: int | list[int] | None = None


@dataclass(frozen=True)
class LevelWork:
    """What is to be done at a level.

    Attributes:
        codes: to sample, for all songs together; `None` for songs without end.
        windows: of a song; likewise.
        rows: that are probably sampled at once.
        weight: what a step costs in proportion to those of other levels.
    """

    codes: int | None
    windows: int | None
    rows: int
    weight: float


def level_name(level: int, num_levels: int) -> str:
    """Bottom, middle or top; `level 1` and so on between bottom and top where there are more than three levels."""
    if level == num_levels - 1:
        return "top"
    if level == 0:
        return "bottom"
    return "middle" if num_levels == 3 else f"level {level}"


class ProgressClock:
    """Counts codes and tells a callback, at most a few times a second.

    Args:
        callback: see [`ProgressCallback`].
        work: of each level, bottom first.
        device_type: where the levels are sampled, `"cpu"`, `"cuda"` and so on.
    """

    def __init__(self, callback: ProgressCallback, work: Sequence[LevelWork], device_type: str = "cpu") -> None:
        self._bound_rows = _BOUND_ROWS.get(device_type, _BOUND_ROWS_ELSEWHERE)
        self.callback = callback
        self.work = list(work)
        self.done = [0] * len(self.work)
        self.steps = [0] * len(self.work)
        self.seconds = [0.0] * len(self.work)
        self._finished = list(zip(self.done, self.steps, self.seconds, strict=True))
        self._window = 0
        self._last_call = -math.inf

    def batch(self, level: int, window: int, rows: int) -> Callable[[int], None]:
        """What the loop calls after each step of a batch of `rows` rows, the last of which is of window `window`,
        counted from 1. A batch that is not finished with `finish` does not count.
        """
        codes, steps, seconds = self._finished[level]
        self._window, started = window, time.monotonic()

        def after_code(count: int) -> None:
            now = time.monotonic()
            self.done[level] = codes + count * rows
            self.steps[level] = steps + count
            self.seconds[level] = seconds + now - started
            if now - self._last_call >= _INTERVAL:
                self._last_call = now
                self._tell(level)

        return after_code

    def finish(self, level: int) -> None:
        """The batch is done: count it and call the callback."""
        self._finished[level] = (self.done[level], self.steps[level], self.seconds[level])
        self._tell(level)

    def _tell(self, level: int) -> None:
        work, left = self.work[level], self.seconds_left()
        spent = sum(self.seconds)
        totals = [each.codes for each in self.work]
        progress = GenerationProgress(
            level=level,
            level_name=level_name(level, len(self.work)),
            window=self._window,
            windows=work.windows,
            level_codes_done=self.done[level],
            level_codes_total=work.codes,
            codes_done=sum(self.done),
            codes_total=None if None in totals else sum(total or 0 for total in totals),
            share=None if left is None else spent / (spent + left) if spent + left > 0 else 1.0,
            seconds_left=left,
        )
        if self.callback(progress) is False:
            raise GenerationCancelled

    def seconds_left(self) -> float | None:
        """Estimate for all levels: each at its own pace so far, those not begun at that of the nearest level which has
        begun, by the weight of a step and the number of rows.
        """
        if not any(self.seconds):
            return None
        left = 0.0
        for level, work in enumerate(self.work):
            if work.codes is None:
                return None
            left += max(work.codes - self.done[level], 0) * self._pace(level)
        return left

    def _pace(self, level: int) -> float:
        """Seconds a code."""
        if self.seconds[level]:
            return self.seconds[level] / self.done[level]
        known = min((other for other in range(len(self.work)) if self.seconds[other]), key=lambda at: abs(at - level))
        own, other = self.work[level], self.work[known]
        rows = self.done[known] / self.steps[known]
        growth = own.weight / other.weight * (own.rows + self._bound_rows) / (rows + self._bound_rows)
        return self.seconds[known] / self.steps[known] * growth / own.rows


class ProgressBars:
    """A callback that draws one bar a level, with the time left over all levels. Use it in a `with` statement.

    Args:
        show: `True` and `False` say so; `None` shows bars on a terminal and in a notebook, not in a log file.
    """

    def __init__(self, show: bool | None = None) -> None:
        self.show = show
        self._bars: dict[int, Any] = {}

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, progress: GenerationProgress) -> None:
        if self.show is False:
            return
        if progress.level not in self._bars:
            self._bars[progress.level] = self._new_bar(progress)
        bar = self._bars[progress.level]
        if progress.level_codes_total is not None:
            bar.set_postfix_str(f"{duration_text(progress.seconds_left)} left in all", refresh=False)
        bar.update(progress.level_codes_done - bar.n)

    def close(self) -> None:
        """Close the bars that are open, leaving them on the screen."""
        for bar in self._bars.values():
            bar.close()
        self._bars = {}

    def _new_bar(self, progress: GenerationProgress) -> Any:
        from tqdm.auto import tqdm

        # None leaves it to tqdm, which shows bars on terminals only and takes a notebook for none.
        in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
        disable = False if self.show or in_notebook else None
        return tqdm(
            desc=f"{progress.level_name:>6}",
            total=progress.level_codes_total,
            unit="code",
            unit_scale=True,
            disable=disable,
        )


def duration_text(seconds: float | None) -> str:
    """`75.2` as `1:15`, an hour and more as `1:00:00`, nothing known as `?`."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


__all__ = [
    "GenerationCancelled",
    "GenerationProgress",
    "LevelWork",
    "ProgressBars",
    "ProgressCallback",
    "ProgressClock",
    "duration_text",
    "level_name",
]
