#!/usr/bin/env python
"""Train the prior of one level on a folder of songs and a trained VQ-VAE.

The mini top prior, from scratch (repeat with `--level 1` and `--level 0` for the upsamplers):

    python examples/run_prior.py --songs songs/chorales --vqvae runs/vqvae --codes runs/codes \
        --preset fastjukebox-mini-9 --level 2 --output_dir runs/prior-2 --max_steps 4000 \
        --per_device_train_batch_size 4 --learning_rate 6e-4 --warmup_steps 100 --lr_scheduler_type cosine \
        --eval_strategy steps --eval_steps 500 --save_steps 500 --logging_steps 50

The songs are encoded once, into `--codes`, by all levels of the VQ-VAE; later runs need only that folder. `--layers 36`
makes a teacher of another depth, `--model_name_or_path` trains on, and both together begin with a deeper model that
computes the same as the one named. An interrupted run resumes from its last
checkpoint when the same command gets `--resume_from_checkpoint true`. All options: `--help`.

`--lora_rank 8` trains LoRA adapters of the model that `--model_name_or_path` names, and saves them alone.

`--labels true` makes a prior conditioned on the artist and the genre of the songs' metadata, and at the top on the
position in the song; `--lyric_length 384` on lyrics too. Songs that lack any of them train alongside:

    python examples/run_prior.py --songs songs/mine --vqvae runs/vqvae --codes runs/codes --level 2 --layers 12 \
        --labels true --lyric_length 384 --label_dropout 0.1 --output_dir runs/prior-2
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading()

import torch
from datasets import DatasetDict
from transformers import AutoConfig, set_seed
from transformers.hf_argparser import HfArg

from fast_jukebox import (
    FastJukeboxConfig,
    FastJukeboxPrior,
    FastJukeboxPriorConfig,
    FastJukeboxProcessor,
    FastJukeboxVQVAE,
)
from fast_jukebox.data.codes import CodeWindows, load_codes, require_splits
from fast_jukebox.data.device_codes import DeviceCodeBatches
from fast_jukebox.data.labels import labelled_config
from fast_jukebox.data.windows import stack_items
from fast_jukebox.processing import LabelVocabulary
from fast_jukebox.training.arguments import (
    AdapterArguments,
    FastJukeboxTrainingArguments,
    name_base_model,
    parse_arguments,
)
from fast_jukebox.training.compilation import compile_blocks
from fast_jukebox.training.data import CodesArguments
from fast_jukebox.training.fine_tuning import FineTuning, choose_learning_rate, continue_run
from fast_jukebox.training.prior import PriorTrainer
from fast_jukebox.training.scripts import run_script
from fast_jukebox.training.weights import add_labels, add_names, deepen, take_weights


@dataclass
class ModelArguments:
    """The prior."""

    level: int = HfArg(default=2, help="0 is the bottom; the mini and the published models have 3.")
    preset: str = HfArg(default="fastjukebox-mini-9", help="Named size whose prior is trained from scratch.")
    config_name: str | None = HfArg(
        default=None, help="Folder or Hub name of a prior or a model whose configuration is used."
    )
    layers: int | None = HfArg(
        default=None, help="Another depth than the preset's, or a greater one than the named model's."
    )
    model_name_or_path: str | None = HfArg(
        default=None, help="Folder or Hub name of a prior or a model to train further, not a preset."
    )
    labels: bool = HfArg(
        default=False,
        help="Condition a preset's prior, or a named one without labels, on `artist` and `genre`, the top one "
        "on time too.",
    )
    new_names: bool = HfArg(default=True, help="Add the songs' artists and genres that the named model does not know.")
    genre_words: int = HfArg(
        default=0, help="With --labels: so many words of a genre's name at most, in place of genres."
    )
    continue_run: bool = HfArg(
        default=False,
        help="--model_name_or_path is the output of an earlier run of this script: go on where it ended, with "
        "its optimizer and its place in the data; --max_steps, --max_minutes or --num_train_epochs come on top.",
    )
    initial_weights: str | None = HfArg(
        default=None, help="A .safetensors file whose tensors replace those of equal name and shape at the start."
    )
    compile_layers: bool = HfArg(default=False, help="Compile the layers with torch.compile, where it can; for GPUs.")
    lyric_length: int = HfArg(
        default=0, help="With --labels: characters of `lyrics` that the top prior receives in a window."
    )


@dataclass
class DataArguments(CodesArguments):
    """The codes, and where they are kept."""

    vqvae: str | None = HfArg(default=None, help="Folder or Hub name of the VQ-VAE that encodes them.")
    device_codes: bool = HfArg(
        default=False, help="Keep the codes in the device's memory and draw windows there; one process, no lyrics."
    )
    code_noise: float = HfArg(
        default=0.0,
        help="With --device_codes: fraction of the codes given, 0 to this by window, that are replaced by others.",
    )
    window_parts: list[int] = HfArg(
        default_factory=lambda: [1],
        help="With --device_codes: batches in turn of windows as short as the context divided by each of these.",
    )
    more_codes: list[str] = HfArg(
        default_factory=list, help="With --device_codes: further folders of codes to train on."
    )
    old_codes: str | None = HfArg(
        default=None,
        help="With --model_name_or_path: codes of the songs that the model was made from; the bits of those "
        "held out are measured before and after as well.",
    )
    wait_minutes: float = HfArg(
        default=0.0, help="With --device_codes: wait so long for the first codes, and load what comes later too."
    )


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, evaluate, save; returns the last evaluation."""
    model_args, adapter_args, data_args, args = parse_arguments(
        (ModelArguments, AdapterArguments, DataArguments, FastJukeboxTrainingArguments), arguments
    )
    if (model_args.continue_run or data_args.old_codes) and not model_args.model_name_or_path:
        raise ValueError("`--model_name_or_path` must name the model that `--continue_run` or `--old_codes` is about")
    changed = [
        name
        for name in ("layers", "labels", "initial_weights", "compile_layers", "continue_run")
        if getattr(model_args, name)
    ]
    if adapter_args.lora_rank and (changed or not model_args.model_name_or_path):
        without = f", and without {', '.join(f'`--{name}`' for name in changed)}" if changed else ""
        raise ValueError(f"`--lora_rank` must go with `--model_name_or_path`, a model left as it is{without}")
    needing = {
        "compile_layers": model_args.compile_layers,
        "code_noise": data_args.code_noise != 0,
        "window_parts": data_args.window_parts != [1],
        "more_codes": bool(data_args.more_codes),
        "wait_minutes": data_args.wait_minutes != 0,
    }
    for name, given in needing.items():
        if given and not data_args.device_codes:
            raise ValueError(f"`--{name}` needs `--device_codes true`")
    set_seed(args.seed)
    name_base_model(args, model_args.model_name_or_path)

    growing = data_args.device_codes and data_args.wait_minutes > 0
    with args.main_process_first(desc="encoding"):
        vqvae = FastJukeboxVQVAE.from_pretrained(data_args.vqvae).to(args.device) if data_args.vqvae else None
        codes = DatasetDict() if growing else data_args.load(vqvae)
    if model_args.model_name_or_path:
        model, processor, has_new_names = named_prior(model_args, codes, data_args.more_codes)
    else:
        has_new_names = False
        model = FastJukeboxPrior(with_labels(prior_config(model_args), model_args, codes))
        processor = processor_of(model.config, model_args, codes)
    if processor is not None and args.should_save:
        processor.save_pretrained(args.output_dir)
    if model_args.initial_weights:
        drawn = take_weights(model, model_args.initial_weights)
        print(f"drawn at random: {', '.join(drawn) or 'none'}", flush=True)
    if data_args.device_codes:
        if codes and "test" not in codes:
            raise ValueError("`--device_codes` must be false where songs are held out by time, got true")
        train, test = device_windows(model, processor, model_args, data_args, args)
    else:
        train, test = data_args.windows(codes, model.config, args.seed, processor)

    old, fine_tuning = old_windows(data_args, model, processor, vqvae), None
    if model_args.model_name_or_path and codes:
        choose_learning_rate(args, adapters=adapter_args.lora_rank > 0)
        first = continue_run(args, model_args.model_name_or_path, model) if model_args.continue_run else 0
        fine_tuning = FineTuning(args.output_dir, model_args.model_name_or_path, codes["train"], args, first)
    trainer = PriorTrainer(
        model=adapter_args.adapted(model, has_new_names),
        args=args,
        train_dataset=train,
        eval_dataset=test,
        data_collator=stack_items,
        fine_tuning=fine_tuning,
        old_dataset=old,
    )
    return trainer.train_and_save()


