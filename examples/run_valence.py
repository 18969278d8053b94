#!/usr/bin/env python
"""Train the classifier of emotional valence, and measure it on held-out songs.

On MTG-Jamendo (a folder with `autotagging_moodtheme-{train,validation,test}.tsv` and the audio), at the published size:

    python examples/run_valence.py --songs mtg-jamendo --output_dir runs/valence \
        --backbone google/mobilenet_v2_1.0_224 --num_train_epochs 120 --per_device_train_batch_size 8 \
        --hub_license cc-by-nc-sa-4.0

At mini size on clips whose labels are manners of playing, one instrument held out:

    python examples/prepare_valence_songs.py --output_dir songs/valence
    python examples/run_valence.py --songs songs/valence --size mini --group_by instruments --test_groups strings \
        --labels_from "manners of playing; no listener was asked" --output_dir runs/valence --max_steps 300 \
        --per_device_train_batch_size 8 --learning_rate 1e-3 --lr_scheduler_type cosine --crop_probability 0 \
        --adam_fraction 1 --hub_license apache-2.0

The metrics on the held-out songs go into the model's configuration, `valence.md` and the card. With
`--table songs=FOLDER teacher=FOLDER` the paper's Table 2 of folders of sound files is added; `--max_steps 0
--model_name_or_path MODEL` makes it with a classifier that is trained already. An interrupted run resumes with
`--resume_from_checkpoint true`. All options: `--help`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading()

import torch
from transformers import set_seed
from transformers.hf_argparser import HfArg

from fast_jukebox.data.scanning import AUDIO_SUFFIXES
from fast_jukebox.data.valence import ValenceClips, ValenceSong, load_valence_songs, shared_groups
from fast_jukebox.evaluation.valence import ValenceJudge, held_out_markdown, score_songs, valence_table
from fast_jukebox.models.valence import ValenceConfig, ValenceFeatureExtractor, ValenceModel
from fast_jukebox.models.valence.classification import classification_metrics
from fast_jukebox.training.arguments import name_base_model, parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.training.valence import ValenceTrainer, ValenceTrainingArguments
from fast_jukebox.utils.files import write_file


@dataclass
class ModelArguments:
    """The classifier."""

    size: str = HfArg(default="full", help="full is the published one, mini hears 16 s and is small.")
    backbone: str | None = HfArg(
        default=None, help="MobileNetV2 with weights of ImageNet, such as google/mobilenet_v2_1.0_224."
    )
    model_name_or_path: str | None = HfArg(
        default=None, help="Folder or Hub name of a classifier to train on, in place of a new one."
    )


@dataclass
class DataArguments:
    """The songs."""

    songs: str = HfArg(help="Folder in MTG-Jamendo's layout, or with a column valence in metadata.jsonl.")
    tag_map: str | None = HfArg(
        default=None, help="YAML file from tags to AP, DP, AU, DU, in place of the package's own."
    )
    group_by: str = HfArg(default="artist", help="Column by which songs are held out: artist, instruments.")
    test_groups: list[str] = HfArg(
        default_factory=list, help="Groups that are held out; by default about a fifth of them."
    )
    labels_from: str = HfArg(default="", help="Where the labels are from, for the card and reports.")
    table: list[str] = HfArg(default_factory=list, help="NAME=FOLDER of sound files: rows of the paper's Table 2.")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, evaluate on held-out songs, save and report; returns the metrics on held-out songs."""
    model_args, data_args, args = parse_arguments((ModelArguments, DataArguments, ValenceTrainingArguments), arguments)
    set_seed(args.seed)
    name_base_model(args, model_args.model_name_or_path)
    folders = table_folders(data_args.table)
    songs = load_valence_songs(
        data_args.songs,
        tag_map=data_args.tag_map,
        group_by=data_args.group_by,
        test_groups=data_args.test_groups,
        progress=True,
    )
    model = make_model(model_args)
    model.config.labels_from = data_args.labels_from or model.config.labels_from
    extractor = ValenceFeatureExtractor(num_frames=model.config.num_frames)
    splits = {name: [song for song in songs if song.split == name] for name in ("train", "validation", "test")}
    trainer = ValenceTrainer(
        model=model,
        args=args,
        train_dataset=ValenceClips(
            splits["train"],
            extractor,
            seed=args.seed,
            crop_probability=args.crop_probability,
            slice_frames=model.config.slice_frames,
        ),
        eval_dataset=ValenceClips(splits["validation"] or splits["train"], extractor),
    )
    if args.max_steps != 0:
        trainer.train_and_save()
    trained = trainer.accelerator.unwrap_model(trainer.model).eval()
    judge = ValenceJudge(trained, extractor, trained.device)
    probabilities = score_songs(judge, [song.source for song in splits["test"]])
    labels = torch.stack([song.labels for song in splits["test"]])
    metrics = classification_metrics(probabilities, labels)
    trained.config.held_out = held_out(metrics, songs, data_args)
    output = Path(args.output_dir)
    trained.save_pretrained(output)
    extractor.save_pretrained(output)
    if args.hub_license:
        trainer.create_model_card()
    report = "# Emotional valence\n\n" + held_out_markdown(metrics, probabilities, labels)
    if folders:
        rows = {name: score_songs(judge, sound_files(folder)) for name, folder in folders.items()}
        report += "\n" + valence_table(trained.config, rows)
    write_file(output / "valence.md", report)
    print(report)
    return metrics


def make_model(args: ModelArguments) -> ValenceModel:
    """A new classifier, or one to train on.

    Raises:
        ValueError: another size.
    """
    if args.model_name_or_path:
        return ValenceModel.from_pretrained(args.model_name_or_path)
    if args.size not in ("full", "mini"):
        raise ValueError(f"`--size` must be full or mini, got {args.size!r}")
    model = ValenceModel(ValenceConfig() if args.size == "full" else ValenceConfig.mini())
    if args.backbone:
        model.load_backbone(args.backbone)
    return model


def held_out(metrics: dict[str, float], songs: list[ValenceSong], args: DataArguments) -> dict[str, float | int | str]:
    """The configuration's entry: the metrics, the number of songs, and what separates these from the others."""
    shared = shared_groups(songs)
    by = "artist" if (Path(args.songs) / "autotagging_moodtheme-test.tsv").is_file() else args.group_by
    apart = f"split only, {len(shared)} of the {by}s are in both" if shared else by
    count = sum(song.split == "test" for song in songs)
    return {name: value for name, value in metrics.items() if value == value} | {"songs": count, "held_out_by": apart}


def table_folders(words: list[str]) -> dict[str, Path]:
    """Folders of sound files by name.

    Raises:
        ValueError: a word that is no NAME=FOLDER, or a folder without sound files.
    """
    folders = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not Path(folder).is_dir() or not sound_files(Path(folder)):
            raise ValueError(f"`--table` must be NAME=FOLDER with sound files in it, got {word!r}")
        folders[name] = Path(folder)
    return folders


def sound_files(folder: Path) -> list[Path]:
    """Sound files directly in a folder, but not what stands beside a sample of its top level alone."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES and not path.stem.endswith("-top")
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
