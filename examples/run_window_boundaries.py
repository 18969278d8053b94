#!/usr/bin/env python
"""Measure how audible the boundaries between windows are, for both schedules.

    python examples/run_window_boundaries.py --output_dir runs/boundaries

Makes the same songs in each schedule: their top level once, the levels below again. Writes `boundaries.json` and
`boundaries.md`: the largest step from a sample to the next and the change of the spectrum at the boundaries of each
level, each as its ratio to the mean of the rest of the songs and as its rank there. Other places have a ratio of 1 and
a rank of 0.5; docs/play.md has more. By default the embedded model, 3 songs of 20 s: some minutes on two CPU cores.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume=None)

from transformers.hf_argparser import HfArg

from fast_jukebox import FastJukeboxModel
from fast_jukebox.evaluation.window_boundaries import boundary_metrics
from fast_jukebox.pipelines import default_model_path
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import JsonObject, write_file
from fast_jukebox.utils.text import markdown_table


@dataclass
class BoundaryArguments:
    """The songs to make."""

    model: str | None = HfArg(default=None, help="Folder or Hub name; by default the embedded model.")
    duration: float = HfArg(default=20.0, help="Seconds of a song.")
    num_samples: int = HfArg(default=3, help="Songs.")
    seed: int = HfArg(default=11, help="Of the songs.")
    window_fractions: list[float] = HfArg(
        default_factory=lambda: [1.0], help="Fractions of a context that parallel windows span."
    )
    device: str = HfArg(default="cpu", help="Where to make them.")
    output_dir: str = HfArg(default="runs/boundaries", help="Folder of all that is written.")


def main(arguments: list[str] | None = None) -> list[JsonObject]:
    """Measure, write and print; returns the table's rows."""
    (args,) = parse_arguments((BoundaryArguments,), arguments)
    model = FastJukeboxModel.from_pretrained(args.model or default_model_path()).to(args.device).eval()
    rows = measure(model, args)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "boundaries.json", json.dumps({"arguments": asdict(args), "rows": rows}, indent=2) + "\n")
    write_file(folder / "boundaries.md", table(rows))
    print(table(rows))
    return rows


def measure(model: FastJukeboxModel, args: BoundaryArguments) -> list[JsonObject]:
    """Metrics of each schedule and each level below the top that has boundaries between windows."""
    schedules: list[JsonObject] = [{"schedule": "sequential"}]
    schedules += [{"schedule": "parallel", "window_fractions": fraction} for fraction in args.window_fractions]
    hops, rows = model.vqvae.config.hop_lengths, []
    song = {"duration": args.duration, "seed": args.seed}
    with ProgressBars(lines=True) as bars:
        draft = model.generate(**song, num_samples=args.num_samples, stop_level=len(hops) - 1, progress=bars)
    for settings in schedules:
        with ProgressBars(lines=True) as bars:
            made = model.generate(**song, codes=[draft.codes[-1]], progress=bars, **settings)
        for level, hop in enumerate(hops[:-1]):
            places = [[seam * hop for seam in own if seam * hop < made.audio.shape[1]] for own in made.seams[level]]
            if any(places):
                metrics = asdict(boundary_metrics(made.audio, places))
                rows.append({**settings, "level": level_name(level, len(hops)), **metrics})
    return rows


def table(rows: list[JsonObject]) -> str:
    """Markdown; "by chance" is how far the rank of so many places of no kind strays."""
    lines = []
    for row in rows:
        fraction = row.get("window_fractions", 1.0)
        name = row["schedule"] if fraction == 1.0 else f"{row['schedule']}, windows of {fraction:g}"
        cells = [f"{row[f'{kind}_ratio']:.2f}, {row[f'{kind}_rank']:.2f}" for kind in ("jump", "flux")]
        chance = f"0.50 ± {math.sqrt(1 / 12 / row['boundaries']):.2f}"
        lines.append([name, row["level"], str(row["boundaries"]), *cells, chance])
    header = ["schedule", "level", "boundaries", "jump: ratio, rank", "flux: ratio, rank", "by chance"]
    return f"{markdown_table(header, lines)}\n"


if __name__ == "__main__":
    sys.exit(run_script(main, resume=None))
