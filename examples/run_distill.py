#!/usr/bin/env python
"""Distil a model's priors into shallow ones and write a complete student: VQ-VAE, priors, card.

All levels of a teacher, from codes made by `run_prior.py` (or by this script, given `--songs`), as in the paper:

    python examples/run_distill.py --teacher runs/teacher-36 --student_layers 12 --codes runs/codes \
        --output_dir runs/student-12 --per_device_train_batch_size 4 --learning_rate 1e-3 --lr_scheduler_type cosine

One level, in stages of your own, each with its loss or weights, length, learning rate and schedule:

    python examples/run_distill.py --teacher runs/teacher-36 --student_layers 12 --codes runs/codes --level 2 \
        --output_dir runs/student-12 --per_device_train_batch_size 4 --learning_rate 1e-3 --stages \
        '[{"loss": "intermediate", "steps": 600}, {"loss": {"prediction": 1, "data": 0.5}, "steps": 2400}]'

All options in a file: `python examples/run_distill.py examples/configs/distill-mini-12.yaml`. `--output_dir` holds a
complete model from the first level on: levels that are not distilled yet are the teacher's. Each level trains in
`runs/level-N` of it; with `--resume_from_checkpoint true` finished levels are kept and an unfinished one resumes. The
student of a teacher conditioned on artists, genres and lyrics receives them too, from the songs' metadata;
`--label_dropout` leaves them out at random. The card is written where `--hub_license` states the weights' license, and
`--push_to_hub true --hub_model_id NAME` pushes.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading()

import torch
from datasets import DatasetDict
from transformers import set_seed
from transformers.hf_argparser import HfArg

from fast_jukebox import (
    FastJukeboxConfig,
    FastJukeboxModel,
    FastJukeboxPrior,
    FastJukeboxPriorConfig,
    FastJukeboxProcessor,
    FastJukeboxVQVAE,
)
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation import DistillationArguments, DistillationTrainer, student_config
from fast_jukebox.evaluation.cards import TEACHER_METRICS
from fast_jukebox.hub import push_folder, write_model_card
from fast_jukebox.processing.files import read_json
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.data import CodesArguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import JsonObject, write_file

RESULT = "distillation.json"


@dataclass
class ModelArguments:
    """Teacher and student."""

    teacher: str = HfArg(help="Folder or Hub name of a complete model.")
    student_layers: int = HfArg(help="Depth of the student's priors.")
    level: int | None = HfArg(default=None, help="One level, 0 is the bottom; by default all, top first.")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Distil, write the student; returns each level's metrics."""
    model_args, data_args, args = parse_arguments((ModelArguments, CodesArguments, DistillationArguments), arguments)
    config = FastJukeboxConfig.from_pretrained(model_args.teacher)
    levels = range(config.num_levels)
    if model_args.level is not None and model_args.level not in levels:
        raise ValueError(f"`--level` must be from 0 to {config.num_levels - 1}, got {model_args.level}")
    for prior in config.prior_configs:
        if not 1 <= model_args.student_layers <= prior.num_hidden_layers:
            raise ValueError(
                f"`--student_layers` must be from 1 to the teacher's {prior.num_hidden_layers}, "
                f"got {model_args.student_layers}"
            )
    if args.push_to_hub and not args.hub_model_id:
        raise ValueError("`--hub_model_id` must name the repository where `--push_to_hub` is set, got None")

    chosen = list(reversed(levels)) if model_args.level is None else [model_args.level]
    check_resumption(chosen, model_args, args)

    with args.main_process_first(desc="encoding"):
        codes = data_args.load(FastJukeboxVQVAE.from_pretrained(model_args.teacher).to(args.device))
    for level in chosen:
        distil_level(level, model_args, data_args, args, codes)
    if not args.should_save:
        return {}
    results = write_student(model_args, args)
    if args.push_to_hub:
        push_folder(
            args.output_dir,
            args.hub_model_id,
            private=args.hub_private_repo,
            token=args.hub_token,
            revision=args.hub_revision,
        )
    return {name: result["metrics"] for name, result in results.items()}


def check_resumption(levels: list[int], model_args: ModelArguments, args: DistillationArguments) -> None:
    """Refuse to go on with what this command would not have begun.

    Raises:
        ValueError: one checkpoint is to be that of several levels, or a finished level is of another depth.
    """
    wanted = str(args.resume_from_checkpoint).lower()
    if wanted not in ("none", "false", "true") and len(levels) > 1:
        raise ValueError(
            "`--resume_from_checkpoint` must be true or false where several levels are distilled, each from its own "
            f"last checkpoint; got {args.resume_from_checkpoint!r} (name it with its `--level`)"
        )
    for folder in (level_folder(args.output_dir, level) for level in levels):
        if wanted == "true" and (folder / RESULT).is_file():
            depth = FastJukeboxPriorConfig.from_pretrained(folder).num_hidden_layers
            if depth != model_args.student_layers:
                raise ValueError(
                    f"`--student_layers` must be the {depth} of {folder}, which is finished and would be kept, got "
                    f"{model_args.student_layers}; name another `--output_dir` or leave out `--resume_from_checkpoint`"
                )


