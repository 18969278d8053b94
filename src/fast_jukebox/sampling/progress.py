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


_SETTLED = 0.5
"""Seconds of work before which there is no estimate: the first ones go to what happens once."""

_BOUND_ROWS = {"cpu": 1}
"""A step's time grows with its rows about as `rows + _BOUND_ROWS` does, by the type of device: on a CPU nearly in
proportion, as measured with the embedded model; elsewhere reading the weights takes as long as the arithmetic of
`_BOUND_ROWS_ELSEWHERE` rows, the ratio of a GPU's arithmetic to its bandwidth. Used for levels that are not begun."""
_BOUND_ROWS_ELSEWHERE = 160
_CONDITIONING = 0.4
"""Arithmetic of conditioning a code on the level above, as a share of a step's: 0.47 of its time with the embedded
model on a CPU, 0.28 of its operations with 18 layers of the published widths."""


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
        share: how much of the time to sample all levels has passed, in [0, 1], by the estimate of `seconds_left`.
        seconds_left: estimate for all levels, conditioning and prompts included and decoding apart, from the pace of
            each level so far; `None` until there is one.
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
"""Called a few times a second while windows are conditioned and sampled, and at the end of every batch of windows. If
it returns `False`, the generation ends with [`GenerationCancelled`], which carries the codes made so far. What it
raises ends the generation too and reaches the caller. Either way nothing is left behind in the model."""


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
    """What is to be done at a level, for all songs together.

    Attributes:
        codes: to sample; `None` for songs without end.
        windows: of a song; likewise.
        rows: that are probably sampled at once.
        weight: what a step costs in proportion to those of other levels.
        known: codes of the windows' prompts.
        conditioned: codes to condition on the level above.
    """

    codes: int | None
    windows: int | None
    rows: int
    weight: float
    known: int = 0
    conditioned: int = 0


def level_name(level: int, num_levels: int) -> str:
    """Bottom, middle or top; `level 1` and so on between bottom and top where there are more than three levels."""
    if level == num_levels - 1:
        return "top"
    if level == 0:
        return "bottom"
    return "middle" if num_levels == 3 else f"level {level}"


@dataclass
class _Spent:
    """What a level has had so far; costs are in steps of one row, as if their weights were read for nothing."""

    codes: int = 0
    steps: float = 0.0
    settings: float = 0.0
    seconds: float = 0.0

    @property
    def cost(self) -> float:
        return self.steps + self.settings


class ProgressClock:
    """Counts codes and tells a callback, at most a few times a second.

    Args:
        callback: see [`ProgressCallback`].
        work: of each level, bottom first.
        device_type: where the levels are sampled, `"cpu"`, `"cuda"` and so on.
    """

    def __init__(self, callback: ProgressCallback, work: Sequence[LevelWork], device_type: str = "cpu") -> None:
        self.bound_rows = _BOUND_ROWS.get(device_type, _BOUND_ROWS_ELSEWHERE)
        self.callback = callback
        self.work = list(work)
        self.spent = [_Spent() for _ in self.work]
        self._finished = [_Spent() for _ in self.work]
        self._window = 0
        self._last_call = -math.inf

    def batch(self, level: int, window: int, rows: int, known: int = 0, length: int = 0) -> BatchClock:
        """The clock of a batch, which begins now. A batch that is not finished with `finish` does not count.

        Args:
            level: that it is of.
            window: the last window in it, counted from 1.
            rows: that are sampled at once.
            known: codes of a row's prompt.
            length: codes of a row that are conditioned on the level above.
        """
        return BatchClock(self, level, window, rows, known, length, self._finished[level])

    def finish(self, level: int) -> None:
        """The batch is done: count it and call the callback."""
        self._finished[level] = self.spent[level]
        self._tell(level)

    def now_at(self, level: int, window: int, spent: _Spent) -> None:
        """Note what a level has had, on its way to a window, and call the callback where it is time."""
        self.spent[level], self._window = spent, window
        now = time.monotonic()
        if now - self._last_call >= _INTERVAL:
            self._last_call = now
            self._tell(level)

    def _tell(self, level: int) -> None:
        work, left = self.work[level], self.seconds_left()
        spent = sum(own.seconds for own in self.spent)
        totals = [each.codes for each in self.work]
        progress = GenerationProgress(
            level=level,
            level_name=level_name(level, len(self.work)),
            window=self._window,
            windows=work.windows,
            level_codes_done=self.spent[level].codes,
            level_codes_total=work.codes,
            codes_done=sum(own.codes for own in self.spent),
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
        left = 0.0
        for level, (work, spent) in enumerate(zip(self.work, self.spent, strict=True)):
            if work.codes is None:
                return None
            steps = max(work.codes - spent.codes, 0) * (work.rows + self.bound_rows) / work.rows
            settings = max(work.known + _CONDITIONING * work.conditioned - spent.settings, 0.0) if steps else 0.0
            if steps + settings == 0.0:
                continue
            pace = self._pace(level)
            if pace is None or sum(own.seconds for own in self.spent) < _SETTLED:
                return None
            left += (steps + settings) * pace
        return left

    def _pace(self, level: int) -> float | None:
        """Seconds that a step of one row costs, or `None` where nobody knows yet."""
        begun = [other for other, spent in enumerate(self.spent) if spent.cost]
        if not begun:
            return None
        known = min(begun, key=lambda other: abs(other - level))
        return self.spent[known].seconds / self.spent[known].cost * self.work[level].weight / self.work[known].weight


class BatchClock:
    """The clock of one batch, which runs from the start; made by [`ProgressClock.batch`]."""

    def __init__(
        self, clock: ProgressClock, level: int, window: int, rows: int, known: int, length: int, finished: _Spent
    ) -> None:
        self._clock, self._level, self._window, self._rows, self._finished = clock, level, window, rows, finished
        self._known, self._length = known, length
        self._started, self._worked = time.monotonic(), 0.0

    def rest(self) -> None:
        """Nothing is done for the batch from now on."""
        self._worked = time.monotonic() - self._started

    def go_on(self) -> None:
        """Go on where the clock was when it came to rest."""
        self._started = time.monotonic() - self._worked

    def conditioned(self, rows: int) -> None:
        """So many of the rows are conditioned."""
        self._note(0, _CONDITIONING * self._length * rows)

    def sampled(self, count: int) -> None:
        """So many codes of each row are sampled."""
        self._note(count, self._rows * (self._known + _CONDITIONING * self._length))

    def _note(self, count: int, settings: float) -> None:
        before, clock = self._finished, self._clock
        spent = _Spent(
            codes=before.codes + count * self._rows,
            steps=before.steps + count * (self._rows + clock.bound_rows),
            settings=before.settings + settings,
            seconds=before.seconds + time.monotonic() - self._started,
        )
        clock.now_at(self._level, self._window, spent)


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
