"""Work in shards, by processes of this machine or of a Ray cluster; a lost worker costs the shard that it had.

Shards decide what is computed and workers only when, so that results do not depend on how many workers there are. Who
calls writes each result to a file of its own, and passes on only the shards whose file is missing: so the work resumes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

Shard = TypeVar("Shard")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class WorkerLostError(RuntimeError):
    """A worker ended without an answer: it was killed, ran out of memory, or its machine is gone."""


@dataclass(frozen=True)
class Workers:
    """The processes that do the work.

    Attributes:
        count: how many; 1 without `ray` is the calling process itself. `None` is one for each core, with `ray` one for
            each CPU of the cluster, or GPU where `gpus` is set.
        ray: address of a Ray cluster, such as `"auto"` or `"ray://host:10001"`, `"local"` for one of this machine, or
            an empty text for the running one if there is one, else a local one. `None` for processes without Ray.
        gpus: GPUs that a worker on Ray receives.
        attempts: workers that a shard may lose before that is an error.
    """

    count: int | None = 1
    ray: str | None = None
    gpus: float = 0.0
    attempts: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be, naming the field."""
        for name in ("count", "attempts"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and 1 <= value <= 10_000):
                raise ValueError(f"`{name}` must be from 1 to 10000, got {value!r}")

    @property
    def in_process(self) -> bool:
        """Whether the calling process does the work."""
        return self.count == 1 and self.ray is None


class _Worker(Protocol):
    def call(self, shard: Any) -> Any:
        """What the work gives for a shard; raises `WorkerLostError`, or what the work raises."""

    def stop(self) -> None:
        """End the worker at once."""


def map_shards(
    setup: Callable[[], Callable[[Shard], Result]], shards: Iterable[Shard], workers: Workers
) -> Iterator[tuple[Shard, Result]]:
    """Shards with their results, in the order in which they are done.

    Args:
        setup: makes the work, once in each worker, for example by loading a model. It, the shards and the results are
            pickled where there are several workers, so they are of importable classes and functions.
        shards: read as workers become free, so that few are in memory at once.
        workers: who does it. Those beside the calling process compute on one thread each.

    Raises:
        ImportError: `workers.ray` is set and Ray is not installed.
        WorkerLostError: a shard lost `workers.attempts` workers.
        Exception: what the work raises; the other workers are stopped.
    """
    if workers.in_process:
        work: Callable[[Shard], Result] | None = None
        for shard in shards:
            work = work or setup()
            yield shard, work(shard)
        return
    pool: _Pool[Shard, Result] = _Pool(setup, workers)
    waiting: dict[Future[Result], Shard] = {}
    try:
        for shard in shards:
            waiting[pool.submit(shard)] = shard
            if len(waiting) >= pool.count:
                yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)
    finally:
        pool.stop()


