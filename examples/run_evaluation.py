#!/usr/bin/env python
"""Measure a model on held-out songs: metrics, samples, pictures, and if asked its card.

    python examples/run_evaluation.py --model runs/model --songs songs/chorales --codes runs/codes \
        --output_dir runs/evaluation

Writes `metrics.json` and `metrics.md` (docs/evaluate.md explains the keys), the samples (the first of the seed,
not selected) as FLAC files, `notes.png` (what is heard in the first four, like a score) and `spectrograms.png`: a
held-out song, what each level's codes keep of it, and a sample. Without `--codes` the songs are encoded first.
`--max_songs`, `--song_seconds`, `--max_windows` and `--duration` bound the time; `--samples FOLDER` measures songs
sampled before. `--card model` puts the metrics and the picture on the card in the model's folder and keeps the rest of
it: a student's still names its teacher and states its distillation. Where there is no card yet,
`--card model --card_license apache-2.0` writes one, with what `--training` (a JSON file) states of the training.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    print("loading torch", file=sys.stderr, flush=True)  # which takes seconds

import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from torch import Tensor
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg

from fast_jukebox import FastJukeboxModel
from fast_jukebox.audio.io import load_audio, save_audio
from fast_jukebox.data.codes import MANIFEST, CodeWindows, encode_songs, load_codes, require_splits
from fast_jukebox.data.scanning import SongLimits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.evaluation import pitch, report
from fast_jukebox.evaluation.controls import random_notes, white_noise
from fast_jukebox.evaluation.likelihood import BigramModel, count_likelihood, prior_likelihood
from fast_jukebox.evaluation.notes import shortest_clip
from fast_jukebox.evaluation.pictures import plot_notes, plot_spectrograms
from fast_jukebox.evaluation.reconstruction import complete_codes, reconstruction_metrics
from fast_jukebox.evaluation.song_metrics import SongMetrics, measure_songs, summarise_songs
from fast_jukebox.hub import require_license, stated_metrics, update_model_card, write_model_card
from fast_jukebox.hub.push_mixin import describe_config
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import JsonObject, write_file

PICTURE = "spectrograms.png"
_EMBEDDED_USAGE = """\
import fast_jukebox  # registers the model and the task
from transformers import pipeline

