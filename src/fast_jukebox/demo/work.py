"""Work on the models: one at a time, in the order of asking, in a thread that can be watched and stopped."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from fast_jukebox.sampling.progress import GenerationCancelled, GenerationProgress, ProgressCallback

Result = TypeVar("Result")
_INTERVAL = 0.25
"""Seconds between two states of a work that is watched."""


class StudioBusy(RuntimeError):
    """As many works wait as may; the visitor can try again later."""


class Queue:
    """Takes turns in the order of asking. Safe to use from many threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._tickets: deque[int] = deque()
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Works that run or wait."""
        return len(self._tickets)

    def join(self) -> int:
        """A ticket behind all others.

        Raises:
            StudioBusy: there are as many as there may be.
        """
        with self._changed:
            if len(self._tickets) >= self.most:
                raise StudioBusy(f"{self.most} works are waiting already; try again in a few minutes")
            ticket = next(self._numbers)
            self._tickets.append(ticket)
            return ticket

    def ahead(self, ticket: int) -> int:
        """Number of tickets before this one; 0 when it is its turn."""
        with self._changed:
            return self._tickets.index(ticket) if ticket in self._tickets else 0

    def wait(self, ticket: int, cancelled: Callable[[], bool]) -> bool:
        """Block until it is the ticket's turn; `False` where it is cancelled before."""
        with self._changed:
            while self._tickets[0] != ticket:
                if cancelled():
                    return False
                self._changed.wait(0.1)
            return not cancelled()

    def leave(self, ticket: int) -> None:
        """Release the turn to the next one."""
        with self._changed:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            self._changed.notify_all()


@dataclass(frozen=True)
class WorkState:
    """State of a work.

    Attributes:
        ahead: works before it; 0 where it runs.
        waiting: works in the queue, itself included.
        fraction: what is done, in [0, 1]; `None` where it is not known.
        seconds_left: estimate; `None` where there is none yet.
    """

    ahead: int = 0
    waiting: int = 1
    fraction: float | None = None
    seconds_left: float | None = None


class Work(Generic[Result]):
    """A function that runs in a thread when it is its turn.

    Args:
        queue: the one that all works on the same models share.
        run: does the work; is given a progress callback, which returns `False` once it is to stop.

    Raises:
        StudioBusy: the queue is full.
    """

    def __init__(self, queue: Queue, run: Callable[[ProgressCallback], Result]) -> None:
        self._queue, self._run, self._ticket = queue, run, queue.join()
        self._stop, self._done = threading.Event(), threading.Event()
        self._progress: GenerationProgress | None = None
        self._error: BaseException | None = None
        self._result: Result | None = None
        threading.Thread(target=self._work, name="studio-work", daemon=True).start()

    def stop(self) -> None:
        """Ask the work to end; what it has made stands."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """It was asked to end."""
        return self._stop.is_set()

    @property
    def done(self) -> bool:
        """It has ended, with a result or an error."""
        return self._done.is_set()

    @property
    def state(self) -> WorkState:
        """Its progress."""
        ahead, progress = self._queue.ahead(self._ticket), self._progress
        known = (None, None) if progress is None else (progress.fraction, progress.seconds_left)
        return WorkState(ahead, len(self._queue), *known)

    def watch(self, interval: float = _INTERVAL) -> Iterator[WorkState]:
        """States until the work has ended. Closing the iterator early, as a browser that goes away does, stops it."""
        try:
            yield self.state
            while not self._done.wait(interval):
                yield self.state
        finally:
            if not self.done:
                self.stop()

    def result(self) -> Result | None:
        """Result of the work, when it has ended; `None` where it was stopped before, and raises what the work did."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def _report(self, progress: GenerationProgress) -> bool:
        self._progress = progress
        return not self._stop.is_set()

    def _work(self) -> None:
        try:
            if self._queue.wait(self._ticket, self._stop.is_set):
                self._result = self._run(self._report)
        except GenerationCancelled:
            pass
        except BaseException as error:  # raised again where the result is asked for
            self._error = error
        finally:
            self._queue.leave(self._ticket)
            self._done.set()
