"""Models judged on real songs, with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from fast_jukebox.evaluation.cards import CardSettings
from fast_jukebox.evaluation.clap import Clap
from fast_jukebox.evaluation.embedding_loading import load_embedding
from fast_jukebox.evaluation.report import VALENCE, shown_command, write_report
from fast_jukebox.evaluation.settings import EvaluationSettings, Judges, real_songs
from fast_jukebox.evaluation.side_by_side import evaluate_systems
from fast_jukebox.evaluation.systems import System
from fast_jukebox.evaluation.valence import ValenceJudge, held_out_sentence
from fast_jukebox.utils.figures import require_matplotlib
from fast_jukebox.utils.workers import Workers
from fast_jukebox_cli.model import model_name
from fast_jukebox_cli.values import Waiting, named_sources


def evaluate(
    models: Sequence[str],
    settings: EvaluationSettings,
    card: CardSettings,
    *,
    embeddings: Sequence[str],
    clap: str | None,
    valence: str | None,
    dataset: str | None,
    pictures: bool,
    workers: Workers,
) -> Path:
    """Judge models and write the report; returns its path. The arguments are the command's options.

    A `ValueError` or an `OSError` says what cannot be before the first song is sampled.
    """
    logging.disable_progress_bar()
    systems, device = named_systems(models), settings.device
    if (clap is None) != (settings.text is None):
        raise ValueError("`--clap` and `--text` must be given together: a CLAP score is of songs and a text")
    if pictures:
        require_matplotlib()
    card.check(systems)
    scorer = None if valence is None else ValenceJudge.from_pretrained(valence, device)
    with Waiting("loading the judges"):
        judges = Judges(
            [load_embedding(name, device) for name in embeddings],
            None if clap is None else Clap.from_pretrained(clap, device),
            scorer,
        )
    with Waiting("reading the songs"):
        songs = real_songs(settings, judges)
    with Waiting("judging") as waiting:
        results = evaluate_systems(systems, settings, judges, songs, waiting.say, workers)
    command = shown_command(["fast-jukebox", "evaluate", *_words(models, embeddings, clap, valence, settings)])
    notes = {} if scorer is None else {VALENCE: held_out_sentence(scorer.model.config)}
    return write_report(
        results, settings, systems, songs, command, notes=notes, pictures=pictures, dataset=dataset, card=card
    )


def named_systems(models: Sequence[str]) -> list[System]:
    """Systems by their names; `embedded` is the model inside the package. A folder must be there."""
    return [System(name, model_name(source)) for name, source in named_sources(models, "models").items()]


def _words(
    models: Sequence[str],
    embeddings: Sequence[str],
    clap: str | None,
    valence: str | None,
    settings: EvaluationSettings,
) -> list[str]:
    """The command that makes the report again, with every option that decides a number."""
    words = list(models)
    names = (
        *("songs", "codes", "samples", "num_samples", "duration", "seed", "max_songs", "max_windows", "reconstruct"),
        *("test_fraction", "resamples"),
    )
    options = {name.replace("_", "-"): getattr(settings, name) for name in names}
    options |= {"clap": clap, "text": settings.text, "valence": valence}
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value).removesuffix(".0") if isinstance(value, float) else str(value)]
    for name in embeddings or ["none"]:
        words += ["--embedding", name]
    return words
