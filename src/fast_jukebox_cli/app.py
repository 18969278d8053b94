"""The command `fast-jukebox`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fast_jukebox_cli.evaluations import register as register_evaluations
from fast_jukebox_cli.many import register as register_many
from fast_jukebox_cli.sessions import SESSION_COMMANDS, Offload
from fast_jukebox_cli.sessions import register as register_sessions
from fast_jukebox_cli.studio import register as register_studio
from fast_jukebox_cli.values import (
    Waiting,
    adapters,
    choices,
    file,
    free_path,
    numbered,
    numbers,
    output_file,
    path_text,
    with_options,
)

# Whatever is slow to import is imported by the command that needs it, so that `--help` is quick.


class _Commands(TyperGroup):
    """Commands in two sections of the help, and errors of usage in one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        visible = [(name, command) for name, command in self.commands.items() if not command.hidden]
        width = formatter.width - 6 - max(len(name) for name, _ in visible)
        for title, in_session in (("Commands", False), ("Songs kept in a folder (sessions)", True)):
            rows = [(n, c.get_short_help_str(width)) for n, c in visible if (n in SESSION_COMMANDS) == in_session]
            with formatter.section(title):
                formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--ray` may stand without a value, which typer's options cannot."""
        followers = [*args[1:], "-"]
        args = [
            f"{arg}=" if arg == "--ray" and after[:1] == "-" else arg
            for arg, after in zip(args, followers, strict=False)
        ]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def main(self, *args: Any, **kwargs: Any) -> object:
        if not kwargs.pop("standalone_mode", True):
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except typer.Abort:
            code = _tell("interrupted; nothing was written", _INTERRUPTED)
        except _UsageError as error:
            if error.format_message().startswith("Usage:"):  # a group of commands without one shows its help
                error.show()
                code = error.exit_code
            else:
                way = "fast-jukebox" if error.ctx is None else error.ctx.command_path
                code = _tell(f"{error.format_message().rstrip('.')}; `{way} --help` tells more", error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Make music as raw audio with Fast Jukebox models.",
)

_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130
_UsageError: Any = typer.BadParameter.__base__  # of click, or of typer's own copy of it


def _clean_errors(command: Callable[..., None]) -> Callable[..., None]:
    """One line on stderr instead of a traceback: exit code 2 for bad input, 1 for what failed, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(_tell(str(interrupt) or "interrupted; nothing was written", _INTERRUPTED)) from None
        except ValueError as error:
            raise typer.Exit(_tell(with_options(str(error), command), _MISUSED)) from error
        except (OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as error:
            raise typer.Exit(_tell(error, _FAILED)) from error

    return wrapped


def _printable(text: str) -> str:
    """Text whose names of files, and of what is in them, may be anybody's."""
    if text.isprintable():
        return text
    from fast_jukebox.utils.text import printable

    return printable(text)


def _tell(error: BaseException | str, code: int) -> int:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    typer.echo(f"fast-jukebox: {_printable(' '.join(lines)) or type(error).__name__}", err=True)
    return code


def _checked_output(
    output: Path | None, raw: bool, stream: bool, num_samples: int, force: bool, inputs: Sequence[Path | None]
) -> list[Path] | None:
    """Absolute paths that can be written, one a song, `None` for standard output.

    Raises:
        ValueError: one cannot be written, stands there already, or is an input; found out before the work.
    """
    if output is not None and str(output) == "-":
        if sys.stdout.isatty():
            raise ValueError("`--output -` must be led into a file or a program, got a terminal")
        if num_samples != 1:
            raise ValueError(f"`--output -` writes one song, got `--num-samples {num_samples}`")
        return None
    if raw:
        raise ValueError(
            f"`--raw` must go with `--output -`, got {'no `--output`' if output is None else str(output)!r}"
        )
    if stream and num_samples != 1:
        raise ValueError(f"`--stream` writes one song, got `--num-samples {num_samples}`")
    path = free_path(Path("song.wav"), num_samples) if output is None else output
    suffixes = _SUFFIXES[:3] if stream else _SUFFIXES
    others = ", or be -" + (" (with `--stream`)" if stream else "")
    return [output_file("output", each, suffixes, others, force, inputs) for each in numbered(path, num_samples)]


def _show_version(show: bool) -> None:
    if show:
        from fast_jukebox import __version__  # loads neither torch nor transformers

        typer.echo(f"fast-jukebox {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make music as raw audio with Fast Jukebox models."""


@app.command()
@_clean_errors
def generate(
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds of the song, the prompt included. By default what the model says, mostly 20; with --stream, "
            "without end."
        ),
    ] = None,
    extend: Annotated[
        float | None, typer.Option(help="Seconds to make beyond the prompt, in place of --duration.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write: .wav, .flac, .mp3 or .ogg; or - for standard output, to a player. By default "
            "song.wav, or song-2.wav and so on where that exists."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output where it exists.")] = False,
    num_samples: Annotated[
        int, typer.Option(help="Songs to make; the files of several are numbered.", min=1, max=10_000)
    ] = 1,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write the song while it is made; Ctrl-C leaves what there is.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="On standard output, 16-bit samples and no WAV header.")] = False,
    prompt: Annotated[Path | None, typer.Option(help="A recording with which the song begins.")] = None,
    prompt_duration: Annotated[
        float | None, typer.Option(help="Seconds of the recording to keep, by default all.")
    ] = None,
    artist: Annotated[str | None, typer.Option(help="Who is to be heard; for models that know artists.")] = None,
    genre: Annotated[str | None, typer.Option(help="A genre, for models that know genres.")] = None,
    lyrics: Annotated[str | None, typer.Option(help="The whole song's words, for models that sing.")] = None,
    lyrics_file: Annotated[Path | None, typer.Option(help="A text file with them.")] = None,
    total_duration: Annotated[
        float | None, typer.Option(help="Seconds of the whole song of which this is a part; by default the part.")
    ] = None,
    offset: Annotated[float | None, typer.Option(help="Seconds of that song that come before this part.")] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Take a name that the model does not know as somebody unknown.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="An adapter (LoRA) of a level, as 2=FOLDER or 2=NAME; once for each level."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Access token of the Hub; by default that of `hf auth login`.", envvar="HF_TOKEN")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default what suits the device.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same song; by default a fresh one.")] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="Below 1 is safer, above 1 wilder. One number, or one a level, bottom first: 1,1,0.98."),
    ] = None,
    top_k: Annotated[
        str | None,
        typer.Option(help="Choose among so many of the most probable codes only; 0 is all. One, or one a level."),
    ] = None,
    top_p: Annotated[
        str | None,
        typer.Option(help="Choose among the most probable codes of this total probability. One, or one a level."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="parallel samples the windows of a level at once, sequential one by one. One, or one a level."
        ),
    ] = None,
    window_fractions: Annotated[
        str | None,
        typer.Option(help="How much of its context a parallel window spans; less is quicker. One, or one a level."),
    ] = None,
    hop_fractions: Annotated[
        str | None,
        typer.Option(
            help="How far each window moves on, as a share of its length. Smaller remembers more. One, or one a level."
        ),
    ] = None,
    stop_level: Annotated[
        int, typer.Option(help="The lowest level to make: 0 is full quality; higher is a quick, rough draft.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    engine: Annotated[str, typer.Option(help="What runs the steps: auto chooses, eager is the plain one.")] = "auto",
    offload: Offload = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Make a song, or several, and write them to files. The last lines printed are the files' paths."""
    targets = _checked_output(output, raw, stream, num_samples, force, (prompt, lyrics_file))
    recording, merged = file("prompt", prompt), adapters(adapter)
    if extend is not None and (duration is not None or prompt is None):
        raise ValueError("`--extend` must go with `--prompt` and without `--duration`")
    settings = {
        "duration": duration,
        "schedule": choices(schedule),
        "window_fractions": numbers("window-fractions", window_fractions, float),
        "hop_fractions": numbers("hop-fractions", hop_fractions, float),
        "temperature": numbers("temperature", temperature, float),
        "top_k": numbers("top-k", top_k, int),
        "top_p": numbers("top-p", top_p, float),
    }

    with Waiting("loading torch", quiet):
        from fast_jukebox_cli.generate import generate as run
        from fast_jukebox_cli.model import ModelSource
        from fast_jukebox_cli.words import song_words

    metadata = song_words(artist, genre, lyrics, lyrics_file, total_duration, offset, unknown)
    made = run(
        outputs=targets,
        kind="raw" if raw else "wav",
        prompt=recording,
        prompt_duration=prompt_duration,
        extend=extend,
        model=ModelSource(model, revision, token, dtype, merged),
        device=device,
        offload=offload,
        quiet=quiet,
        stream=stream,
        settings=settings,
        arguments={
            "seed": seed,
            "stop_level": stop_level,
            "engine": engine,
            "metadata": metadata,
            "num_samples": num_samples,
        },
    )
    typer.echo(_printable(made), err=True)
    for target in targets or ():
        typer.echo(path_text(target))


@app.command()
@_clean_errors
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default the file's.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="parallel or sequential. One, or one a level.")] = None,
    window_fractions: Annotated[
        str | None, typer.Option(help="How much of its context a parallel window spans. One, or one a level.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What runs the steps.")] = "auto",
) -> None:
    """Tell what a song would take here: time, memory, disk. The weights are not read."""
    fractions = numbers("window-fractions", window_fractions, float)

    settings = {"schedule": choices(schedule), "window_fractions": fractions, "engine": engine}
    with Waiting("loading torch"):
        from fast_jukebox_cli.estimate import estimate as run
    with Waiting("timing a few steps"):
        found = run(model, device, duration=duration, num_samples=num_samples, dtype=dtype, **settings)
    typer.echo(str(found))


@app.command()
@_clean_errors
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
        parts = list(description(model_name(model)))
    for part in parts:
        console.print(part)


@app.command()
@_clean_errors
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
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default the files'.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="The largest file to write.")] = "1GB",
    revision: Annotated[str | None, typer.Option(help="Of a Hub repository.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Make a published Jukebox a model that everything here plays. The last line printed is its folder."""
    with Waiting("loading torch", quiet):
        from fast_jukebox_cli.convert import convert as run

    download = {} if revision is None else {"revision": revision}
    settings = {"model": model, "hyperparameters": hyperparameters, "dtype": dtype, "max_shard_size": max_shard_size}
    typer.echo(path_text(run(source, output, quiet=quiet, **settings, **download)))


@app.command()
@_clean_errors
def merge(
    model: Annotated[
        str, typer.Argument(help="The base: a folder or Hub repository of a model or a prior.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="A new or empty folder for the result.", show_default=False)],
    adapter: Annotated[
        list[str], typer.Option(help="An adapter (LoRA) of a level, as 2=FOLDER or 2=NAME; once for each level.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default the file's.")
    ] = None,
) -> None:
    """Merge adapters into their base, and save a model like any other. The last line printed is its folder."""
    merged = adapters(adapter)

    from fast_jukebox_cli.merge import merge as run

    typer.echo(path_text(run(model, output, merged, dtype)))


register_evaluations(app, _clean_errors)
register_many(app, _clean_errors)
register_studio(app, _clean_errors)
register_sessions(app, _clean_errors)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