def old_windows(
    data_args: DataArguments,
    model: FastJukeboxPrior,
    processor: FastJukeboxProcessor | None,
    vqvae: FastJukeboxVQVAE | None,
) -> CodeWindows | None:
    """Held-out windows of the songs that the model was made from, where they are named."""
    if data_args.old_codes is None:
        return None
    codes = require_splits(load_codes(data_args.old_codes, vqvae=vqvae), f"`--old_codes` {data_args.old_codes}")
    return CodeWindows(codes["test"], model.config, None, data_args.max_eval_windows, processor)


def device_windows(
    model: FastJukeboxPrior,
    processor: FastJukeboxProcessor | None,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FastJukeboxTrainingArguments,
) -> tuple[DeviceCodeBatches, list[dict[str, torch.Tensor]]]:
    """Batches to train on, drawn on the device, and held-out windows. The layers are compiled before any codes come."""
    if args.world_size > 1:
        raise ValueError(f"`--device_codes` is for one process, got {args.world_size}")
    batch_size = args.per_device_train_batch_size
    model.to(args.device)
    if model_args.compile_layers:
        dtype = torch.bfloat16 if args.bf16 else None
        compile_blocks(model.train(), batch_size, dtype, data_args.window_parts)
    folders = [data_args.codes, *data_args.more_codes]
    shared = {"seed": args.seed, "processor": processor, "wait_seconds": 60 * data_args.wait_minutes}
    train = DeviceCodeBatches(
        folders,
        model.config,
        batch_size,
        args.device,
        label_dropout=data_args.label_dropout,
        code_noise=data_args.code_noise,
        window_parts=data_args.window_parts,
        refresh_steps=50 if data_args.wait_minutes else 0,
        **shared,
    )
    test = DeviceCodeBatches(folders, model.config, data_args.max_eval_windows, "cpu", split="test", **shared)
    return train, test.windows(data_args.max_eval_windows)


