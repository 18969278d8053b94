#!/usr/bin/env python
"""Probe a model: how well a linear classifier reads a label of songs from the states of each of its layers.

    python examples/prepare_songs.py --output_dir songs/tunes --songs 160 --test_fraction 0.3
    python examples/run_probe.py --songs songs/tunes --labels genre key mode --output_dir runs/probe

The labels are columns of the songs' metadata. Of each song a clip is read once, and its states are averaged; a ridge
classifier is fitted to the songs to train on and judged on those held out, for each layer. Beside the layers stand
chance, the same prior with random weights, and plain statistics of timbre and rhythm. Run again, it keeps the songs
that are read. Writes `probe.json` and `probe.md`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading()

import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.audio.io import load_audio
from fast_jukebox.data.codes import require_splits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.evaluation.probing import ProbeScore, describe_rhythm, describe_timbre, probe
from fast_jukebox.evaluation.shards import clear_damage
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.sessions.fingerprint import fingerprint
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import markdown_table

STATISTICS = "timbre and rhythm"
RANDOM = "random weights, layer "


@dataclass
class ProbeArguments:
    """The model to probe, and the songs."""

    songs: str = HfArg(help="Folder of songs with the labels in their metadata, some held out.")
    labels: list[str] = HfArg(default_factory=lambda: ["genre"], help="Columns of the metadata.")
    output_dir: str = HfArg(default="runs/probe", help="Folder of all that is written.")
    model: str | None = HfArg(default=None, help="Folder or Hub name; the embedded default if left out.")
    level: int | None = HfArg(default=None, help="Whose prior; the top one by default.")
    layers: list[int] | None = HfArg(default=None, help="By default all.")
    clip_seconds: float = HfArg(default=10.0, help="Of each song, from its beginning.")
    baselines: bool = HfArg(default=True, help="Probe random weights and plain statistics too.")
    seed: int = HfArg(default=0, help="Of the random weights and the shuffled labels.")
    device: str | None = HfArg(default=None, help="Such as cuda; by default a GPU if there is one.")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, ProbeScore]]:
    """Read the songs, probe, write the tables; returns the scores by label and by what was probed."""
    (args,) = parse_arguments((ProbeArguments,), arguments)
    if not args.clip_seconds > 0:
        raise ValueError(f"`--clip_seconds` must be above 0, got {args.clip_seconds}")
    songs = require_splits(load_songs(args.songs), f"`--songs` {args.songs}")
    missing = [label for label in args.labels if label not in songs["train"].column_names]
    if missing or not args.labels:
        raise ValueError(f"`--labels` must be of {', '.join(songs['train'].column_names)}, got {missing or 'none'}")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = default_model_path() if args.model is None else args.model
    model = FastJukeboxModel.from_pretrained(source, dtype=torch.float32).eval().to(device)
    level = len(model.priors) - 1 if args.level is None else args.level
    if not 0 <= level < len(model.priors):
        raise ValueError(f"`--level` must be from 0 to {len(model.priors) - 1}, got {level}")
    layers = list(range(model.priors[level].config.num_hidden_layers)) if args.layers is None else args.layers
    read, output = reader(model, level, layers, args), Path(args.output_dir)
    features = {split: read_songs(songs[split], read, output / "features", args, model) for split in ("train", "test")}

    scores = {label: score(songs, features, label, args.seed) for label in args.labels}
    teachers = model.priors[level].config.teacher_layers
    numbers = {label: {name: asdict(own) for name, own in each.items()} for label, each in scores.items()}
    write_file(output / "probe.json", json.dumps(numbers, indent=2))
    write_file(output / "probe.md", (text := "\n".join(table(*each, teachers) for each in scores.items())))
    print(text)
    return scores


def reader(
    model: FastJukeboxModel, level: int, layers: Sequence[int], args: ProbeArguments
) -> Callable[[Tensor], dict[str, Tensor]]:
    """A function that reads a clip (samples,): features (D,) by the name of what is probed."""
    config, rate, priors = model.priors[level].config, model.vqvae.config.sampling_rate, {"layer ": model.priors[level]}
    if args.baselines:
        torch.manual_seed(args.seed)
        priors[RANDOM] = FastJukeboxPrior(config).eval().to(model.device)
    levels = [level, level + 1] if config.has_upper_level else [level]

    def read(clip: Tensor) -> dict[str, Tensor]:
        length = len(clip) // model.vqvae.config.hop_lengths[-1] * model.vqvae.config.hop_lengths[-1]
        codes = model.vqvae.encode(clip[None, :length].to(model.device), levels)
        states = {}
        for name, prior in priors.items():
            found = prior.features(*codes, layers=layers, pool="mean", progress=False)
            states |= {f"{name}{layer}": own[0] for layer, own in found.layers.items()}
        if args.baselines:
            states[STATISTICS] = torch.cat([describe_timbre(clip, rate), describe_rhythm(clip, rate)])
        return states

    return read


def read_songs(
    songs: Dataset,
    read: Callable[[Tensor], dict[str, Tensor]],
    folder: Path,
    args: ProbeArguments,
    model: FastJukeboxModel,
) -> dict[str, Tensor]:
    """Features (songs, D) by the name of what is probed; each song's are kept in a file of the folder."""
    rate = model.vqvae.config.sampling_rate
    made_with = [*map(fingerprint, model.priors), args.level, args.layers, args.clip_seconds, args.baselines, args.seed]
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Tensor]] = []
    for song in tqdm(songs, desc="songs", unit="song", disable=None):
        key = hashlib.sha256(json.dumps([song["file_name"], song["duration"], *made_with]).encode()).hexdigest()[:32]
        path = folder / f"{key}.safetensors"
        if not path.is_file():
            clip = load_audio(song["audio"], rate, duration=args.clip_seconds)
            write_file(path, save({name: own.contiguous() for name, own in read(clip).items()}))
        with clear_damage(path):
            rows.append(load_file(path))
            if rows[-1].keys() != rows[0].keys():
                raise ValueError(f"it must hold {', '.join(rows[0])}, got {', '.join(rows[-1]) or 'nothing'}")
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def score(songs: DatasetDict, features: dict[str, dict[str, Tensor]], label: str, seed: int) -> dict[str, ProbeScore]:
    """Scores of one label by the name of what is probed; songs without the label are left out."""
    kept, values = {}, {}
    for split in ("train", "test"):
        kept[split] = [index for index, value in enumerate(songs[split][label]) if value is not None]
        values[split] = [str(songs[split][label][index]) for index in kept[split]]
    if len(set(values["train"])) < 2 or not values["test"]:
        raise ValueError(f"`--labels {label}` must be of two kinds among the songs, and known of one held out")
    names = [name for name in features["train"] if name != STATISTICS]
    names.sort(key=lambda name: (name.startswith(RANDOM), int(name.rsplit(" ", 1)[1])))
    return {
        name: probe(
            features["train"][name][kept["train"]],
            values["train"],
            features["test"][name][kept["test"]],
            values["test"],
            seed,
        )
        for name in [*names, *([STATISTICS] if STATISTICS in features["train"] else [])]
    }


def table(label: str, scores: dict[str, ProbeScore], teachers: Sequence[int] | None) -> str:
    """Markdown; the layer that leave-one-out chooses is in bold."""
    any_one = next(iter(scores.values()))
    trained = [name for name in scores if name.startswith("layer ")]
    chosen = max(trained, key=lambda name: scores[name].left_out_accuracy)
    rows = []
    for name, own in scores.items():
        shown = name
        if name in trained and teachers is not None:
            shown += f" (teacher's {teachers[int(name.rsplit(' ', 1)[1])]})"
        shown = f"**{shown}**" if name == chosen else shown
        interval = f"{max(own.low, 0.0):.2f} to {min(own.high, 1.0):.2f}"
        rows.append([shown, f"{own.accuracy:.2f} ({interval})", f"{own.left_out_accuracy:.2f}"])
    return (
        f"**{label}**: {any_one.labels} kinds, {any_one.songs} held-out songs. The most frequent kind alone: "
        f"{any_one.most_frequent:.2f}; probes fitted to shuffled labels: {any_one.shuffled:.2f}.\n\n"
        f"{markdown_table(['features', 'accuracy, held out (95 %)', 'leave-one-out'], rows)}\n"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
