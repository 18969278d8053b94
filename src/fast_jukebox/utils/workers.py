"""Work in shards, by processes of this machine or by Ray Data on a cluster; a lost worker costs the shard that it had.

Results do not depend on the number of workers. Callers write each result to a separate file, and pass on only the
shards whose file is missing: so the work resumes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    import pyarrow as pa
    from ray import ObjectRef
    from ray.data import Dataset

Shard = TypeVar("Shard")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

# Most shards of a worker, and bytes of them, that Ray gets at once: a worker sets its work up once for these.
_WAVE_SHARDS = 64
_WAVE_BYTES = 2**28

MOST_WORKERS = 10_000
"""Processes that may share the work."""


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
            if value is not None and not (isinstance(value, int) and 1 <= value <= MOST_WORKERS):
                raise ValueError(f"`{name}` must be from 1 to {MOST_WORKERS}, got {shown(value)}")

    @property
    def in_process(self) -> bool:
        """True where the calling process does the work."""
        return self.count == 1 and self.ray is None


def map_shards(
    setup: Callable[[], Callable[[Shard], Result]], shards: Iterable[Shard], workers: Workers
) -> Iterator[tuple[Shard, Result]]:
    """Shards with their results, in the order in which they are done.

    Args:
        setup: makes the function that works, once in each worker, for example by loading a model. It, the shards and
            the results are pickled where there are several workers, so they are of importable classes and functions.
        shards: read as workers become free, so that few are in memory at once; on Ray up to 64 a worker at a time.
        workers: those beside the calling process compute on one thread each.

    Raises:
        ImportError: `workers.ray` is set and Ray Data is not installed.
        ValueError: there is no Ray cluster at the address, or it has no such resources.
        WorkerLostError: a shard lost `workers.attempts` workers.
        Exception: what the work raises; the other workers are stopped.
    """
    if workers.in_process:
        work: Callable[[Shard], Result] | None = None
        for shard in shards:
            work = work or setup()
            yield shard, work(shard)
        return
    if workers.ray is not None:
        yield from _map_on_ray(setup, shards, workers)
        return
    pool: Pool[Shard, Result] = Pool(setup, workers)
    waiting: dict[Future[Result], Shard] = {}
    try:
        for shard in shards:
            waiting[pool.submit(shard)] = shard
            if len(waiting) >= pool.count:
                yield from finished(waiting)
        while waiting:
            yield from finished(waiting)
    finally:
        pool.stop()


def finished(waiting: dict[Future[Result], Shard]) -> Iterator[tuple[Shard, Result]]:
    """Those that are done first of some shards, with their results; they are taken out of `waiting`."""
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()


class Pool(Generic[Shard, Result]):
    """Workers, started when there is work for them, and a thread for each that waits for its answer."""

    def __init__(self, setup: Callable[[], Callable[[Shard], Result]], workers: Workers) -> None:
        self.count = workers.count or os.cpu_count() or 1
        self._setup = pickle.dumps(setup)
        self._attempts = workers.attempts
        self._threads = ThreadPoolExecutor(self.count)
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._alive: set[_Process] = set()
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
            f"{self._attempts} workers were lost with the same shard ({lost}): is the memory enough for so many, and "
            "does the script that asks for them begin its work under `if __name__ == '__main__':`?"
        )

    def _free_worker(self) -> _Process:
        try:
            return self._idle.get_nowait()
        except Empty:
            worker = _Process(self._setup)
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
        with _interrupts_held():  # until it knows that Ctrl-C is not for it; it inherits this
            self._process.start()
        other.close()  # so that the pipe ends with the process

    def call(self, shard: object) -> Any:
        question = pickle.dumps(shard)
        try:
            self._pipe.send_bytes(question)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise WorkerLostError(f"process {self._process.pid}, exit code {self._process.exitcode}") from error
        return _result(answer)

    def stop(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep this thread and the processes that it starts from being interrupted, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, setup: bytes) -> None:
    """Answer shards with results until the calling process closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the caller decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.environ["OMP_NUM_THREADS"] = "1"
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # the usual one is of the system's, of which a killed process leaves a warning
    served = _Served(setup)
    while True:
        try:
            question = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(served.answer(question))


class _Served:
    """The work in a worker's process, set up with the first shard, so that its errors are answers too."""

    def __init__(self, setup: bytes) -> None:
        self._setup = setup
        self._work: Callable[[object], object] | None = None

    def answer(self, question: bytes) -> bytes:
        """Pickled `(True, result)` of a pickled shard, or `(False, error)`."""
        try:
            if self._work is None:
                self._work = pickle.loads(self._setup)()
                if "torch" in sys.modules:
                    sys.modules["torch"].set_num_threads(1)
            return pickle.dumps((True, self._work(pickle.loads(question))))
        except Exception as error:
            return pickle.dumps((False, _portable(error)))


