#!/usr/bin/env python
"""Make the embedded model in one command: songs, codes, priors, the complete model and its card.

    python examples/run_pretrained.py --output_dir runs/pretrained --max_minutes 120

on the CPU, or on a rented GPU:

    python examples/run_pretrained.py --device cuda --max_minutes 8 --output_dir runs/pretrained

Plays dance tunes, airs and the melodies of chorales on all cores and encodes them meanwhile; the priors are trained
side by side against the clock as soon as the first songs are encoded: the top one and the two below it on labels (genre
and instrument), and with `--voices_fraction` a further top prior on chorales in four voices. `--start_from FOLDER`
begins with the weights there (`top`, `middle`, `bottom`, `voices`, each `.safetensors`), which is what
`--output_dir/weights` holds at the end. The VQ-VAE is the embedded one, another (`--vqvae`), or trained first
(`--train_vqvae`).

Run the same command again to resume: encoded songs are kept, and trainings begin at their last checkpoints.
`--install` puts the result in place of what `pipeline("fast-jukebox")` loads. docs/train.md has more.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Event
from typing import Any

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume="")

import torch
from transformers.hf_argparser import HfArg

from fast_jukebox import (
    FastJukeboxConfig,
    FastJukeboxPriorConfig,
    FastJukeboxProcessor,
    FastJukeboxVQVAE,
)
from fast_jukebox.data.device_codes import check_window_parts
from fast_jukebox.data.labels import labelled_config
from fast_jukebox.data.tunes.encoding import SongEncoder
from fast_jukebox.data.tunes.recipe import SongRecipe, label_pairs, plan_with_held_out, read_scores
from fast_jukebox.data.tunes.rendering import render_songs
from fast_jukebox.data.tunes.scores import Score, choose_splits, load_scores, save_scores
from fast_jukebox.evaluation.settings import EvaluationSettings
from fast_jukebox.generation.request import FastJukeboxGenerationConfig
from fast_jukebox.generation.windows import per_level
from fast_jukebox.hub.push import WEIGHTS as MODEL_WEIGHTS
from fast_jukebox.processing import LabelVocabulary
from fast_jukebox.sampling.checks import check_count
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.assembly import (
    assemble_model,
    machine_name,
    pack_logs,
    starting_weights,
    training_facts,
)
from fast_jukebox.training.scripts import run_script
from fast_jukebox.training.side_by_side import TrainingJob, finish_times, run_side_by_side, script_command
from fast_jukebox.training.vqvae import merge_levels
from fast_jukebox.training.weights import save_weights
from fast_jukebox.utils.figures import require_matplotlib
from fast_jukebox.utils.files import replacing_files, write_file

EXAMPLES = Path(__file__).resolve().parent
EMBEDDED = Path(str(resources.files("fast_jukebox") / "pretrained"))
LEVELS = {"bottom": 0, "middle": 1, "top": 2, "voices": 2}
WEIGHTS = {"top": ("top", "top-melody"), "voices": ("voices", "top-full")}
"""Files of earlier weights that a prior may begin with, where they are not called like it."""
VOICES_INSTRUMENTS = ("piano",)


@dataclass
class RecipeArguments:
    """What to spend, and where."""

    output_dir: str = HfArg(help="Folder of all stages.")
    device: str = HfArg(default="auto", help="auto, cpu or cuda.")
    max_minutes: float = HfArg(default=120.0, help="Of the complete recipe, without its evaluation.")
    reserve_seconds: float = HfArg(default=30.0, help="Of these, kept for saving at the end.")
    scores: str | None = HfArg(default=None, help="File of scores; made of music21's corpus if missing.")
    collections: list[str] = HfArg(
        default_factory=lambda: ["oneill", "ryan", "chorales"], help="Scores that are read: see docs."
    )
    soundfont: str | None = HfArg(default=None, help="An .sf2 or .sf3 file; pretty_midi's by default.")
    voices_soundfont: str | None = HfArg(default=None, help="Another one for four voices.")
    instruments: list[str] = HfArg(
        default_factory=lambda: list(SongRecipe().instruments), help="That play tunes and melodies."
    )
    human: float = HfArg(default=SongRecipe().human, help="0 plays as written, 1 as unevenly as a person.")
    steady: bool = HfArg(
        default=True,
        help="Play each kind at one tempo, at which a beat takes whole rows of the top prior's window, from the first "
        "whole bar on; the top prior learns a rhythm of each kind.",
    )
    songs: int = HfArg(default=3300, help="Performances of tunes and melodies.")
    voices_songs: int = HfArg(default=1200, help="Performances of chorales in four voices.")
    song_fraction: float = HfArg(default=0.3, help="Of the time, after which no song is begun.")
    shortest: float = HfArg(default=30.0, help="Seconds of a song, at least: shorter tunes are played again.")
    longest: float = HfArg(default=90.0, help="Seconds of a song, at most.")
    processes: int | None = HfArg(default=None, help="That play songs; by default one a core, less one.")
    start_from: list[str] = HfArg(
        default_factory=list,
        help="Folders of weights, or of a model, to begin with, the first that fits; `embedded` is one.",
    )
    vqvae: str | None = HfArg(default=None, help="Folder or Hub name; the embedded model's by default.")
    train_vqvae: bool = HfArg(default=False, help="Train the VQ-VAE first, on half of the time.")
    preset: str = HfArg(default="fastjukebox-mini-9", help="Named size of all but the top priors.")
    top_width: int = HfArg(default=384, help="Width of the top prior.")
    top_context: int = HfArg(default=6144, help="Codes in a window of the top prior.")
    top_rows: int = HfArg(default=64, help="Rows in a window of the top prior; `--steady` puts beats on them.")
    voices_width: int = HfArg(default=384, help="Width of the four-voice top prior.")
    top_layers: int = HfArg(default=12, help="Layers of the top priors.")
    top_fraction: float = HfArg(default=0.45, help="Of the training, for the top prior.")
    middle_fraction: float = HfArg(default=0.15, help="Of the training, for the middle prior.")
    bottom_fraction: float = HfArg(default=0.15, help="Of the training, for the bottom prior.")
    voices_fraction: float = HfArg(default=0.0, help="Of the training, for the four-voice top prior.")
    top_batch_size: int = HfArg(default=4, help="Windows in a step of the top priors.")
    batch_size: int = HfArg(default=2, help="Windows in a step of the others.")
    learning_rate: float = HfArg(default=1.2e-3, help="Peak of the priors' schedules.")
    warmup_steps: int = HfArg(default=100, help="Steps to the peak.")
    code_noise: float = HfArg(
        default=0.04, help="Fraction of the codes that a top prior is given, 0 to this by window, replaced by others."
    )
    top_window_parts: list[int] = HfArg(
        default_factory=lambda: [1, 4],
        help="Steps of the top prior in turn are of windows as short as its context divided by each of these.",
    )
    label_dropout: float = HfArg(default=0.1, help="Fraction of the labelled priors' windows without labels.")
    compile_layers: bool = HfArg(default=False, help="Compile the priors' layers; for GPUs.")
    eval_windows: int = HfArg(default=64, help="Held-out windows in an evaluation.")
    vqvae_songs: int = HfArg(default=350, help="Chorales that the VQ-VAE is trained on.")
    temperatures: list[float] = HfArg(
        default_factory=lambda: [0.8, 0.85, 0.98], help="Sampling temperatures that the model gets."
    )
    rhythm_scale: float = HfArg(
        default=1.0, help="What the top prior learnt of each genre's rhythm is multiplied by this for sampling."
    )
    evaluate: bool = HfArg(default=True, help="Measure the model and write its card at the end.")
    evaluation_windows: int = HfArg(default=64, help="Held-out windows that each prior predicts.")
    evaluation_samples: int = HfArg(default=24, help="Songs to sample and listen to.")
    evaluation_duration: float = HfArg(default=20.0, help="Seconds of each of them.")
    seed: int = HfArg(default=0, help="Of everything.")
    license: str | None = HfArg(
        default=None,
        help="Of the weights, for the card; needed where they are made of scores, sounds or weights given.",
    )
    install: bool = HfArg(default=False, help="Make the result the package's embedded default.")


def main(arguments: list[str] | None = None) -> Path:
    """Run every stage that is not done; returns the folder of the finished model."""
    (args,) = parse_arguments((RecipeArguments,), arguments)
    began = time.time()
    check_arguments(args)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    if args.evaluate and card_options(args)["card"] == "none":
        say(began, "no card will be written: `--license` must name the license of weights made of what you give")
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    end = began + 60 * args.max_minutes - args.reserve_seconds
    scores = find_scores(output, args)
    say(began, f"{len(scores)} scores; trains until {end - began:.0f} s on {machine_name(device)}")
    if args.train_vqvae:
        train_vqvae(output, scores, args, began + (end - began) / 2, device)
    vqvae = find_vqvae(output, args)
    prepare_configs(output, scores, args)
    priors = [name for name in LEVELS if getattr(args, f"{name}_fraction") > 0]
    begin = time.time()
    jobs = prior_jobs(output, priors, args, begin, end, device)
    weights = output / "weights"
    weights.mkdir(exist_ok=True)

    def finish(job: TrainingJob) -> None:
        name = job.folder.name.removeprefix("prior-")
        save_weights(job.folder, weights / f"{name}.safetensors")
        facts = json.loads((job.folder / "eval_results.json").read_text(encoding="utf-8"))
        say(began, f"{name}: {facts['eval_bits_per_code']:.4f} bits a code held out")

    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        # The priors are compiled while the first songs are played.
        trainings = pool.submit(run_side_by_side, jobs, len(jobs), finish, stop)
        try:
            stop_at = begin + args.song_fraction * (end - begin)
            try:
                encode_songs(output, scores, vqvae.to(device), priors, args, stop_at, began)
            except Exception as error:  # what is encoded can be trained on, unless there is nothing yet
                if not list((output / "codes").glob("*/train-*.parquet")):
                    raise
                say(began, f"encoding ended early: {type(error).__name__}: {error}")
            failure = trainings.exception()
        except BaseException:
            stop.set()
            raise
    write_facts(output, priors, args, device)
    pack_logs(output, weights / "run.tar.gz")
    model = assemble(output, vqvae.to("cpu"), args)
    if failure is not None:
        raise failure
    say(began, f"the model is in {model}, its priors' weights in {weights}")
    if args.evaluate:
        code = subprocess.run(evaluation_command(output, args), check=False).returncode
        if code:
            raise ChildProcessError(f"the evaluation ended with code {code}, and the model is in {model}")
    if args.install:
        install(model)
    return model


def check_arguments(args: RecipeArguments) -> None:
    """Raise an error for what would be found out only after songs are played or priors trained.

    Raises:
        ValueError: an option that cannot be, or no song can be as long as a window of the top prior; names it.
        ImportError: the evaluation lacks matplotlib.
    """
    config = top_config(args)
    window = config.n_ctx * config.hop_length / config.sampling_rate
    if args.longest < window:
        raise ValueError(
            f"`--longest` must be at least {math.ceil(10 * window) / 10:g} seconds, a window of `--top_context` "
            f"{args.top_context} codes, got {args.longest:g}"
        )
    if 60 * args.max_minutes <= args.reserve_seconds:
        raise ValueError(
            f"`--max_minutes` must be more than the {args.reserve_seconds:g} seconds of `--reserve_seconds`, got "
            f"{args.max_minutes:g} minutes"
        )
    whole = any((source / "config.json").exists() for source in sources(args))
    for name in ("top", "middle", "bottom"):
        if getattr(args, f"{name}_fraction") <= 0 and (name == "top" or not whole):
            hint = "" if name == "top" else ", or `--start_from` name a complete model,"
            raise ValueError(f"`--{name}_fraction` must be above 0{hint} for there to be a {name} prior")
    for name in ("top_batch_size", "batch_size", "eval_windows"):
        check_count(name, getattr(args, name))
    check_window_parts("--top_window_parts", args.top_window_parts, config.num_rows)
    if not 0 <= args.code_noise <= 1:
        raise ValueError(f"`--code_noise` must be from 0 to 1, got {args.code_noise:g}")
    FastJukeboxGenerationConfig(temperature=per_level("temperatures", args.temperatures, 3))
    if args.evaluate:
        require_matplotlib()
        EvaluationSettings("held-out", Path(args.output_dir), **evaluation_options(args))


def write_facts(output: Path, priors: list[str], args: RecipeArguments, device: torch.device) -> None:
    """Write the facts of the training for the card into `training.json`."""
    facts: dict[str, object] = {"preset": args.preset, "seed": args.seed, "machine": machine_name(device)}
    if args.start_from:
        facts["start"] = "weights of an earlier training"
    keys = {name: "prior-voices" if name == "voices" else f"prior-{LEVELS[name]}" for name in priors}
    sizes = {keys[name]: args.top_batch_size if LEVELS[name] == 2 else args.batch_size for name in priors}
    facts |= training_facts({key: output / f"prior-{name}" for name, key in keys.items()}, sizes)
    write_file(output / "training.json", json.dumps(facts, indent=2))


def assemble(output: Path, vqvae: FastJukeboxVQVAE, args: RecipeArguments) -> Path:
    """Save the complete model, and with four voices a second one; priors that were not trained are those begun from."""
    whole = next((source for source in sources(args) if (source / "config.json").exists()), None)
    for name, folder in (("top", output / "model"), ("voices", output / "model-voices")):
        trained = [output / f"prior-{part}" for part in ("bottom", "middle", name)]
        assemble_model(folder, vqvae, trained, whole, args.temperatures, args.rhythm_scale)
    return output / "model"


def sources(args: RecipeArguments) -> list[Path]:
    """The folders of weights to begin with."""
    return [EMBEDDED if source == "embedded" else Path(source) for source in args.start_from]


def say(began: float, text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.time() - began:6.1f} s] {text}", flush=True)


def find_scores(output: Path, args: RecipeArguments) -> list[Score]:
    """The scores of the file that is named or was made before, else read and saved."""
    path = Path(args.scores) if args.scores else output / "scores.jsonl.gz"
    if not path.exists():
        scores, _ = read_scores(args.collections)
        save_scores(path, scores)
    return load_scores(path)


def top_config(args: RecipeArguments) -> FastJukeboxPriorConfig:
    """The configuration of the top prior, without labels.

    Raises:
        ValueError: a window cannot have such a width, such a number of layers or such rows.
    """
    config = FastJukeboxConfig.preset(args.preset).prior_configs[LEVELS["top"]]
    config.hidden_size, config.num_hidden_layers, config.num_attention_heads = args.top_width, args.top_layers, 4
    config.n_ctx, config.num_rows = args.top_context, args.top_rows
    config.validate()
    return config


def recipes(args: RecipeArguments) -> dict[str, SongRecipe]:
    """How the songs of each folder of codes are played."""
    top = top_config(args)
    return {
        "melodies": SongRecipe(
            seed=args.seed,
            instruments=tuple(args.instruments),
            human=args.human,
            beat_grid=top.n_ctx // top.num_rows * top.hop_length if args.steady else 0,
            from_first_bar=args.steady,
            shortest=args.shortest,
            longest=args.longest,
        ),
        "voices": SongRecipe(
            seed=args.seed,
            genres=("chorale",),
            instruments=VOICES_INSTRUMENTS,
            voices=None,
            human=min(args.human, 0.25),
            longest=args.longest,
        ),
    }


def encode_songs(
    output: Path,
    scores: list[Score],
    vqvae: FastJukeboxVQVAE,
    priors: list[str],
    args: RecipeArguments,
    stop_at: float,
    began: float,
) -> None:
    """Play and encode what the priors are trained on: some of each kind first, then the rest until `stop_at`."""
    splits = choose_splits(scores)
    plans = {"melodies": plan_with_held_out(scores, splits, args.songs, seed=args.seed)}
    chorales = [score for score in scores if score.genre == "chorale"]
    if args.voices_fraction > 0 and chorales:
        plans["voices"] = plan_with_held_out(chorales, splits, args.voices_songs, seed=args.seed)
    first = {name: beginning(plan, splits, 8 if name == "melodies" else 4) for name, plan in plans.items()}
    own = recipes(args)
    fonts = {"melodies": args.soundfont, "voices": args.voices_soundfont or args.soundfont}
    levels = {LEVELS[name] + above for name in priors for above in (0, 1) if LEVELS[name] + above < 3}
    with SongEncoder(vqvae, processes=args.processes, levels=sorted(levels)) as encoder:
        for part in (first, plans):
            for name, plan in part.items():
                # The four voices have a fifth of the songs: the melodies may use what is left of the time.
                limit = stop_at - 0.2 * (stop_at - time.time()) if part is plans and len(plans) > 1 else stop_at
                report = encoder.encode(
                    plan,
                    splits,
                    own[name],
                    output / "codes" / name,
                    soundfont=fonts[name],
                    stop_at=limit if name == "melodies" else stop_at,
                    progress=False,
                )
                counts = ", ".join(f"{split}: {len(rows)}" for split, rows in report.songs.items())
                say(began, f"{name}: {report.hours:.2f} h encoded ({counts}; {len(report.failed)} failed)")


def beginning(plan: list[tuple[Score, int]], splits: dict[str, str], batches: int) -> list[tuple[Score, int]]:
    """The first held-out performances and the first others, enough to begin with."""
    parts: dict[str, list[tuple[Score, int]]] = {"test": [], "train": []}
    for score, take in plan:
        parts[splits[score.name]].append((score, take))
    return parts["test"][: 8 * batches] + parts["train"][: 16 * batches]


def train_vqvae(output: Path, scores: list[Score], args: RecipeArguments, stop_at: float, device: torch.device) -> None:
    """Train each level of a VQ-VAE on rendered chorales in four voices, and join them."""
    folder = output / "vqvae"
    if (folder / "config.json").exists():
        return
    chorales = [score for score in scores if score.genre == "chorale"]
    recipe = SongRecipe(
        seed=args.seed,
        genres=("chorale",),
        voices=None,
        instruments=("piano", "church organ", "reed organ", "strings", "choir"),
    )
    songs, splits = output / "chorales", choose_splits(scores)
    plan = plan_with_held_out(chorales, splits, args.vqvae_songs, seed=args.seed)
    render_songs(songs, plan, splits, recipe, soundfont=args.soundfont, processes=args.processes)
    options = {
        "songs": songs, "preset": args.preset, "window": 32768, "per_device_train_batch_size": 4,
        "learning_rate": 8e-4, "warmup_steps": 50, "per_device_eval_batch_size": 4,
    }  # fmt: skip
    levels = {level: output / f"vqvae-{level}" for level in range(3)}
    shared = shared_options(args, device) | options | {"stop_at": stop_at}
    jobs = [
        TrainingJob(path, script_command(EXAMPLES / "run_vqvae.py", shared | {"output_dir": path, "levels": level}))
        for level, path in levels.items()
    ]
    run_side_by_side(jobs, len(jobs))
    merge_levels([FastJukeboxVQVAE.from_pretrained(path) for path in levels.values()]).save_pretrained(folder)


def find_vqvae(output: Path, args: RecipeArguments) -> FastJukeboxVQVAE:
    """The VQ-VAE that encodes."""
    source = args.vqvae or (output / "vqvae" if args.train_vqvae else EMBEDDED)
    return FastJukeboxVQVAE.from_pretrained(source, dtype=torch.float32)


def prepare_configs(output: Path, scores: list[Score], args: RecipeArguments) -> None:
    """Write the configuration of each prior, and what the labelled one needs to know of names, into `configs`."""
    for name, level in LEVELS.items():
        folder = output / "configs" / name
        config = FastJukeboxConfig.preset(args.preset).prior_configs[level]
        if name == "top":
            config = top_config(args)
        elif name == "voices":
            config.hidden_size = args.voices_width
            config.num_hidden_layers, config.num_attention_heads = args.top_layers, 4
        if name != "voices":
            rows = label_pairs(scores, recipes(args)["melodies"])
            vocabulary = LabelVocabulary.from_metadata(rows)
            # As long as any song may be: all lengths here fall into one bin of time, and what is learnt of a song's
            # course by the fraction that is over holds for songs of any length.
            config = labelled_config(config, vocabulary, longest=86400.0)
            if name == "top" and args.steady:
                # Beats take two rows or three.
                config.genre_period = 6 * config.row_length
            FastJukeboxProcessor.from_metadata(rows, config).save_pretrained(folder)
        config.validate()
        config.save_pretrained(folder)


def prior_jobs(
    output: Path, priors: list[str], args: RecipeArguments, begin: float, end: float, device: torch.device
) -> list[TrainingJob]:
    """The trainings of the priors, each of which ends when it has had its fraction of the device."""
    folders = {name: output / f"prior-{name}" for name in priors}
    open_ = {
        name: getattr(args, f"{name}_fraction") for name in priors if not (folders[name] / "eval_results.json").exists()
    }
    times = finish_times(open_, begin, end) if open_ else {}
    jobs = []
    for name in priors:
        top = LEVELS[name] == 2
        size = args.top_batch_size if top else args.batch_size
        options: dict[str, object] = {
            "output_dir": folders[name],
            "codes": output / "codes" / ("voices" if name == "voices" else "melodies"),
            "config_name": output / "configs" / name,
            "level": LEVELS[name],
            "device_codes": "true",
            "wait_minutes": args.max_minutes,
            "per_device_train_batch_size": size,
            "per_device_eval_batch_size": size,
            "max_eval_windows": -(-args.eval_windows // size) * size,
            "learning_rate": args.learning_rate,
            "warmup_steps": args.warmup_steps,
            "weight_decay": 0.05,
            "adam_beta2": 0.95,
            "optim": "adamw_torch_fused" if device.type == "cuda" else "adamw_torch",
            "compile_layers": args.compile_layers,
            "stop_at": times.get(name, end),
        }
        if top:
            options |= {"code_noise": args.code_noise, "window_parts": args.top_window_parts}
        if not top and args.voices_fraction > 0:
            options["more_codes"] = output / "codes" / "voices"
        if name != "voices":
            options["label_dropout"] = args.label_dropout
        config = FastJukeboxPriorConfig.from_pretrained(output / "configs" / name)
        start = starting_weights(sources(args), WEIGHTS.get(name, (name,)), config, output / "start")
        if start is not None:
            options["initial_weights"] = start
        elif args.start_from:
            print(f"{name} begins at random: no prior of its width and depth is in `--start_from`", flush=True)
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": "2", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        fallback = ["--compile_layers", "false"] if args.compile_layers else None
        command = script_command(EXAMPLES / "run_prior.py", shared_options(args, device) | options)
        jobs.append(TrainingJob(folders[name], command, fallback, environment))
    return jobs


def shared_options(args: RecipeArguments, device: torch.device) -> dict[str, object]:
    """Options of every training script."""
    return {
        "clock_evaluations": 6,
        "save_total_limit": 1,
        "logging_steps": 20,
        "disable_tqdm": "true",
        "seed": args.seed,
        "resume_from_checkpoint": "true",
        "bf16": "true" if device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16") else "false",
        "use_cpu": "true" if device.type == "cpu" else "false",
    }


def evaluation_command(output: Path, args: RecipeArguments) -> list[str]:
    """The command that measures the model on held-out songs and writes its card."""
    songs = output / "held-out"
    scores = find_scores(output, args)
    splits = choose_splits(scores)
    plan = beginning(plan_with_held_out(scores, splits, args.songs, seed=args.seed), splits, 4)
    render_songs(
        songs, plan, splits, recipes(args)["melodies"],
        soundfont=args.soundfont, processes=args.processes,
    )  # fmt: skip
    options = {
        "songs": songs,
        "codes": output / "evaluation" / "codes",
        "output": output / "evaluation",
        "max-songs": 1000,
        "reconstruct": 1000,
        "seed": 1000,
        **{name.replace("_", "-"): value for name, value in evaluation_options(args).items()},
        **card_options(args),
        "training": output / "training.json",
    }
    pairs = (part for name, value in options.items() for part in (f"--{name}", str(value)))
    return [sys.executable, "-m", "fast_jukebox_cli", "evaluate", str(output / "model"), *pairs]


def evaluation_options(args: RecipeArguments) -> dict[str, Any]:
    """Those settings of the evaluation that the caller chooses."""
    return {
        "max_windows": args.evaluation_windows,
        "num_samples": args.evaluation_samples,
        "duration": args.evaluation_duration,
    }


def card_options(args: RecipeArguments) -> dict[str, str]:
    """How the card is written: as the default's, under the package's license, only of weights made of its own songs."""
    own = not any([args.scores, args.soundfont, args.voices_soundfont, args.vqvae, set(args.start_from) - {"embedded"}])
    license = args.license or ("apache-2.0" if own else None)
    if license is None:
        return {"card": "none"}
    return {"card": "embedded" if own or args.install else "model", "card-license": license}


def install(model: Path) -> None:
    """Make `model` what `pipeline("fast-jukebox")` loads."""
    with replacing_files(EMBEDDED, MODEL_WEIGHTS) as folder:
        for file in model.iterdir():
            if file.suffix in {".json", ".safetensors", ".md", ".png"}:
                shutil.copy2(file, folder)


if __name__ == "__main__":
    sys.exit(run_script(main, resume=""))
