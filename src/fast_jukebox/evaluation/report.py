"""The report of an evaluation: Markdown, JSON, pictures and entries of model cards."""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import torch

from fast_jukebox.audio.io import audio_info, load_audio
from fast_jukebox.evaluation.cards import COUNT_METRICS, PITCH_METRICS, CardSettings, card_metrics, write_card
from fast_jukebox.evaluation.comparison import FEW_SONGS
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.embeddings import Sound, read_sound
from fast_jukebox.evaluation.pictures import plot_levels, plot_notes, plot_spectrograms, plot_waveforms
from fast_jukebox.evaluation.reconstruction import complete_codes
from fast_jukebox.evaluation.settings import EvaluationSettings, RealSongs
from fast_jukebox.evaluation.side_by_side import LOWEST_RATE, SONGS, SetResult
from fast_jukebox.evaluation.song_metrics import METRICS
from fast_jukebox.evaluation.systems import System, load_vqvae, top_level_path
from fast_jukebox.hub.cards import PICTURE, eval_results
from fast_jukebox.hub.update_card import RESULTS_FOLDER, eval_results_file, model_index
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.training.assembly import machine_name
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import markdown_table

VALENCE = "Emotional valence"
"""Title of the table of the four probabilities."""

BITS = "Bits per code"
"""Title of the table of how well held-out songs are predicted."""

COUNTS, ACCURACY = "Bits per code of counts", "Accuracy"
_PREDICTED = (BITS, COUNTS, ACCURACY)
_OF_CODES = ("bits_per_code", *COUNT_METRICS, "accuracy")
"""Beginnings of the names of numbers of codes, which are compared where the VQ-VAE is the same."""

PICTURES = ("waveforms.png", "levels.png")
"""Pictures of all systems."""

SYSTEM_PICTURES = (PICTURE, "notes.png")
"""Pictures of each system: a song and what its codes keep of it, and the notes heard in its samples."""

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
        "Pitch": [name for name in names if name in PITCH_METRICS],
        VALENCE: [name for name in names if name.startswith("valence_")],
        BITS: [name for name in names if name.startswith("bits_per_code")],
        COUNTS: [name for name in names if name.startswith(tuple(COUNT_METRICS))],
        ACCURACY: [name for name in names if name.startswith("accuracy")],
        "Reconstruction": [name for name in names if name.startswith(("snr", "spectral_convergence", "codebook"))],
    }
    grouped = {name for members in groups.values() for name in members}
    groups["Others"] = [name for name in names if name not in grouped]  # of a scorer of the caller's own
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
    parts = [
        "# Evaluation",
        f"```bash\n{command}\n```",
        f"{settings.num_samples} songs of {settings.duration:g} s a system, seed {settings.seed}, none selected, held "
        f"against the first {settings.duration:g} s of {real.songs} real songs. {_versions()}.",
    ]
    if settings.num_samples < FEW_SONGS:
        parts.append(
            f"With {settings.num_samples} songs a system (fewer than {FEW_SONGS}) distances depend much on which they "
            "are: read the intervals and the floor."
        )
    for group, names in groups_of(results).items():
        parts += [f"## {group}", _table(names, results, predicted=group in _PREDICTED)]
        if notes and group in notes:
            parts.append(notes[group])
        if group == "Distance to the songs":
            parts.append(_NOTE)
        if group == BITS:
            known = ", ".join(f"{each.name}: {each.vqvae[:8]}" for each in results if each.vqvae and each.parameters)
            parts.append(
                "Of each level's prior on songs that are held out, 0 the bottom. Comparable only between systems of "
                f"one VQ-VAE: {known}."
            )
    if len(systems) > 1:
        parts += ["## Differences", _differences_table(results, systems)]
    names = [*PICTURES, *(f"cards/{system.name}/{name}" for system in systems for name in SYSTEM_PICTURES)]
    if there := [name for name in names if (settings.output / name).is_file()]:
        parts += ["## Pictures", "\n\n".join(f"![{Path(name).stem}]({quote(name)})" for name in there)]
    return "\n\n".join(parts) + "\n"


