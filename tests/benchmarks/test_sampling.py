import json

from benchmarks import sampling
from fast_jukebox.models.fast_jukebox import configuration_fast_jukebox


def test_a_table_has_a_row_for_each_level_and_batch(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(configuration_fast_jukebox.PRESETS, "tiny", (lambda depth: tiny_config, 3))
    output = tmp_path / "table"
    rows = sampling.main(["--presets", "tiny", "--batches", "1", "2", "--steps", "2", "--output", str(output)])
    assert [(row["level"], row["batch"]) for row in rows] == [(level, batch) for level in range(3) for batch in (1, 2)]
    assert all(row["early ms"] > 0 and row["codes/s"] > 0 for row in rows)
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == rows
    assert (tmp_path / "table.md").read_text().strip() in capsys.readouterr().out
