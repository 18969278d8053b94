"""The words of the commands on sessions: songs that are kept in a folder while they are made.

Loads nothing, as `--help` is to come at once; what a command does stands in `fast_jukebox/commands/session.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The session's folder.", show_default=False)]
Take = Annotated[
    int | None, typer.Option(help="Number of a take, as `takes` lists them; by default the one that is kept.")
]
Model = Annotated[
    str | None, typer.Option(help="A folder or Hub repository; by default the one that the session was made with.")
]
NewModel = Annotated[
    str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Engine = Annotated[str, typer.Option(help="What runs the steps: auto chooses, eager is the plain one.")]
Offload = Annotated[
    str | None,
    typer.Option(help="For a GPU that is too small: cpu or disk, where levels wait while another one plays."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Artist = Annotated[str | None, typer.Option(help="In whose manner; of models that were told artists.")]
Genre = Annotated[str | None, typer.Option(help="In which genre; of models that were told genres.")]
Lyrics = Annotated[Path | None, typer.Option(help="A text file with the words to sing; of models that sing.")]
Temperature = Annotated[
    float | None, typer.Option(help="Below 1 is safer, above 1 wilder; by default as before in this session.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed makes the same song; by default a fresh one.")]
Start = Annotated[float | None, typer.Option(help="Seconds at which the part begins; by default the beginning.")]
End = Annotated[float | None, typer.Option(help="Seconds at which the part ends; by default the end.")]


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    duration: Annotated[float | None, typer.Option(help="Seconds of the song; by default what the model says.")] = None,
    songs: Annotated[int, typer.Option(help="How many different beginnings to make.", min=1)] = 1,
    draft: Annotated[
        bool, typer.Option("--draft", help="The top level only: quick and rough, to choose from. `upsample` refines.")
    ] = False,
    prompt: Annotated[Path | None, typer.Option(help="A recording with which the song begins.")] = None,
    prompt_duration: Annotated[float | None, typer.Option(help="Seconds of the recording to keep.")] = None,
    seed: Seed = None,
    temperature: Temperature = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    model: NewModel = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Begin a song in a folder. Stopped at any moment, `resume` goes on with it."""
    from fast_jukebox.commands import session as run

    made = run.new(
        folder,
        run.Machine(model, device, engine, offload, quiet),
        prompt=None if prompt is None else prompt.expanduser(),
        draft=draft,
        duration=duration,
        num_samples=songs,
        prompt_duration=prompt_duration,
        seed=seed,
        temperature=temperature,
        metadata=run.words(artist, genre, lyrics),
    )
    _show(folder, made)


