"""How far a generation is: what a callback receives, the clock behind it, and bars for a terminal or a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_INTERVAL = 0.25
"""Seconds between two calls of a callback, at least."""


@dataclass(frozen=True)
class GenerationProgress:
    """Where a generation stands. Codes are counted once a position, over all songs made in turn, not once a batch row.

    Attributes:
        level: the level being sampled; 0 is the bottom.
        level_name: bottom, middle or top.
        window: which window of the level, from 1.
        windows: windows of the level.
        level_codes_done: codes of this level that are sampled.
        level_codes_total: codes of this level to sample.
        codes_done: codes of all levels that are sampled.
        codes_total: codes of all levels to sample.
        seconds_left: estimate for all levels, from the speed so far; `None` until there is one.
    """

    level: int
    level_name: str
    window: int
    windows: int
    level_codes_done: int
    level_codes_total: int
    codes_done: int
    codes_total: int
    seconds_left: float | None


ProgressCallback = Callable[[GenerationProgress], None]
"""Called a few times a second while sampling, and at the end of every window. What it raises ends the generation and
reaches the caller; nothing is left behind in the model."""


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
        callback: see [`ProgressCallback`]; `None` makes the clock idle.
        totals: for each level, bottom first, the codes to sample.
        windows: for each level, its windows.
    """

    def __init__(self, callback: ProgressCallback | None, totals: Sequence[int], windows: Sequence[int]) -> None:
        self.callback = callback
        self.totals = list(totals)
        self.windows = list(windows)
        self.done = [0] * len(self.totals)
        self.seconds = [0.0] * len(self.totals)
        self._last_call = -float("inf")

    def window(self, level: int, window: int) -> Callable[[int], None] | None:
        """What the loop calls after each code of a window (`window` counts from 1); `None` where nobody listens."""
        if self.callback is None:
            return None
        before, seconds_before, started = self.done[level], self.seconds[level], time.monotonic()

        def after_code(codes: int) -> None:
            now = time.monotonic()
            self.done[level] = before + codes
            self.seconds[level] = seconds_before + now - started
            if now - self._last_call >= _INTERVAL:
                self._last_call = now
                self.tell(level, window)

        return after_code

    def tell(self, level: int, window: int) -> None:
        """Call the callback now."""
        if self.callback is None:
            return
        self.callback(
            GenerationProgress(
                level=level,
                level_name=level_name(level, len(self.totals)),
                window=window,
                windows=self.windows[level],
                level_codes_done=self.done[level],
                level_codes_total=self.totals[level],
                codes_done=sum(self.done),
                codes_total=sum(self.totals),
                seconds_left=self.seconds_left(level),
            )
        )

    def seconds_left(self, level: int) -> float | None:
        """Estimate for all levels: each at its own pace so far, those not begun at the pace of `level`."""
        if not self.done[level]:
            return None
        pace = [seconds / done if done else None for seconds, done in zip(self.seconds, self.done, strict=True)]
        own = self.seconds[level] / self.done[level]
        left = [total - done for total, done in zip(self.totals, self.done, strict=True)]
        return sum(codes * (own if each is None else each) for codes, each in zip(left, pace, strict=True))


class ProgressBars:
    """A callback that draws one bar a level, with the time left over all levels. Use it in a `with` statement.

    Args:
        show: `True` and `False` say so; `None` shows bars on a terminal and in a notebook, not in a log file.
    """

    def __init__(self, show: bool | None = None) -> None:
        self.show = show
        self._bar: Any = None
        self._level: int | None = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, progress: GenerationProgress) -> None:
        if self.show is False:
            return
        if progress.level != self._level:
            self.close()
            self._level = progress.level
            self._bar = self._new_bar(progress)
        self._bar.set_postfix_str(f"{duration_text(progress.seconds_left)} left in all", refresh=False)
        self._bar.update(progress.level_codes_done - self._bar.n)

    def close(self) -> None:
        """Close the bar that is open, leaving it on the screen."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._level = None

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
    "GenerationProgress",
    "ProgressBars",
    "ProgressCallback",
    "ProgressClock",
    "duration_text",
    "level_name",
]
