"""The options of commands for thousands of songs. Loads nothing, as `--help` is to come at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fast_jukebox_cli.values import path_text

if TYPE_CHECKING:
    from fast_jukebox.utils.workers import Workers

WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Processes that share the work. Without --ray 1 by default; with it one for each CPU, or GPU, of the "
        "cluster.",
        min=1,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Work on a Ray cluster: at this address, or else the running one, or else one of this machine. Every "
        "machine must reach the same folders.",
    ),
]
TestShare = Annotated[float, typer.Option(help="Fraction of the songs held out where none are marked.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; with --ray, cuda gives each worker a GPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def chosen_workers(count: int | None, ray: str | None, device: str = "cpu") -> Workers:
    """The workers that options ask for; on Ray each has a GPU where the device is one."""
    from fast_jukebox.utils.workers import Workers

    on_gpu = ray is not None and device.startswith("cuda")
    return Workers(1 if count is None and ray is None else count, ray, float(on_gpu))


def encode(
    songs: Annotated[str, typer.Argument(help="A folder of songs, or the Hub's name of a data set.")],
    output: Annotated[Path, typer.Option(help="A new folder for the codes, or one to resume.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="A VQ-VAE or a complete model, by folder or Hub name; by default the one in the package."),
    ] = None,
    test_share: TestShare = 0.1,
    device: Device = "auto",
    workers: WorkerCount = None,
    ray: Ray = None,
    quiet: Quiet = False,
) -> None:
    """Encode songs, which priors are trained on. The last line printed is the folder of codes."""
    from fast_jukebox_cli.encode import encode as run

    folder = output.expanduser()
    share = chosen_workers(workers, ray, device)
    made = run(songs, folder, model=model, test_share=test_share, device=device, workers=share, quiet=quiet)
    typer.echo(made, err=True)
    typer.echo(path_text(folder))


def label(
    songs: Annotated[str, typer.Argument(help="A folder of songs, or the Hub's name of a data set.")],
    output: Annotated[
        Path, typer.Option(help="A new folder of clips and labels, or one to resume.", show_default=False)
    ],
    clip_seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 30.0,
    sampling_rate: Annotated[int, typer.Option(help="Of the clips, which are mono.")] = 44100,
    labeller: Annotated[
        list[str] | None,
        typer.Option(
            help="What measures, again for several: key, tempo, tags (instruments, genre and moods), all by default; "
            "or MODULE:NAME of your own."
        ),
    ] = None,
    tempo_centre: Annotated[
        float | None,
        typer.Option(help="Tempi are doubled or halved to come nearest to this, in beats a minute; 100 by default."),
    ] = None,
    test_share: TestShare = 0.1,
    workers: WorkerCount = None,
    ray: Ray = None,
    quiet: Quiet = False,
) -> None:
    """Cut songs into clips and label them: a dataset to train on. The last line printed is its folder."""
    from fast_jukebox_cli.label import label as run

    report = run(
        songs,
        output.expanduser(),
        labellers=labeller or ["key", "tempo", "tags"],
        tempo_centre=tempo_centre,
        clip_seconds=clip_seconds,
        sampling_rate=sampling_rate,
        test_share=test_share,
        workers=chosen_workers(workers, ray),
        quiet=quiet,
    )
    typer.echo(str(report), err=True)
    typer.echo(path_text(output.expanduser()))


def register(app: typer.Typer, clean_errors: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Add the commands to the command line."""
    for command in (label, encode):
        app.command()(clean_errors(command))