def resume(
    folder: Folder,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Finish what was interrupted: the song comes out as if it had not been."""
    from fast_jukebox.commands import session as run

    _show(folder, run.resume(folder, run.Machine(model, device, engine, offload, quiet)))


def branch(
    folder: Folder,
    seconds: Annotated[float, typer.Option(help="How many seconds to go on.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many candidates.", min=1)] = 3,
    take: Take = None,
    temperature: Temperature = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Draft several ways to go on from one past, as takes to listen to; `keep` the best."""
    from fast_jukebox.commands import session as run

    told = {"temperature": temperature, "metadata": run.words(artist, genre, lyrics)}
    machine = run.Machine(model, device, engine, offload, quiet)
    _show(folder, run.branch(folder, machine, count, seconds, take, **told))


def extend(
    folder: Folder,
    duration: Annotated[float, typer.Option(help="Seconds of the whole song.", show_default=False)],
    take: Take = None,
    draft: Annotated[bool, typer.Option("--draft/--full", help="The top level only, or all levels.")] = True,
    seed: Annotated[int | None, typer.Option(help="For the new seconds; by default the take's own.")] = None,
    temperature: Temperature = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a take until the song is so long. The take itself stays; the longer one is then kept."""
    from fast_jukebox.commands import session as run

    told = {"seed": seed, "temperature": temperature, "metadata": run.words(artist, genre, lyrics)}
    machine = run.Machine(model, device, engine, offload, quiet)
    _show(folder, run.extend(folder, machine, duration, take, draft, **told))


def cut(
    folder: Folder,
    seconds: Annotated[float, typer.Option(help="How many seconds of the beginning to keep.", show_default=False)],
    take: Take = None,
) -> None:
    """Take the beginning of a take, to go on from there. The take itself stays; its beginning is then kept."""
    from fast_jukebox.generation.session import Session

    Session.open(folder).cut(seconds, take)
    _show(folder, [])


def keep(
    folder: Folder, take: Annotated[int, typer.Argument(help="Number of the take to go on with.", show_default=False)]
) -> None:
    """Choose the take that the other commands mean. Nothing is deleted; you can change your mind."""
    from fast_jukebox.generation.session import Session

    Session.open(folder).keep(take)
    _show(folder, [])


def upsample(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="A session; or a recording, or a file of top codes (.safetensors, .npy, .pth.tar), to be played anew.",
            show_default=False,
        ),
    ],
    take: Take = None,
    start: Start = None,
    end: End = None,
    stop_level: Annotated[int, typer.Option(help="The lowest level to make: 0 is full quality.")] = 0,
    session: Annotated[
        Path | None, typer.Option(help="With a FILE: the folder of the new session, by default FILE's name.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With a FILE: see `session new`.")] = None,
    artist: Artist = None,
    genre: Genre = None,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Refine a draft, or a part of it, to full quality; or rescue a recording or lost codes by playing them anew."""
    from fast_jukebox.commands import session as run

    machine = run.Machine(model, device, engine, offload, quiet)
    if source.expanduser().is_file():
        given = {"--take": take, "--start": start, "--end": end}
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise ValueError(f"`{wrong[0]}` must go with a session, got the file {str(source)!r}")
        folder = source.with_name(source.name.split(".")[0] + "-session") if session is None else session
        told = {"seed": seed, "metadata": run.words(artist, genre, None)}
        _show(folder, run.rescue(folder, machine, source.expanduser(), **told))
        return
    if session is not None or seed is not None:
        raise ValueError(f"`--session` and `--seed` must go with a file, got the session {str(source)!r}")
    _show(source, run.upsample(source, machine, take, stop_level, start, end))


def export(
    folder: Folder,
    output: Annotated[
        Path, typer.Option(help="The file to write: .wav or .flac, or .safetensors for the codes of all levels.")
    ] = Path("song.wav"),
    take: Take = None,
    level: Annotated[
        int | None, typer.Option(help="0 is full quality, higher is rougher; by default the lowest that is made.")
    ] = None,
    start: Start = None,
    end: End = None,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Write the sound of a take, or of a part of it, to a file."""
    from fast_jukebox.commands import session as run

    machine = run.Machine(model, device, "auto", None, True)
    typer.echo(str(run.export(folder, machine, output.expanduser().absolute(), take, level, start, end)))


def takes(folder: Folder) -> None:
    """Show the takes of a session as a tree: how each came about, what is made of it, and which one is kept."""
    from fast_jukebox.generation.session import Session

    typer.echo(Session.open(folder).tree())


def _show(folder: Path, written: Sequence[Path]) -> None:
    """The tree for people, the files that were written for programs."""
    from fast_jukebox.generation.session import Session

    typer.echo(Session.open(folder).tree(), err=True)
    for path in written:
        typer.echo(str(path))


def register(app: typer.Typer, wrap: Callable[[Callable[..., None]], Callable[..., Any]]) -> None:
    """Add the commands to those of `fast-jukebox`; `wrap` tells their errors."""
    session_app = typer.Typer(no_args_is_help=True, help="Songs that are kept in a folder while they are made.")
    session_app.callback()(lambda: None)  # with one command it is a group all the same
    session_app.command("new")(wrap(new))
    app.add_typer(session_app, name="session")
    for command in (resume, branch, keep, cut, extend, upsample, export, takes):
        app.command(command.__name__)(wrap(command))


__all__ = ["register"]
