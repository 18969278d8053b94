#!/usr/bin/env python
"""Make the embedded default model, from nothing to its card, in one command.

    python examples/run_pretrained.py --output_dir runs/pretrained

Renders the chorales, trains each level of the VQ-VAE on them, renders their melodies (the soprano alone), trains each
prior on the melodies' codes (levels side by side, one process each), joins them, measures the result on held-out
melodies and writes its card. Every stage that is done is kept and one that was interrupted goes on from its last
checkpoint: run the same command again. `--install` puts the result in place of what `pipeline("fast-jukebox")` loads.
Budgets are steps a level, bottom first; the defaults are those of two CPU cores in about two hours, for which four
voices are too much. docs/pretrained.md tells why, and what to give a GPU.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from fast_jukebox import FastJukeboxModel, FastJukeboxVQVAE
from fast_jukebox.data.chorales import ChoraleRecipe, render_chorales
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.vqvae import merge_levels

EXAMPLES = Path(__file__).resolve().parent
LEVELS = (0, 1, 2)


@dataclass
class RecipeArguments:
    """What to spend, and where."""

    output_dir: str = field(metadata={"help": "Folder of all stages."})
    songs: str | None = field(
        default=None, metadata={"help": "Songs to train the VQ-VAE on, in place of the chorales."}
    )
    prior_songs: str | None = field(
        default=None, metadata={"help": "Songs to train the priors on, in place of the melodies."}
    )
    limit: int | None = field(default=None, metadata={"help": "Render so many scores for the VQ-VAE only."})
    prior_limit: int | None = field(default=125, metadata={"help": "Render so many scores for the priors only."})
    prior_voices: int | None = field(default=1, metadata={"help": "Voices that the priors' songs have, from the top."})
    prior_instruments: list[str] = field(
        default_factory=lambda: ["piano", "church organ", "reed organ"], metadata={"help": "That play them."}
    )
    preset: str = field(default="fastjukebox-mini-9", metadata={"help": "Named size."})
    vqvae_steps: list[int] = field(default_factory=lambda: [1500, 1900, 1500], metadata={"help": "Steps a level."})
    vqvae_batch_size: int = field(default=4, metadata={"help": "Windows in a VQ-VAE step."})
    vqvae_window: int = field(default=32768, metadata={"help": "Samples in a VQ-VAE window."})
    vqvae_learning_rate: float = field(default=8e-4, metadata={"help": "Peak of the VQ-VAE's cosine schedule."})
    prior_steps: list[int] = field(default_factory=lambda: [600, 1000, 1300], metadata={"help": "Steps a level."})
    prior_batch_sizes: list[int] = field(default_factory=lambda: [2, 2, 4], metadata={"help": "Windows in a step."})
    prior_learning_rate: float = field(default=1.2e-3, metadata={"help": "Peak of the priors' cosine schedule."})
    temperatures: list[float] = field(
        default_factory=lambda: [0.8, 0.85, 0.9],
        metadata={"help": "Sampling temperature that the model is saved with."},
    )
    processes: int = field(default=2, metadata={"help": "Trainings side by side."})
    save_steps: int = field(default=250, metadata={"help": "Steps between checkpoints."})
    eval_windows: int = field(default=64, metadata={"help": "Held-out windows in an evaluation during training."})
    evaluation_windows: int = field(default=64, metadata={"help": "Held-out windows that each prior predicts."})
    evaluation_songs: int | None = field(default=None, metadata={"help": "Use the first so many held-out songs only."})
    evaluation_samples: int = field(default=4, metadata={"help": "Songs to sample and listen to."})
    evaluation_duration: float = field(default=10.0, metadata={"help": "Seconds of each of them."})
    seed: int = field(default=0, metadata={"help": "Of everything."})
    install: bool = field(default=False, metadata={"help": "Make the result the package's embedded default."})


def main(arguments: list[str] | None = None) -> Path:
    """Run every stage that is not done; returns the folder of the finished model."""
    (args,) = parse_arguments((RecipeArguments,), arguments)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    songs, prior_songs = make_songs(output, args)

    run_side_by_side([vqvae_command(output, songs, level, args) for level in LEVELS], args.processes)
    vqvae = join_vqvae(output)
    encode_songs(load_songs(prior_songs), vqvae, output / "codes")
    # The top prior takes longest, so it starts first.
    run_side_by_side([prior_command(output, level, args) for level in reversed(LEVELS)], args.processes)

    model = FastJukeboxModel.from_levels(vqvae=output / "vqvae", priors=[output / f"prior-{level}" for level in LEVELS])
    model.generation_config.temperature = args.temperatures
    model.save_pretrained(output / "model")
    (output / "training.json").write_text(json.dumps(training_facts(output, args), indent=2), encoding="utf-8")
    subprocess.run(evaluation_command(output, prior_songs, args), check=True)
    if args.install:
        install(output / "model")
    return output / "model"


def make_songs(output: Path, args: RecipeArguments) -> tuple[Path, Path]:
    """The songs of the VQ-VAE and of the priors, rendered where they are neither named nor finished."""
    melodies = ChoraleRecipe(
        seed=args.seed,
        voices=args.prior_voices,
        instruments=tuple(args.prior_instruments or ChoraleRecipe().instruments),
    )
    folders = []
    for named, name, recipe, limit in (
        (args.songs, "chorales", ChoraleRecipe(seed=args.seed), args.limit),
        (args.prior_songs, "melodies", melodies, args.prior_limit),
    ):
        if not named:
            render_chorales(output / name, recipe, limit=limit)
        folders.append(Path(named) if named else output / name)
    return folders[0], folders[1]


def vqvae_command(output: Path, songs: Path, level: int, args: RecipeArguments) -> tuple[Path, list[str]]:
    """The folder and the command of one level of the VQ-VAE."""
    folder = output / f"vqvae-{level}"
    options = {
        "songs": songs,
        "preset": args.preset,
        "levels": level,
        "window": args.vqvae_window,
        "max_steps": args.vqvae_steps[level],
        "per_device_train_batch_size": args.vqvae_batch_size,
        "learning_rate": args.vqvae_learning_rate,
        "warmup_steps": 50,
    }
    return folder, training_command("run_vqvae.py", folder, options, args)


def prior_command(output: Path, level: int, args: RecipeArguments) -> tuple[Path, list[str]]:
    """The folder and the command of one prior."""
    folder = output / f"prior-{level}"
    options = {
        "codes": output / "codes",
        "preset": args.preset,
        "level": level,
        "max_steps": args.prior_steps[level],
        "per_device_train_batch_size": args.prior_batch_sizes[level],
        "learning_rate": args.prior_learning_rate,
        "warmup_steps": 100,
        "weight_decay": 0.01,
        "adam_beta2": 0.95,
    }
    return folder, training_command("run_prior.py", folder, options, args)


def training_command(script: str, folder: Path, options: dict[str, object], args: RecipeArguments) -> list[str]:
    """A training script's command line with what both have in common."""
    shared = {
        "output_dir": folder,
        "lr_scheduler_type": "cosine",
        "per_device_eval_batch_size": 4,
        "max_eval_windows": args.eval_windows,
        "eval_strategy": "steps",
        "eval_steps": args.save_steps,
        "save_steps": args.save_steps,
        "save_total_limit": 1,
        "logging_steps": max(1, args.save_steps // 10),
        "disable_tqdm": True,
        "seed": args.seed,
        "resume_from_checkpoint": "true",
    }
    pairs = [part for name, value in (options | shared).items() for part in (f"--{name}", str(value))]
    return [sys.executable, str(EXAMPLES / script), *pairs]


def run_side_by_side(jobs: list[tuple[Path, list[str]]], processes: int) -> None:
    """Run the commands whose folder has no final evaluation yet, `processes` at a time, logs beside their folders."""

    def run(job: tuple[Path, list[str]]) -> None:
        folder, command = job
        if (folder / "eval_results.json").exists():
            return
        print(f"{time.strftime('%H:%M:%S')} {folder.name}: training, log in {folder}.log", flush=True)
        with open(f"{folder}.log", "a", encoding="utf-8") as log:
            outcome = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
        if outcome.returncode:
            raise RuntimeError(f"{folder.name} ended with code {outcome.returncode}: see {folder}.log")

    # Processes that share the cores out between them do not wait for each other's threads.
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, jobs))


