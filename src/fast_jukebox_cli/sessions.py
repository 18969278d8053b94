"""The words of the commands on sessions: songs that are kept in a folder while they are made.

Loads nothing, as `--help` is to come at once; what a command does stands in `fast_jukebox/commands/session.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fast_jukebox_cli.values import Waiting, choices, file, numbers, output_file, path_text

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
Artist = Annotated[str | None, typer.Option(help="An artist's name, for models that know artists.")]
Genre = Annotated[str | None, typer.Option(help="A genre, for models that know genres.")]
Lyrics = Annotated[str | None, typer.Option(help="The whole song's words; of models that sing.")]
LyricsFile = Annotated[Path | None, typer.Option(help="A text file with them.")]
TotalDuration = Annotated[
    float | None,
    typer.Option(help="Seconds that the whole song will have one day, by which its words are spread; by default now."),
]
Unknown = Annotated[
    bool, typer.Option("--unknown", help="Take a name that the model does not know as somebody unknown.")
]
Temperature = Annotated[
    str | None,
    typer.Option(
        help="Below 1 is safer, above 1 wilder; one number, or one a level, bottom first: 1,1,0.98. By default as the "
        "model says, or as before in this session."
    ),
]
Top = Annotated[
    str | None,
    typer.Option(help="Choose among so many of the most probable codes only; 0 is all. One, or one a level."),
]
TopShare = Annotated[
    str | None,
    typer.Option(help="Choose among the most probable codes of this total probability. One, or one a level."),
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
    prompt_duration: Annotated[
        float | None, typer.Option(help="Seconds of the recording to keep, by default all.")
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(help="A file of codes with which the song begins, as `export` writes it (.safetensors, ...)."),
    ] = None,
    seed: Seed = None,
    temperature: Temperature = None,
    top_k: Top = None,
    top_p: TopShare = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="parallel samples the windows of a level at once, sequential one by one. One, or one a level."
        ),
    ] = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    lyrics_file: LyricsFile = None,
    total_duration: TotalDuration = None,
    unknown: Unknown = False,
    model: NewModel = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Begin a song in a folder. Stopped at any moment, `resume` goes on with it."""
    recording, begun = file("prompt", prompt), file("codes", codes)
    settings = _settings(temperature, top_k, top_p)

    run = _session(quiet)
    from fast_jukebox_cli.words import song_words

    made = run.new(
        folder,
        run.Machine(model, device, engine, offload, quiet),
        prompt=recording,
        codes=begun,
        draft=draft,
        duration=duration,
        num_samples=songs,
        prompt_duration=prompt_duration,
        seed=seed,
        schedule=choices(schedule),
        metadata=song_words(artist, genre, lyrics, lyrics_file, total_duration, None, unknown),
        **settings,
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
    """Finish what was interrupted. The song comes out as if it had not been."""
    run = _session(quiet)

    _show(folder, run.resume(folder, run.Machine(model, device, engine, offload, quiet)))


def branch(
    folder: Folder,
    seconds: Annotated[float, typer.Option(help="How many seconds to go on.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many candidates.", min=1)] = 3,
    take: Take = None,
    temperature: Temperature = None,
    top_k: Top = None,
    top_p: TopShare = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    lyrics_file: LyricsFile = None,
    total_duration: TotalDuration = None,
    unknown: Unknown = False,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Draft several ways to go on. Each is a take to listen to; `keep` the best."""
    settings = _settings(temperature, top_k, top_p)

    run = _session(quiet)
    from fast_jukebox_cli.words import song_words

    words = song_words(artist, genre, lyrics, lyrics_file, total_duration, None, unknown)
    options = {**settings, "metadata": words}
    machine = run.Machine(model, device, engine, offload, quiet)
    _show(folder, run.branch(folder, machine, count, seconds, take, **options))


def extend(
    folder: Folder,
    duration: Annotated[float, typer.Option(help="Seconds of the whole song.", show_default=False)],
    take: Take = None,
    draft: Annotated[bool, typer.Option("--draft/--full", help="The top level only, or all levels.")] = True,
    seed: Annotated[int | None, typer.Option(help="For the new seconds; by default the take's own.")] = None,
    temperature: Temperature = None,
    top_k: Top = None,
    top_p: TopShare = None,
    artist: Artist = None,
    genre: Genre = None,
    lyrics: Lyrics = None,
    lyrics_file: LyricsFile = None,
    total_duration: TotalDuration = None,
    unknown: Unknown = False,
    model: Model = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a take until the song is so long. The take itself stays; the longer one is then kept."""
    settings = _settings(temperature, top_k, top_p)

    run = _session(quiet)
    from fast_jukebox_cli.words import song_words

    words = song_words(artist, genre, lyrics, lyrics_file, total_duration, None, unknown)
    options = {"seed": seed, **settings, "metadata": words}
    machine = run.Machine(model, device, engine, offload, quiet)
    _show(folder, run.extend(folder, machine, duration, take, draft, **options))


def cut(
    folder: Folder,
    seconds: Annotated[float, typer.Option(help="How many seconds of the beginning to keep.", show_default=False)],
    take: Take = None,
) -> None:
    """Take the beginning of a take, to go on from there. The take itself stays; its beginning is then kept."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).cut(seconds, take)
    _show(folder, [])


def keep(
    folder: Folder, take: Annotated[int, typer.Argument(help="Number of the take to go on with.", show_default=False)]
) -> None:
    """Choose the take that the other commands mean. Nothing is deleted; you can change your mind."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).keep(take)
    _show(folder, [])


def upsample(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="A session; or a recording, or a file of top codes (.safetensors, .npy, .pth.tar), to play again.",
            show_default=False,
        ),
    ],
    take: Take = None,
    start: Start = None,
    end: End = None,
    stop_level: Annotated[int, typer.Option(help="The lowest level to make: 0 is full quality.")] = 0,
    session: Annotated[
        Path | None,
        typer.Option(help="With a FILE: the folder of the new session, by default FILE's name with -session."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With a FILE: see `session new`.")] = None,
    artist: Annotated[str | None, typer.Option(help="With a FILE: in whose manner to play.")] = None,
    genre: Annotated[str | None, typer.Option(help="With a FILE: in which genre.")] = None,
    unknown: Unknown = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="A folder or Hub repository; by default the one that the session was made with, or with a FILE the "
            "model inside the package."
        ),
    ] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    offload: Offload = None,
    quiet: Quiet = False,
) -> None:
    """Refine a draft, or rescue a recording. A draft, or a part of it, is made in full quality. A recording, or the
    codes of a lost session, are played again.
    """
    is_file = source.expanduser().is_file()
    if not is_file and not source.expanduser().is_dir():
        raise ValueError(f"`DIR|FILE` must be a session or a file, but there is nothing at {str(source)!r}")
    with_file = {"session": session, "seed": seed, "artist": artist, "genre": genre, "unknown": unknown or None}
    with_session = {"take": take, "start": start, "end": end}
    for name, value in (with_session if is_file else with_file).items():
        if value is not None:
            wanted, got = ("session", "file") if is_file else ("file", "session")
            raise ValueError(f"`--{name}` must go with a {wanted}, got the {got} {str(source)!r}")

    run = _session(quiet)
    from fast_jukebox_cli.words import song_words

    machine = run.Machine(model, device, engine, offload, quiet)
    if is_file:
        folder = (
            source.with_name(f"{Path(source.name.removesuffix('.tar')).stem}-session") if session is None else session
        )
        words = song_words(artist, genre, None, None, None, None, unknown)
        _show(folder, run.rescue(folder, machine, source.expanduser(), stop_level, seed=seed, metadata=words))
    else:
        _show(source, run.upsample(source, machine, take, stop_level, start, end))


