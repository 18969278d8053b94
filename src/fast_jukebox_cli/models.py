"""The commands on models alone: what they take and are, and how others become ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, adapters, choices, numbers, path_text

if TYPE_CHECKING:
    from tqdm.auto import tqdm


def estimate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A folder, Hub repository or preset such as fastjukebox-18; by default the model inside the package.",
        ),
    ] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds of a song.")] = None,
    num_samples: Annotated[int, typer.Option(help="Songs.")] = 1,
    device: options.Device = "auto",
    dtype: options.FileDtype = None,
    schedule: options.Schedule = None,
    window_fractions: options.WindowFractions = None,
    engine: options.Engine = "auto",
) -> None:
    """Show what a song would take here: time, memory, disk. The weights are not read."""
    fractions = numbers("window-fractions", window_fractions, float)

    with Waiting("loading torch"):
        from fast_jukebox.models.fast_jukebox import FastJukeboxModel
        from fast_jukebox_cli.model import chosen_device, planned_model
    with Waiting("timing a few steps"):
        where = chosen_device(device)
        config, settings = planned_model(model)
        found = FastJukeboxModel.estimate_from_config(
            config,
            device=where,
            generation_config=settings,
            duration=duration,
            num_samples=num_samples,
            dtype=dtype,
            schedule=choices(schedule),
            window_fractions=fractions,
            engine=engine,
        )
    typer.echo(str(found))


def info(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A folder or Hub repository; by default the model inside the package."),
    ] = None,
) -> None:
    """Show what a model is: levels, sizes and its card. The weights are not read."""
    from rich.console import Console

    with Waiting("loading torch"):
        from fast_jukebox_cli.info import description
        from fast_jukebox_cli.model import model_name

    console = Console(soft_wrap=False)
    with Waiting("reading the model"):
        parts = description(model_name(model))
    for part in parts:
        console.print(part)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of OpenAI's .pth.tar files, or a folder or repository of Jukebox as transformers 4 kept it.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Argument(help="A new or empty folder for the model.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="Of .pth.tar files: 1b_lyrics, 5b or 5b_lyrics; by default found out from the files."),
    ] = None,
    hyperparameters: Annotated[
        Path | None,
        typer.Option(help="Of a Jukebox of your own in .pth.tar files: a JSON file of its hyperparameters."),
    ] = None,
    dtype: options.FileDtype = None,
    max_shard_size: Annotated[str, typer.Option(help="The largest file to write.")] = "1GB",
    revision: Annotated[str | None, typer.Option(help="Of a Hub repository.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Make a published Jukebox a model that everything here plays. The last line printed is its folder."""
    with Waiting("loading torch", quiet):
        from tqdm.auto import tqdm

        from fast_jukebox.conversion.convert import convert_checkpoint

    bar: tqdm[None] | None = None

    def progress(done: int, total: int, part: str) -> None:
        nonlocal bar
        if bar is None:  # what goes wrong before the first shard is reported without a bar
            bar = tqdm(total=total, unit="B", unit_scale=True, disable=quiet)
        bar.set_description(part, refresh=False)
        bar.update(done - bar.n)

    try:
        folder = convert_checkpoint(
            source,
            output,
            model=model,
            hyperparameters=hyperparameters,
            dtype=dtype,
            max_shard_size=max_shard_size,
            progress=progress,
            **({} if revision is None else {"revision": revision}),
        )
    finally:
        if bar is not None:
            bar.close()
    typer.echo(path_text(folder))


def merge(
    model: Annotated[
        str, typer.Argument(help="The base: a folder or Hub repository of a model or a prior.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="A new or empty folder for the result.", show_default=False)],
    adapter: Annotated[
        list[str], typer.Option(help="An adapter (LoRA) of a level, as 2=FOLDER or 2=NAME; once for each level.")
    ],
    dtype: options.FileDtype = None,
) -> None:
    """Merge adapters into their base, and save a model like any other. The last line printed is its folder."""
    merged = adapters(adapter)

    with Waiting("loading torch"):
        from fast_jukebox_cli.merge import merge as run
    with Waiting("merging"):
        folder = run(model, output, merged, dtype)
    typer.echo(path_text(folder))