def _result(answer: bytes) -> Any:
    done, value = pickle.loads(answer)
    if not done:
        raise value
    return value


def _portable(error: Exception) -> Exception:
    """An error that another process can read: itself, or its text where its class takes other arguments."""
    try:
        portable: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return portable


class _RayServed:
    """The class that Ray Data calls with batches of one shard, made once in each actor."""

    def __init__(self, setup: ObjectRef[bytes]) -> None:
        import ray

        self._served = _Served(ray.get(setup))
        with warnings.catch_warnings():  # Ray means to replace this one
            warnings.simplefilter("ignore")
            self._replaces = bool(ray.get_runtime_context().was_current_actor_reconstructed)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A table of one row: the shard's number, its answer, and True for the first answer after a loss."""
        import pyarrow

        answer = self._served.answer(batch["shard"][0].as_py())
        replaces, self._replaces = self._replaces, False
        return pyarrow.table(
            {
                "number": batch["number"],
                "answer": pyarrow.array([answer], pyarrow.large_binary()),
                "replaces": [replaces],
            }
        )


def _map_on_ray(
    setup: Callable[[], Callable[[Shard], Result]], shards: Iterable[Shard], workers: Workers
) -> Iterator[tuple[Shard, Result]]:
    """`map_shards` by Ray Data: a dataset of a shard a block for each wave of shards, and an actor for each worker."""
    there = _ray_slots(workers)
    import ray
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
    )
    count = workers.count or there
    shared = ray.put(pickle.dumps(setup))  # once for all workers
    for wave, pickled in _waves(shards, count):
        dataset = _ray_dataset(shared, pickled, min(count, there, len(wave)), workers)
        pickled.clear()
        batches = iter(dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"))
        while True:
            try:
                batch = next(batches, None)
            except lost as error:
                raise WorkerLostError(
                    f"{workers.attempts} workers were lost with the same shard ({str(error).splitlines()[0]}): "
                    "is the memory enough for so many?"
                ) from error
            if batch is None:
                break
            for row in cast("pa.Table", batch).to_pylist():
                if row["replaces"]:
                    logger.warning("a worker was lost; another one does its shard again")
                yield wave[row["number"]], _result(row["answer"])


def _waves(shards: Iterable[Shard], count: int) -> Iterator[tuple[list[Shard], list[bytes]]]:
    """Shards, as they are and pickled, in lists of bounded size."""
    wave: list[Shard] = []
    pickled: list[bytes] = []
    size = 0
    for shard in shards:
        wave.append(shard)
        pickled.append(pickle.dumps(shard))
        size += len(pickled[-1])
        if len(wave) >= _WAVE_SHARDS * count or size >= _WAVE_BYTES * count:
            yield wave, pickled
            wave, pickled, size = [], [], 0
    if wave:
        yield wave, pickled


def _ray_dataset(setup: ObjectRef[bytes], pickled: list[bytes], size: int, workers: Workers) -> Dataset:
    """The dataset of the answers. Ray restarts an actor that was lost, which does its shard again."""
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False  # callers show their own
    context.print_on_execution_start = False
    rows = [{"number": number, "shard": shard} for number, shard in enumerate(pickled)]
    items = data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():  # of how restarts are set, until Ray 2.64
        warnings.simplefilter("ignore")
        return items.map_batches(
            _RayServed,
            fn_constructor_args=(setup,),
            batch_size=1,
            batch_format="pyarrow",
            # No shard waits at an actor, so that a lost one costs a shard.
            compute=data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=workers.gpus or None,
            max_restarts=-1,
            max_task_retries=workers.attempts - 1,
        )


def _ray_slots(workers: Workers) -> int:
    """Connect to a Ray cluster; the number of workers that it has room for. Errors as [`map_shards`]."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError('`ray` needs Ray Data: pip install "fast-jukebox[ray]"') from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless the user wants it
        try:
            ray.init(address=workers.ray or None, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise ValueError(
                f"`ray` must be the address of a running cluster, got {shown(workers.ray)}: {error}"
            ) from error
    kind = "GPU" if workers.gpus else "CPU"
    there = int(ray.cluster_resources().get(kind, 0) // (workers.gpus or 1))
    if not there:
        raise ValueError(f"the Ray cluster must have a {kind} for each worker, got {ray.cluster_resources()}")
    return there