def level_folder(output_dir: str | None, level: int) -> Path:
    """The folder in which a level is trained."""
    return Path(output_dir or "student") / "runs" / f"level-{level}"


def distil_level(
    level: int, model_args: ModelArguments, data_args: CodesArguments, args: DistillationArguments, codes: DatasetDict
) -> None:
    """Distil the prior of one level and save it with its result for the card."""
    folder = level_folder(args.output_dir, level)
    if (folder / RESULT).is_file() and str(args.resume_from_checkpoint).lower() == "true":
        return
    if args.should_save:
        (folder / RESULT).unlink(missing_ok=True)  # of an earlier run, which this one replaces
    args = copy.copy(args)
    args.output_dir, args.push_to_hub = str(folder), False
    set_seed(args.seed)
    teacher = FastJukeboxPrior.from_pretrained(model_args.teacher, level=level, dtype=torch.float32)
    student = FastJukeboxPrior(student_config(teacher.config, model_args.student_layers))
    processor = FastJukeboxProcessor.find(model_args.teacher, teacher.config)
    train, test = data_args.windows(codes, student.config, args.seed, processor)
    trainer = DistillationTrainer(
        model=student,
        teacher=teacher,
        args=args,
        train_dataset=train,
        eval_dataset=test,
        data_collator=stack_items,
    )
    metrics = trainer.train_and_save()
    if trainer.is_world_process_zero():
        result = {
            "metrics": {name: metrics[f"eval_{name}"] for name in TEACHER_METRICS},
            "teacher_layers": teacher.config.num_hidden_layers,
            "windows": {"train": len(trainer.train_dataset), "test": len(trainer.eval_dataset)},
            "training": trainer.training_summary(),
        }
        write_file(folder / RESULT, json.dumps(result, indent=2))


def write_student(model_args: ModelArguments, args: DistillationArguments) -> dict[str, JsonObject]:
    """Write the complete student, its card, and return each distilled level's result by the level's name, top first."""
    vqvae = FastJukeboxVQVAE.from_pretrained(model_args.teacher, dtype=torch.float32)
    num_levels = len(vqvae.config.hop_lengths)
    results, priors = {}, []
    for level in range(num_levels):
        folder = level_folder(args.output_dir, level)
        source: str | Path = model_args.teacher
        if (folder / RESULT).is_file():
            results[level_name(level, num_levels, numbered=True)] = read_json(folder / RESULT)
            source = folder
        priors.append(FastJukeboxPrior.from_pretrained(source, level=level, dtype=torch.float32))
    results = dict(reversed(results.items()))
    model = FastJukeboxModel.from_levels(vqvae, priors)
    model.processor = FastJukeboxProcessor.find(model_args.teacher, model.config)
    model.adjust_generation_fn(None, False, None, model_args.teacher)  # sampled as the teacher is, where it says how
    model.save_pretrained(args.output_dir)
    if args.hub_license:
        write_card(model_args, args, results, [prior.config.num_hidden_layers for prior in priors])
    return results


def write_card(
    model_args: ModelArguments, args: DistillationArguments, results: dict[str, JsonObject], depths: list[int]
) -> None:
    """Write the student's card from what each level left behind."""
    is_local = os.path.isdir(model_args.teacher)
    teacher_name = args.teacher_name or args.hub_base_model or (None if is_local else model_args.teacher)
    named = [f"{level_name(level, len(depths), numbered=True)}: {depth} layers" for level, depth in enumerate(depths)]
    taught = "; ".join(f"{name} from one of {result['teacher_layers']}" for name, result in results.items())
    description = (
        "Raw-audio music from a hierarchical VQ-VAE and a sparse transformer a level "
        f"({', '.join(reversed(named))}). Distilled ({taught}) layer by layer, each layer from one of the same "
        "attention pattern, as in Fast Jukebox; the VQ-VAE and levels that were not distilled are the teacher's."
    )
    training = "\n\n".join(
        f"### The {name}\n\n{result['windows']['train']} windows an epoch, {result['windows']['test']} held out.\n\n"
        f"{result['training']}"
        for name, result in results.items()
    )
    metrics = {
        what: {name: result["metrics"][key] for name, result in results.items()}
        for key, what in TEACHER_METRICS.items()
    }
    write_model_card(
        args.output_dir,
        name=args.hub_model_id or Path(args.output_dir).absolute().name,
        description=description,
        training=training,
        metrics={what: values for what, values in metrics.items() if all(map(math.isfinite, values.values()))},
        license=args.hub_license,
        datasets=args.hub_datasets,
        base_model=teacher_name,
        tags=["knowledge-distillation"],
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
