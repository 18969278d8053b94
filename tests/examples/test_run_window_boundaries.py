import json

from fast_jukebox.evaluation import window_boundaries as module


def test_both_schedules_are_measured_and_written(scripts, tiny_model, tmp_path, monkeypatch):
    for name, samples in (("_FRAME", 16), ("_HOP", 4), ("_NEAR", 2)):  # for windows of 28 samples
        monkeypatch.setattr(module, name, samples)
    tiny_model.save_pretrained(tmp_path / "model")
    made = scripts["run_window_boundaries"].main(
        [
            *("--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "boundaries")),
            *("--duration", "0.5", "--num_samples", "2", "--window_fractions", "1", "0.5"),
        ]
    )
    assert [(row["schedule"], row.get("window_fractions"), row["level"]) for row in made] == [
        (schedule, fraction, level)
        for schedule, fraction in (("sequential", None), ("parallel", 1.0), ("parallel", 0.5))
        for level in ("bottom", "middle")
    ]
    assert json.loads((tmp_path / "boundaries" / "boundaries.json").read_text())["rows"] == made
    counts = [row["boundaries"] for row in made]
    assert counts[0] > counts[2]  # half a context apart, not seven eighths
    assert counts[4] > counts[2]
    assert all(0 <= row[name] <= 1 for row in made for name in ("jump_rank", "flux_rank"))
    printed = (tmp_path / "boundaries" / "boundaries.md").read_text().splitlines()
    assert len(printed) == 2 + len(made)
    assert printed[-1].startswith("| parallel, windows of 0.5 | middle |")


def test_chance_is_stated_beside_the_ranks(scripts):
    row = {"schedule": "sequential", "level": "bottom", "boundaries": 75, "jump_ratio": 1.0, "jump_rank": 0.5}
    assert "| 75 | 1.00, 0.50 | 2.00, 0.90 | 0.50 ± 0.03 |" in scripts["run_window_boundaries"].table(
        [{**row, "flux_ratio": 2.0, "flux_rank": 0.9}]
    )