song = pipeline("fast-jukebox")(duration=20, seed=0)
song["audio"], song["sampling_rate"]"""


@dataclass
class EvaluationArguments:
    """The measurement and its size."""

    model: str = HfArg(help="Folder or Hub name of a complete model.")
    songs: str = HfArg(help="Folder of songs; those marked as test are held out, or a fraction.")
    codes: str | None = HfArg(
        default=None, help="Folder of codes of these songs; made where missing, by default in output_dir."
    )
    output_dir: str = HfArg(default="runs/evaluation", help="Folder of all that is written.")
    test_fraction: float = HfArg(
        default=DEFAULT_TEST_FRACTION, help="Fraction of the songs held out where none are marked."
    )
    max_songs: int | None = HfArg(default=None, help="Use the first so many songs of each split only.")
    song_seconds: float = HfArg(
        default=30.0, help="Seconds from the start of each held-out song to reconstruct and listen to."
    )
    max_windows: int = HfArg(default=64, help="Held-out windows of codes that each prior predicts.")
    batch_size: int = HfArg(default=4, help="Windows that a prior predicts at once.")
    samples: str | None = HfArg(
        default=None, help="Folder of songs sampled before, in place of sampling; the first in name order."
    )
    num_samples: int = HfArg(default=24, help="Songs to sample.")
    duration: float = HfArg(default=20.0, help="Seconds of each of them.")
    seed: int = HfArg(default=1000, help="Of the samples.")
    device: str | None = HfArg(default=None, help="Such as cuda; by default a GPU if there is one.")
    card: Literal["none", "model", "embedded"] = HfArg(
        default="none", help="Update or write the card in the model's folder; embedded: write the package's default's."
    )
    card_license: str | None = HfArg(default=None, help="License of the weights, for a new card.")
    card_name: str | None = HfArg(default=None, help="Name on a new card; by default the model's folder.")
    training: str | None = HfArg(
        default=None, help="JSON file on the training, for the card; an old card keeps what it states."
    )


def main(arguments: list[str] | None = None) -> dict[str, float | str]:
    """Measure, write everything, and return the metrics."""
    (args,) = parse_arguments((EvaluationArguments,), arguments)
    check_arguments(args)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = FastJukeboxModel.from_pretrained(args.model, dtype=torch.float32).eval().to(device)
    rate = model.config.vqvae_config.sampling_rate
    songs = load_songs(args.songs, args.test_fraction, limits=SongLimits(complete=False), progress=True)
    require_splits(songs, f"`--songs` {args.songs}")
    songs = DatasetDict({name: split.select(range(len(split))[: args.max_songs]) for name, split in songs.items()})
    recordings = Recordings(songs["test"], rate, args.song_seconds)

    metrics: dict[str, float | str] = {
        "train_songs": len(songs["train"]),
        "train_hours": sum(songs["train"]["duration"]) / 3600,
        "test_songs": len(songs["test"]),
        "test_hours": sum(songs["test"]["duration"]) / 3600,
    }
    metrics |= reconstruction_metrics(model.vqvae, tqdm(recordings, desc="reconstructing", unit="song"))
    metrics |= likelihood_metrics(model, prepare_codes(args, songs, model), args)
    samples = draw_samples(model, args, output)
    metrics |= song_metrics(model, songs, samples, args)
    metrics |= facts(args, device, arguments)
    metrics = {key: value for key, value in metrics.items() if not (isinstance(value, float) and math.isnan(value))}
    draw_picture(model, recordings[0], samples[0], output / PICTURE, report.level_names(metrics))
    if "samples_songs" in metrics:
        shown = {f"sample {index}": sample for index, sample in enumerate(samples[:4])}
        plot_notes(output / "notes.png", shown, rate, args.duration)
    write_file(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_file(output / "metrics.md", report.metrics_markdown(metrics))
    if args.card != "none":
        write_card(args, metrics, output / PICTURE)
    print(report.metrics_markdown(metrics))
    return metrics


def check_arguments(args: EvaluationArguments) -> None:
    """Refuse what would fail after a long time.

    Raises:
        ValueError: naming the option.
    """
    for name in ("max_songs", "song_seconds", "max_windows", "batch_size", "num_samples", "duration"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"`--{name}` must be over 0, got {value}")
    if args.samples:
        sample_files(args)
    if args.card != "none" and not Path(args.model).is_dir():
        raise ValueError(f"`--model` must be a folder where a card is asked for, got {args.model!r}")
    if updates_card(args):
        stated = {"card_license": require_license(args.model)}
        stated["card_name"] = ModelCard.load(Path(args.model) / "README.md").data.get("model_name")
        for name, value in stated.items():
            if getattr(args, name) not in (None, value):
                raise ValueError(
                    f"`--{name}` must be left out where there is a card, or be the {value!r} that it states, got "
                    f"{getattr(args, name)!r}"
                )
    elif args.card != "none" and not args.card_license:
        raise ValueError("`--card_license` must name the weights' license where a new card is asked for, got None")
    if args.training and not Path(args.training).is_file():
        raise ValueError(f"`--training` must be a JSON file, got {args.training!r}")


def updates_card(args: EvaluationArguments) -> bool:
    """There is a card in the model's folder, which gets the new metrics; otherwise a new card is written."""
    return args.card == "model" and (Path(args.model) / "README.md").is_file()


def sample_files(args: EvaluationArguments) -> list[Path]:
    """The first `--num_samples` sound files in the folder `--samples`, `sample-2` before `sample-10`.

    Raises:
        ValueError: it holds fewer.
    """
    files = [path for path in Path(str(args.samples)).glob("*") if path.suffix.lower() in (".flac", ".wav")]
    files = sorted(files, key=lambda path: [(len(part), part) for part in re.split(r"(\d+)", path.stem)])
    if len(files) < args.num_samples:
        raise ValueError(
            f"`--samples` must be a folder with at least {args.num_samples} FLAC or WAV files (`--num_samples`), got "
            f"{args.samples!r} with {len(files)}"
        )
    return files[: args.num_samples]


class Recordings:
    """The first seconds of each song, (T,) at one rate, read when asked for."""

    def __init__(self, songs: Dataset, sampling_rate: int, seconds: float) -> None:
        self.songs, self.sampling_rate, self.seconds = songs, sampling_rate, seconds

    def __len__(self) -> int:
        return len(self.songs)

    def __getitem__(self, index: int) -> Tensor:
        return load_audio(self.songs[index]["audio"], self.sampling_rate, duration=self.seconds)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def prepare_codes(args: EvaluationArguments, songs: DatasetDict, model: FastJukeboxModel) -> DatasetDict:
    """The codes of the songs: read where they are, or else made.

    Raises:
        ValueError: the folder's codes are another VQ-VAE's.
    """
    folder = Path(args.codes or Path(args.output_dir) / "codes")
    if not (folder / MANIFEST).exists():
        return encode_songs(songs, model.vqvae, folder)
    codes = require_splits(load_codes(folder, vqvae=model.vqvae), f"`--codes` {folder}")
    return DatasetDict({name: split.select(range(len(split))[: args.max_songs]) for name, split in codes.items()})


