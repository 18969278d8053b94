"""Progress of a generation: what a callback receives, the clock behind it, and a bar for a terminal or a notebook."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from torch import Tensor

from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils import log_lines

if TYPE_CHECKING:
    from tqdm import tqdm

_INTERVAL = 0.25
"""Seconds between two calls of a callback, at least."""

_SETTLED = 0.5
"""Seconds before which no time left is given: the first ones go to what happens once."""

_TICK = 1.0
"""Seconds after which a bar, or the line in place of one, is shown again while nothing is reported."""


@dataclass(frozen=True)
class GenerationProgress:
    """State of a generation. Codes are counted for every song, and twice where two windows both sample a position.

    Attributes:
        level: a level being sampled, of several the one heard of last; 0 is the bottom.
        level_name: bottom, middle or top.
        window: how many windows of the level are done or being sampled.
        windows: windows of the level; `None` for songs without end, like all totals.
        level_codes_done: codes of this level that are sampled.
        level_codes_total: codes of this level to sample.
        codes_done: codes of all levels that are sampled.
        codes_total: codes of all levels to sample.
        fraction: fraction of the work of all levels that is done, in [0, 1]: codes, weighted by what one costs at their
            level; decoding apart.
        seconds_left: estimate for all levels, from the seconds so far and this fraction; `None` in the first half
            second.
        music_done: seconds of music that the fraction stands for.
        music_total: seconds of music to make, of all songs.
    """

    level: int
    level_name: str
    window: int
    windows: int | None
    level_codes_done: int
    level_codes_total: int | None
    codes_done: int
    codes_total: int | None
    fraction: float | None
    seconds_left: float | None
    music_done: float | None = None
    music_total: float | None = None


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
        cost: of a code, in proportion to those of other levels.
    """

    codes: int | None
    windows: int | None
    cost: float = 1.0


class ProgressClock:
    """Counts codes, and calls a callback a few times a second at most.

    Args:
        callback: see [`ProgressCallback`].
        work: of each level, bottom first.
        music: seconds of music to make; `None` for songs without end.

    Attributes:
        aside: whether other threads than the callback's note codes: the callback is then left to `report`.
    """

    def __init__(self, callback: ProgressCallback, work: Sequence[LevelWork], music: float | None = None) -> None:
        self.callback, self.work, self.music, self.aside = callback, work, music, False
        self._finished = [0] * len(work)  # codes of finished batches
        # Level, last window and codes of the batches that are being sampled, the last one noted at the end.
        self._running: dict[Hashable, tuple[int, int, int]] = {}
        self._started, self._last_call = time.monotonic(), -math.inf
        self._paused: float | None = None

    def pause(self) -> None:
        """Time does not count from now on."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Time counts again."""
        if self._paused is not None:
            self._started += time.monotonic() - self._paused
            self._paused = None

    def note(self, level: int, window: int, codes: int, batch: Hashable = None) -> None:
        """Count codes, and call the callback where it is time.

        Args:
            level: that is being sampled.
            window: the last window of the batch, counted from 1.
            codes: of the batch, of all its rows, that are sampled.
            batch: which batch, where a level has several.
        """
        self._running[level, batch] = level, window, codes
        if not self.aside:
            self.report()

    def report(self) -> None:
        """Call the callback where it is time."""
        running = list(self._running.values())
        if running and time.monotonic() - self._last_call >= _INTERVAL:
            self._call(*running[-1][:2])

    def finish(self, level: int, window: int, batch: Hashable = None) -> None:
        """Count a batch of a level, whose last window is done, and call the callback. A batch that is not finished,
        but begun again, does not count.
        """
        self._finished[level] += self._running.pop((level, batch), (level, window, 0))[2]
        self._call(level, window)

    def drop(self, level: int, batch: Hashable = None) -> None:
        """Do not count what a batch has done so far."""
        self._running.pop((level, batch), None)

    def _call(self, level: int, window: int) -> None:
        self._last_call = time.monotonic()
        done = list(self._finished)
        for own, _, codes in list(self._running.values()):
            done[own] += codes
        totals = [each.codes for each in self.work if each.codes is not None]
        fraction = seconds_left = None
        if len(totals) == len(self.work):
            total = sum(codes * each.cost for codes, each in zip(totals, self.work, strict=True))
            cost = sum(codes * each.cost for codes, each in zip(done, self.work, strict=True))
            fraction = 1.0 if sum(done) >= sum(totals) else cost / total
            seconds = self._last_call - self._started
            if fraction == 1.0:
                seconds_left = 0.0
            elif fraction > 0.0 and seconds >= _SETTLED:
                seconds_left = seconds * (1.0 - fraction) / fraction
        progress = GenerationProgress(
            level=level,
            level_name=level_name(level, len(self.work)),
            window=window,
            windows=self.work[level].windows,
            level_codes_done=done[level],
            level_codes_total=self.work[level].codes,
            codes_done=sum(done),
            codes_total=None if fraction is None else sum(totals),
            fraction=fraction,
            seconds_left=seconds_left,
            music_done=None if fraction is None or self.music is None else fraction * self.music,
            music_total=None if fraction is None else self.music,
        )
        if self.callback(progress) is False:
            raise GenerationCancelled


