"""The commands that judge models and draw what they play."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, named_sources, output_file

CardKind = Literal["none", "model", "embedded"]


@dataclass(frozen=True)
class Measurement:
    """The settings of an evaluation that have an option of their name."""

    output: Annotated[
        Path, typer.Option(help="Folder of the report and of everything made for it; goes on where it was.")
    ] = Path("runs/evaluation")
    num_samples: Annotated[int, typer.Option(help="Songs of each model.")] = 12
    duration: Annotated[float, typer.Option(help="Seconds of each, and of each real song.")] = 10.0
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0
    text: Annotated[str | None, typer.Option(help="What the samples should sound like; needs --clap.")] = None
    codes: Annotated[
        Path | None,
        typer.Option(
            help="Folder of codes of the complete songs, made where missing: the priors predict windows of complete "
            "songs and receive their names, beside counts of the training songs' codes."
        ),
    ] = None
    samples: Annotated[
        Path | None,
        typer.Option(help="Folder of songs that the only model has made before, in place of sampling; by name."),
    ] = None
    max_songs: Annotated[int, typer.Option(help="Real songs to hold the samples against.")] = 100
    max_windows: Annotated[int, typer.Option(help="Held-out windows that each prior predicts.")] = 48
    reconstruct: Annotated[
        int, typer.Option(help="Songs through each VQ-VAE's codes, the held-out ones first; 0 for none.")
    ] = 12
    batch_size: Annotated[int, typer.Option(help="Songs sampled at once.")] = 4
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 200
    test_fraction: options.TestFraction = 0.1


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folders or Hub repositories, or NAME=MODEL; `embedded` is the model inside the package. The first "
            "one is what the others are held against.",
            show_default=False,
        ),
    ],
    *,
    songs: Annotated[
        str, typer.Option(help="A folder or Hub dataset of real songs, some of them held out.", show_default=False)
    ],
    measurement: Measurement,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            help="What hears the songs for the distances, again for several: musicnn_mtt, musicnn_msd (both by "
            "default), clap:MODEL, encodec:MODEL, dac:MODEL, mert:MODEL, vggish:FILE; or none."
        ),
    ] = None,
    clap: Annotated[str | None, typer.Option(help="A CLAP model for the CLAP score; needs --text.")] = None,
    valence: Annotated[
        str | None, typer.Option(help="A classifier of emotional valence, for the paper's Table 2.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The Hub's name of the songs, for the files of results.")] = None,
    card: Annotated[
        CardKind,
        typer.Option(
            help="model updates the card in each model's folder, or writes one; embedded writes that of the model "
            "inside the package."
        ),
    ] = "none",
    card_license: Annotated[str | None, typer.Option(help="License of the weights, for a new card.")] = None,
    card_name: Annotated[str | None, typer.Option(help="Name on a new card; by default the model's folder.")] = None,
    training: Annotated[
        Path | None,
        typer.Option(help="JSON file on the training, for the card; an old card keeps what it states."),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Draw waveforms, levels, spectrograms and notes.")] = True,
    device: options.WorkerDevice = "auto",
    sharing: options.Sharing,
) -> None:
    """Judge models in the same way on real songs and write one report. The last line printed is its path."""
    if embedding and "none" in embedding and embedding != ["none"]:
        raise ValueError(f"`--embedding none` must stand alone, got it with {', '.join(embedding)}")
    if (clap is None) != (measurement.text is None):
        raise ValueError("`--clap` and `--text` must be given together: a CLAP score is of songs and a text")
    with Waiting("loading torch"):
        from transformers.utils import logging

        from fast_jukebox.evaluation.cards import CardSettings
        from fast_jukebox.evaluation.clap import Clap
        from fast_jukebox.evaluation.encoders import load_embedding
        from fast_jukebox.evaluation.report import VALENCE, shown_command, write_report
        from fast_jukebox.evaluation.settings import EvaluationSettings, Judges, real_songs
        from fast_jukebox.evaluation.side_by_side import evaluate_systems
        from fast_jukebox.evaluation.systems import System
        from fast_jukebox.evaluation.valence import ValenceJudge, held_out_sentence
        from fast_jukebox.utils.figures import require_matplotlib
        from fast_jukebox_cli.model import chosen_device, model_name

    logging.disable_progress_bar()
    systems = [System(name, model_name(source)) for name, source in named_sources(models, "models").items()]
    given: dict[str, Any] = {
        name: value.expanduser() if isinstance(value, Path) else value for name, value in vars(measurement).items()
    }
    where = str(chosen_device(device))
    settings = EvaluationSettings(songs, device=where, **given)
    cards = CardSettings(card, card_license, card_name, training.expanduser() if training else None)
    embeddings = [] if embedding == ["none"] else embedding or ["musicnn_mtt", "musicnn_msd"]
    if pictures:
        require_matplotlib()
    cards.check(systems)
    scorer = None if valence is None else ValenceJudge.from_pretrained(valence, where)
    with Waiting("loading the judges"):
        judges = Judges(
            [load_embedding(name, where) for name in embeddings],
            None if clap is None else Clap.from_pretrained(clap, where),
            scorer,
        )
    with Waiting("reading the songs"):
        real = real_songs(settings, judges)
    with Waiting("judging") as waiting:
        results = evaluate_systems(systems, settings, judges, real, waiting.say, sharing.chosen(device))
    # The command that makes the report again, with every option that decides a number.
    words = ["fast-jukebox", "evaluate", *models]
    for name, value in {"songs": songs, **given, "clap": clap, "valence": valence}.items():
        if value is not None and name not in ("output", "batch_size"):
            text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    for name in embeddings or ["none"]:
        words += ["--embedding", name]
    notes = {} if scorer is None else {VALENCE: held_out_sentence(scorer.model.config)}
    path = write_report(
        results, settings, systems, real, shown_command(words), notes=notes, pictures=pictures, dataset=dataset,
        card=cards,
    )  # fmt: skip
    typer.echo(str(path))


def plot(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Sound files and models, top to bottom, or TITLE=SOURCE; `embedded` is the model inside the package. "
            "Models are sampled.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="The picture to write: .png or .svg.")] = Path("picture.png"),
    force: options.Force = False,
    kind: Annotated[
        str,
        typer.Option(
            help="waveforms (the paper's Fig. 5), or levels (Fig. 6): mel spectrograms, of models the top level alone "
            "beside all levels."
        ),
    ] = "waveforms",
    seconds: Annotated[float, typer.Option(help="From the start of each.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of what models play.")] = 0,
    device: options.Device = "auto",
) -> None:
    """Draw songs and what models play side by side. The last line printed is the picture's path."""
    target = output_file("output", output, (".png", ".svg"), force=force)
    if kind not in ("waveforms", "levels"):
        raise ValueError(f"`--kind` must be waveforms or levels, got {kind!r}")
    if not 0 < seconds <= 600:
        raise ValueError(f"`--seconds` must be over 0 and at most 600, got {seconds:g}")

    with Waiting("loading torch"):
        from fast_jukebox_cli.plot import plot as run

    with Waiting("drawing"):
        picture = run(sources, target, kind, seconds, seed, device)
    typer.echo(str(picture))