def join_vqvae(output: Path) -> FastJukeboxVQVAE:
    """The VQ-VAE of the levels that were trained apart, saved."""
    folder = output / "vqvae"
    if not (folder / "config.json").exists():
        levels = [FastJukeboxVQVAE.from_pretrained(output / f"vqvae-{level}") for level in LEVELS]
        merge_levels(levels).save_pretrained(folder)
    return FastJukeboxVQVAE.from_pretrained(folder)


def training_facts(output: Path, args: RecipeArguments) -> dict[str, object]:
    """What the card tells of the training: budgets, time and final figures of each part, from the runs' own logs."""
    facts: dict[str, object] = {"preset": args.preset, "seed": args.seed, "machine": machine()}
    if not args.songs and not args.prior_songs:
        facts["songs"] = "chorales"
        facts["prior_voices"] = args.prior_voices
        facts["prior_instruments"] = args.prior_instruments
    for part in ("vqvae", "prior"):
        for level in LEVELS:
            folder = output / f"{part}-{level}"
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            results = json.loads((folder / "train_results.json").read_text(encoding="utf-8"))
            facts[f"{part}-{level}"] = {
                "steps": state["global_step"],
                "batch_size": state["train_batch_size"],
                "seconds": round(results["train_runtime"]),
            }
    return facts


def machine() -> str:
    """What trains here, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def evaluation_command(output: Path, songs: Path, args: RecipeArguments) -> list[str]:
    """The command that measures the model and writes its card."""
    options = {
        "model": output / "model",
        "songs": songs,
        "codes": output / "codes",
        "output_dir": output / "evaluation",
        "max_windows": args.evaluation_windows,
        "num_samples": args.evaluation_samples,
        "duration": args.evaluation_duration,
        "card": "embedded",
        "card_license": "apache-2.0",
        "training": output / "training.json",
    }
    if args.evaluation_songs:
        options["max_songs"] = args.evaluation_songs
    pairs = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, str(EXAMPLES / "run_evaluation.py"), *pairs]


def install(model: Path) -> None:
    """Make `model` what `pipeline("fast-jukebox")` loads."""
    target = Path(str(resources.files("fast_jukebox") / "pretrained"))
    target.mkdir(exist_ok=True)
    for file in model.iterdir():
        if file.suffix in {".json", ".safetensors", ".md", ".png"}:
            shutil.copy2(file, target / file.name)


if __name__ == "__main__":
    main()