def likelihood_metrics(model: FastJukeboxModel, codes: DatasetDict, args: EvaluationArguments) -> dict[str, float]:
    """Bits per code of each prior on held-out windows, conditioned on the songs' names, beside models that count."""
    metrics: dict[str, float] = {}
    for level, prior in enumerate(model.priors):
        windows = CodeWindows(codes["test"], prior.config, max_windows=args.max_windows, processor=model.processor)
        groups = [windows.sampler[windows.window_number(index)][0] for index in range(len(windows))]
        items = (windows[index] for index in range(len(windows)))
        bar = tqdm(items, total=len(windows), desc=f"level {level}: predicting", unit="window")
        found = prior_likelihood(prior, bar, groups, args.batch_size)
        column = f"codes_{level}"
        songs = codes["train"].select_columns([column]).with_format("numpy")
        rows = (torch.from_numpy(song[column].astype("int64")) for song in songs)
        bar = tqdm(rows, total=len(songs), desc=f"level {level}: counting", unit="song")
        bigram = BigramModel.fit(bar, prior.config.codebook_size)
        items = [{"codes": windows[index]["codes"]} for index in range(len(windows))]
        metrics |= {
            f"bits_per_code_{level}": found.bits_per_code,
            f"bits_per_code_error_{level}": found.standard_error,
            f"perplexity_{level}": found.perplexity,
            f"accuracy_{level}": found.accuracy,
            f"bigram_bits_per_code_{level}": count_likelihood(bigram, items, groups).bits_per_code,
            f"unigram_bits_per_code_{level}": count_likelihood(bigram.unigram, items, groups).bits_per_code,
            f"windows_{level}": found.windows,
            f"window_codes_{level}": prior.config.n_ctx,
        }
    return metrics


def draw_samples(model: FastJukeboxModel, args: EvaluationArguments, output: Path) -> list[Tensor]:
    """Sample songs, (T,) each, and write them as `sample-0.flac` and so on, or read those of `--samples`."""
    if args.samples:
        rate = model.config.vqvae_config.sampling_rate
        return [load_audio(path, rate, duration=args.duration) for path in sample_files(args)]
    with ProgressBars(lines=True) as bars:
        made = model.generate(duration=args.duration, num_samples=args.num_samples, seed=args.seed, progress=bars)
    samples = list(made.audio.float().cpu())
    for index, sample in enumerate(samples):
        save_audio(output / f"sample-{index}.flac", sample.clamp(-1, 1), made.sampling_rate)
    return samples


def song_metrics(
    model: FastJukeboxModel, songs: DatasetDict, samples: list[Tensor], args: EvaluationArguments
) -> dict[str, float]:
    """Metrics and pitch content of samples, songs, reconstructions and controls; nothing for what is too short."""
    rate = model.config.vqvae_config.sampling_rate
    if rate < 8000:
        print(f"No metrics of songs: they need a sampling rate of at least 8000, not {rate}.")
        return {}
    held_out, training = (Recordings(songs[split], rate, args.song_seconds) for split in ("test", "train"))
    hop, count = model.config.vqvae_config.hop_lengths[-1], len(samples)
    # All sets are compared at the samples' length: a short clip finds a key more easily than a long one.
    size = max(round(min(args.duration, args.song_seconds) * rate), shortest_clip(rate))
    sets: dict[str, Iterable[Tensor]] = {
        "samples": samples,
        "training_songs": islice(training, count),
        "songs": held_out,
        "reconstructions": (reconstruct(model, complete_codes(song, hop)) for song in held_out),
        "chromatic": (random_notes(size / rate, rate, seed) for seed in range(count)),
        "noise": (white_noise(size / rate, rate, seed) for seed in range(count)),
    }
    metrics: dict[str, float] = {}
    clips: dict[str, list[list[pitch.ClipPitch]]] = {}
    flat: dict[str, list[pitch.ClipPitch]] = {}
    for name, audio in sets.items():
        measured, clips[name] = [], []
        for sound in tqdm(audio, desc=f"listening to {name.replace('_', ' ')}", unit="song"):
            measured += measure_songs([sound[:size]], rate)
            clips[name] += [found] if (found := pitch.analyse_song(sound, rate)) else []
        flat[name] = [clip for song in clips[name] for clip in song]
        if not measured:
            print(f"No metrics of the {name}: they are shorter than {shortest_clip(rate) / rate:.2g} s.")
            continue
        metrics |= summary_metrics(name, measured, flat[name])
    metrics |= {
        f"{name}_distance": pitch.profile_distance(flat[name], flat["songs"]) for name in flat if name != "songs"
    }
    metrics["songs_distance"] = pitch.distance_within(clips["songs"])
    metrics["songs_distance_same_size"] = pitch.distance_within(clips["songs"], count=len(flat["samples"]))
    return metrics


