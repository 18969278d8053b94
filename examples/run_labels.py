#!/usr/bin/env python
"""Measure whether a labelled model plays what it is asked for: its instruments by timbre, its genres by rhythm.

    python examples/prepare_songs.py --output_dir songs/tunes --songs 400
    python examples/run_labels.py --songs songs/tunes --output_dir runs/labels

A classifier learns from songs (`artist` is the instrument, `genre` the kind of music) what each label sounds like, and
judges samples that the model was asked to make. Beside them stand held-out songs, which are the most that samples can
reach, chance, and the samples judged by what others were asked for. Writes `labels.json`, `labels.md` and the samples.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume=None)

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg

from fast_jukebox import FastJukeboxModel, FastJukeboxProcessor, FastJukeboxVQVAE
from fast_jukebox.audio.io import load_audio, save_audio
from fast_jukebox.data.codes import require_splits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.evaluation.probing import LabelAgreement, describe_rhythm, describe_timbre, label_agreement
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.processing import LabelVocabulary
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import markdown_table

KINDS = {"artist": describe_timbre, "genre": describe_rhythm}


@dataclass
class LabelArguments:
    """The measurement and its size."""

    songs: str = HfArg(help="Folder of songs with `artist` and `genre`, some held out.")
    output_dir: str = HfArg(default="runs/labels", help="Folder of all that is written.")
    model: str | None = HfArg(default=None, help="Folder or Hub name; the embedded default if left out.")
    songs_per_label: int = HfArg(default=4, help="Samples for each label.")
    duration: float = HfArg(default=10.0, help="Seconds of a sample, and of a clip of a song.")
    stop_level: int = HfArg(default=0, help="The lowest level to sample; 2 judges the top level alone.")
    seed: int = HfArg(default=1000, help="Of the samples.")
    device: str | None = HfArg(default=None, help="Such as cuda; by default a GPU if there is one.")


def main(arguments: list[str] | None = None) -> dict[str, LabelAgreement]:
    """Measure, write everything, and return what was found for artists and genres."""
    (args,) = parse_arguments((LabelArguments,), arguments)
    if args.songs_per_label < 1:
        raise ValueError(f"`--songs_per_label` must be at least 1, got {args.songs_per_label}")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = default_model_path() if args.model is None else args.model
    model = FastJukeboxModel.from_pretrained(source, dtype=torch.float32).eval().to(device)
    if model.processor is None:
        raise ValueError(f"`--model` must be a model with labels whose processor knows their names, got {source}")
    rate = model.config.vqvae_config.sampling_rate
    songs = labelled_songs(require_splits(load_songs(args.songs), f"`--songs` {args.songs}"), args)
    pairs = known_pairs(model.processor, songs["train"])
    if not pairs:
        raise ValueError(f"`--songs` {args.songs} must have an artist and a genre that {source} knows")
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)

    real = {split: describe_songs(songs[split], model.vqvae, args) for split in ("train", "test")}
    asked = requests(pairs, args.songs_per_label)
    sampled = describe(tqdm(draw(model, asked, args, output), total=len(asked), desc="samples", unit="song"), rate)
    found = {}
    for kind in KINDS:
        known = set(songs["train"][kind])
        rows = [number for number, labels in enumerate(asked) if labels[kind] in known]
        found[kind] = label_agreement(
            real["train"][kind],
            songs["train"][kind],
            real["test"][kind],
            songs["test"][kind],
            sampled[kind][rows],
            [asked[number][kind] for number in rows],
        )
    write_file(output / "labels.json", json.dumps({kind: asdict(own) for kind, own in found.items()}, indent=2))
    write_file(output / "labels.md", table(found))
    print(table(found))
    return found


def labelled_songs(songs: DatasetDict, args: LabelArguments) -> DatasetDict:
    """The songs that have an artist and a genre; a `ValueError` where a classifier cannot learn from them."""
    if lacking := [kind for kind in KINDS if kind not in songs["train"].column_names]:
        raise ValueError(f"`--songs` {args.songs} must have a column {' and '.join(lacking)} in their metadata")
    labelled = songs.filter(lambda *labels: all(labels), input_columns=list(KINDS))
    for kind in KINDS:
        counts = Counter(labelled["train"][kind])
        few = sorted(label for label, count in counts.items() if count < 2)
        if few or len(counts) < 2 or not len(labelled["test"]):
            raise ValueError(
                f"`--songs` {args.songs} must have two songs or more to learn from of each {kind}, of two or more, and "
                f"some held out; got {len(labelled['test'])} held out, and one song of {', '.join(few) or 'none'}"
            )
    return labelled


def known_pairs(processor: FastJukeboxProcessor, songs: Dataset) -> list[tuple[str, str]]:
    """Artists and genres that songs have together and a model knows, sorted."""
    vocabulary = processor.vocabularies[-1]
    both = LabelVocabulary.from_metadata(songs, genre_words=vocabulary.genre_words).pairs
    return [pair for pair in both if pair[0] in vocabulary.artists and pair[1] in vocabulary.genres]


def requests(pairs: Iterable[tuple[str, str]], count: int) -> list[dict[str, str]]:
    """Metadata in words: every genre `count` times or more, and so every artist, going round the known pairs."""
    by_genre: dict[str, list[str]] = {}
    for artist, genre in pairs:
        by_genre.setdefault(genre, []).append(artist)
    asked = [
        {"artist": artists[number % len(artists)], "genre": genre}
        for genre, artists in by_genre.items()
        for number in range(count)
    ]
    for artist in sorted({artist for artists in by_genre.values() for artist in artists}):
        genres = [genre for genre, artists in by_genre.items() if artist in artists]
        missing = count - sum(labels["artist"] == artist for labels in asked)
        asked += [{"artist": artist, "genre": genres[number % len(genres)]} for number in range(max(missing, 0))]
    return asked


def draw(model: FastJukeboxModel, asked: list[dict[str, str]], args: LabelArguments, output: Path) -> Iterable[Tensor]:
    """The samples, eight at once, each kept as a file."""
    rate = model.config.vqvae_config.sampling_rate
    for first in range(0, len(asked), 8):
        labels = asked[first : first + 8]
        with ProgressBars(False) as bars:
            made = model.generate(
                duration=args.duration,
                metadata=labels,
                seed=args.seed,
                song_ids=list(range(first, first + len(labels))),
                stop_level=args.stop_level,
                progress=bars,
            )
        for number, (song, own) in enumerate(zip(made.audio.float().cpu(), labels, strict=True), first):
            name = f"{number:03d}-{own['genre']}-{own['artist']}.flac".replace(" ", "-")
            save_audio(output / name, song.clamp(-1, 1), rate)
            yield song


def describe_songs(songs: Dataset, vqvae: FastJukeboxVQVAE, args: LabelArguments) -> dict[str, Tensor]:
    """Descriptions of a clip from each song, past its first second where it is long enough, through the codes of the
    samples' level: what the VQ-VAE adds to a timbre is in both.
    """
    rate, hop, seconds = vqvae.config.sampling_rate, vqvae.config.hop_lengths[-1], args.duration

    def clips() -> Iterable[Tensor]:
        for row in tqdm(songs, desc="songs", unit="song"):
            offset = 1.0 if row["duration"] > seconds + 2 else 0.0
            clip = load_audio(row["audio"], rate, offset=offset, duration=seconds)
            complete = clip[: max(len(clip) // hop, 1) * hop].to(vqvae.device)
            codes = vqvae.encode(complete[None], levels=[args.stop_level])
            yield vqvae.decode(codes, start_level=args.stop_level)[0].cpu()

    return describe(clips(), rate)


def describe(clips: Iterable[Tensor], rate: int) -> dict[str, Tensor]:
    """Descriptions by kind of label, each (clips, features)."""
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for clip in clips:
        for kind, description in KINDS.items():
            found[kind].append(description(clip, rate))
    return {kind: torch.stack(own) for kind, own in found.items()}


def table(found: dict[str, LabelAgreement]) -> str:
    """Markdown of what was found."""
    rows = []
    for kind, own in found.items():
        rows.append([kind, *(f"{number:.2f}" for number in (own.songs, own.samples, own.swapped, own.chance))])
    kinds = markdown_table(["label heard", "held-out songs", "samples", "asked of others", "chance"], rows)
    labels = [[name, f"{fraction:.2f}"] for own in found.values() for name, fraction in own.by_label.items()]
    return f"{kinds}\n\n{markdown_table(['asked for', 'heard'], labels)}\n"


if __name__ == "__main__":
    sys.exit(run_script(main, resume=None))
