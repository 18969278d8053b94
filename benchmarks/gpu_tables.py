"""Tables of what `benchmarks/gpu.sh` measured.

    python -m benchmarks.gpu_tables runs/gpu
    python -m benchmarks.gpu_tables runs/gpu runs/gpu-later --page docs/performance.md

Of several runs, the last one that measured a part counts for it. With a page, what stands in it between
`<!-- gpu tables -->` and `<!-- end of gpu tables -->` is replaced.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu tables -->", "<!-- end of gpu tables -->"

TITLES = {
    "correctness": "Fused steps against one pass in float32: largest difference of logits, as a share of the largest",
    "other_dtypes": "The same in float32 and float16",
    "steps": "Steps",
    "graph_steps": "The same by recorded steps",
    "more_steps": "Steps of other sizes and numbers of windows",
    "compiled": "Steps by torch.compile",
    "trial": 'The trial of `engine="auto"`',
    "first": "The first song of a process",
    "minute": "A minute of music",
    "minute_by_graph": "A minute by the recorded engine",
    "sequential": "In sequence",
    "stream": "Streaming",
    "songs": "Songs at once",
    "profile": "Kernels of a fused step",
    "together": "Steps of levels alone and at the same time",
    "training": "Training steps, bfloat16 autocast",
    "compiled_training": "The same with compiled layers",
    "published": "The published loop: ms a step early, midway and late in a window",
    "musicgen": "MusicGen-small's architecture",
    "tune": "Choices of the fused engine",
}
"""Parts in the order of the page."""


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run.

    Raises:
        ValueError: there are none.
    """
    path = folder / "results.jsonl"
    if not path.is_file():
        raise ValueError(f"there must be a file results.jsonl, made by benchmarks/gpu.sh, in {folder}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def joined(runs: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each part the rows of the last run that measured something of it, or else of the last that tried."""
    newest = {row["part"]: index for index, rows in enumerate(runs) for row in rows}
    newest |= {row["part"]: index for index, rows in enumerate(runs) for row in rows if measured(row)}
    return [
        row for index, rows in enumerate(runs) for row in rows if newest.get(row["part"]) == index and not late(row)
    ]


def late(row: dict[str, Any]) -> bool:
    """Whether a row says that the seconds of a part were over before its last measurement."""
    return str(row.get("error", "")).startswith("OutOfTime")


def measured(row: dict[str, Any]) -> bool:
    """Whether a row is of a measurement."""
    return not {"machine", "took_s", "skipped", "began", "failed"} & set(row)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of all parts; rows of a part that have other columns make another table."""
    lines: list[str] = []
    for facts in (row for row in rows if "machine" in row):
        about = facts["machine"]
        lines += [
            f"On one {about.get('gpu', about['cpu'])}, torch {about['torch']}, transformers {about['transformers']}; "
            f"reading bandwidth measured in the same run: {facts['bandwidth_GB_s']:,.0f} GB/s.",
            "",
        ]
    for part, title in TITLES.items():
        mine = [row for row in rows if row["part"] == part and not {"machine", "took_s", "skipped", "began"} & set(row)]
        if not mine:
            continue
        lines += [f"### {title}", ""]
        header: list[str] = []
        for row in mine:
            names = [name for name in row if name != "part"]
            if names != header:
                header = names
                lines += [""] if lines[-1] else []
                lines += [
                    "| " + " | ".join(name.replace("_", " ") for name in header) + " |",
                    "|" + "---|" * len(header),
                ]
            lines.append("| " + " | ".join(cell(row[name]) for name in header) + " |")
        lines.append("")
    return "\n".join(lines).strip() + "\n"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return " / ".join(cell(item) for item in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def update(page: Path, text: str) -> None:
    """Replace the page's tables.

    Raises:
        ValueError: the page has no place for them.
    """
    content = page.read_text(encoding="utf-8")
    begin, end = content.find(BEGIN), content.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"{page} must have a line {BEGIN!r} and, after it, a line {END!r}")
    page.write_text(content[: begin + len(BEGIN)] + "\n" + text + content[end:], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of runs of benchmarks/gpu.sh, the oldest first")
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables into, choices left out")
    options = parser.parse_args(arguments)
    rows = joined([read(folder) for folder in options.folders])
    text = tables([row for row in rows if options.page is None or row["part"] != "tune"])
    if options.page is None:
        print(text)
    else:
        update(options.page, text)


if __name__ == "__main__":
    main()
