"""The commands on sessions: songs that are kept in a folder while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, check_rate, choices, existing_file, output_file, path_text

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The session's folder.", show_default=False)]
Take = Annotated[
    int | None, typer.Option(help="Number of a take, as `takes` lists them; by default the one that is kept.")
]
Start = Annotated[float | None, typer.Option(help="Seconds at which the part begins; by default the beginning.")]
End = Annotated[float | None, typer.Option(help="Seconds at which the part ends; by default the end.")]


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    *,
    duration: Annotated[float | None, typer.Option(help="Seconds of the song; by default what the model says.")] = None,
    songs: Annotated[int, typer.Option(help="How many different beginnings to make.", min=1)] = 1,
    draft: Annotated[
        bool, typer.Option("--draft", help="The top level only: quick and rough, to choose from. `upsample` refines.")
    ] = False,
    prompt: options.Prompt = None,
    prompt_duration: options.PromptDuration = None,
    codes: Annotated[
        Path | None,
        typer.Option(help="A file of codes with which the song begins, as `export` writes it (.safetensors, ...)."),
    ] = None,
    seed: options.Seed = None,
    sampling: options.Sampling,
    schedule: options.Schedule = None,
    words: options.Words,
    machine: options.Machine,
) -> None:
    """Begin a song in a folder. Stopped at any moment, `resume` goes on with it."""
    recording, begun = existing_file("prompt", prompt), existing_file("codes", codes)
    with Waiting("loading torch", machine.quiet):
        from fast_jukebox.generation.request import SongRequest
        from fast_jukebox_cli import session as work
        from fast_jukebox_cli.words import song_words

    settings = sampling.settings()
    session = work.new_session(
        folder,
        machine,
        SongRequest(duration=duration, num_samples=songs, seed=seed, schedule=choices(schedule), **settings),
        song_words(words),
        prompt=recording,
        prompt_duration=prompt_duration,
        codes=begun,
        draft=draft,
    )
    _show(folder, work.run(session, machine))


def resume(folder: Folder, machine: options.Machine) -> None:
    """Finish what was interrupted. The song is the same as without the interruption."""
    with Waiting("loading torch", machine.quiet):
        from fast_jukebox_cli import session as work

    _show(folder, work.run(work.open_session(folder, machine), machine, missing=True))


def branch(
    folder: Folder,
    *,
    seconds: Annotated[float, typer.Option(help="How many seconds to go on.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many candidates.", min=1)] = 3,
    take: Take = None,
    sampling: options.Sampling,
    words: options.Words,
    machine: options.Machine,
) -> None:
    """Draft several ways to go on. Each is a take to listen to; `keep` the best."""
    with Waiting("loading torch", machine.quiet):
        from fast_jukebox_cli import session as work
        from fast_jukebox_cli.words import song_words

    metadata, settings = song_words(words), _changed(sampling)
    session = work.open_session(folder, machine)
    session.branch(count, seconds, take, metadata=metadata, stop_level=None, **settings)
    _show(folder, work.run(session, machine))


def extend(
    folder: Folder,
    *,
    duration: Annotated[float, typer.Option(help="Seconds of the complete song.", show_default=False)],
    take: Take = None,
    draft: Annotated[bool, typer.Option("--draft/--full", help="The top level only, or all levels.")] = True,
    seed: Annotated[int | None, typer.Option(help="For the new seconds; by default the take's own.")] = None,
    sampling: options.Sampling,
    words: options.Words,
    machine: options.Machine,
) -> None:
    """Go on with a take until the song is so long. The take itself stays; the longer one is then kept."""
    with Waiting("loading torch", machine.quiet):
        from fast_jukebox_cli import session as work
        from fast_jukebox_cli.words import song_words

    metadata, settings = song_words(words), _changed(sampling)
    session = work.open_session(folder, machine)
    session.extend(duration, take, metadata=metadata, stop_level=None if draft else 0, seed=seed, **settings)
    _show(folder, work.run(session, machine))


def cut(
    folder: Folder,
    seconds: Annotated[float, typer.Option(help="How many seconds of the beginning to keep.", show_default=False)],
    take: Take = None,
) -> None:
    """Take the beginning of a take, to go on from there. The take itself stays; its beginning is then kept."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).cut(seconds, take)
    _show(folder)