def _described(progress: GenerationProgress) -> str:
    """A line for a log."""
    if progress.fraction == 1.0:
        return "decoding"
    if progress.music_done is None or progress.music_total is None:
        return f"sampling: {progress.codes_done} codes"
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    return f"sampling: {progress.music_done:.0f} of {progress.music_total:.0f} s of music{left}"


class ProgressBars:
    """A callback that draws a bar of the seconds of music that are made, with the time left. Use it in a `with`
    statement: the bar stands from its beginning to its end, so that what is prepared and decoded is seen too, and its
    clock goes on.

    ```
    sampling: 23 of 60 s of music |███▊      | 00:14 left
    ```

    Args:
        show: `True` and `False` say so; `None` shows a bar on a terminal and in a notebook, not in a log file.
        lines: where no bar is shown and `show` is not `False`, print a line on standard error now and then.
    """

    def __init__(self, show: bool | None = None, lines: bool = False) -> None:
        self.show, self.lines = show, lines and show is not False
        self._line = "preparing"
        self._bar: tqdm | None = None
        self._closed = threading.Event()

    def __enter__(self) -> ProgressBars:
        self._closed.clear()
        if self.show is not False:
            self._bar = self._new_bar("preparing", 1.0, "{desc}")
            if not self._bar.disable or self.lines:
                threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._bar is not None:
            self._bar.leave = self._bar.n > 0  # nothing is left of what was refused at once
        self.close()

    def _tick(self) -> None:
        """Let the clock of the bar go on while nothing is reported."""
        while not self._closed.wait(_TICK):
            bar = self._bar
            if bar is not None and bar.disable and log_lines.is_due():
                log_lines.print_line(self._line)
            if bar is not None and not bar.disable:
                if bar.n == bar.total:
                    bar.set_description_str("decoding", refresh=False)
                bar.refresh()

    def __call__(self, progress: GenerationProgress) -> None:
        if self.show is False:
            return
        if self.lines:
            self._line = _described(progress)
        total, bar = progress.music_total, self._bar
        done = progress.codes_done if progress.music_done is None else progress.music_done
        if bar is None or done < bar.n or bar.total != total:  # of what is prepared, or of another generation
            if bar is not None:
                bar.leave = bar.n > 0
                self.close()
            kind = None
            if total is not None:
                digits = 0 if total >= 10 else 1
                kind = f"{{desc}}: {{n:.{digits}f}} of {{total:.{digits}f}} s of music |{{bar}}| {{remaining}} left"
            bar = self._bar = self._new_bar("sampling", total, kind)
        bar.update(done - bar.n)

    def close(self) -> None:
        """Close the bar if there is one, leaving it on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, name: str, total: float | None, bar_format: str | None) -> tqdm:
        from tqdm.auto import tqdm

        # None leaves it to tqdm, which shows bars on terminals only and takes a notebook for none.
        in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
        disable = False if self.show or in_notebook else None
        scale = total is None
        return tqdm(
            desc=name, total=total, bar_format=bar_format, unit="code", unit_scale=scale, smoothing=0, disable=disable
        )
