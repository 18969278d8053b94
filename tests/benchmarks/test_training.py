import json

import pytest
import torch

from benchmarks import training
from fast_jukebox.models.fast_jukebox import configuration_fast_jukebox


@pytest.fixture
def tiny_presets(tiny_config, monkeypatch):
    def deeper(depth):
        config = type(tiny_config).from_dict(tiny_config.to_dict())
        for prior in config.prior_configs:
            prior.num_hidden_layers = depth
        return config

    monkeypatch.setitem(configuration_fast_jukebox.PRESETS, "tiny-6", (deeper, 6))
    monkeypatch.setitem(configuration_fast_jukebox.PRESETS, "tiny-3", (deeper, 3))


def test_a_table_has_the_teacher_and_each_kind_of_step(tiny_presets, tmp_path):
    output = tmp_path / "table"
    rows = training.main(["--teacher", "tiny-6", "--students", "tiny-3", "--levels", "2", "0", "--output", str(output)])
    expected = [("tiny-6", "plain"), ("tiny-3", "plain"), ("tiny-3", "Eq. 4"), ("tiny-3", "Eq. 3")]
    assert [(row["model"], row["step"]) for row in rows] == 2 * expected
    assert [row["level"] for row in rows] == [2] * 4 + [0] * 4
    assert all(row["codes/s"] > 0 and row["share of peak"] > 0 for row in rows)
    teacher, plain, intermediate, prediction = rows[:4]
    assert teacher["kept MB"] > 1.5 * plain["kept MB"]
    assert teacher["GFLOP"] > 1.5 * plain["GFLOP"]
    # A teacher is computed and not kept.
    assert prediction["GFLOP"] > plain["GFLOP"]
    assert prediction["kept MB"] < plain["kept MB"] * 1.5 < teacher["kept MB"] * 1.5
    assert intermediate["GFLOP"] > plain["GFLOP"]
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == rows


def test_checkpointing_keeps_less(tiny_presets):
    options = ["--teacher", "tiny-6", "--students", "tiny-3", "--levels", "2"]
    plain, checkpointed = training.main(options), training.main([*options, "--checkpointing"])
    assert checkpointed[0]["kept MB"] < plain[0]["kept MB"]


def test_bf16_runs(tiny_presets):
    rows = training.main(["--teacher", "tiny-6", "--students", "tiny-3", "--levels", "0", "--bf16"])
    assert len(rows) == 4 and all(row["s"] > 0 for row in rows)


def test_kept_bytes_counts_each_storage_once():
    class Squares(torch.nn.Module):
        def forward(self, x):
            return type("Output", (), {"loss": ((x * x) * 2).sum()})

    work = training.Work.__new__(training.Work)
    work.prior = work.module = Squares()
    work.loss = lambda batch: work.module(batch["x"]).loss
    assert training.kept_bytes(work, {"x": torch.ones(100, requires_grad=True)}) == 400
