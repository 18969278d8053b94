"""The options of commands for thousands of songs. Loads nothing, as `--help` is to come at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fast_jukebox_cli.values import file, numbers, path_text

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
    """The workers that options ask for; on Ray each has a GPU where the device is one, as on the calling machine."""
    from fast_jukebox.utils.workers import Workers

    on_gpu = device.startswith("cuda")
    if ray is not None and device == "auto":
        import torch

        on_gpu = torch.cuda.is_available()
    on_gpu = on_gpu and ray is not None
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


def generate_many(
    output: Annotated[
        Path, typer.Option(help="A new folder for the songs, or one to resume or add songs to.", show_default=False)
    ],
    num_samples: Annotated[int | None, typer.Option(help="Songs to make.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help='A JSON Lines file with a song a line, such as {"artist": "...", "genre": "...", "lyrics": "..."}; in '
            "place of --num-samples."
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of each song. By default what the model says, mostly 20.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all songs; each depends on it and its number alone.")] = 0,
    artist: Annotated[str | None, typer.Option(help="Who is to be heard in every song.")] = None,
    genre: Annotated[str | None, typer.Option(help="The genre of every song.")] = None,
    temperature: Annotated[str | None, typer.Option(help="One number, or one a level, bottom first.")] = None,
    top_k: Annotated[str | None, typer.Option(help="One number, or one a level.")] = None,
    top_p: Annotated[str | None, typer.Option(help="One number, or one a level.")] = None,
    batch_size: Annotated[int, typer.Option(help="Songs sampled at once by each worker.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default what suits the device.")
    ] = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    ray: Ray = None,
    quiet: Quiet = False,
) -> None:
    """Make many songs with their metadata, a folder as training reads it. The last line printed is its path."""
    settings = {
        "duration": duration,
        "temperature": numbers("temperature", temperature, float),
        "top_k": numbers("top-k", top_k, int),
        "top_p": numbers("top-p", top_p, float),
    }
    listed = file("requests", requests)
    from fast_jukebox_cli.generate_many import generate_many as run
    from fast_jukebox_cli.model import ModelSource
    from fast_jukebox_cli.words import song_words

    folder = output.expanduser()
    count = run(
        folder,
        num_samples=num_samples,
        requests=listed,
        words=song_words(artist, genre, None, None, None, None, False),
        settings=settings,
        seed=seed,
        batch_size=batch_size,
        model=ModelSource(model, dtype=dtype),
        device=device,
        workers=chosen_workers(workers, ray, device),
        quiet=quiet,
    )
    typer.echo(f"{count} songs, seed {seed}", err=True)
    typer.echo(path_text(folder))


def resumable(command: Callable[..., None]) -> Callable[..., None]:
    """A command that says of Ctrl-C that it resumes."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command resumes") from None

    return wrapped


def register(app: typer.Typer, clean_errors: Callable[[Callable[..., Any]], Callable[..., object]]) -> None:
    """Add the commands to the command line."""
    for command in (label, encode, generate_many):
        app.command()(clean_errors(resumable(command)))
