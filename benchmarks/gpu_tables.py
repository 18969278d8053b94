"""Tables of what `benchmarks/gpu.sh` measured.

    python -m benchmarks.gpu_tables runs/gpu
    python -m benchmarks.gpu_tables runs/gpu runs/gpu-later --page docs/performance.md

Of several runs, the last one that measured a part counts for it. With a page, the tables between `<!-- gpu tables -->`
and `<!-- end of gpu tables -->` are updated: those of parts that no run measured stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fast_jukebox.utils.text import markdown_table

BEGIN, END = "<!-- gpu tables -->", "<!-- end of gpu tables -->"
MACHINE = "On one "
"""Begins the line of a run's machine."""


class Section(NamedTuple):
    """Tables of a part."""

    machine: str
    """of the run, a line"""
    text: str
    """Markdown"""
    measured: bool = True
    """whether there is more than what failed"""


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
    "short_windows": "A minute of music in shorter windows",
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


def sections(rows: Sequence[dict[str, Any]]) -> dict[str, Section]:
    """Tables of a run's parts, by their titles; rows of a part that have other columns make another table."""
    machine = ""
    for about, bandwidth in ((row["machine"], row["bandwidth_GB_s"]) for row in rows if "machine" in row):
        machine = (
            f"{MACHINE}{about.get('gpu', about['cpu'])}, torch {about['torch']}, transformers {about['transformers']}; "
            f"reading bandwidth measured in the same run: {bandwidth:,.0f} GB/s."
        )
    found = {}
    for part, title in TITLES.items():
        mine = [row for row in rows if row["part"] == part and not {"machine", "took_s", "skipped", "began"} & set(row)]
        mine = [row for row in mine if not str(row.get("error", "")).startswith("OutOfTime")]
        parts = groupby(mine, key=lambda row: [name for name in row if name != "part"])
        text = "\n\n".join(
            markdown_table(
                [name.replace("_", " ") for name in names], [[cell(row[name]) for name in names] for row in own]
            )
            for names, own in parts
        )
        if mine:
            found[title] = Section(machine, text, any("failed" not in row for row in mine))
    return found


def sections_of_page(text: str) -> dict[str, Section]:
    """The tables that a page has."""
    found: dict[str, tuple[str, list[str]]] = {}
    machine, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith(MACHINE):
            machine = line
        elif line.startswith("### "):
            found[line.removeprefix("### ")] = machine, (lines := [])
        else:
            lines.append(line)
    return {title: Section(machine, "\n".join(lines).strip()) for title, (machine, lines) in found.items()}


def joined(runs: Sequence[dict[str, Section]]) -> dict[str, Section]:
    """Of each part the tables of the last run that measured something of it, or else of the last that tried."""
    result: dict[str, Section] = {}
    for run in runs:
        better = {title: own for title, own in run.items() if own.measured or not result.get(title, own).measured}
        result = {**{title: own for title, own in result.items() if title not in better}, **better}
    return result


def tables(found: dict[str, Section]) -> str:
    """Markdown of all parts, those of a run together, the last run first."""
    lines = []
    for machine in dict.fromkeys(own.machine for own in reversed(found.values())):
        lines += [machine, ""] if machine else []
        for title in TITLES.values():
            if title in found and found[title].machine == machine:
                lines += [f"### {title}", "", found[title].text, ""]
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
    return str(value).replace("\n", " ")


def update(page: Path, runs: Sequence[dict[str, Section]]) -> None:
    """Update the page's tables.

    Raises:
        ValueError: the page has no place for them.
    """
    content = page.read_text(encoding="utf-8")
    begin, end = content.find(BEGIN) + len(BEGIN), content.find(END)
    if begin < len(BEGIN) or end < begin:
        raise ValueError(f"{page} must have a line {BEGIN!r} and, after it, a line {END!r}")
    text = tables(joined([sections_of_page(content[begin:end]), *runs]))
    page.write_text(f"{content[:begin]}\n{text}{content[end:]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of runs of benchmarks/gpu.sh, the oldest first")
    parser.add_argument("--page", type=Path, help="Markdown page to write the tables into, choices left out")
    options = parser.parse_args(arguments)
    rows = [read(folder) for folder in options.folders]
    if options.page is None:
        print(tables(joined([sections(run) for run in rows])))
    else:
        update(options.page, [sections([row for row in run if row["part"] != "tune"]) for run in rows])


if __name__ == "__main__":
    main()
