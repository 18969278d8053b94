"""Progress of a generation: what a callback receives, the clock behind it, and a bar for a terminal or a notebook."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from torch import Tensor

from fast_jukebox.sampling.checks import level_name

if TYPE_CHECKING:
    from tqdm import tqdm

_INTERVAL = 0.25
"""Seconds between two calls of a callback, at least."""

_SETTLED = 0.5
"""Seconds of work before which no time left is told: the first ones go to what happens once."""

_BOUND_ROWS = {"cpu": 1}
"""A step's time grows with its rows about as `rows + _BOUND_ROWS` does, by the type of device: on a CPU nearly in
proportion, as measured with the embedded model; elsewhere reading the weights takes as long as the arithmetic of
`_BOUND_ROWS_ELSEWHERE` rows, the ratio of a GPU's arithmetic to its bandwidth."""
_BOUND_ROWS_ELSEWHERE = 160
_CONDITIONING = 0.4
"""Arithmetic of conditioning a code on the level above, as a fraction of a step's: 0.47 of its time with the embedded
model on a CPU, 0.28 of its operations with 18 layers of the published widths."""


@dataclass(frozen=True)
class GenerationProgress:
    """State of a generation. Codes are counted for every song, and twice where two windows both sample a position.

    Attributes:
        level: the level being sampled; 0 is the bottom.
        level_name: bottom, middle or top.
        window: how many windows of the level are done or being sampled.
        windows: windows of the level; `None` for songs without end, like all totals.
        level_codes_done: codes of this level that are sampled.
        level_codes_total: codes of this level to sample.
        codes_done: codes of all levels that are sampled.
        codes_total: codes of all levels to sample.
        share: fraction of the work of all levels that is done, in [0, 1]: network steps, weighted by their number of
            rows and of layers, conditioning and prompts included and decoding apart.
        seconds_left: estimate for all levels: the seconds so far, divided by the work done and multiplied by the work
            left; `None` in the first half second.
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
        codes: int64 (N, length) of each level, bottom first, as far as no later window would have changed them; `None`
            for levels that were not asked for. `generate(codes=..., seed=...)` continues from them. Empty for a stream.
        seed: the seed, or one for each song.
    """

    def __init__(self) -> None:
        super().__init__("the generation was cancelled by its progress callback")
        self.codes: list[Tensor | None] = []
        self.seed: int | list[int] | None = None


@dataclass(frozen=True)
class LevelWork:
    """Work to do at a level, for all songs together.

    Attributes:
        codes: to sample; `None` for songs without end.
        windows: of a song; `None` likewise.
        rows: windows of all songs that are probably sampled at once.
        weight: cost of a step in proportion to those of other levels, such as the number of layers.
        known: codes of the windows' prompts.
        conditioned: codes to condition on the level above.
    """

    codes: int | None
    windows: int | None
    rows: int
    weight: float
    known: int = 0
    conditioned: int = 0


