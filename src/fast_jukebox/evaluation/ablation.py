"""The ablation: seconds of a training step and of a sampled code of priors that differ in depth, and the report with
tables in the order of Fast Jukebox's Table 1 and the curves as a picture.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fast_jukebox.data.codes import CodeWindows
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation.losses import LOSSES
from fast_jukebox.distillation.objective import DistillationObjective
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.figures import new_figure, save_figure
from fast_jukebox.utils.files import JsonObject, write_file
from fast_jukebox.utils.text import markdown_table, shown

_COLORS = ("#444444", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#ff7f0e", "#17becf")


def system_title(system: str) -> str:
    """A system's name in words: `student-without-pred-9` is `9 (student) w/o Pred`."""
    kind, depth = system.rsplit("-", 1)
    words = {
        "teacher": f"teacher, {depth} layers",
        "scratch": f"{depth} (scratch)",
        "student": f"{depth} (student)",
        "student-without-pred": f"{depth} (student) w/o Pred",
        "student-plain": f"{depth} (student), random initialisation",
    }
    if kind not in words:
        raise ValueError(f"`system` must be one of {', '.join(words)} and a depth, got {shown(system)}")
    return words[kind]


def write_ablation(path: str | os.PathLike[str], results: JsonObject, notes: str = "") -> Path:
    """Write the report and, beside it in `images`, its curves; returns the path.

    Args:
        path: of the Markdown file.
        results: what `examples/run_ablation.py` leaves in `ablation.json`.
        notes: Markdown in the author's own words, put below the verdict.
    """
    path = Path(path)
    picture = path.parent / "images" / f"{path.stem}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_curves(picture, results)
    write_file(path, ablation_markdown(results, f"images/{picture.name}", notes))
    return path


def ablation_markdown(results: JsonObject, picture: str, notes: str = "") -> str:
    """The report's text: the training, the verdict, a table a level, and the cost of a step."""
    levels = results["levels"]
    sections = [_head(results), f"![Held-out bits per code over training steps]({picture})", _verdict(results)]
    if notes.strip():
        sections.append(notes.strip())
    for level in levels:
        sections.append(f"## {_title(results, level)}\n\n{_level_table(results, level)}")
    sections.append(f"## What a training step costs\n\n{_cost(results)}")
    return "\n\n".join(sections) + "\n"


def training_cost(results: JsonObject, system: str, level: str) -> float:
    """Seconds of a system's complete training at a level: steps of each kind times their measured length."""
    settings = results["settings"]
    depth = str(results["systems"][system])
    seconds = results["levels"][level]["training_seconds"][depth]
    first = settings["intermediate_steps"]
    rest = settings["steps"] - first
    if system.startswith("teacher"):
        return settings["teacher_steps"] * seconds["plain"]
    if system.startswith("scratch"):
        return settings["steps"] * seconds["plain"]
    return first * seconds["intermediate"] + rest * seconds["plain" if "without-pred" in system else "prediction"]


def training_story(results: JsonObject, system: str, model: Mapping[str, object] | None = None) -> dict[str, object]:
    """Training of a student for its card, as [`~fast_jukebox.evaluation.cards.training_markdown`] takes it.

    Args:
        results: what `examples/run_ablation.py` measured. Times are steps times the measured seconds of one, so that an
            interruption does not count.
        system: a student.
        model: what is known of the training of the model that VQ-VAE and sizes are of.
    """
    settings, teacher = results["settings"], next(iter(results["systems"]))
    if system not in results["systems"] or not system.startswith("student"):
        students = [name for name in results["systems"] if name.startswith("student")]
        raise ValueError(f"`system` must be one of {', '.join(students)}, got {shown(system)}")
    story = dict(model or {})
    if not settings["grow_teacher"]:  # then nothing is left of the model's own priors
        story = {name: facts for name, facts in story.items() if not name.startswith("prior-")}
    for part, own, steps in (("teacher", teacher, settings["teacher_steps"]), ("student", system, settings["steps"])):
        for level in sorted(results["levels"], key=int):
            story[f"{part}-{level}"] = {
                "steps": steps,
                "batch_size": settings["batch_sizes"][int(level)],
                "seconds": round(training_cost(results, own, level)),
            }
    first = settings["intermediate_steps"]
    begun = "random weights" if "plain" in system else "the teachers' layers that the layer map gives"
    then = "the data's codes" if "without-pred" in system else "the teachers' predictions (Eq. 3)"
    grown = "the priors above, made deeper and trained on" if settings["grow_teacher"] else "trained from scratch"
    depth = results["systems"][teacher]
    story["distillation"] = (
        f'"{system_title(system)}" of an ablation: the teachers of {depth} layers are {grown}; the students began with '
        f"{begun}, and learnt the teachers' hidden states and attention for {first} steps (Eq. 4), then {then} for "
        f"{settings['steps'] - first}; on {results['machine']}, times being steps times the seconds of one"
    )
    return story


