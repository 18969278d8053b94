import json

from benchmarks import sampling


def test_a_table_has_a_row_for_each_level_and_batch(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "config_of", lambda name: tiny_config)
    output = tmp_path / "table"
    options = ["--weights", "float32", "float16", "--batches", "1", "2", "--steps", "2", "--output", str(output)]
    rows = sampling.main(["--presets", "tiny", *options])
    wanted = [(level, batch, held) for level in range(3) for batch in (1, 2) for held in ("float32", "float16")]
    assert [(row["level"], row["batch"], row["weights"]) for row in rows] == wanted
    assert all(row["early ms"] > 0 and row["codes/s"] > 0 for row in rows)
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == rows
    assert (tmp_path / "table.md").read_text().strip() in capsys.readouterr().out
