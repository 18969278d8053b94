#!/usr/bin/env python
"""Train a VQ-VAE on a folder of songs.

The mini VQ-VAE of the embedded model, on the chorales that `prepare_songs.py` makes:

    python examples/run_vqvae.py --songs songs/chorales --preset fastjukebox-mini-9 --window 32768 \
        --output_dir runs/vqvae --max_steps 2000 --per_device_train_batch_size 4 --learning_rate 6e-4 \
        --lr_scheduler_type cosine --eval_strategy steps --eval_steps 500 --save_steps 500 --logging_steps 50

An interrupted run resumes from its last checkpoint when the same command gets `--resume_from_checkpoint true`.
Levels share nothing: `--levels 2` trains the top level alone, from `--model_name_or_path` if given; levels trained in
separate processes are joined by `fast_jukebox.training.vqvae.merge_levels`. All options: `--help`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading()

from transformers import set_seed
from transformers.hf_argparser import HfArg

from fast_jukebox import FastJukeboxConfig, FastJukeboxVQVAE, FastJukeboxVQVAEConfig
from fast_jukebox.data.codes import require_splits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.data.windows import SoundWindows, stack_items
from fast_jukebox.training.arguments import name_base_model, parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.training.vqvae import VQVAETrainer, VQVAETrainingArguments, measure_bandwidth


@dataclass
class ModelArguments:
    """The VQ-VAE."""

    preset: str = HfArg(default="fastjukebox-mini-9", help="Named size whose VQ-VAE is trained from scratch.")
    config_name: str | None = HfArg(
        default=None, help="Folder or Hub name of a VQ-VAE's configuration, in place of a preset."
    )
    model_name_or_path: str | None = HfArg(
        default=None, help="Folder or Hub name of a VQ-VAE to train on, in place of a preset."
    )


@dataclass
class DataArguments:
    """The sound."""

    songs: str = HfArg(help="Folder of songs, with or without metadata.jsonl.")
    window: int = HfArg(default=32768, help="Samples in a training window.")
    test_fraction: float = HfArg(
        default=DEFAULT_TEST_FRACTION, help="Fraction of the songs held out where none are marked."
    )
    max_eval_windows: int = HfArg(default=64, help="Held-out windows in an evaluation.")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, evaluate, save; returns the last evaluation."""
    groups = (ModelArguments, DataArguments, VQVAETrainingArguments)
    model_args, data_args, args = parse_arguments(groups, arguments)
    set_seed(args.seed)
    name_base_model(args, model_args.model_name_or_path)

    songs = require_splits(
        load_songs(data_args.songs, test_fraction=data_args.test_fraction, progress=True),
        f"`--songs` {data_args.songs}",
    )
    if model_args.model_name_or_path:
        model = FastJukeboxVQVAE.from_pretrained(model_args.model_name_or_path)
    elif model_args.config_name:
        model = FastJukeboxVQVAE(FastJukeboxVQVAEConfig.from_pretrained(model_args.config_name))
    else:
        model = FastJukeboxVQVAE(FastJukeboxConfig.preset(model_args.preset).vqvae_config)
    rate = model.config.sampling_rate
    train = SoundWindows(songs["train"], data_args.window, rate, seed=args.seed)
    test = SoundWindows(songs["test"], data_args.window, rate, max_windows=data_args.max_eval_windows)
    if not model_args.model_name_or_path:
        model.config.update(measure_bandwidth(train, model.config))

    trainer = VQVAETrainer(model=model, args=args, train_dataset=train, eval_dataset=test, data_collator=stack_items)
    return trainer.train_and_save()


if __name__ == "__main__":
    sys.exit(run_script(main))