def speed_up(results: JsonObject, system: str, level: str) -> float:
    """The speed at which a system samples a code, as a multiple of the teacher's."""
    seconds = results["levels"][level]["sampling_seconds"]
    teacher = next(iter(results["systems"].values()))
    return seconds[str(teacher)] / seconds[str(results["systems"][system])]


def plot_curves(path: str | os.PathLike[str], results: JsonObject) -> Path:
    """Held-out bits per code over steps, a panel a level, as a PNG."""
    levels = results["levels"]
    figure = new_figure(4.2 * len(levels), 3.6)
    panels = figure.subplots(1, len(levels), squeeze=False)
    for panel, level in zip(panels[0], levels, strict=True):
        for index, (system, points) in enumerate(levels[level]["curves"].items()):
            steps, bits = zip(*points, strict=True)
            color = _COLORS[index % len(_COLORS)]
            panel.plot(steps, bits, marker="o", markersize=3, color=color, label=system_title(system), linewidth=1.2)
        panel.axvline(results["settings"]["intermediate_steps"], color="#bbbbbb", linestyle=":", linewidth=1)
        panel.set_title(_title(results, level))
        panel.set_xlabel("steps")
    panels[0][0].set_ylabel("held-out bits per code")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, fontsize=8, frameon=False)
    return save_figure(figure, Path(path), 80)


def _title(results: JsonObject, level: str) -> str:
    return level_name(int(level), len(results["levels"]), numbered=True).capitalize()


def _head(results: JsonObject) -> str:
    settings, versions = results["settings"], results["versions"]
    batches = ", ".join(map(str, settings["batch_sizes"]))
    beginning = (
        f"began with the {results['model_layers']}-layer priors of `{Path(settings['model']).name}` made deeper by "
        "layers that add nothing at first"
        if settings["grow_teacher"]
        else "began with random weights"
    )
    return f"""# Ablation

The systems of Fast Jukebox's Table 1 at the size of the mini family, trained and measured by one command on
{results["machine"]} (torch {versions["torch"]}, transformers {versions["transformers"]}):

```bash
{_command(settings)}
```

The teacher {beginning} and was trained for {settings["teacher_steps"]} steps a level.
Each of the others had {settings["steps"]} steps a level, on the same windows; a student spends the first
{settings["intermediate_steps"]} on Eq. 4 and the others on Eq. 3, or without Pred on the data's codes. Batches are of
{batches} windows, bottom to top. Students begin with the teacher's mapped layers and embeddings, but for the one with
random initialisation, which has the learning rate of a prior from scratch. Metrics are means over held-out songs; the
lower the bits, perplexity and KL divergence, and the higher the agreement (fraction of positions where both find the
same code the most probable), the better. Speed and cost were measured side by side in one run on
{settings["threads"]} thread(s), each the fastest of three; one song is sampled, by the engine that is the machine's
default."""


def _command(settings: JsonObject) -> str:
    shown = (
        *("grow_teacher", "teacher_steps", "steps", "intermediate_steps", "batch_sizes", "eval_steps", "eval_windows"),
        *("teacher_learning_rate", "learning_rate", "student_learning_rate"),
    )
    options = {"codes": "runs/pretrained/codes", "model": "runs/pretrained/model", "output_dir": "runs/ablation"}
    options |= {name: settings[name] for name in shown}
    options |= {name: settings[name] for name in ("plain_layers", "notes") if settings.get(name)}
    options["report"] = "runs/ablation/report.md"
    lines, line = [], "python examples/run_ablation.py"
    for name, value in options.items():
        word = f"--{name} {_word(value)}"
        if len(line) + len(word) > 110:
            lines.append(line + " \\")
            line = "   "
        line += " " + word
    return "\n".join([*lines, line])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _verdict(results: JsonObject) -> str:
    """Bits that each student is better than its twin from scratch."""
    lines = []
    for system, depth in results["systems"].items():
        twin, gains = f"scratch-{depth}", []
        if not system.startswith("student") or twin not in results["systems"]:
            continue
        for level, found in results["levels"].items():
            gain = found["metrics"][twin]["bits_per_code"] - found["metrics"][system]["bits_per_code"]
            gains.append(f"{gain:+.2f} at the {_title(results, level).lower()}")
        lines.append(f"- {system_title(system)}: {', '.join(gains)}")
    return (
        "Bits a code that a student is better (+) or worse (-) than its twin from scratch of equal depth and steps:\n\n"
        + "\n".join(lines)
    )


