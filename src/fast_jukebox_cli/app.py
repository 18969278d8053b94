"""The command `fast-jukebox`: every command by its name, and what is printed of errors.

Whatever is slow to import is imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer.core import TyperGroup

from fast_jukebox_cli import evaluations, models, sessions, songs, studio
from fast_jukebox_cli.options import expanded
from fast_jukebox_cli.values import printable, with_options

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.exceptions import UsageError
    from typer._click.formatting import HelpFormatter

SESSION_COMMANDS = (
    *(sessions.resume, sessions.branch, sessions.keep, sessions.cut, sessions.extend, sessions.upsample),
    *(sessions.export, sessions.takes, sessions.forget),
)
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130
_NOTHING_WRITTEN = "interrupted; nothing was written"
_USAGE_ERROR = cast("type[UsageError]", typer.BadParameter.__base__)  # of click, or of typer's own copy of it


class _Commands(TyperGroup):
    """Commands in two sections of the help, and errors of usage in one line."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        width = formatter.width - 6 - max(len(name) for name in self.commands)
        in_session = {"session", *(command.__name__ for command in SESSION_COMMANDS)}
        for title, chosen in (("Commands", False), ("Songs kept in a folder (sessions)", True)):
            rows = [(name, command.get_short_help_str(width)) for name, command in self.commands.items()]
            with formatter.section(title):
                formatter.write_dl([row for row in rows if (row[0] in in_session) == chosen])

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """`--ray` may stand without a value, which typer's options cannot."""
        followers = [*args[1:], "-"]
        pairs = zip(args, followers, strict=False)
        return super().parse_args(ctx, [f"{a}=" if a == "--ray" and after[:1] == "-" else a for a, after in pairs])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> object:
        run = functools.partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            code = run()
        except typer.Abort:
            code = _print_error(_NOTHING_WRITTEN, _INTERRUPTED)
        except _USAGE_ERROR as error:
            if error.format_message().startswith("Usage:"):  # a group of commands without one shows its help
                error.show()
                code = error.exit_code
            else:
                path = "fast-jukebox" if error.ctx is None else error.ctx.command_path
                message = error.format_message().rstrip(".")
                code = _print_error(f"{message}; `{path} --help` has more", error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _clean_errors(command: Callable[..., None], interrupted: str = _NOTHING_WRITTEN) -> Callable[..., None]:
    """One line on stderr in place of a traceback: exit code 2 for bad input, 1 for what failed, 130 for Ctrl-C."""
    command = expanded(command)

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(_print_error(str(interrupt) or interrupted, _INTERRUPTED)) from None
        except ValueError as error:
            raise typer.Exit(_print_error(with_options(str(error), command), _MISUSED)) from error
        except (OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as error:
            raise typer.Exit(_print_error(error, _FAILED)) from error

    return wrapped


def _print_error(error: BaseException | str, code: int) -> int:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    typer.echo(f"fast-jukebox: {printable(' '.join(lines)) or type(error).__name__}", err=True)
    return code


app = typer.Typer(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Make music as raw audio with Fast Jukebox models.",
)


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


def _add(*commands: Callable[..., None], interrupted: str = _NOTHING_WRITTEN) -> None:
    for command in commands:
        app.command()(_clean_errors(command, interrupted))


_add(songs.generate, models.estimate, models.info, models.convert, models.merge)
_add(
    *(evaluations.evaluate, songs.label, songs.encode, songs.generate_many),
    interrupted="interrupted; the same command resumes",
)
_add(evaluations.plot, studio.demo, *SESSION_COMMANDS)
_sessions = typer.Typer(no_args_is_help=True, help="Songs that are kept in a folder while they are made.")
_sessions.callback()(lambda: None)  # with one command it is a group all the same
_sessions.command("new")(_clean_errors(sessions.new))
app.add_typer(_sessions, name="session")


def main() -> None:
    """Run the command line."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be no terminal, or closed
        if not os.get_terminal_size(sys.stderr.fileno()).columns:  # it does not say its size: tqdm would draw nothing
            os.environ.setdefault("TQDM_NCOLS", "80")
            os.environ.setdefault("TQDM_NROWS", "24")
    app()