def _finished(waiting: dict[Future[Result], Shard]) -> Iterator[tuple[Shard, Result]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()


class _Pool(Generic[Shard, Result]):
    """Workers, started when there is work for them, and a thread for each that waits for its answer."""

    def __init__(self, setup: Callable[[], Callable[[Shard], Result]], workers: Workers) -> None:
        if workers.ray is None:
            pickled = pickle.dumps(setup)
            self.count = workers.count or os.cpu_count() or 1
            self._start: Callable[[], _Worker] = lambda: _Process(pickled)
        else:
            self.count, self._start = _ray_workers(setup, workers)
        self._attempts = workers.attempts
        self._threads = ThreadPoolExecutor(self.count)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._alive: set[_Worker] = set()
        self._stopped = False

    def submit(self, shard: Shard) -> Future[Result]:
        return self._threads.submit(self._attempt, shard)

    def stop(self) -> None:
        self._stopped = True
        for worker in list(self._alive):
            worker.stop()
        self._threads.shutdown(cancel_futures=True)

    def _attempt(self, shard: Shard) -> Result:
        lost: WorkerLostError | None = None
        for _ in range(self._attempts):
            worker = self._free_worker()
            try:
                result: Result = worker.call(shard)
            except WorkerLostError as error:
                self._alive.discard(worker)
                lost = error
                if self._stopped:
                    raise
                logger.warning("a worker was lost (%s); another one does its shard again", error)
                continue
            except Exception:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            return result
        raise WorkerLostError(
            f"{self._attempts} workers were lost with the same shard ({lost}): is the memory enough for so many?"
        )

    def _free_worker(self) -> _Worker:
        try:
            return self._idle.get_nowait()
        except Empty:
            worker = self._start()
        self._alive.add(worker)
        if self._stopped:  # while it was started
            worker.stop()
        return worker


class _Process:
    """A process of this machine, which ends with the calling one."""

    def __init__(self, setup: bytes) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, setup), daemon=True)
        self._process.start()
        other.close()  # so that the pipe ends with the process

    def call(self, shard: Any) -> Any:
        question = pickle.dumps(shard)
        try:
            self._pipe.send_bytes(question)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise WorkerLostError(f"process {self._process.pid}, exit code {self._process.exitcode}") from error
        done, value = pickle.loads(answer)
        if not done:
            raise value
        return value

    def stop(self) -> None:
        self._process.kill()


def _serve(pipe: Connection, setup: bytes) -> None:
    """Answer shards with results until the calling process closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the caller decides
    os.environ["OMP_NUM_THREADS"] = "1"
    work = None
    while True:
        try:
            question = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            if work is None:
                work = pickle.loads(setup)()
                if "torch" in sys.modules:
                    sys.modules["torch"].set_num_threads(1)
            answer = pickle.dumps((True, work(pickle.loads(question))))
        except Exception as error:
            answer = pickle.dumps((False, _portable(error)))
        pipe.send_bytes(answer)


def _portable(error: Exception) -> Exception:
    """An error that another process can read: itself, or its text where its class takes other arguments."""
    try:
        portable: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return portable


class _Served:
    """An actor: the work, set up with the first shard."""

    def __init__(self, setup: Callable[[], Callable[[Any], Any]]) -> None:
        self._setup = setup
        self._work: Callable[[Any], Any] | None = None

    def call(self, shard: Any) -> Any:
        if self._work is None:
            self._work = self._setup()
        return self._work(shard)


def _ray_workers(setup: Callable[[], Callable[[Any], object]], workers: Workers) -> tuple[int, Callable[[], _Worker]]:
    """How many workers a Ray cluster has for us, and what starts one.

    Raises:
        ImportError: Ray is not installed.
        ValueError: there is no cluster at the address, or it has no such resources.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('`ray` needs Ray: pip install "fast-jukebox[ray]"') from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless the user wants it
        try:
            ray.init(address=workers.ray or None, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise ValueError(f"`ray` must be the address of a running cluster, got {workers.ray!r}: {error}") from error
    kind = "GPU" if workers.gpus else "CPU"
    there = int(ray.cluster_resources().get(kind, 0) // (workers.gpus or 1))
    if not there:
        raise ValueError(f"the Ray cluster must have a {kind} for each worker, got {ray.cluster_resources()}")
    actor = ray.remote(num_cpus=1, num_gpus=workers.gpus, max_restarts=0)(_Served)
    shared = ray.put(setup)  # once for all workers
    return workers.count or there, lambda: _Actor(actor.remote(shared))


class _Actor:
    """A worker on a Ray cluster."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, shard: Any) -> Any:
        import ray
        from ray import exceptions

        lost = (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.ObjectLostError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
        )
        try:
            return ray.get(self._handle.call.remote(shard))
        except lost as error:
            raise WorkerLostError(str(error).splitlines()[0]) from error
        except exceptions.RayTaskError as error:
            raise error.cause from error

    def stop(self) -> None:
        import ray

        ray.kill(self._handle)