def keep(
    folder: Folder, take: Annotated[int, typer.Argument(help="Number of the take to go on with.", show_default=False)]
) -> None:
    """Choose the take that the other commands mean. Nothing is deleted; you can change your mind."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).keep(take)
    _show(folder)


def upsample(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="A session; or a recording, or a file of top codes (.safetensors, .npy, .pth.tar), to play again.",
            show_default=False,
        ),
    ],
    *,
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
    unknown: options.Unknown = False,
    machine: options.Machine,
) -> None:
    """Refine a draft, or play a recording again. A draft, or a part of it, is made in full quality. A recording, or the
    codes of a lost session, become a new session.
    """
    file = source.expanduser()
    is_file = file.is_file()
    if not is_file and not file.is_dir():
        raise ValueError(f"`DIR|FILE` must be a session or a file, but there is nothing at {str(source)!r}")
    with_file = {"session": session, "seed": seed, "artist": artist, "genre": genre, "unknown": unknown or None}
    with_session = {"take": take, "start": start, "end": end}
    for name, value in (with_session if is_file else with_file).items():
        if value is not None:
            wanted, got = ("session", "file") if is_file else ("file", "session")
            raise ValueError(f"`--{name}` must go with a {wanted}, got the {got} {str(source)!r}")

    with Waiting("loading torch", machine.quiet):
        from fast_jukebox.generation.request import SongRequest
        from fast_jukebox_cli import session as work
        from fast_jukebox_cli.words import song_words

    if is_file:
        folder = source.with_name(f"{Path(source.name.removesuffix('.tar')).stem}-session")
        folder = folder if session is None else session
        metadata = song_words(options.Words(artist, genre, unknown=unknown))
        made = work.new_session(
            folder, machine, SongRequest(seed=seed, stop_level=stop_level), metadata, played_again=file
        )
    else:
        folder, made = source, work.open_session(source, machine)
        made.request([made.take(take)], stop_level, start, end)
    _show(folder, work.run(made, machine))


def export(
    folder: Folder,
    *,
    output: Annotated[
        Path, typer.Option(help="The file to write: .wav, .flac or .mp3, or .safetensors for the codes of all levels.")
    ] = Path("song.wav"),
    force: options.Force = False,
    take: Take = None,
    level: Annotated[
        int | None, typer.Option(help="0 is full quality, higher is rougher; by default the lowest that is made.")
    ] = None,
    start: Start = None,
    end: End = None,
    machine: options.Machine,
) -> None:
    """Write the sound of a take to a file. Or of a part of it, or its codes."""
    target = output_file("output", output, (".wav", ".flac", ".mp3", ".safetensors"), force=force)
    if target.parent.resolve() == (folder.expanduser() / "codes").resolve():
        raise ValueError(f"`--output` must not lie among the codes of the session, got {str(target)!r}")
    with Waiting("loading torch", machine.quiet):
        from fast_jukebox.sessions.session import Session
        from fast_jukebox_cli import session as work

    if target.suffix.lower() == ".safetensors":
        for name, value in (("level", level), ("start", start), ("end", end)):
            if value is not None:
                raise ValueError(f"`{name}` must go with sound, as codes are written completely, got {value!r}")
        written = Session.open(folder).export(target, take)
    else:
        check_rate(target, Session.open(folder).facts.sampling_rate)
        session = work.open_session(folder, machine)
        with Waiting("writing the sound", machine.quiet):
            written = session.export(target, take, level, start, end)
    typer.echo(path_text(written))


def takes(folder: Folder) -> None:
    """Show the takes of a session as a tree: how each was made, what is made of it, and which one is kept."""
    from fast_jukebox.sessions.session import Session

    session = Session.open(folder)
    typer.echo(session.tree())
    waiting = sorted({number for job in session.jobs for number in job.takes})
    if waiting:
        typer.echo(
            f"not finished: take {', '.join(map(str, waiting))}; `fast-jukebox resume {quote(str(folder))}` goes on"
        )


def forget(folder: Folder) -> None:
    """Give up what is not finished. What is made of it stays, but no command goes on with it."""
    from fast_jukebox.sessions.session import Session

    Session.open(folder).forget()
    _show(folder)


def _changed(sampling: options.Sampling) -> dict[str, object]:
    """The sampling settings that differ from those of the take."""
    return {name: value for name, value in sampling.settings().items() if value is not None}


def _show(folder: Path, written: Sequence[Path] = ()) -> None:
    """The tree for people, the files that were written for programs."""
    from fast_jukebox.sessions.session import Session

    typer.echo(Session.open(folder).tree(), err=True)
    for path in written:
        typer.echo(path_text(path))
