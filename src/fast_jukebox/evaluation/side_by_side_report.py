"""Systems side by side as Markdown, JSON, pictures and entries of model cards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import EvalResult

from fast_jukebox.audio.io import audio_info, load_audio
from fast_jukebox.evaluation.comparison import FEW_SONGS, estimate_numbers
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.embeddings import Sound
from fast_jukebox.evaluation.pictures import plot_levels, plot_waveforms
from fast_jukebox.evaluation.side_by_side import SONGS, EvaluationSettings, SetResult, differences
from fast_jukebox.evaluation.song_metrics import METRICS
from fast_jukebox.evaluation.systems import System, sample_paths, top_level_path
from fast_jukebox.hub.cards import eval_results
from fast_jukebox.hub.update_card import RESULTS_FOLDER, eval_results_file, merge_eval_results, model_index
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import markdown_table

VALENCE = "Emotional valence"
"""Title of the table of the four probabilities."""

BITS = "Bits per code"
"""Title of the table of how well held-out songs are predicted."""

PICTURES = ("waveforms.png", "levels.png")

_DISTANCES = ("frechet_distance", "kernel_distance", "tag_divergence")
_NOTE = (
    "Value (interval of 95 %, by a bootstrap over songs). The floor is what as many real songs get, taken out of the "
    "reference several times and held against its others: mean ± standard deviation. Distances that are named after "
    "different embeddings cannot be compared, nor can those of other reports with other songs or another number of "
    "samples. They judge windows of a few seconds, not a song's form."
)


def groups_of(results: Sequence[SetResult]) -> dict[str, list[str]]:
    """Names of the numbers that some set has, by the table that they stand in."""
    names = list(dict.fromkeys(name for result in results for name in result.numbers))
    groups: dict[str, list[str]] = {
        "Distance to the songs": [name for name in names if name.startswith(_DISTANCES)],
        "Text": [name for name in names if name.startswith("clap_")],
        "Music": [name for name in names if name in METRICS],
        VALENCE: [name for name in names if name.startswith("valence_")],
        BITS: [name for name in names if name.startswith("bits_per_code")],
    }
    return {group: members for group, members in groups.items() if members}


def report_markdown(
    results: Sequence[SetResult],
    settings: EvaluationSettings,
    systems: Sequence[System],
    command: str,
    notes: Mapping[str, str] | None = None,
) -> str:
    """The report: how it was made, a table a group of numbers, and differences from the first system.

    Args:
        results: as [`~fast_jukebox.evaluation.side_by_side.evaluate_systems`] gives them.
        settings: they were made with.
        systems: in the order in which they were named.
        command: that makes the report.
        notes: what stands below the table of a group, by its title.
    """
    real = next(result for result in results if result.name == SONGS)
    versions = ", ".join(f"{name} {version(name)}" for name in ("fast-jukebox", "torch", "transformers"))
    parts = [
        "# Evaluation",
        f"```bash\n{command}\n```",
        f"{settings.num_samples} songs of {settings.duration:g} s a system, seed {settings.seed}, none selected, held "
        f"against the first {settings.duration:g} s of {real.songs} real songs. {versions}.",
    ]
    if settings.num_samples < FEW_SONGS:
        parts.append(
            f"With {settings.num_samples} songs a system (fewer than {FEW_SONGS}) distances depend much on which they "
            "are: read the intervals and the floor."
        )
    for group, names in groups_of(results).items():
        songs = _predicted if group == BITS else _measured
        parts += [f"## {group}", _table(names, results, songs)]
        if notes and group in notes:
            parts.append(notes[group])
        if group == "Distance to the songs":
            parts.append(_NOTE)
        if group == BITS:
            known = ", ".join(f"{result.name}: {result.vqvae[:8]}" for result in results if result.vqvae)
            parts.append(
                "Of each level's prior on songs that are held out, 0 the bottom. Comparable only between systems of "
                f"one VQ-VAE: {known}."
            )
    if len(systems) > 1:
        parts += ["## Differences", _differences_table(results, systems)]
    if all((settings.output / name).is_file() for name in PICTURES):
        parts += ["## Pictures", "\n\n".join(f"![{Path(name).stem}]({name})" for name in PICTURES)]
    return "\n\n".join(parts) + "\n"


def report_json(
    results: Sequence[SetResult], settings: EvaluationSettings, systems: Sequence[System], command: str
) -> dict[str, object]:
    """The report as a dictionary for `json.dumps`; NaN is None."""
    names = [system.name for system in systems]
    sets = {
        result.name: {
            "songs": result.songs,
            "predicted": list(result.predicted),
            "parameters": result.parameters,
            "vqvae": result.vqvae,
            "numbers": {name: _flat(name, estimate) for name, estimate in result.numbers.items()},
            "floors": {name: [_finite(value) for value in floor] for name, floor in result.floors.items()},
        }
        for result in results
    }
    gaps = {
        system: {name: _flat(name, estimate) for name, estimate in own.items()}
        for system, own in differences(results, names[0], names).items()
    }
    return {
        "command": command,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()},
        "systems": {system.name: system.source for system in systems},
        "versions": {name: version(name) for name in ("fast-jukebox", "torch", "transformers")},
        "sets": sets,
        "differences": {"baseline": names[0], **gaps},
    }


def write_report(
    results: Sequence[SetResult],
    settings: EvaluationSettings,
    systems: Sequence[System],
    command: str,
    *,
    notes: Mapping[str, str] | None = None,
    song: Sound | None = None,
    dataset: str | None = None,
    cards: bool = False,
) -> Path:
    """Write `report.md`, `report.json`, the pictures and each system's entries for its card into the output.

    `cards/NAME/model-index.yaml` is the metadata of a card, `cards/NAME/.eval_results/fast-jukebox.yaml` the Hub's file
    of results.

    Args:
        results: as [`~fast_jukebox.evaluation.side_by_side.evaluate_systems`] gives them.
        settings: they were made with.
        systems: in the order in which they were named.
        command: that makes the report.
        notes: see [`report_markdown`].
        song: a real song for the pictures; without one there are none.
        dataset: the Hub's name of the songs; by default the folder's name.
        cards: also put the entries into the folders of the models.

    Returns:
        The path of `report.md`.

    Raises:
        FileNotFoundError: `cards`, and a model is no folder with a card.
    """
    output = settings.output
    if song is not None:
        draw_pictures(settings, systems, song)
    files = {
        "report.md": report_markdown(results, settings, systems, command, notes),
        "report.json": json.dumps(report_json(results, settings, systems, command), indent=1) + "\n",
    }
    for name, text in files.items():
        _write(output / name, text)
    by_name = {result.name: result for result in results}
    data = dataset or Path(settings.songs).name
    for system in systems:
        numbers = {name: each.value for name, each in by_name[system.name].numbers.items() if math.isfinite(each.value)}
        entries = _entries(numbers, data, settings)
        folder = output / "cards" / system.name
        _write(folder / "model-index.yaml", model_index(system.name, entries))
        folders = [folder]
        if cards:
            merge_eval_results(system.source, entries)
            folders.append(Path(system.source))
        for folder in folders:
            _write(folder / RESULTS_FOLDER / "fast-jukebox.yaml", eval_results_file(numbers, data, command))
    return output / "report.md"


def draw_pictures(settings: EvaluationSettings, systems: Sequence[System], song: Sound) -> None:
    """Waveforms of a song and of each system's first sample; of the samples also the top level alone, as spectra."""
    first = {system.name: sample_paths(settings.output / "samples" / system.name, 1)[0] for system in systems}
    rate = audio_info(next(iter(first.values()))).sampling_rate
    real = load_audio(song, rate, duration=settings.duration)
    waveforms = {"a song": real} | {name: load_audio(path, rate) for name, path in first.items()}
    plot_waveforms(settings.output / PICTURES[0], waveforms, rate)
    levels = {"a song": {"all levels": real}}
    for name, path in first.items():
        levels[name] = {"top level alone": load_audio(top_level_path(path), rate), "all levels": waveforms[name]}
    plot_levels(settings.output / PICTURES[1], levels, rate)


