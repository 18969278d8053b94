#!/usr/bin/env python
"""Measure whether joins between windows are audible, for both schedules.

    python examples/run_seams.py --output_dir runs/seams

Makes the same songs in each schedule: their top level once, the levels below again. Writes `seams.json` and `seams.md`:
the largest step from a sample to the next and the change of the spectrum at the seams of each level, each as its ratio
to the mean of the rest of the songs and as its rank there. A ratio of 1 and a rank of 0.5 are what any other place has;
docs/play.md has more. By default the embedded model, 3 songs of 20 s: some minutes on two CPU cores.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fast_jukebox import FastJukeboxModel
from fast_jukebox.evaluation.seams import seam_figures
from fast_jukebox.pipelines import default_model_path
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script


@dataclass
class SeamArguments:
    """Which songs to make."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub name; by default the embedded model."})
    duration: float = field(default=20.0, metadata={"help": "Seconds of a song."})
    num_samples: int = field(default=3, metadata={"help": "Songs."})
    seed: int = field(default=11, metadata={"help": "Of the songs."})
    window_fractions: list[float] = field(
        default_factory=lambda: [1.0], metadata={"help": "Shares of a context that parallel windows span."}
    )
    device: str = field(default="cpu", metadata={"help": "Where to make them."})
    output_dir: str = field(default="runs/seams", metadata={"help": "Folder of all that is written."})


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, write and print; returns the table's rows."""
    (args,) = parse_arguments((SeamArguments,), arguments)
    model = FastJukeboxModel.from_pretrained(args.model or default_model_path()).to(args.device).eval()
    rows = measure(model, args)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seams.json").write_text(json.dumps({"arguments": asdict(args), "rows": rows}, indent=2) + "\n")
    (folder / "seams.md").write_text(table(rows))
    print(table(rows))
    return rows


def measure(model: Any, args: SeamArguments) -> list[dict[str, Any]]:
    """Figures of each schedule and each level below the top that has seams."""
    schedules: list[dict[str, Any]] = [{"schedule": "sequential"}]
    schedules += [{"schedule": "parallel", "window_fractions": share} for share in args.window_fractions]
    hops, rows = model.vqvae.config.hop_lengths, []
    with ProgressBars() as bars:
        draft = model.generate(
            duration=args.duration,
            num_samples=args.num_samples,
            seed=args.seed,
            stop_level=len(hops) - 1,
            progress=bars,
        )
    for settings in schedules:
        with ProgressBars() as bars:
            song = model.generate(
                duration=args.duration, codes=[draft.codes[-1]], seed=args.seed, progress=bars, **settings
            )
        for level, hop in enumerate(hops[:-1]):
            seams = [[seam * hop for seam in own if seam * hop < song.audio.shape[1]] for own in song.seams[level]]
            if any(seams):
                rows.append(
                    {**settings, "level": level_name(level, len(hops)), **seam_figures(song.audio, seams).as_dict()}
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; "by chance" is how far the rank of so many places of no kind strays."""
    lines = [
        "| schedule | level | seams | jump: ratio, rank | flux: ratio, rank | by chance |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row.get("window_fractions", 1.0)
        name = row["schedule"] if share == 1.0 else f"{row['schedule']}, windows of {share:g}"
        cells = [f"{row[f'{kind}_ratio']:.2f}, {row[f'{kind}_rank']:.2f}" for kind in ("jump", "flux")]
        chance = f"0.50 ± {math.sqrt(1 / 12 / row['seams']):.2f}"
        lines.append(f"| {name} | {row['level']} | {row['seams']} | {cells[0]} | {cells[1]} | {chance} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_script(main, resume=None))
