"""Work in shards: the same results from any number of workers, and a lost worker costs its shard alone."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from fast_jukebox.utils import workers
from fast_jukebox.utils.workers import WorkerLostError, Workers, map_shards


class Squares:
    """Squares numbers, and says in a folder which process was set up and which shards were begun."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / f"setup-{os.getpid()}").touch()

    def __call__(self, shard):
        (self.folder / f"begun-{shard}-{os.getpid()}").touch()
        if (self.folder / f"wait-{shard}").exists():
            time.sleep(60)
        if shard < 0:
            raise ValueError(f"`shard` must be at least 0, got {shard}")
        return shard * shard


class Moody(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def moody():
    def work(shard):
        raise Moody(shard, shard)

    return work


def killed():
    def work(shard):
        os.kill(os.getpid(), signal.SIGKILL)

    return work


def kill_worker_of(folder, shard):
    """Kill, with no warning, the process that begins a shard first, and let the shard pass the next time."""

    def watch():
        while not (found := list(folder.glob(f"begun-{shard}-*"))):
            time.sleep(0.01)
        (folder / f"wait-{shard}").unlink()
        os.kill(int(found[0].name.rpartition("-")[2]), signal.SIGKILL)

    (folder / f"wait-{shard}").touch()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_workers(tmp_path, count):
    found = dict(map_shards(partial(Squares, tmp_path), range(6), Workers(count)))
    assert found == {shard: shard * shard for shard in range(6)}
    assert 1 <= len(list(tmp_path.glob("setup-*"))) <= count
    assert (tmp_path / f"setup-{os.getpid()}").exists() == (count == 1)


def test_a_killed_worker_costs_its_shard_alone(tmp_path, caplog):
    thread = kill_worker_of(tmp_path, 1)
    found = dict(map_shards(partial(Squares, tmp_path), range(5), Workers(2)))
    thread.join()
    assert found == {shard: shard * shard for shard in range(5)}
    begun = [path.name.split("-")[1] for path in tmp_path.glob("begun-*")]
    assert sorted(begun) == ["0", "1", "1", "2", "3", "4"]
    assert "a worker was lost" in caplog.text and "-9" in caplog.text


def test_a_shard_that_loses_every_worker_is_an_error(tmp_path):
    def watch():
        killed = set()
        while len(killed) < 2:
            for path in tmp_path.glob("begun-0-*"):
                process = int(path.name.rpartition("-")[2])
                if process not in killed:
                    killed.add(process)
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    (tmp_path / "wait-0").touch()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    with pytest.raises(WorkerLostError, match="2 workers were lost with the same shard"):
        list(map_shards(partial(Squares, tmp_path), [0], Workers(2, attempts=2)))
    thread.join()


SCRIPT = """
import math
from fast_jukebox.utils.workers import Workers, map_shards

def setup():
    return math.sqrt

list(map_shards(setup, [1, 4], Workers(2, attempts=1)))
"""


DRAWING = """
from fast_jukebox.utils.workers import Workers, map_shards

def work(shard):
    from tqdm.auto import tqdm

    return sum(tqdm(range(shard), disable=False))

def setup():
    return work

if __name__ == "__main__":
    print(len(list(map_shards(setup, [1, 2, 3], Workers(2)))))
"""


def test_nothing_is_said_of_workers_that_drew_bars(tmp_path):
    (tmp_path / "script.py").write_text(DRAWING)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert "it/s" in done.stderr and "leaked" not in done.stderr


def test_a_script_whose_workers_would_begin_it_again_is_told_what_to_do(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`?" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("count", [1, 2])
def test_what_the_work_raises_reaches_the_caller_and_ends_the_others(tmp_path, count):
    with pytest.raises(ValueError, match="`shard` must be at least 0, got -3"):
        list(map_shards(partial(Squares, tmp_path), [1, 2, -3, 4, 5, 6, 7, 8], Workers(count)))
    assert not list(tmp_path.glob("begun-8-*"))


@pytest.mark.skipif(os.name != "posix", reason="signals are others there")
def test_ctrl_c_while_a_worker_starts_is_not_for_it(tmp_path):
    worker = workers._Process(pickle.dumps(partial(Squares, tmp_path)))
    try:
        for _ in range(3):
            os.kill(worker._process.pid, signal.SIGINT)  # as a terminal sends it to every process
        assert worker.call(3) == 9
        os.kill(worker._process.pid, signal.SIGINT)
        assert worker.call(4) == 16
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        worker.stop()


def test_an_error_that_cannot_travel_keeps_its_text():
    with pytest.raises(RuntimeError, match="Moody: 1 and 1"):
        list(map_shards(moody, [1], Workers(2)))


def test_shards_are_read_as_workers_become_free(tmp_path):
    read = []

    def shards():
        for shard in range(8):
            read.append(shard)
            yield shard

    results = map_shards(partial(Squares, tmp_path), shards(), Workers(2))
    next(results)
    assert read == [0, 1]
    results.close()  # what is left is not done, and nobody waits for it


@pytest.mark.parametrize("fields", [{"count": 0}, {"count": 1.5}, {"attempts": 0}, {"count": 10**6}])
def test_numbers_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be from 1 to 10000"):
        Workers(**fields)


@pytest.mark.slow
def test_a_killed_worker_of_a_ray_cluster_costs_its_shard_alone(tmp_path, caplog, monkeypatch):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": python_path()}})
    try:
        thread = kill_worker_of(tmp_path, 1)
        found = dict(map_shards(partial(Squares, tmp_path), range(5), Workers(None, ray="auto")))
        thread.join()
        assert found == {shard: shard * shard for shard in range(5)}
        begun = [path.name.split("-")[1] for path in tmp_path.glob("begun-*")]
        assert sorted(begun) == ["0", "1", "1", "2", "3", "4"]
        assert "a worker was lost" in caplog.text
        with pytest.raises(ValueError, match="^`shard` must be at least 0, got -3$"):
            list(map_shards(partial(Squares, tmp_path), [-3], Workers(1, ray="auto")))
        with pytest.raises(WorkerLostError, match="2 workers were lost with the same shard"):
            list(map_shards(killed, [0], Workers(1, ray="auto", attempts=2)))
        monkeypatch.setattr(workers, "_WAVE_SHARDS", 2)
        read = []
        shards = (read.append(shard) or shard for shard in range(20, 30))
        results = map_shards(partial(Squares, tmp_path), shards, Workers(1, ray="auto"))
        assert next(results) == (20, 400) and read == [20, 21]
        assert dict(results) == {shard: shard * shard for shard in range(21, 30)}
    finally:
        ray.shutdown()


def python_path():
    return os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


def test_an_address_without_a_cluster_is_refused(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="`ray` must be the address of a running cluster, got 'auto'"):
        list(map_shards(partial(Squares, "."), [1], Workers(2, ray="auto")))
