"""What was measured of a model, on its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.side_by_side import HELD_OUT, NOISE, NOTES, TRAINING, SetResult
from fast_jukebox.evaluation.systems import System
from fast_jukebox.hub.cards import Metrics, load_card, require_license, write_model_card
from fast_jukebox.hub.push_mixin import describe_config
from fast_jukebox.hub.update_card import stated_metrics, update_model_card
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig
from fast_jukebox.processing.files import read_json
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import markdown_table, shown

RECONSTRUCTION_METRICS = {
    "snr": "reconstruction, signal-to-noise ratio (dB)",
    "spectral_convergence": "reconstruction, spectral convergence",
    "codebook_used": "reconstruction, fraction of the codebook used",
}
"""Metrics of a level's codes that a card states: `NAME_LEVEL` is their key, 0 the bottom."""

COUNT_METRICS = {
    "bigram_bits_per_code": "bits per code of a bigram model",
    "unigram_bits_per_code": "bits per code of a unigram model",
}
"""What a prior's bits are compared with: text on a card, so that they are no results of the model."""

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
"""Metrics of a set of songs, means over the songs."""

PITCH_METRICS = {
    "pitch_classes": "pitch classes used",
    "pitch_distance": "distance to the songs (bits)",
}
"""Metrics of the pitch content of a set of songs."""

TEACHER_METRICS = {
    "bits_per_code": "bits per code, student",
    "teacher_bits_per_code": "bits per code, teacher",
    "kl_to_teacher": "KL divergence to the teacher, bits",
    "agreement": "top-1 agreement with the teacher",
}
"""Metrics of a student beside its teacher, measured at the end of its distillation, by their names on a card."""

_SAMPLES, _THROUGH = "samples of the model", "the same through the bottom level's codes"
_CONTROLS = {NOTES: "control: notes drawn from all twelve", NOISE: "control: white noise"}
_BITS = "bits per code of the prior"

TEACHER_NOTE = (
    "The first metrics, of the student beside its teacher, were measured at the end of the distillation, on held-out "
    "windows, of which there may be another number."
)

METRICS_NOTE = (
    "Held-out songs were in no training. Signal-to-noise ratio and spectral convergence compare a song with what its "
    "codes of one level decode to; convergence is 0 for a perfect copy and 1 for silence. Bits per code are of a prior "
    "that is given the codes before in the window, the level above and, in windows of complete songs, their names; "
    "the unigram and bigram models are counts of the training songs' codes, scored on the same windows. "
    "Samples are the first of the seed, not selected; songs of every set are cut to their length. Silence counts "
    "in every metric of the songs: below -40 dBFS no note is heard and nothing is clear. *Time with notes of one key*: "
    "fraction of the complete time in which a note sounds that is among the seven pitch classes of the best key of "
    "each 10 s. Tonal clarity is the fraction of the energy in held spectral peaks, averaged over the time. Passages "
    "are of 2 s, heard before in the same song. In brackets: the interval that holds 95 % by a bootstrap over songs. "
    "The distance is the Jensen-Shannon divergence between mean pitch-class profiles in a common key; that of the "
    "held-out songs is between random halves of them."
)


_EMBEDDED_USAGE = """\
import fast_jukebox  # registers the model and the task
from transformers import pipeline

song = pipeline("fast-jukebox")(duration=20, seed=0)
song["audio"], song["sampling_rate"]"""


@dataclass(frozen=True)
class CardSettings:
    """The cards that an evaluation writes into the models' folders.

    Attributes:
        kind: `"none"`; `"model"` updates the card that is there, or writes one; `"embedded"` writes that of the model
            inside the package.
        license: of the weights, for a new card.
        name: of the model on a new card; by default the folder's.
        training: JSON file on the training, see [`training_markdown`]; without it an old card keeps what it states.
    """

    kind: Literal["none", "model", "embedded"] = "none"
    license: str | None = None
    name: str | None = None
    training: Path | None = None

    def updates(self, folder: Path) -> bool:
        """There is a card in the model's folder, which gets the new metrics; otherwise a new card is written."""
        return self.kind == "model" and (folder / "README.md").is_file()

    def check(self, systems: Sequence[System]) -> None:
        """Refuse what would fail after a long time.

        Raises:
            ValueError: naming the option, or the file.
        """
        if self.training and not self.training.is_file():
            raise ValueError(f"`training` must be a JSON file, got {str(self.training)!r}")
        if self.training:
            read_json(self.training)
        for system in systems if self.kind != "none" else []:
            folder = Path(system.source)
            if not folder.is_dir():
                raise ValueError(f"`card` needs models that are folders, got {system.source!r}")
            if self.updates(folder):
                stated = {"license": require_license(folder)}
                stated["name"] = load_card(folder / "README.md").data.get("model_name")
                for name, value in stated.items():
                    if getattr(self, name) not in (None, value):
                        raise ValueError(
                            f"`card_{name}` must be left out where there is a card, or be the {shown(value)} that it "
                            f"states, got {shown(getattr(self, name))}"
                        )
            elif not self.license:
                raise ValueError(
                    f"`card_license` must name the weights' license where a new card is asked for, as {folder} has none"
                )


