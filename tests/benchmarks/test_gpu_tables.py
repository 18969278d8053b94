import json

import pytest

from benchmarks import gpu_tables

MACHINE = {"gpu": "A GPU", "cpu": "A CPU", "torch": "2", "transformers": "5"}
ROWS = [
    {"part": "steps", "machine": MACHINE, "bandwidth_GB_s": 3000.4},
    {"part": "steps", "level": 2, "step_ms": 0.25, "engine": "fused"},
    {"part": "minute", "what": "first", "s": 12.0, "same_codes": None, "finite": True, "engines": ["fused", "graph"]},
    {"part": "minute", "failed": "minute", "error": "a | b\nc"},
    {"part": "minute", "took_s": 3.0},
    {"part": "profile", "skipped": "there is no GPU"},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_tables_have_the_parts_in_order_and_a_table_for_each_kind_of_row(folder):
    text = gpu_tables.tables(gpu_tables.sections(gpu_tables.read(folder)))
    assert text.index("A GPU") < text.index("### Steps") < text.index("### A minute of music")
    assert "3,000 GB/s" in text and "| 2 | 0.25 | fused |" in text
    assert "| first | 12 |  | yes | fused / graph |" in text
    assert "\n\n| failed | error |" in text and "a \\| b c" in text
    assert "took" not in text and "Kernels" not in text


def test_a_page_is_renewed_between_its_marks(folder, capsys):
    page = folder / "page.md"
    old = "On one card.\n\n### Steps\n\n| old |\n\n### Streaming\n\n| kept |\n\n| also |\n"
    page.write_text(f"before\n{gpu_tables.BEGIN}\n{old}{gpu_tables.END}\nafter\n")
    for _ in range(2):
        gpu_tables.main([str(folder), "--page", str(page)])
        text = page.read_text()
        assert text.startswith(f"before\n{gpu_tables.BEGIN}\nOn one A GPU")
        assert "old" not in text and text.count("### Steps") == 1
        kept = "On one card.\n\n### Streaming\n\n| kept |\n\n| also |\n"
        assert text.endswith(f"|\n\n{kept}{gpu_tables.END}\nafter\n")
    gpu_tables.main([str(folder)])
    assert "### Steps" in capsys.readouterr().out


def test_of_several_runs_the_last_that_measured_a_part_counts(folder, tmp_path, capsys):
    later = tmp_path / "later"
    later.mkdir()
    rows = [
        {"part": "steps", "began": True},
        {"part": "steps", "failed": "steps", "error": "no"},
        {"part": "minute", "what": "again", "s": 11.0},
        {"part": "tune", "failed": "tune", "error": "late"},
    ]
    (later / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gpu_tables.main([str(folder), str(later)])
    text = capsys.readouterr().out
    assert "| 2 | 0.25 | fused |" in text and "no |" not in text
    assert "| again | 11 |" in text and "fused / graph" not in text and "| tune | late |" in text


def test_a_page_without_marks_and_a_folder_without_rows_are_errors(folder, tmp_path):
    page = folder / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="gpu tables"):
        gpu_tables.update(page, [])
    with pytest.raises(ValueError, match="results.jsonl"):
        gpu_tables.read(tmp_path / "none")


def test_docs_have_a_place_for_the_tables(repository_root):
    text = (repository_root / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.index(gpu_tables.BEGIN) < text.index(gpu_tables.END)
