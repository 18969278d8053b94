"""The commands for many songs on a Ray cluster of two workers, one of which is killed: the files are the same."""

import json
import threading
import time

import psutil
import pytest
import soundfile
import torch


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(6):
        tone = 0.3 * torch.sin(2 * torch.pi * (100 + 30 * number) * torch.arange(8000 * 3) / 8000)
        soundfile.write(folder / f"{number}.wav", tone.numpy(), 8000)
    return folder


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture
def one_is_killed():
    """Kill the first worker that is given work, with no warning."""
    killed, stop = [], threading.Event()

    def watch():
        while not killed and not stop.is_set():
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] == ["ray::MapWorker(MapBatches(_RayServed)).submit"]:
                        process.kill()
                        killed.append(process.pid)
                        return
                except psutil.Error:
                    continue
            time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield killed
    stop.set()
    thread.join()


def files(folder):
    """Content of every file by name, but for reports, which name the folder, and safetensors, whose header has its
    entries in any order: what is in these is in the reports' numbers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
        if path.suffix != ".safetensors" and path.name not in ("report.md", "report.json")
    }


COMMANDS = {
    "label": ("label", "SONGS", "--labeller", "key", "--clip-seconds", 1, "--sampling-rate", 8000),
    "encode": ("encode", "SONGS", "--model", "MODEL", "--test-fraction", 0.3),
    "generate-many": ("generate-many", "--num-samples", 6, "--duration", 0.5, "--model", "MODEL", "--batch-size", 2),
    "evaluate": (
        *("evaluate", "one=MODEL", "--songs", "SONGS", "--num-samples", 4, "--duration", 3, "--embedding"),
        *("musicnn_mtt", "--resamples", 20, "--max-windows", 2, "--test-fraction", 0.4, "--no-pictures"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_worker_changes_no_file(run, songs, model_dir, cluster, one_is_killed, command, caplog):
    places = {"SONGS": str(songs), "MODEL": str(model_dir), "one=MODEL": f"one={model_dir}"}
    arguments = [places.get(word, word) for word in COMMANDS[command]]
    found = run(*arguments, "--output", "ray", "--ray", "auto", "--workers", 2)
    assert found.exit_code == 0, found.output
    assert one_is_killed and "a worker was lost" in caplog.text
    found = run(*arguments, "--output", "here")
    assert found.exit_code == 0, found.output
    there, here = files(run.folder / "ray"), files(run.folder / "here")
    assert there.keys() == here.keys() and len(here) >= 3
    assert there == here
    if command == "evaluate":
        sets = [json.loads((run.folder / name / "report.json").read_text())["sets"] for name in ("ray", "here")]
        assert sets[0] == sets[1]
