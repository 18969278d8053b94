import json
import os
import subprocess

import pytest
import torch

from benchmarks import gpu, gpu_tables


def run(tmp_path, *parts):
    assert gpu.main([*parts, "--toy", "--output", str(tmp_path)]) == 0
    return gpu_tables.read(tmp_path)


@pytest.fixture(autouse=True)
def _same_tunings(monkeypatch):
    """What a run changes for its process is undone."""
    from fast_jukebox.models.prior.engines import fused

    monkeypatch.setattr(fused, "TUNINGS", fused.TUNINGS)


@pytest.mark.slow
def test_songs_streams_training_and_yardsticks_have_their_rows(tmp_path):
    parts = ("minute", "stream", "songs", "sequential", "training", "published", "musicgen", "profile")
    rows = run(tmp_path, *parts)
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(parts)
    assert not any("failed" in row for row in rows)
    again = next(row for row in rows if row.get("what") == "again")
    assert again["finite"] and again["same_codes"]


@pytest.mark.slow
def test_fused_steps_are_compared_timed_and_tuned_and_the_best_choice_is_used(tmp_path, interpreted_kernels):
    rows = run(tmp_path, "correctness", "tune", "steps")
    compared = [row for row in rows if row["part"] == "correctness" and "error" in row]
    assert compared and all(row["agrees"] for row in compared)
    assert {row["engine"] for row in rows if "step_ms" in row and row["part"] == "steps"} == {"fused", "graph"}
    best = json.loads((tmp_path / "tuning.json").read_text())
    assert {rows for rows, _ in best} == {1, 12, 46}

    from fast_jukebox.models.prior.engines import fused

    best[0][1]["splits"] = 2
    (tmp_path / "tuning.json").write_text(json.dumps(best))
    gpu.use_tuning(tmp_path / "tuning.json")
    assert fused.tuning_for(best[0][0]).splits == 2


@pytest.fixture
def interpreted_kernels():
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter is for machines without a GPU")


def test_a_part_that_fails_is_a_row_and_the_run_goes_on(tmp_path, monkeypatch):
    def broken(bench):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "minute", (broken, 1))
    assert gpu.main(["minute", "profile", "--toy", "--output", str(tmp_path)]) == 1
    rows = gpu_tables.read(tmp_path)
    assert {"part": "minute", "failed": "minute", "error": "RuntimeError: no such kernel"} in rows
    assert any(row["part"] == "profile" for row in rows)


def test_unknown_parts_are_refused_and_known_ones_listed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["minutes"])
    assert "minutes" in capsys.readouterr().err
    assert gpu.main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:4] == ["correctness", "tune", "steps", "minute"] and set(names) == set(gpu_tables.TITLES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_toy_runs(tmp_path):
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main(["minute", "--output", str(tmp_path)])


def test_the_script_asks_for_its_minutes(repository_root):
    script = repository_root / "benchmarks" / "gpu.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "MINUTES" in done.stderr
