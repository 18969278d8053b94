import json

import pytest
import torch

from benchmarks import profiling
from fast_jukebox import FastJukeboxModel, FastJukeboxPrior


@pytest.fixture
def model_dir(tiny_config, tmp_path):
    torch.manual_seed(0)
    FastJukeboxModel(tiny_config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("engine", "part"), [("eager", "eager steps"), ("graph", "steps on the device")])
def test_the_parts_of_a_song_are_those_of_its_levels_and_add_up(model_dir, tiny_config, tmp_path, engine, part):
    before = FastJukeboxPrior.condition
    line = ["--model", str(model_dir), "--duration", "0.2", "--steps", "8", "--windows", "2", "--engine", engine]
    tables = profiling.main([*line, "--output", str(tmp_path / "table")])
    rows = {(row["level"], row["part"]): row["s"] for row in tables["parts"]}
    levels = range(tiny_config.num_levels)
    assert set(rows) == {
        *((level, name) for level in levels for name in ("conditioning", "prompts", part)),
        ("sound", "decoding"),
        ("", "the rest"),
        ("", "the whole song"),
    }
    whole = rows.pop(("", "the whole song"))
    assert sum(rows.values()) == pytest.approx(whole) and min(rows.values()) > 0
    assert FastJukeboxPrior.condition is before  # nothing stays patched
    operations = tables["operations"]
    assert any(row["operation"].startswith("aten::") and row["calls a code"] >= 1 for row in operations)
    assert [row["us a code"] for row in operations] == sorted((row["us a code"] for row in operations), reverse=True)
    assert json.loads((tmp_path / "table-operations.json").read_text())["rows"] == operations
