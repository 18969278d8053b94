#!/usr/bin/env python
"""The ablation of Fast Jukebox's Table 1, trained and measured: a teacher, shallow priors from scratch, and students.

    python examples/run_ablation.py --codes runs/pretrained/codes --model runs/pretrained/model \
        --output_dir runs/ablation --report runs/ablation/report.md

At every level: a teacher; priors of each student's depth trained from scratch; students that learn Eq. 4 and then the
data ("without Pred"); students that learn Eq. 4 and then Eq. 3; and of the depths in `--plain_layers` such a student
with random initialisation, without the teacher's weights. Scratch and students have equal steps on equal windows. Sizes
but for the depth, and the VQ-VAE, are those of `--model`; with `--grow_teacher true` the teacher begins with that
model's priors made deeper.

Finished trainings are kept and an interrupted one resumes from its last checkpoint: run the same command again.
`--minutes` ends it early, for machines that are lent for a short time. Other settings of the training need another
`--output_dir`. The metrics are then measured side by side in one run, and the report is written from them and from the
trainings' logs.
`teacher` and `models` hold the systems as complete models, which sample and are evaluated by

    fast-jukebox evaluate runs/ablation/teacher runs/ablation/models/* --songs SONGS

and `training` what `fast-jukebox evaluate --training` states on a card of how the students were made.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume="")

import torch
import transformers
from transformers.hf_argparser import HfArg

from fast_jukebox import (
    FastJukeboxConfig,
    FastJukeboxModel,
    FastJukeboxPrior,
    FastJukeboxProcessor,
    FastJukeboxVQVAE,
)
from fast_jukebox.data.codes import CodeWindows, load_codes, require_splits
from fast_jukebox.evaluation.ablation import sampling_seconds, training_seconds, training_story, write_ablation
from fast_jukebox.evaluation.likelihood import compare_with_teacher
from fast_jukebox.processing.files import read_json
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.assembly import machine_name
from fast_jukebox.training.checkpoints import read_state
from fast_jukebox.training.curves import loss_curves
from fast_jukebox.training.scripts import run_script
from fast_jukebox.training.side_by_side import TrainingJob, run_side_by_side, script_command
from fast_jukebox.utils.files import JsonObject, claim_folder, write_file

EXAMPLES = Path(__file__).resolve().parent
SETTINGS = "settings.json"
# What may change between two calls of one ablation: what is trained beside, what is measured, and how it is run.
_FREE = (
    *("codes", "model", "output_dir", "report", "notes", "training", "student_layers", "plain_layers"),
    *("eval_windows", "measured_codes", "processes", "minutes"),
)


@dataclass
class AblationArguments:
    """The trainings, their length and their folder."""

    codes: str = HfArg(help="Folder of codes, made by run_prior.py or run_pretrained.py.")
    model: str = HfArg(help="Complete model whose VQ-VAE made the codes and whose sizes the priors have.")
    output_dir: str = HfArg(help="Folder of all runs.")
    report: str | None = HfArg(default=None, help="Markdown file to write, its picture beside it.")
    notes: str | None = HfArg(default=None, help="Markdown file that the report takes in, in your words.")
    teacher_layers: int = HfArg(default=36, help="Depth of the teacher.")
    student_layers: list[int] = HfArg(default_factory=lambda: [12, 9], help="Depths of the students.")
    plain_layers: list[int] = HfArg(
        default_factory=list, help="Depths that are also distilled from random initialisation; none."
    )
    grow_teacher: bool = HfArg(default=False, help="Begin the teacher with the model's priors.")
    teacher_steps: int = HfArg(default=4000, help="Steps of the teacher at each level.")
    steps: int = HfArg(default=3000, help="Steps of each of the others at each level.")
    intermediate_steps: int = HfArg(default=750, help="How many of a student's steps are of Eq. 4.")
    batch_sizes: list[int] = HfArg(default_factory=lambda: [4, 4, 4], help="Windows, bottom first.")
    teacher_learning_rate: float = HfArg(default=3e-4, help="Peak of its cosine schedule.")
    learning_rate: float = HfArg(default=1.2e-3, help="Peak from scratch.")
    student_learning_rate: float = HfArg(
        default=6e-4, help="Peak of each stage of students that begin with the teacher's layers."
    )
    warmup_steps: int = HfArg(default=50, help="Of the teacher and from scratch; a fifth in a stage.")
    eval_steps: int = HfArg(default=250, help="Steps between points of the curves; divides the steps.")
    curve_windows: int = HfArg(default=24, help="Held-out windows of the curves.")
    eval_windows: int = HfArg(default=64, help="Held-out windows of the final metrics.")
    measured_codes: int = HfArg(default=1024, help="Codes to sample when speed is measured.")
    processes: int = HfArg(default=1, help="Trainings side by side.")
    minutes: float | None = HfArg(default=None, help="End after so long; the same command resumes.")
    training: str | None = HfArg(
        default=None, help="JSON file on the model's training, which the students' cards state too."
    )
    bf16: bool = HfArg(default=False, help="Train with bfloat16 autocast, which is faster on most CPUs.")
    seed: int = HfArg(default=0, help="Of everything.")


class Ablation:
    """Folders and commands of an ablation."""

    def __init__(self, args: AblationArguments) -> None:
        self.args = args
        self.output = Path(args.output_dir)
        self.levels = range(FastJukeboxConfig.from_pretrained(args.model).num_levels)
        for name, kind in (("notes", "Markdown"), ("training", "JSON")):
            value = getattr(args, name)
            if value and not Path(value).is_file():
                raise FileNotFoundError(f"`--{name}` must be a {kind} file, got {value!r}, which is none")
        if len(args.batch_sizes) != len(self.levels):
            raise ValueError(f"`--batch_sizes` must be {len(self.levels)}, one a level, got {args.batch_sizes}")
        if not 0 < args.intermediate_steps < args.steps or args.steps % args.eval_steps:
            raise ValueError(
                "`--intermediate_steps` must be between 0 and `--steps`, of which `--eval_steps` must be a divisor; "
                f"got {args.intermediate_steps}, {args.steps} and {args.eval_steps}"
            )
        self.systems: dict[str, int] = {f"teacher-{args.teacher_layers}": args.teacher_layers}
        for kind, depths in (
            ("scratch", args.student_layers),
            ("student-without-pred", args.student_layers),
            ("student", args.student_layers),
            ("student-plain", args.plain_layers),
        ):
            self.systems.update({f"{kind}-{depth}": depth for depth in depths})

    def claim(self) -> None:
        """Reserve `output_dir` for this ablation, before anything is trained.

        Raises:
            ValueError: what is done there was trained otherwise, or the codes are of another model than `--model`.
        """
        settings = {name: value for name, value in asdict(self.args).items() if name not in _FREE}
        vqvae = FastJukeboxVQVAE.from_pretrained(self.args.model)
        require_splits(load_codes(self.args.codes, vqvae=vqvae), f"`--codes` {self.args.codes}")
        claim_folder(self.output / SETTINGS, settings, "trainings made")

    @property
    def teacher(self) -> str:
        """Name of the first system."""
        return next(iter(self.systems))

    def prior(self, system: str, level: int) -> Path:
        """Folder of a system's trained prior."""
        return self.output / "runs" / system / f"level-{level}"

    def job(self, system: str, level: int) -> TrainingJob:
        """The training of a system at a level."""
        if system.startswith(("teacher", "scratch")):
            script, options = "run_prior.py", self._prior_options(system, level)
        else:
            script, options = "run_distill.py", self._student_options(system, level)
        folder = self.prior(system, level)
        log = self.output / f"{system}-level-{level}.log"
        return TrainingJob(folder, script_command(EXAMPLES / script, options), log=log)

    def _shared_options(self, level: int) -> JsonObject:
        args = self.args
        return {
            "codes": args.codes,
            "level": level,
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.01,
            "adam_beta2": 0.95,
            "per_device_train_batch_size": args.batch_sizes[level],
            "per_device_eval_batch_size": args.batch_sizes[level],
            "max_eval_windows": args.curve_windows,
            "eval_strategy": "steps",
            "eval_steps": args.eval_steps,
            "logging_steps": max(1, args.eval_steps // 5),
            "disable_tqdm": "true",
            "report_to": "none",
            "bf16": str(args.bf16).lower(),
            # Without it transformers refuses bfloat16 where there is no accelerator.
            "use_cpu": str(args.bf16 and not torch.accelerator.is_available()).lower(),
            "seed": args.seed,
            "resume_from_checkpoint": "true",
        }

    def _prior_options(self, system: str, level: int) -> JsonObject:
        args = self.args
        is_teacher = system == self.teacher
        source = "model_name_or_path" if is_teacher and args.grow_teacher else "config_name"
        return self._shared_options(level) | {
            "output_dir": self.prior(system, level),
            source: args.model,
            "layers": self.systems[system],
            "max_steps": args.teacher_steps if is_teacher else args.steps,
            "learning_rate": args.teacher_learning_rate if is_teacher else args.learning_rate,
            "warmup_steps": args.warmup_steps,
            "save_steps": args.eval_steps,
            "save_total_limit": 1,
        }

    def _student_options(self, system: str, level: int) -> JsonObject:
        args = self.args
        last = "data" if "without-pred" in system else "prediction"
        stages = [
            {"loss": "intermediate", "steps": args.intermediate_steps},
            {"loss": last, "steps": args.steps - args.intermediate_steps},
        ]
        return self._shared_options(level) | {
            "output_dir": self.output / "students" / f"{system}-level-{level}",
            "teacher": self.output / "teacher",
            "student_layers": self.systems[system],
            "stages": json.dumps(stages),
            "initialize_from_teacher": str("plain" not in system).lower(),
            # From random weights on, half a rate leaves a student behind its twin from scratch.
            "learning_rate": args.learning_rate if "plain" in system else args.student_learning_rate,
            "warmup_steps": args.warmup_steps // 5,
            # The checkpoint between the stages is where "without Pred" turns off.
            "save_steps": args.intermediate_steps,
        }


def main(arguments: list[str] | None = None) -> JsonObject:
    """Train what is not trained, measure, report; returns the metrics."""
    (args,) = parse_arguments((AblationArguments,), arguments)
    ablation = Ablation(args)
    ablation.claim()
    deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    by_name = ablation.systems
    first = [name for name in by_name if name.startswith(("teacher", "scratch"))]
    second = [name for name in by_name if name.startswith("student") and "without-pred" not in name]
    third = [name for name in by_name if "without-pred" in name]

    def run(systems: list[str], **hooks: Callable[[TrainingJob], None]) -> None:
        jobs = [ablation.job(system, level) for system in systems for level in reversed(ablation.levels)]
        run_side_by_side(jobs, args.processes, deadline=deadline, **hooks)

    run(first)
    join(ablation, ablation.teacher, ablation.output / "teacher")
    run(second, after=partial(adopt_student, ablation))
    run(third, after=partial(adopt_student, ablation), before=partial(share_first_stage, ablation))
    for system in [name for name in by_name if name != ablation.teacher]:
        join(ablation, system, ablation.output / "models" / system)
    results = measure(ablation)
    write_file(ablation.output / "ablation.json", json.dumps(results, indent=1))
    write_trainings(ablation, results)
    if args.report:
        write_ablation(args.report, results, Path(args.notes).read_text(encoding="utf-8") if args.notes else "")
    return results


def place_of(job: TrainingJob) -> tuple[str, int]:
    """System and level of a training."""
    return job.folder.parent.name, int(job.folder.name.removeprefix("level-"))


def trained_by(ablation: Ablation, job: TrainingJob) -> Path:
    """The folder in which run_distill.py trains the prior of a student's job."""
    system, level = place_of(job)
    return ablation.output / "students" / f"{system}-level-{level}" / "runs" / f"level-{level}"


def adopt_student(ablation: Ablation, job: TrainingJob) -> None:
    """Let a finished student's prior and logs stand where those of the other systems do."""
    if job.done:
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    for file in trained_by(ablation, job).iterdir():
        if file.is_file() and file.suffix in {".json", ".safetensors"}:
            shutil.copy2(file, job.folder / file.name)


def share_first_stage(ablation: Ablation, job: TrainingJob) -> None:
    """Let a student "without Pred" go on from its twin's checkpoint after Eq. 4, which both have in common."""
    checkpoint = f"checkpoint-{ablation.args.intermediate_steps}"
    system, level = place_of(job)
    twin = ablation.job(system.replace("-without-pred", ""), level)
    target = trained_by(ablation, job) / checkpoint
    if not target.exists():
        shutil.copytree(trained_by(ablation, twin) / checkpoint, target)


def join(ablation: Ablation, system: str, folder: Path) -> None:
    """The complete model of a system's priors, saved once."""
    if (folder / "model.safetensors").exists():
        return
    vqvae = FastJukeboxVQVAE.from_pretrained(ablation.args.model)
    model = FastJukeboxModel.from_levels(vqvae, [ablation.prior(system, level) for level in ablation.levels])
    if model.processor is None:  # students' priors are kept without the names that they are conditioned on
        model.processor = FastJukeboxProcessor.find(ablation.args.model, model.config)
    model.generation_config = FastJukeboxModel.from_pretrained(ablation.args.model).generation_config
    model.save_pretrained(folder)


def write_trainings(ablation: Ablation, results: JsonObject) -> None:
    """Write `training/SYSTEM.json` for each student: what `fast-jukebox evaluate --training` takes for its card."""
    training = ablation.args.training
    model = read_json(training) if training else None
    folder = ablation.output / "training"
    folder.mkdir(exist_ok=True)
    for system in (name for name in ablation.systems if name.startswith("student")):
        story = json.dumps(training_story(results, system, model), indent=1)
        write_file(folder / f"{system}.json", story)


def measure(ablation: Ablation) -> JsonObject:
    """Every number of the report, all systems side by side in this run."""
    args = ablation.args
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held_out = load_codes(args.codes)["test"]
    levels = {}
    for level in reversed(ablation.levels):
        print(f"{time.strftime('%H:%M:%S')} measuring level {level}", flush=True)
        priors = {
            system: FastJukeboxPrior.from_pretrained(ablation.prior(system, level), dtype=torch.float32).to(device)
            for system in ablation.systems
        }
        teacher = priors[ablation.teacher]
        processor = FastJukeboxProcessor.find(args.model, teacher.config)
        windows = CodeWindows(held_out, teacher.config, max_windows=args.eval_windows, processor=processor)
        start = FastJukeboxPrior.from_pretrained(args.model, level=level, dtype=torch.float32).to(device)
        compared = compare_with_teacher({**priors, "model": start}, teacher, windows, args.batch_sizes[level])
        by_depth = {prior.config.num_hidden_layers: prior for prior in priors.values()}
        levels[str(level)] = {
            "metrics": {name: asdict(found) | {"perplexity": found.perplexity} for name, found in compared.items()},
            "windows": len(windows),
            "training_seconds": training_seconds(by_depth, teacher, windows, args.batch_sizes[level]),
            "sampling_seconds": sampling_seconds(by_depth, args.measured_codes, args.seed),
            "curves": {
                system: loss_curves(read_state(ablation.prior(system, level))["log_history"])[1]
                for system in ablation.systems
            },
        }
    return {
        "machine": machine_name(device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "model_layers": start.config.num_hidden_layers,
        "systems": ablation.systems,
        "settings": asdict(args) | {"threads": torch.get_num_threads()},
        "levels": levels,
    }


if __name__ == "__main__":
    sys.exit(run_script(main, resume=""))