def export(
    folder: Folder,
    output: Annotated[
        Path, typer.Option(help="The file to write: .wav, .flac or .mp3, or .safetensors for the codes of all levels.")
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
    """Write the sound of a take to a file. Or of a part of it, or its codes."""
    target = output_file("output", output, (".wav", ".flac", ".mp3", ".safetensors"))

    run = _session()

    machine = run.Machine(model, device, "auto", None, True)
    typer.echo(path_text(run.export(folder, machine, target, take, level, start, end)))


def takes(folder: Folder) -> None:
    """Show the takes of a session as a tree. Tells how each came about, what is made of it, and which one is kept."""
    from fast_jukebox.sessions.session import Session

    session = Session.open(folder)
    typer.echo(session.tree())
    waiting = sorted({number for job in session.jobs for number in job.takes})
    if waiting:
        typer.echo(f"not finished: take {', '.join(map(str, waiting))}; `fast-jukebox resume {folder}` goes on")


def forget(folder: Folder) -> None:
    """Give up what is not finished. What is made of it stays, but no command goes on with it."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).forget()
    _show(folder, [])


def _session(quiet: bool = False) -> Any:
    """The module that does the work, which loads torch."""
    with Waiting("loading torch", quiet):
        from fast_jukebox_cli import session
    return session


def _settings(temperature: str | None, top_k: str | None, top_p: str | None) -> dict[str, Any]:
    return {
        "temperature": numbers("temperature", temperature, float),
        "top_k": numbers("top-k", top_k, int),
        "top_p": numbers("top-p", top_p, float),
    }


def _show(folder: Path, written: Sequence[Path]) -> None:
    """The tree for people, the files that were written for programs."""
    from fast_jukebox.sessions.session import Session

    typer.echo(Session.open(folder).tree(), err=True)
    for path in written:
        typer.echo(path_text(path))


SESSION_COMMANDS = frozenset(
    {"session", "resume", "branch", "keep", "cut", "extend", "upsample", "export", "takes", "forget"}
)
"""Commands on songs that are kept in a folder, which the help shows together."""


def register(app: typer.Typer, wrap: Callable[[Callable[..., None]], Callable[..., Any]]) -> None:
    """Add the commands to those of `fast-jukebox`; `wrap` reports their errors."""
    session_app = typer.Typer(no_args_is_help=True, help="Songs that are kept in a folder while they are made.")
    session_app.callback()(lambda: None)  # with one command it is a group all the same
    session_app.command("new")(wrap(new))
    app.add_typer(session_app, name="session")
    for command in (resume, branch, keep, cut, extend, upsample, export, takes, forget):
        app.command(command.__name__)(wrap(command))
