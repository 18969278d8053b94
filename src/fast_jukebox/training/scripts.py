"""Frame of the example scripts: one line for a mistake, and how to go on after Ctrl-C."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

RESUME = "--resume_from_checkpoint"
TRACEBACK = "FAST_JUKEBOX_TRACEBACK"
"""Variable of the environment with which mistakes show where they were found."""


def loading(resume: str | None = RESUME) -> None:
    """Say that torch is loaded next, which takes seconds, and let Ctrl-C meanwhile end as in [`run_script`].

    Args:
        resume: as there.
    """

    def stop(number: int, frame: object) -> None:
        _say(f"\n{_how_to_go_on(sys.argv, resume)}")
        os._exit(130)  # an exception could be taken for a package that is not there

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, stop)
    _say("loading torch")


def run_script(main: Callable[[], object], resume: str | None = RESUME) -> int:
    """Run a script.

    A mistake (an option, `ValueError`, `OSError`, `ImportError`, `RuntimeError`) ends in one line, other errors in a
    traceback, and Ctrl-C in the command that goes on.

    Args:
        main: the script's work.
        resume: the option that lets the same command go on when it is true; empty where it goes on without; None where
            it begins again.

    Returns:
        The exit status: 0, 1 after a mistake, 130 after Ctrl-C. A wrong option exits with 2.
    """
    try:
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # no longer that of `loading`
        with _short_usage():
            main()
            return 0
    except KeyboardInterrupt:
        pass
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get(TRACEBACK):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.encode("utf-8", "backslashreplace").decode()
        if isinstance(error, RuntimeError):  # of torch, mostly: it may be no mistake of the caller
            text = f"{text} ({TRACEBACK}=1 shows where)"
        print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)
        return 1
    finally:  # when the work has ended, so does the process, and soon
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    gc.collect()  # with the trainer go its bars, which are drawn once more
    _say(f"\n{_how_to_go_on(sys.argv, resume)}")
    return 130


@contextmanager
def _short_usage() -> Iterator[None]:
    """Let wrong options end in one line, without the list of all options before it."""

    def error(parser: ArgumentParser, message: str) -> NoReturn:
        parser.exit(2, f"{parser.prog}: {message}; `{parser.prog} --help` lists the options\n")

    usual, ArgumentParser.error = ArgumentParser.error, error  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ArgumentParser.error = usual  # type: ignore[method-assign, assignment]


def _say(text: str) -> None:
    """Print on standard error, by the first of several processes that a launcher started."""
    if not int(os.environ.get("RANK", "0")):
        print(text, file=sys.stderr, flush=True)


def _how_to_go_on(command: list[str], resume: str | None) -> str:
    program = Path(sys.executable).name if command[0].endswith(".py") else ""
    words = [*([program] if program else []), *command]
    if resume is None:
        return "Stopped."
    if not resume:
        return f"Stopped. What is finished is kept; to go on:\n  {shlex.join(words)}"
    if len(command) == 2 and command[1].endswith((".json", ".yaml", ".yml")):
        file = f"put `{resume.removeprefix('--')}: true` into {command[1]}, and run the same command"
        return f"Stopped. To go on, {file}:\n  {shlex.join(words)}"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # whose launcher does not say how it was called
        return f"Stopped. To go on from the last checkpoint, launch the same again with {resume} true."
    kept: list[str] = []
    for index, word in enumerate(words):
        value_of = index > 0 and words[index - 1] == resume and not word.startswith("--")
        if word != resume and not word.startswith(f"{resume}=") and not value_of:
            kept.append(word)
    then = shlex.join([*kept, resume, "true"])
    return f"Stopped. To go on from the last checkpoint, or from the start where there is none yet:\n  {then}"
