"""Metrics as tables, and for model cards."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import markdown_table

Metrics = Mapping[str, "float | str"]

LEVEL_METRICS = {
    "snr": "signal-to-noise ratio (dB)",
    "spectral_convergence": "spectral convergence",
    "codebook_used": "fraction of the codebook used",
    "codebook_perplexity": "perplexity of the codes",
    "bits_per_code": "bits per code of the prior",
    "bits_per_code_error": "standard error of that",
    "perplexity": "perplexity of the prior",
    "accuracy": "fraction of codes predicted exactly",
    "bigram_bits_per_code": "bits per code of a bigram model",
    "unigram_bits_per_code": "bits per code of a unigram model",
}
"""Metrics of one level: `NAME_LEVEL` is their key, 0 the bottom."""

SONG_METRICS = {
    "quiet_fraction": "time below -40 dBFS",
    "longest_silence": "longest silence, s",
    "long_silence": "songs silent for over 2 s",
    "noted_fraction": "time with notes",
    "in_key_fraction": "time with notes of one key",
    "tonal_clarity": "tonal clarity",
    "notes_per_minute": "notes a minute",
    "onsets_per_minute": "attacks a minute",
    "repetition": "passages heard before",
}
"""Metrics of a set of songs, means over the songs: `SET_NAME` is their key, `SET_NAME_low` and `SET_NAME_high` the ends
of their intervals."""

PITCH_METRICS = {
    "pitch_classes": "pitch classes used",
    "distance": "distance to the songs (bits)",
    "clips": "clips",
}
"""Metrics of a set of clips: `SET_NAME` is their key."""

TEACHER_METRICS = {
    "bits_per_code": "bits per code, student",
    "teacher_bits_per_code": "bits per code, teacher",
    "kl_to_teacher": "KL divergence to the teacher, bits",
    "agreement": "top-1 agreement with the teacher",
}
"""Metrics of a student beside its teacher, measured at the end of its distillation, by their names on a card."""

CLIP_SETS = {
    "samples": "samples of the model",
    "training_songs": "training songs",
    "songs": "held-out songs",
    "reconstructions": "the same through the bottom level's codes",
    "chromatic": "control: notes drawn from all twelve",
    "noise": "control: white noise",
}
"""Sets of songs that the metrics compare."""

TEACHER_NOTE = (
    "The first metrics, of the student beside its teacher, were measured at the end of the distillation, on held-out "
    "windows, of which there may be another number."
)

METRICS_NOTE = (
    "Held-out songs were in no training. Signal-to-noise ratio and spectral convergence compare a song with what its "
    "codes of one level decode to; convergence is 0 for a perfect copy and 1 for silence. Bits per code are of a prior "
    "that is given the codes before in the window, the level above and, with labels, the song's names; the unigram and "
    "bigram models are counts of the training songs' codes, scored on the same windows. "
    "Samples are the first of the seed, not selected; songs of every set are cut to their length. Silence counts "
    "in every metric of the songs: below -40 dBFS no note is heard and nothing is clear. *Time with notes of one key*: "
    "fraction of the complete time in which a note sounds that is among the seven pitch classes of the best key of "
    "each 10 s. Tonal clarity is the fraction of the energy in held spectral peaks, averaged over the time. Passages "
    "are of 2 s, heard before in the same song. In brackets: the interval that holds 95 % by a bootstrap over songs. "
    "The distance is the Jensen-Shannon divergence between mean pitch-class profiles in a common key; that of the "
    "held-out songs is between random halves of them."
)


def level_names(metrics: Metrics) -> list[str]:
    """Names of the levels that the metrics are of, bottom first."""
    count = sum(f"snr_{level}" in metrics for level in range(16))
    return [level_name(level, count) for level in range(count)]


def metrics_markdown(metrics: Metrics) -> str:
    """Four tables: levels, songs, pitch content of clips, and all other metrics."""
    names = level_names(metrics)
    rows = [
        [text, *(_cell(metrics.get(f"{key}_{level}")) for level in range(len(names)))]
        for key, text in LEVEL_METRICS.items()
    ]
    tables = [markdown_table(["", *names], rows)]
    tables.append(song_table(metrics))
    rows = [
        [text, *(_cell(metrics.get(f"{clips}_{key}")) for key in PITCH_METRICS)]
        for clips, text in CLIP_SETS.items()
        if f"{clips}_clips" in metrics
    ]
    tables.append(markdown_table(["clips of 10 s", *PITCH_METRICS.values()], rows))
    shown = {f"{key}_{level}" for key in LEVEL_METRICS for level in range(len(names))}
    shown |= {f"{clips}_{key}" for key in PITCH_METRICS for clips in CLIP_SETS}
    shown |= {f"{clips}_{key}{end}" for key in SONG_METRICS for clips in CLIP_SETS for end in ("", "_low", "_high")}
    tables.append(markdown_table(["", ""], [[key, _cell(value)] for key, value in metrics.items() if key not in shown]))
    return "\n\n".join([*tables, METRICS_NOTE]) + "\n"


def song_table(metrics: Metrics) -> str:
    """[`compare_songs`] of the sets of songs in the metrics."""
    sets: dict[str, dict[str, Estimate]] = {}
    for name, title in CLIP_SETS.items():
        if f"{name}_songs" in metrics:
            own = sets.setdefault(f"{title} ({metrics[f'{name}_songs']:g})", {})
            for key in SONG_METRICS:
                value, low, high = (float(metrics.get(f"{name}_{key}{end}", math.nan)) for end in ("", "_low", "_high"))
                own[key] = Estimate(value, low, high, torch.empty(0), int(metrics[f"{name}_songs"]))
    return compare_songs(sets)


def compare_songs(sets: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Markdown table of [`SONG_METRICS`], a row a metric and a column a set of songs, with intervals in brackets.

    Args:
        sets: by title, what [`summarise_songs`] gives for the set.
    """
    rows = [[text, *(_estimate(own.get(key)) for own in sets.values())] for key, text in SONG_METRICS.items()]
    return markdown_table(["songs", *sets], rows)


