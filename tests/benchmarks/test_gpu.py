import contextlib
import json
import os
import subprocess
import time

import pytest
import torch

from benchmarks import gpu, gpu_steps, gpu_tables


def run(tmp_path, *parts):
    assert gpu.main([*parts, "--toy", "--output", str(tmp_path)]) == 0
    return gpu_tables.read(tmp_path)


@pytest.fixture(autouse=True)
def _same_tunings(monkeypatch):
    """What a run changes for its process is undone."""
    from fast_jukebox.models.prior.engines import fused_tuning

    monkeypatch.setattr(fused_tuning, "TUNINGS", fused_tuning.TUNINGS)


@pytest.mark.slow
def test_songs_streams_training_and_yardsticks_have_their_rows(tmp_path):
    parts = (
        "first",
        "minute",
        "stream",
        "songs",
        "sequential",
        "training",
        "compiled_training",
        "published",
        "musicgen",
        "profile",
    )
    rows = run(tmp_path, *parts)
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(parts)
    assert not any("failed" in row for row in rows)
    again = next(row for row in rows if row.get("what") == "again")
    assert again["finite"] and again["same_codes"]


@pytest.mark.slow
def test_fused_steps_are_compared_timed_and_tuned_and_the_best_choice_is_used(tmp_path, interpreted_kernels):
    rows = run(tmp_path, "correctness", "tune", "trial", "steps", "graph_steps", "together")
    compared = [row for row in rows if row["part"] == "correctness" and "error" in row]
    assert compared and all(row["agrees"] for row in compared)
    assert {row["engine"] for row in rows if row["part"].endswith("steps") and "step_ms" in row} == {"fused", "graph"}
    assert not any("failed" in row for row in rows)
    assert all(row["together_ms"] > 0 for row in rows if row["part"] == "together" and "level" in row)
    assert sum("machine" in row for row in rows) == 1
    best = json.loads((tmp_path / "tuning.json").read_text())
    assert {rows for rows, _ in best} == {1, 12, 46}

    from fast_jukebox.models.prior.engines import fused_tuning

    best[0][1]["splits"] = 2
    (tmp_path / "tuning.json").write_text(json.dumps(best))
    gpu_steps.use_tuning(tmp_path / "tuning.json")
    assert fused_tuning.tuning_for(best[0][0]).splits == 2


@pytest.fixture
def interpreted_kernels():
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter is for machines without a GPU")


def test_a_part_that_fails_is_a_row_and_the_run_goes_on(tmp_path, monkeypatch):
    def broken(bench):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "minute", gpu.Part(broken, 1, "songs"))
    assert gpu.main(["minute", "profile", "--toy", "--output", str(tmp_path)]) == 1
    rows = gpu_tables.read(tmp_path)
    assert {"part": "minute", "failed": "minute", "error": "RuntimeError: no such kernel"} in rows
    assert any(row["part"] == "profile" for row in rows)
    assert gpu.main(["minute", "--begun", "--toy", "--output", str(tmp_path)]) == 0
    assert gpu_tables.read(tmp_path) == rows


def test_a_part_ends_when_its_seconds_are_over(tmp_path, monkeypatch):
    def endless(bench):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    monkeypatch.setattr(gpu, "TOY_PATIENCE", 1)
    monkeypatch.setitem(gpu.PARTS, "minute", gpu.Part(endless, 1, "songs"))
    assert gpu.main(["minute", "--toy", "--output", str(tmp_path)]) == 1
    assert "OutOfTime" in next(row["error"] for row in gpu_tables.read(tmp_path) if "failed" in row)


def test_unknown_parts_are_refused_and_known_ones_listed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["minutes"])
    assert "minutes" in capsys.readouterr().err
    assert gpu.main(["--list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["60", "training"]
    assert [line[1] for line in lines[1:4]] == ["compiled", "tune", "first"]
    assert sorted(name for line in lines for name in line[1:]) == sorted(gpu_tables.TITLES)
    assert gpu.main(["--list", "published", "tune"]) == 0
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == [["published"], ["tune"]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_toy_runs(tmp_path):
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main(["minute", "--output", str(tmp_path)])


def test_the_script_asks_for_its_minutes(repository_root):
    script = repository_root / "benchmarks" / "gpu.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "MINUTES" in done.stderr