def named_prior(
    model_args: ModelArguments, codes: DatasetDict, more_codes: list[str]
) -> tuple[FastJukeboxPrior, FastJukeboxProcessor | None, bool]:
    """The prior to train further, of the depth and with the names asked for, its processor, and whether it has learnt
    names.
    """
    source = model_args.model_name_or_path
    prior = FastJukeboxPrior.from_pretrained(source, level=model_args.level, dtype=torch.float32)
    processor = FastJukeboxProcessor.find(source, prior.config)
    if model_args.layers not in (None, prior.config.num_hidden_layers):
        prior = deepen(prior, model_args.layers)
    if model_args.lyric_length:
        raise ValueError(f"`--lyric_length` must be left out: {source} keeps its own, {prior.config.lyric_length}")
    if model_args.labels and not prior.config.has_labels:
        if not codes:
            raise ValueError("`--labels` needs all codes at the start, and `--wait_minutes` is given")
        prior = add_labels(
            prior, codes["train"], max_genres=max(model_args.genre_words, 1), longest=longest_song(codes)
        )
        processor = FastJukeboxProcessor.from_metadata(codes["train"], prior.config)
    if codes and not prior.config.has_labels and {"artist", "genre"} & set(codes["train"].column_names):
        print(f"{source} has no labels: the songs' artists and genres are not used (see --labels)", flush=True)
    known = prior.config.num_artists, prior.config.num_genres
    if prior.config.has_labels and model_args.new_names and codes:
        for rows in (codes["train"], *(load_codes(folder)["train"] for folder in more_codes)):
            processor = add_names(prior, processor, rows)
    return prior, processor, known != (prior.config.num_artists, prior.config.num_genres)


def longest_song(codes: DatasetDict) -> float:
    """Seconds of the longest song."""
    return max(max(split["duration"], default=0.0) for split in codes.values())


def prior_config(model_args: ModelArguments) -> FastJukeboxPriorConfig:
    """The configuration named, or the preset's for the level, at the depth asked for."""
    if model_args.config_name:
        named = AutoConfig.from_pretrained(model_args.config_name)
        config = prior_of(named, model_args.level) if isinstance(named, FastJukeboxConfig) else named
        if config.level != model_args.level:
            raise ValueError(f"`--level` must be {config.level} for {model_args.config_name}, got {model_args.level}")
    else:
        config = prior_of(FastJukeboxConfig.preset(model_args.preset), model_args.level)
    if model_args.layers is not None:
        config.num_hidden_layers = model_args.layers
        config.validate()
    return config


def with_labels(
    config: FastJukeboxPriorConfig, model_args: ModelArguments, codes: DatasetDict
) -> FastJukeboxPriorConfig:
    """The configuration, with the dataset's artists and genres where `--labels` asks for it."""
    if not model_args.labels:
        if model_args.lyric_length or model_args.genre_words:
            raise ValueError("`--labels` must be true where `--lyric_length` or `--genre_words` is given, got false")
        return config
    if config.has_labels:
        raise ValueError(f"`--labels` must be left out: {model_args.config_name} has labels already")
    if not codes:
        raise ValueError("`--labels` needs all codes at the start: name a labelled prior's `--config_name` to wait")
    vocabulary = LabelVocabulary.from_metadata(codes["train"], genre_words=model_args.genre_words > 1)
    return labelled_config(
        config,
        vocabulary,
        max_genres=max(model_args.genre_words, 1),
        lyric_length=model_args.lyric_length,
        longest=longest_song(codes),
    )


def processor_of(
    config: FastJukeboxPriorConfig, model_args: ModelArguments, codes: DatasetDict
) -> FastJukeboxProcessor | None:
    """The named configuration's processor, or one of the songs' names; `None` where there are no names."""
    source = model_args.config_name
    processor = None if source is None else FastJukeboxProcessor.find(source, config)
    named = {"artist", "genre", "lyrics"} & set(codes["train"].column_names) if codes else set()
    if processor is None and config.has_labels and named:
        processor = FastJukeboxProcessor.from_metadata(codes["train"], config)
    return processor


def prior_of(config: FastJukeboxConfig, level: int) -> FastJukeboxPriorConfig:
    """The configuration of one level's prior."""
    if not 0 <= level < config.num_levels:
        raise ValueError(f"`--level` must be from 0 to {config.num_levels - 1}, got {level}")
    return config.prior_configs[level]


if __name__ == "__main__":
    sys.exit(run_script(main))