def differences(results: Sequence[SetResult], baseline: str, systems: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Each system's numbers less the baseline's, with intervals; those of codes only where the VQ-VAE is the same."""
    by_name = {result.name: result for result in results}
    base = by_name[baseline]
    found: dict[str, dict[str, Estimate]] = {}
    for name in systems:
        own = by_name[name]
        if name == baseline:
            continue
        found[name] = {
            number: estimate.minus(base.numbers[number])
            for number, estimate in own.numbers.items()
            if number in base.numbers
            and len(estimate.resamples) == len(base.numbers[number].resamples)
            and (own.vqvae == base.vqvae or not number.startswith(_OF_CODES))
        }
    return found


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
            "numbers": {name: _flat(estimate) for name, estimate in result.numbers.items()},
            "floors": {name: [_finite(value) for value in floor] for name, floor in result.floors.items()},
        }
        for result in results
    }
    gaps = {
        system: {name: _flat(estimate) for name, estimate in own.items()}
        for system, own in differences(results, names[0], names).items()
    }
    return {
        "command": command,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()},
        "systems": {system.name: system.source for system in systems},
        "versions": _versions(),
        "sets": sets,
        "differences": {"baseline": names[0], "systems": gaps},
    }


def write_report(
    results: Sequence[SetResult],
    settings: EvaluationSettings,
    systems: Sequence[System],
    songs: RealSongs,
    command: str,
    *,
    notes: Mapping[str, str] | None = None,
    pictures: bool = False,
    dataset: str | None = None,
    card: CardSettings | None = None,
) -> Path:
    """Write `report.md`, `report.json`, the pictures and each system's entries for its card into the output.

    `cards/NAME/model-index.yaml` is the metadata of a card, `cards/NAME/.eval_results/fast-jukebox.yaml` the Hub's file
    of results.

    Args:
        results: as [`~fast_jukebox.evaluation.side_by_side.evaluate_systems`] gives them.
        settings: they were made with.
        systems: in the order in which they were named.
        songs: they were made with.
        command: that makes the report.
        notes: see [`report_markdown`].
        pictures: draw them.
        dataset: the Hub's name of the songs; by default the folder's name.
        card: the cards to write into the folders of the models.

    Returns:
        The path of `report.md`.
    """
    output, card = settings.output, card or CardSettings()
    if pictures:
        draw_pictures(settings, systems, songs.held_out[0])
    report = report_json(results, settings, systems, command)
    report |= {"data": songs.counts, "machine": machine_name(torch.device(settings.device))}
    _write(output / "report.md", report_markdown(results, settings, systems, command, notes))
    _write(output / "report.json", json.dumps(report, indent=1) + "\n")
    by_name = {result.name: result for result in results}
    data = dataset or Path(settings.songs).name
    made_by = f"Made by `{command}` with {_versions()}."
    for system in systems:
        numbers = {name: each.value for name, each in by_name[system.name].numbers.items() if math.isfinite(each.value)}
        folders = [output / "cards" / system.name]
        entries = eval_results(card_metrics(results, system.name), data, "held-out songs")
        _write(folders[0] / "model-index.yaml", model_index(system.name, entries))
        if card.kind != "none":
            picture = folders[0] / PICTURE
            write_card(system, results, card, songs.counts, made_by, picture if picture.is_file() else None)
            folders.append(Path(system.source))
        for folder in folders:
            _write(folder / RESULTS_FOLDER / "fast-jukebox.yaml", eval_results_file(numbers, data, command))
    return output / "report.md"


def draw_pictures(settings: EvaluationSettings, systems: Sequence[System], song: Sound) -> None:
    """Waveforms and spectra of a song and of each system's first sample, the top level alone beside it; of each system
    the song through the codes of each level, and the notes heard in its first four samples.
    """
    first = {system.name: settings.sample_files(system.name)[0] for system in systems}
    rate = audio_info(next(iter(first.values()))).sampling_rate
    real = read_sound(song, rate, duration=settings.duration)
    waveforms = {"a song": real} | {name: load_audio(path, rate) for name, path in first.items()}
    plot_waveforms(settings.output / PICTURES[0], waveforms, rate)
    levels = {"a song": {"all levels": real}}
    for name, path in first.items():
        top = top_level_path(path)
        alone = {"top level alone": load_audio(top, rate)} if top.is_file() else {}
        levels[name] = {**alone, "all levels": waveforms[name]}
    plot_levels(settings.output / PICTURES[1], levels, rate)
    for system in systems:
        _draw_system(settings, system, song)


@torch.no_grad()
def _draw_system(settings: EvaluationSettings, system: System, song: Sound, seconds: float = 10.0) -> None:
    vqvae = load_vqvae(system.source, settings.device)
    rate, count = vqvae.config.sampling_rate, vqvae.config.num_levels
    paths = [settings.output / "cards" / system.name / name for name in SYSTEM_PICTURES]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    real = read_sound(song, rate, duration=min(seconds, settings.duration))
    real = complete_codes(real, vqvae.config.hop_lengths[-1])
    samples = [load_audio(path, rate, duration=settings.duration) for path in settings.sample_files(system.name)[:4]]
    clips = {"a held-out song": real}
    for level, codes in enumerate(vqvae.encode(real[None].to(vqvae.device))):
        title = f"the song through the codes of the {level_name(level, count)} level"
        clips[title] = vqvae.decode([codes], level)[0].cpu()
    clips["a sample"] = samples[0][: round(seconds * rate)]
    plot_spectrograms(paths[0], clips, rate)
    if rate >= LOWEST_RATE:
        shown = {f"sample {index}": sample for index, sample in enumerate(samples)}
        plot_notes(paths[1], shown, rate, settings.duration)


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("fast-jukebox", "torch", "transformers"))
    return f"Python {platform.python_version()}, {packages}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


def _table(names: Sequence[str], results: Sequence[SetResult], predicted: bool) -> str:
    """A row a set that has some of the numbers, with the number of its songs, or of those that its priors predicted, of
    each level where that differs; then the floors.
    """
    rows = []
    for result in results:
        if any(name in result.numbers for name in names):
            songs = result.predicted if predicted else (result.songs,)
            counts = ", ".join(map(str, songs if len(set(songs)) > 1 else songs[:1]))
            rows.append([result.name, counts, *(_cell(result.numbers.get(name)) for name in names)])
    floors: dict[tuple[str, ...], str] = {}
    for result in results:
        cells = tuple(_floor(result.floors.get(name, (math.nan, math.nan))) for name in names)
        if any(cells):  # sets of one size have one floor
            floors.setdefault(cells, f"*floor for as many as {result.name}*")
    rows += [[title, "", *cells] for cells, title in floors.items()]
    return markdown_table(["", "songs", *names], rows)


def _differences_table(results: Sequence[SetResult], systems: Sequence[System]) -> str:
    names = [system.name for system in systems]
    gaps = differences(results, names[0], names)
    numbers = list(dict.fromkeys(number for own in gaps.values() for number in own))
    rows = [[number, *(_cell(own.get(number), mark=True) for own in gaps.values())] for number in numbers]
    text = f"Each system less {names[0]}; **bold** where the interval does not hold 0.\n\n"
    return text + markdown_table(["", *gaps], rows)


def _cell(estimate: Estimate | None, mark: bool = False) -> str:
    if estimate is None or math.isnan(estimate.value):
        return ""
    text = f"{estimate.value:.4g}"
    if math.isnan(estimate.low):
        return text
    text += f" ({estimate.low:.3g} to {estimate.high:.3g})"
    return f"**{text}**" if mark and (estimate.low > 0 or estimate.high < 0) else text


def _floor(floor: tuple[float, float]) -> str:
    value, deviation = floor
    if math.isnan(value):
        return ""
    return f"{value:.4g}" if math.isnan(deviation) else f"{value:.4g} ± {deviation:.2g}"


def _flat(estimate: Estimate) -> dict[str, float | None]:
    return {name: _finite(getattr(estimate, name)) for name in ("value", "low", "high")}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown_command(words: Sequence[str]) -> str:
    """A command, quoted for a shell, without the folders of one machine: of an absolute path, which may stand behind
    `NAME=` or `KIND:`, the last name alone.
    """
    return shlex.join(map(_without_folder, words))


def _without_folder(word: str) -> str:
    for mark in ("=", ":"):
        head, found, path = ("", "", word) if Path(word).is_absolute() else word.partition(mark)
        if Path(path).is_absolute():
            return f"{head}{found}{Path(path).name}"
    return word
