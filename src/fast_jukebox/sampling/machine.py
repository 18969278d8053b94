"""Devices, memory and threads of the machine.

Rows are sampled at once as many as memory holds, and half of them where it did not. Each of a CPU's threads takes
complete songs, so that no number depends on how many there are: an operation that several threads share adds up in
another order, and takes many times longer where other programs keep a core busy, as every thread waits for the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Generic, TypeVar, overload

import torch
from torch import Tensor

from fast_jukebox.sampling.protocols import HasParameters, SizedPrior

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@overload
def rows(tensor: Tensor, batch: int, device: torch.device) -> Tensor: ...


@overload
def rows(tensor: Tensor | None, batch: int, device: torch.device) -> Tensor | None: ...


def rows(tensor: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    """`tensor` (1 or N, ...) on a device, one row for each of `batch` songs."""
    if tensor is None:
        return None
    return tensor.to(device).expand(batch, *tensor.shape[1:])


def device_of(module: HasParameters) -> torch.device:
    """Device of a module's parameters, or the one that they are moved to when it samples (see
    [`~fast_jukebox.generation.offload.Offload`]).
    """
    execution = getattr(module, "sampling_device", None)
    return next(module.parameters()).device if execution is None else execution


def is_offloaded(prior: HasParameters) -> bool:
    """True for a prior that is on its device only while its windows are sampled."""
    return getattr(prior, "sampling_device", None) is not None


MEMORY_SHARE = 0.5
"""Fraction of the free memory that the tensors counted here may take; the rest is for a step's intermediates."""

_WAIT = 0.1
"""Seconds between two looks at what workers do."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Words of drivers and libraries, in a plain RuntimeError, where torch's own allocator was not the one that failed."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, or `None` where it is not known.

    On a GPU, what the driver has free and what torch keeps without using it; on a CPU, what Linux calls available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu":
        return available_ram()
    return None


def available_ram() -> int | None:
    """Bytes of main memory that programs can still have, or `None` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    found = [line for line in lines if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) * 1024 if found else None


def process_memory() -> int:
    """Bytes of main memory that this process holds, libraries included; 0 where the system does not say.

    What is freed and kept for later goes back to the system first, where the C library is one that can.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


LARGE = 2**22
"""Bytes of a tensor from which [`zeros`] has the system give its memory."""


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.zeros`, where large ones of a CPU take no time: Linux gives zeros, in large pages, as they are touched.

    What torch frees goes back to the system, or not, by what else is in use. To be given again in small pages and
    written with zeros takes the caches of many windows as long as some fifty steps.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if device.type == "cpu" and nbytes >= LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # no room, of which torch's own error says more
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with contextlib.suppress(OSError):  # a system without large pages
                memory.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))
    return torch.zeros(shape, dtype=dtype, device=device)


def row_bytes(prior: SizedPrior, length: int) -> int:
    """Bytes that one row (a window of one song) holds at most at once: first its conditioning, for a moment twice, then
    this, its cache and its logits; noise and codes all along.
    """
    width, item = getattr(prior.config, "hidden_size", 0), next(prior.parameters()).element_size()
    cache = prior.cache_nbytes(1)
    conditioning = length * width * item
    # Logits are worked on in float32: themselves, probabilities, their sums and what is compared.
    logits = 4 * 4 * prior.config.codebook_size
    return length * (4 + 8) + conditioning + max(conditioning, cache + logits)


def rows_that_fit(prior: SizedPrior, length: int, most: int, held: int = 0) -> int:
    """Number of rows of `length` codes to sample at once, at most `most`, by the memory free on the prior's device: at
    least 1, or 0 beside others.

    Args:
        prior: the prior.
        length: codes of a row.
        most: rows that are wanted.
        held: bytes that rows which are sampled at the same time may still take.
    """
    least = 0 if held else 1
    free = free_memory(device_of(prior)) if most > least else None
    if free is None:
        return most
    return max(least, min(most, (int(MEMORY_SHARE * free) - held) // row_bytes(prior, length)))


def usual_rows(count: int) -> int:
    """The next number of rows that GPUs sample: up to 8 a power of two, then a multiple of an eighth of the power of
    two above it. So decoders that are costly to make are made for few sizes; the spare rows repeat the last one.
    """
    unit = 1 << max((count - 1).bit_length() - 3, 0) if count > 8 else 1 << (count - 1).bit_length()
    return -(-count // unit) * unit


def is_out_of_memory(error: BaseException) -> bool:
    """True where an error, or one that caused it, says that a device, or the CPU, had no more memory to give.

    A recording that ends without memory says itself only that it failed.
    """
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    if said or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)


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
    one = _in_modes(work)
    with _single_threaded_pool(threads) as pool:
        try:
            for result in pool.map(one, range(count)):
                take(result)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _single_threaded_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _in_modes(work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """`work` in the inference and gradient modes of the present thread, on whatever thread it runs."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(item: Item) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(item)

    return run


class Workers(Generic[Key, Result]):
    """Threads that do several pieces of work at the same time, each with one of torch's threads. Use it in a `with`
    statement, within which one thread starts the work and takes its results. At its end, also on errors and
    interruptions, nothing runs any more.

    Args:
        threads: how many; 0 lets the caller's thread do each piece of work when its result is taken.

    Attributes:
        running: what was started and not taken yet, by its key.
        stopping: whether all work should end early. It is the work that has to look.
    """

    def __init__(self, threads: int) -> None:
        self.threads, self.stopping = threads, False
        self.running: dict[Key, Callable[[], Result]] = {}
        self._futures: dict[Future[Result], Key] = {}
        self._pool = _single_threaded_pool(threads) if threads else None

    def __enter__(self) -> Workers[Key, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self.running.clear()
        self._futures.clear()

    @property
    def free(self) -> bool:
        """Whether more work can be started."""
        return len(self.running) < max(self.threads, 1)

    def start(self, key: Key, work: Callable[[], Result]) -> None:
        """Start a piece of work in the caller's modes and context variables, `granted_threads` apart."""
        self.running[key] = work
        if self._pool is not None:

            def alone(_: None) -> Result:
                _granted.set(None)  # of this thread's copy of the context: it has one thread
                return work()

            future = self._pool.submit(copy_context().run, _in_modes(alone), None)
            self.running[key] = future.result
            self._futures[future] = key

    def next(self, meanwhile: Callable[[], None] | None = None) -> tuple[Key, Callable[[], Result]]:
        """What is done, of several what began first; calling it returns the result, or raises what the work raised.

        Args:
            meanwhile: called a few times a second until then; what it raises ends the wait.
        """
        if self._pool is None:
            return self.running.popitem()
        # A limit, so that a key pressed to interrupt is noticed on every system.
        while not (done := wait(self._futures, _WAIT, FIRST_COMPLETED).done):
            if meanwhile is not None:
                meanwhile()
        key = self._futures.pop(next(future for future in self._futures if future in done))
        return key, self.running.pop(key)