def _entries(numbers: Mapping[str, float], dataset: str, settings: EvaluationSettings) -> list[EvalResult]:
    """Entries of a card, which say whether a number is of samples or of held-out songs."""
    bits = {name: value for name, value in numbers.items() if name.startswith("bits_per_code")}
    others = {name: value for name, value in numbers.items() if name not in bits}
    songs = Path(settings.songs).name
    predicted = eval_results(bits, dataset, f"{songs}, held out")
    return [
        *eval_results(others, dataset, f"{songs}, {settings.num_samples} samples"),
        *(replace(entry, dataset_split="test") for entry in predicted),  # results of one split have one name
    ]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


def _measured(result: SetResult) -> str:
    return str(result.songs)


def _predicted(result: SetResult) -> str:
    """How many songs the priors predicted, of each level where that differs."""
    return ", ".join(map(str, result.predicted if len(set(result.predicted)) > 1 else result.predicted[:1]))


def _table(names: Sequence[str], results: Sequence[SetResult], songs: Callable[[SetResult], str]) -> str:
    rows = []
    for result in results:
        if any(name in result.numbers for name in names):
            cells = [_cell(result.numbers[name]) if name in result.numbers else "" for name in names]
            rows.append([result.name, songs(result), *cells])
    floors = [result for result in results if any(name in result.floors for name in names)]
    for result in floors:
        cells = [_floor(result.floors[name]) if name in result.floors else "" for name in names]
        if any(cells):
            rows.append([f"*floor for as many as {result.name}*", "", *cells])
    unique: list[list[str]] = []
    for row in rows:  # sets of one size have one floor
        if not any(row[1:] == other[1:] and row[0].startswith("*") and other[0].startswith("*") for other in unique):
            unique.append(row)
    return markdown_table(["", "songs", *names], unique)


def _differences_table(results: Sequence[SetResult], systems: Sequence[System]) -> str:
    names = [system.name for system in systems]
    gaps = differences(results, names[0], names)
    numbers = list(dict.fromkeys(number for own in gaps.values() for number in own))
    rows = [
        [number, *(_cell(own[number], mark=True) if number in own else "" for own in gaps.values())]
        for number in numbers
    ]
    text = f"Each system less {names[0]}; **bold** where the interval does not hold 0.\n\n"
    return text + markdown_table(["", *gaps], rows)


def _cell(estimate: Estimate, mark: bool = False) -> str:
    if math.isnan(estimate.value):
        return ""
    text = f"{estimate.value:.4g}"
    if math.isnan(estimate.low):
        return text
    text += f" ({estimate.low:.3g} to {estimate.high:.3g})"
    return f"**{text}**" if mark and (estimate.low > 0 or estimate.high < 0) else text


def _floor(floor: tuple[float, float]) -> str:
    return "" if math.isnan(floor[0]) else f"{floor[0]:.4g} ± {floor[1]:.2g}"


def _flat(name: str, estimate: Estimate) -> dict[str, float | None]:
    value, low, high = estimate_numbers(name, estimate).values()
    return {"value": _finite(value), "low": _finite(low), "high": _finite(high)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown_command(words: Sequence[str]) -> str:
    """A command without the folders of one machine."""
    shown = []
    for word in words:
        name, equals, path = word.rpartition("=")
        shown.append(f"{name}{equals}{Path(path).name if Path(path).is_absolute() else path}")
    return " ".join(shown)