def reconstruct(model: FastJukeboxModel, audio: Tensor) -> Tensor:
    """Sound (T,) of the bottom level's codes of sound (T,)."""
    return model.vqvae.decode(model.vqvae.encode(audio[None].to(model.device), levels=[0]))[0].cpu()


def summary_metrics(name: str, songs: list[SongMetrics], clips: list[pitch.ClipPitch]) -> dict[str, float]:
    """Metrics of one set of songs, keyed `NAME_METRIC`, with the ends of their intervals and the number of songs."""
    metrics: dict[str, float] = {f"{name}_songs": len(songs), f"{name}_clips": len(clips)}
    for key, found in summarise_songs(songs).items():
        ends = {} if math.isnan(found.low) else {"_low": found.low, "_high": found.high}
        metrics |= {f"{name}_{key}{end}": value for end, value in {"": found.value, **ends}.items()}
    metrics[f"{name}_pitch_classes"] = pitch.mean_pitch_classes(clips)
    return metrics


def facts(args: EvaluationArguments, device: str, arguments: list[str] | None) -> dict[str, float | str]:
    """Settings of the metrics: the command without this machine's folders, settings, versions, machine."""
    command = sys.argv[1:] if arguments is None else arguments
    parts = [Path(part).name if Path(part).is_absolute() else part for part in command]
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    names = ("fast-jukebox", "torch", "transformers")
    return {
        "seed": args.seed,
        "num_samples": args.num_samples,
        "duration": args.duration,
        "song_seconds": args.song_seconds,
        "command": " ".join(["python examples/run_evaluation.py", *parts]),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]),
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}){gpu}",
    }


def draw_picture(
    model: FastJukeboxModel, song: Tensor, sample: Tensor, path: Path, names: list[str], seconds: float = 10.0
) -> None:
    """A held-out song, what each level's codes keep of it, and a sample, as mel spectrograms."""
    rate = model.config.vqvae_config.sampling_rate
    song = complete_codes(song[: round(seconds * rate)], model.config.vqvae_config.hop_lengths[-1])
    clips = {"a held-out song": song}
    for level, codes in enumerate(model.vqvae.encode(song[None].to(model.device))):
        decoded = model.vqvae.decode([codes], level)[0].cpu()
        clips[f"the song through the codes of the {names[level]} level"] = decoded
    clips["a sample"] = sample[: round(seconds * rate)]
    plot_spectrograms(path, clips, rate)


def write_card(args: EvaluationArguments, metrics: dict[str, float | str], picture: Path) -> Path:
    """Write or update `README.md` and the picture in the model's folder; returns the card's path."""
    training: JsonObject = json.loads(Path(args.training).read_text(encoding="utf-8")) if args.training else {}
    folder = Path(args.model)
    made_by = f"Made by `{metrics['command']}` with {metrics['versions']}."
    measured = {
        "metrics": report.card_metrics(metrics),
        "metrics_note": "\n\n".join([report.song_table(metrics), report.METRICS_NOTE, made_by]),
        "picture": picture.absolute(),
        "picture_caption": "mel spectrograms: a held-out song, what each level's codes keep of it, and a sample",
    }
    if updates_card(args):
        if beside_teacher := stated_metrics(folder, list(report.TEACHER_METRICS.values())):
            measured["metrics"] = beside_teacher | measured["metrics"]
            measured["metrics_note"] = f"{report.TEACHER_NOTE} {measured['metrics_note']}"
        story = report.training_markdown(training, metrics) if args.training else None
        return update_model_card(folder, training=story, **measured)
    embedded = args.card == "embedded"
    summary = describe(folder)
    if embedded:
        summary += ' It comes inside the package: `pipeline("fast-jukebox")` loads it with no network.'
    return write_model_card(
        folder,
        name=args.card_name or ("fast-jukebox default" if embedded else folder.absolute().name),
        description=summary,
        training=report.training_markdown(training, metrics) or "Nothing was recorded of the training.",
        license=args.card_license,
        usage=_EMBEDDED_USAGE if embedded else None,
        **measured,
    )


def describe(folder: Path) -> str:
    """The model in words, from its configuration."""
    config = FastJukeboxModel.config_class.from_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
    seconds = [prior.n_ctx * prior.hop_length / config.sampling_rate for prior in config.prior_configs]
    contexts = ", ".join(f"{each:.2g}" for each in seconds)
    return (
        f"{describe_config(config)} The contexts of these last {contexts} s (bottom first). {size:.1f} MB of weights."
    )


if __name__ == "__main__":
    sys.exit(run_script(main, resume=None))
