"""Several trainings side by side on one machine: who ends when, and their processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from fast_jukebox.training.checkpoints import RESULTS
from fast_jukebox.utils.text import shown


def finish_times(fractions: Mapping[str, float], begin: float, end: float) -> dict[str, float]:
    """End of each of several trainings on one device, so that each gets its fraction of the device.

    Trainings that run at the same time get equal parts. Whoever has had its fraction ends, and the others go on with
    larger parts.

    Args:
        fractions: of the device's time by name, above 0; scaled to a sum of 1.
        begin: when all begin, in seconds.
        end: when the last ends.

    >>> finish_times({"a": 0.25, "b": 0.75}, 0, 100)
    {'a': 50.0, 'b': 100.0}
    """
    if not fractions or min(fractions.values()) <= 0:
        raise ValueError(f"`fractions` must be numbers above 0, got {shown(dict(fractions))}")
    total, running = sum(fractions.values()), len(fractions)
    spent = done = 0.0
    times = {}
    for name in sorted(fractions, key=fractions.__getitem__):
        spent += (fractions[name] / total - done) * running
        done = fractions[name] / total
        running -= 1
        times[name] = begin + spent * (end - begin)
    return {name: times[name] for name in fractions}


@dataclass(frozen=True)
class TrainingJob:
    """A training's command.

    Attributes:
        folder: of its output; one with `eval_results.json` is done.
        command: the program and its arguments.
        fallback: arguments added where it fails, for a second try.
        environment: variables beside those of this process.
        log: by default beside the folder, with the suffix `.log`.
    """

    folder: Path
    command: Sequence[str]
    fallback: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None

    @property
    def done(self) -> bool:
        """It ended with its final evaluation."""
        return (self.folder / RESULTS).exists()


def script_command(script: Path, options: Mapping[str, object]) -> list[str]:
    """The command line of a Python script with options `--NAME VALUE`, or `--NAME VALUE VALUE ...` of a list."""
    words = [sys.executable, str(script)]
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def run_side_by_side(
    jobs: Sequence[TrainingJob],
    processes: int,
    after: Callable[[TrainingJob], None] | None = None,
    stop: Event | None = None,
    *,
    before: Callable[[TrainingJob], None] | None = None,
    deadline: float | None = None,
) -> None:
    """Run the jobs that are not done, `processes` at a time, and wait for all of them.

    Args:
        jobs: in the order in which they begin.
        processes: at the same time, at least 1; the cores are shared out between them.
        after: called in a thread with each job that is done, those that were done before included.
        stop: once it is set, the processes are ended, and each counts as failed.
        before: called in a thread with each job that is begun.
        deadline: on the clock `time.monotonic`, at which the processes are ended and no more are begun.

    Raises:
        ChildProcessError: jobs failed, the others are done: names them, their logs and the last line of these.
        TimeoutError: the deadline came before all were done.
    """
    processes = max(processes, 1)
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    shared = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}

    def is_late() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    def ends() -> bool:
        return is_late() or (stop is not None and stop.is_set())

    def run(job: TrainingJob) -> str | None:
        log_path = job.log or Path(f"{job.folder}.log")
        tries = [job.command] if job.fallback is None else [job.command, [*job.command, *job.fallback]]
        for number, command in enumerate(tries):
            if job.done:
                break
            if is_late():
                raise TimeoutError("time is up: run the same command again to go on")
            if before is not None and number == 0:
                before(job)
            print(f"{time.strftime('%H:%M:%S')} {log_path.stem}: training, log in {log_path}", flush=True)
            with open(log_path, "a", encoding="utf-8") as log:
                environment = {**shared, **job.environment}
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
                code = _wait(process, ends)
            if code and is_late():
                raise TimeoutError("time is up: run the same command again to go on")
            if code and (ends() or number + 1 == len(tries)):
                return f"{log_path.stem} ended with code {code}, see {log_path}{_last_line(log_path)}"
        if after is not None:
            after(job)
        return None

    with ThreadPoolExecutor(processes) as pool:
        failures = [failure for failure in pool.map(run, jobs) if failure]
    if failures:
        raise ChildProcessError("; ".join(failures))


def _last_line(log: Path) -> str:
    """The last line that a process wrote, after a colon; nothing where it wrote none."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[-300:]}" if last else ""


def _wait(process: subprocess.Popen[bytes], ends: Callable[[], bool]) -> int:
    """The exit code of a process, which is ended once `ends` says so."""
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if ends():
                process.terminate()