def write_card(
    system: System,
    results: Sequence[SetResult],
    card: CardSettings,
    counts: Mapping[str, float],
    made_by: str,
    picture: Path | None,
) -> Path:
    """Write or update `README.md` and the picture in a model's folder; returns the card's path.

    Args:
        system: the model, in a folder.
        results: as [`~fast_jukebox.evaluation.side_by_side.evaluate_systems`] gives them.
        card: that [`CardSettings.check`] has let pass.
        counts: of the songs, see [`training_markdown`].
        made_by: a sentence on the command and its versions.
        picture: mel spectrograms.
    """
    folder = Path(system.source)
    story = read_json(card.training) if card.training else {}
    metrics: Metrics = card_metrics(results, system.name)
    note = "\n\n".join([song_table(results, system.name), METRICS_NOTE, made_by])
    picture = None if picture is None else picture.absolute()
    caption = "mel spectrograms: a held-out song, what each level's codes keep of it, and a sample"
    if card.updates(folder):
        if beside_teacher := stated_metrics(folder, list(TEACHER_METRICS.values())):
            metrics, note = {**beside_teacher, **metrics}, f"{TEACHER_NOTE} {note}"
        told = training_markdown(story, counts) if card.training else None
        return update_model_card(
            folder, metrics=metrics, metrics_note=note, picture=picture, picture_caption=caption, training=told
        )
    summary, name = _describe(folder), card.name or folder.absolute().name
    if card.kind == "embedded":
        summary += ' It comes inside the package: `pipeline("fast-jukebox")` loads it with no network.'
        name = card.name or "fast-jukebox default"
    return write_model_card(
        folder,
        name=name,
        description=summary,
        training=training_markdown(story, counts) or "Nothing was recorded of the training.",
        license=card.license,
        usage=_EMBEDDED_USAGE if card.kind == "embedded" else None,
        metrics=metrics,
        metrics_note=note,
        picture=picture,
        picture_caption=caption,
    )


def _describe(folder: Path) -> str:
    """The model in words, from its configuration."""
    config = FastJukeboxConfig.from_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
    seconds = [prior.n_ctx * prior.hop_length / config.sampling_rate for prior in config.prior_configs]
    contexts = ", ".join(f"{each:.2g}" for each in seconds)
    return (
        f"{describe_config(config)} The contexts of these last {contexts} s (bottom first). {size:.1f} MB of weights."
    )


def card_sets(results: Sequence[SetResult], system: str) -> dict[str, SetResult]:
    """The sets of songs that stand beside a system's samples on its card, by their titles there."""
    by_name = {result.name: result for result in results}
    own = by_name[system]
    sets = {_SAMPLES: own} | {name: by_name[name] for name in (TRAINING, HELD_OUT) if name in by_name}
    for result in results:
        if result.parameters is None and result.vqvae is not None and result.vqvae == own.vqvae:
            sets[_THROUGH] = result
    return sets | {title: by_name[name] for name, title in _CONTROLS.items() if name in by_name}


def song_table(results: Sequence[SetResult], system: str) -> str:
    """[`compare_songs`] of a system's samples and the sets beside them."""
    sets = card_sets(results, system)
    return compare_songs({f"{title} ({own.songs})": own.numbers for title, own in sets.items()})


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


def card_metrics(results: Sequence[SetResult], system: str) -> dict[str, dict[str, float | str]]:
    """The metrics that a card states, grouped as [`fast_jukebox.hub.model_card`] takes them; missing ones left out.

    Those of the model are numbers. Those that it is compared with are text, so that they stand in the card's table, but
    not among the model's results. Metrics of the other sets of songs are in [`song_table`].
    """
    sets = card_sets(results, system)
    own, none = sets[_SAMPLES], SetResult("", 0)
    through, count = sets.get(_THROUGH, none), len(own.predicted)

    def of(result: SetResult, name: str) -> float:
        return result.numbers[name].value if name in result.numbers else math.nan

    def levels(result: SetResult, key: str) -> dict[str, float]:
        return {level_name(level, count): of(result, f"{key}_{level}") for level in range(count)}

    groups: dict[str, dict[str, float | str]] = {}
    groups |= {title: {**levels(through, key)} for key, title in RECONSTRUCTION_METRICS.items()}
    groups[_BITS] = {**levels(own, "bits_per_code")}
    for key, title in COUNT_METRICS.items():
        groups[title] = {level: _cell(value) for level, value in levels(own, key).items()}
    for key, title in (SONG_METRICS | PITCH_METRICS).items():
        groups[title] = {_SAMPLES: of(own, key)}
    for key, title in PITCH_METRICS.items():
        groups[title] |= {name: _cell(of(each, key)) for name, each in sets.items() if each is not own}
    by_chance = own.floors.get("pitch_distance", (math.nan,))[0]
    groups[PITCH_METRICS["pitch_distance"]]["that of as few held-out clips, by chance"] = _cell(by_chance)
    heard = {name: found for name, found in own.numbers.items() if name in own.floors or name.endswith("_score")}
    heard |= {name: found for name, found in own.numbers.items() if name.startswith("valence_")}
    groups |= {name: {_SAMPLES: found.value} for name, found in heard.items() if name not in PITCH_METRICS}
    kept = {
        group: {name: value for name, value in values.items() if value != "" and value == value}
        for group, values in groups.items()
    }
    return {group: values for group, values in kept.items() if values}


def training_markdown(training: Mapping[str, object], counts: Mapping[str, float]) -> str:
    """The training, for a card.

    Args:
        training: by part (`vqvae-0`, `prior-2`, `teacher-2`, `student-2` and so on) `steps`, `batch_size` and
            `seconds`; further facts by name, such as `preset` and `seed`. `text` is Markdown that says what was trained
            on.
        counts: may hold `train_songs`, `train_hours` and `test_songs`.
    """
    paragraphs = []
    if training.get("text"):
        paragraphs.append(str(training["text"]))
    elif "train_songs" in counts:
        paragraphs.append(
            f"{counts['train_songs']:g} songs ({counts.get('train_hours', 0):.3g} hours) to train on, "
            f"{counts.get('test_songs', 0):g} held out."
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
