"""Threads of a CPU: each takes complete songs, so that no number depends on how many there are.

An operation that several threads share adds up in another order, and takes many times longer where other programs keep
a core busy, as every thread waits for the last. What is done song by song, window by window or piece by piece runs on
one thread each instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

from fast_jukebox.sampling.inputs import SizedPrior, device_of

Result = TypeVar("Result")

NARROW = 512
"""Width of a prior below which one thread samples a song quickest."""

_granted: ContextVar[int | None] = ContextVar("granted", default=None)


@contextmanager
def single_threads() -> Iterator[None]:
    """Let torch use one thread for an operation; afterwards, also on errors, it has as many as before.

    Within, `granted_threads` says how many there were, and `share_out` uses them.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    token = _granted.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _granted.reset(token)


@contextmanager
def suited_threads(prior: SizedPrior) -> Iterator[None]:
    """On a CPU, `single_threads` for narrow priors.

    The operations of a narrow prior's step take microseconds, which is less than it takes to share them out. The width
    alone decides, so that the numbers do not depend on the batch.
    """
    if getattr(prior.config, "hidden_size", NARROW) >= NARROW or device_of(prior).type != "cpu":
        yield
        return
    with single_threads():
        yield


def granted_threads() -> int:
    """Number of threads that may be used: torch's own, or within `single_threads` those it had before."""
    return _granted.get() or torch.get_num_threads()


def share_out(work: Callable[[int], Result], count: int, after: Callable[[int], None] | None = None) -> list[Result]:
    """`work(0)`, ..., `work(count - 1)`, within `single_threads` on as many threads as torch had before.

    Args:
        work: may only change what is its own; runs in the caller's inference and gradient modes.
        count: how often.
        after: called with how many are done, in their order and by the caller's thread; what it raises ends the work.
    """
    threads = min(_granted.get() or 1, count)
    results: list[Result] = []

    def take(result: Result) -> None:
        results.append(result)
        if after is not None:
            after(len(results))

    if threads <= 1:
        for index in range(count):
            take(work(index))
        return results
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def one(index: int) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(index)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for result in pool.map(one, range(count)):
                take(result)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results