def _estimate(found: Estimate | None) -> str:
    """Two decimals below 10, none above, and the interval where there is one."""
    if found is None or math.isnan(found.value):
        return ""
    digits = 2 if abs(found.value) < 9.995 else 0
    value, low, high = (
        f"{number:.{digits}f}".replace("-0.00", "0.00") for number in (found.value, found.low, found.high)
    )
    return value if math.isnan(found.low) or low == value == high else f"{value} ({low} to {high})"


def card_metrics(metrics: Metrics) -> dict[str, dict[str, float | str]]:
    """The metrics that a card states, grouped as [`fast_jukebox.hub.model_card`] takes them; missing ones left out.

    Those of the model are numbers. Those that it is compared with are text, so that they stand in the card's table, but
    not among the model's results. Metrics of the other sets of songs are in [`song_table`].
    """
    groups: dict[str, dict[str, float | str]] = {}
    levels = list(enumerate(level_names(metrics)))
    for key in ("snr", "spectral_convergence", "codebook_used"):
        groups[f"reconstruction, {LEVEL_METRICS[key]}"] = {name: metrics.get(f"{key}_{i}", "") for i, name in levels}
    groups[LEVEL_METRICS["bits_per_code"]] = {name: metrics.get(f"bits_per_code_{i}", "") for i, name in levels}
    for key in ("bigram_bits_per_code", "unigram_bits_per_code"):
        groups[LEVEL_METRICS[key]] = {name: _cell(metrics.get(f"{key}_{i}")) for i, name in levels}
    others = {own: name for own, name in CLIP_SETS.items() if own != "samples"}
    for key, text in SONG_METRICS.items():
        groups[text] = {CLIP_SETS["samples"]: metrics.get(f"samples_{key}", "")}
    for key in ("pitch_classes", "distance"):
        groups[PITCH_METRICS[key]] = {CLIP_SETS["samples"]: metrics.get(f"samples_{key}", "")}
        groups[PITCH_METRICS[key]] |= {name: _cell(metrics.get(f"{own}_{key}")) for own, name in others.items()}
    few = _cell(metrics.get("songs_distance_same_size"))
    groups[PITCH_METRICS["distance"]]["that of as few held-out clips, by chance"] = few
    kept = {group: {name: value for name, value in values.items() if value != ""} for group, values in groups.items()}
    return {group: values for group, values in kept.items() if values}


def training_markdown(training: Mapping[str, object], metrics: Metrics) -> str:
    """The training, for a card.

    Args:
        training: by part (`vqvae-0`, `prior-2`, `teacher-2`, `student-2` and so on) `steps`, `batch_size` and
            `seconds`; further facts by name, such as `preset` and `seed`. `text` is Markdown that says what was trained
            on.
        metrics: may hold `train_songs`, `train_hours` and `test_songs`.
    """
    paragraphs = []
    if training.get("text"):
        paragraphs.append(str(training["text"]))
    elif "train_songs" in metrics:
        paragraphs.append(
            f"{metrics['train_songs']:g} songs ({metrics.get('train_hours', 0):.3g} hours) to train on, "
            f"{metrics.get('test_songs', 0):g} held out."
        )
    parts = {name: facts for name, facts in training.items() if isinstance(facts, Mapping)}
    rows = [
        [_part_name(name), _cell(facts.get("steps")), _cell(facts.get("batch_size")), _duration(facts.get("seconds"))]
        for name, facts in parts.items()
    ]
    if rows:
        paragraphs.append(markdown_table(["part", "steps", "windows a step", "time"], rows))
    others = [
        f"{name.replace('_', ' ')}: {_cell(value)}"
        for name, value in training.items()
        if value is not None and name not in {*parts, "text"}
    ]
    return "\n\n".join([*paragraphs, *(["; ".join(others) + "."] if others else [])])


def _part_name(name: str) -> str:
    part, _, level = name.partition("-")
    words = {"vqvae": "VQ-VAE", "prior": "prior", "teacher": "teacher prior", "student": "student prior"}
    return f"{words.get(part, part)}, level {level}" if level else words.get(part, part)


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