def _level_table(results: JsonObject, level: str) -> str:
    found = results["levels"][level]
    measured = ["bits per code", "perplexity", "KL to teacher, bits", "top-1 agreement"]

    def row(title: str, metrics: Mapping[str, float], *cost: str) -> list[str]:
        bits, perplexity, kl = metrics["bits_per_code"], metrics["perplexity"], metrics["kl_to_teacher"]
        return [title, f"{bits:.3f}", f"{perplexity:.2f}", f"{kl:.3f}", f"{metrics['agreement']:.1%}", *cost]

    rows = []
    for system in results["systems"]:
        cost = f"{training_cost(results, system, level):,.0f}", f"{speed_up(results, system, level):.1f}x"
        rows.append(row(system_title(system), found["metrics"][system], *cost))
    start = found["metrics"].get("model")
    if start:
        title = f"*the model that the codes and sizes are of, {results['model_layers']} layers*"
        rows.append(row(title, start, "", ""))
    table = markdown_table(["system", *measured, "training, s", "speed-up"], rows)
    return f"{table}\n\n{found['windows']} held-out windows."


def _cost(results: JsonObject) -> str:
    batches, rows = results["settings"]["batch_sizes"], []
    for level, found in results["levels"].items():
        for depth, seconds in found["training_seconds"].items():
            stages = ("plain", "intermediate", "prediction")
            cells = [f"{seconds[stage]:.2f}" if stage in seconds else "" for stage in stages]
            rows.append([_title(results, level), depth, *cells, f"{1 / found['sampling_seconds'][depth]:,.0f}"])
    table = markdown_table(["level", "layers", "plain", "Eq. 4", "Eq. 3", "sampling, codes a second"], rows)
    return (
        "Seconds of one step, forward, backward and AdamW: `plain` on the data's codes, `Eq. 4` and `Eq. 3` with the "
        f"teacher's forward pass. Batches of {', '.join(map(str, batches))} windows, bottom to top. The column "
        f"*training* above is these times the steps.\n\n{table}"
    )


STAGE_WEIGHTS = {"plain": LOSSES["data"], "intermediate": LOSSES["intermediate"], "prediction": LOSSES["prediction"]}


def training_seconds(
    by_depth: dict[int, FastJukeboxPrior], teacher: FastJukeboxPrior, windows: CodeWindows, batch_size: int
) -> dict[str, dict[str, float]]:
    """Seconds of a training step of each depth: `plain`, and for students `intermediate` and `prediction`."""
    batch = stack_items([windows[index % len(windows)] for index in range(batch_size)])
    batch = {name: value.to(teacher.device) for name, value in batch.items()}
    seconds: dict[str, dict[str, float]] = {}
    for depth in by_depth:
        config = type(teacher.config).from_dict(teacher.config.to_dict() | {"num_hidden_layers": depth})
        prior = FastJukeboxPrior(config).to(teacher.device).train()
        objective = DistillationObjective(prior, teacher)
        optimizer = torch.optim.AdamW(prior.parameters(), lr=0.0)
        stages = ["plain"] if depth == teacher.config.num_hidden_layers else list(STAGE_WEIGHTS)
        steps = {stage: partial(_train_step, objective, optimizer, batch, STAGE_WEIGHTS[stage]) for stage in stages}
        seconds[str(depth)] = {stage: fastest(step, 3) for stage, step in steps.items()}
    return seconds


def _train_step(
    objective: DistillationObjective,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> None:
    objective(**batch, weights=weights).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def sampling_seconds(by_depth: dict[int, FastJukeboxPrior], codes: int, seed: int) -> dict[str, float]:
    """Seconds a code of each depth for one song, taken in turns."""
    best = dict.fromkeys(map(str, by_depth), float("inf"))
    for _ in range(3):
        for depth, prior in by_depth.items():
            ratio = prior.config.upper_ratio
            length = min(codes, prior.config.n_ctx) // ratio * ratio
            upper = torch.zeros((1, length // ratio), dtype=torch.int64) if prior.config.has_upper_level else None
            labels = None
            if prior.config.has_labels:  # a song of one window, of the unknown artist and genre
                window = prior.config.n_ctx * prior.config.hop_length
                labels = torch.zeros((1, prior.config.metadata_length), dtype=torch.int64)
                labels[0, 0] = labels[0, 2] = window
            sample = partial(prior.generate, length=length, upper_codes=upper, metadata=labels, seed=seed)
            seconds = fastest(sample, 1)
            best[str(depth)] = min(best[str(depth)], seconds / length)
    return best


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some runs after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