class ProgressClock:
    """Counts codes and work, and calls a callback a few times a second at most.

    Time runs from the start and between `resume` and `pause`.

    Args:
        callback: see [`ProgressCallback`].
        work: of each level, bottom first.
        device_type: where the levels are sampled, `"cpu"`, `"cuda"` and so on.

    Attributes:
        code_costs: cost of sampling a code of each level, in steps of one row of weight 1.
    """

    def __init__(self, callback: ProgressCallback, work: Sequence[LevelWork], device_type: str = "cpu") -> None:
        bound = _BOUND_ROWS.get(device_type, _BOUND_ROWS_ELSEWHERE)
        self.callback, self.work = callback, list(work)
        self.code_costs = [each.weight * (each.rows + bound) / each.rows for each in work]
        self._total: float | None = 0.0  # cost of all levels
        for each, cost in zip(work, self.code_costs, strict=True):
            if each.codes is None or self._total is None:
                self._total = None
            elif each.codes:
                self._total += each.codes * cost + each.weight * (each.known + _CONDITIONING * each.conditioned)
        self._codes, self._cost = [0] * len(work), 0.0  # of finished batches
        self._running: dict[int, tuple[int, float]] = {}  # codes and cost of each level's batch
        self._seconds, self._resumed = 0.0, time.monotonic()
        self._paused, self._last_call = False, -math.inf

    def batch(self, level: int, window: int, rows: int, known: int = 0, length: int = 0) -> BatchClock:
        """A batch that begins now. One that is not finished with `finish` does not count.

        Args:
            level: that it is of.
            window: the last window in it, counted from 1.
            rows: that are sampled at once.
            known: codes of a row's prompt.
            length: codes of a row that are conditioned on the level above.
        """
        return BatchClock(self, level, window, rows, known, length)

    def pause(self) -> None:
        """Nothing is done from now on."""
        if not self._paused:
            self._seconds, self._paused = self.seconds, True

    def resume(self) -> None:
        """Work goes on."""
        if self._paused:
            self._resumed, self._paused = time.monotonic(), False

    @property
    def seconds(self) -> float:
        """Seconds of work so far."""
        return self._seconds if self._paused else self._seconds + time.monotonic() - self._resumed

    def finish(self, level: int, window: int) -> None:
        """The batch of a level is done: count it and call the callback.

        Args:
            level: of the batch.
            window: the last window of the level that is done, counted from 1.
        """
        codes, cost = self._running.pop(level, (0, 0.0))
        self._codes[level] += codes
        self._cost += cost
        self._call(level, window)

    def note(self, level: int, window: int, codes: int, cost: float) -> None:
        """So many codes of a level's batch are sampled, at such a cost; call the callback where it is time."""
        self._running[level] = codes, cost
        if time.monotonic() - self._last_call >= _INTERVAL:
            self._call(level, window)

    def seconds_left(self) -> float | None:
        """Estimate for all levels, `None` where there is none."""
        cost, seconds = self._cost_done(), self.seconds
        if self._total is None or cost == 0.0:
            return None
        if cost >= self._total * (1 - 1e-9):
            return 0.0
        return None if seconds < _SETTLED else seconds * (self._total - cost) / cost

    def _cost_done(self) -> float:
        return self._cost + sum([cost for _, cost in self._running.values()])

    def _call(self, level: int, window: int) -> None:
        self._last_call = time.monotonic()
        done = list(self._codes)
        for own, (codes, _) in self._running.items():
            done[own] += codes
        totals = [each.codes for each in self.work if each.codes is not None]
        progress = GenerationProgress(
            level=level,
            level_name=level_name(level, len(self.work)),
            window=window,
            windows=self.work[level].windows,
            level_codes_done=done[level],
            level_codes_total=self.work[level].codes,
            codes_done=sum(done),
            codes_total=sum(totals) if len(totals) == len(self.work) else None,
            share=None if self._total is None else min(self._cost_done() / self._total, 1.0) if self._total else 1.0,
            seconds_left=self.seconds_left(),
        )
        if self.callback(progress) is False:
            raise GenerationCancelled


class BatchClock:
    """Counter of one batch of windows; made by [`ProgressClock.batch`]."""

    def __init__(self, clock: ProgressClock, level: int, window: int, rows: int, known: int, length: int) -> None:
        weight = clock.work[level].weight
        self._clock, self._level, self._window, self._rows = clock, level, window, rows
        self._conditioning = weight * _CONDITIONING * length  # of a row
        self._before = rows * (weight * known + self._conditioning)  # what comes before the first code, of all rows
        self._step = rows * clock.code_costs[level]
        self.pause, self.resume = clock.pause, clock.resume
        clock.resume()

    def conditioned(self, rows: int) -> None:
        """So many of the rows are conditioned."""
        self._clock.note(self._level, self._window, 0, self._conditioning * rows)

    def sampled(self, count: int) -> None:
        """So many codes of each row are sampled."""
        self._clock.note(self._level, self._window, count * self._rows, self._before + count * self._step)


class ProgressBars:
    """A callback that draws a bar of the work of all levels, with the time left. Use it in a `with` statement.

    Args:
        show: `True` and `False` say so; `None` shows a bar on a terminal and in a notebook, not in a log file.
    """

    def __init__(self, show: bool | None = None) -> None:
        self.show = show
        self._bar: tqdm | None = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, progress: GenerationProgress) -> None:
        if self.show is False:
            return
        done = progress.codes_done if progress.share is None else 100 * progress.share
        if self._bar is not None and done < self._bar.n:  # another generation
            self.close()
        if self._bar is None:
            self._bar = self._new_bar(progress.share is None)
        self._bar.set_description_str(f"{progress.level_name:>6}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Close the bar if there is one, leaving it on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, endless: bool) -> tqdm:
        from tqdm.auto import tqdm

        # None leaves it to tqdm, which shows bars on terminals only and takes a notebook for none.
        in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
        disable = False if self.show or in_notebook else None
        if endless:
            return tqdm(unit="code", unit_scale=True, disable=disable)
        percent = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
        return tqdm(total=100, bar_format=percent, smoothing=0, disable=disable)
