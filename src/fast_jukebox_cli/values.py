"""Values of options, errors that name the option, and what a terminal shows. Loads nothing."""

from __future__ import annotations

import inspect
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from typer.models import OptionInfo

if TYPE_CHECKING:
    from tqdm import tqdm

Number = TypeVar("Number", int, float)

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
"""Of the files of sound that are written."""
_OTHER_NAMES = {"path": "output", "num_samples": "songs", "target": "offload"}
"""Options that are called otherwise where the work is done."""


def numbers(name: str, text: str | None, kind: type[Number]) -> Number | list[Number] | None:
    """`0.98` as a number, `0.99,0.99,0.98` as a list of them, nothing as `None`; a `ValueError` names the option."""
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError as error:
        wanted = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"`--{name}` must be one of the {wanted} or several with commas, got {text!r:.200}") from error
    return values if len(values) > 1 else values[0]


def choices(text: str | None) -> str | list[str] | None:
    """`parallel` as a word, `parallel,sequential` as a list of them, nothing as `None`."""
    return text.split(",") if text is not None and "," in text else text


def adapters(texts: Sequence[str] | None) -> dict[int, str]:
    """`["2=runs/lora"]` as `{2: "runs/lora"}`; a `ValueError` for another text, or a level twice."""
    found: dict[int, str] = {}
    for text in texts or ():
        level, _, source = text.partition("=")
        if not level.isdecimal() or not source or int(level) in found:
            raise ValueError(f"`--adapter` must be a level and a folder or Hub name, as 2=runs/lora, got {text!r:.200}")
        found[int(level)] = source
    return found


def named_sources(texts: Sequence[str], what: str) -> dict[str, str]:
    """`["a=runs/one", "runs/two"]` as `{"a": "runs/one", "two": "runs/two"}`; a `ValueError` for a name twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (equals and name and source):
            name, source = Path(text).name or text, text
        if name in found:
            raise ValueError(f"{what} must have different names; write NAME=SOURCE, got {name!r} twice")
        found[name] = source
    return found


def existing_file(name: str, path: Path | None) -> Path | None:
    """A file that exists; a `ValueError` names the option."""
    if path is not None and not path.expanduser().is_file():
        raise ValueError(f"`--{name}` must be a file, got {str(path)!r}")
    return None if path is None else path.expanduser()


def output_file(
    name: str,
    output: Path,
    suffixes: Sequence[str],
    others: str = "",
    force: bool = False,
    inputs: Sequence[Path | None] = (),
) -> Path:
    """The absolute path of a file that can be written, found out before the work, not after.

    A `ValueError` names the option: it cannot be written, exists, or is an input.
    """
    output = output.expanduser().absolute()
    if output.suffix.lower() not in suffixes:
        raise ValueError(f"`--{name}` must end in {' or '.join(suffixes)}{others}, got {str(output)!r}")
    if os.path.isdir(output):
        raise ValueError(f"`--{name}` must be a file, got the folder {str(output)!r}")
    if not os.path.isdir(output.parent):
        raise ValueError(f"`--{name}` must lie in a folder that exists, got {str(output)!r}")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ValueError(f"`--{name}` must lie in a folder that can be written to, got {str(output)!r}")
    for given in inputs:
        if given is not None and _is_same(output, given.expanduser()):
            raise ValueError(f"`--{name}` must not be a file that is read, got {str(output)!r}")
    if os.path.lexists(output):
        if not force:
            raise ValueError(f"`--{name}` must be a new file, as {str(output)!r} exists; --force overwrites it")
    else:
        _try_name(name, output)
    return output


def check_rate(output: Path, rate: int) -> None:
    """Raise a `ValueError` where the format of an output lacks the model's sampling rate."""
    from fast_jukebox.audio.io import check_output

    try:
        check_output(output, rate)
    except ValueError as error:
        raise ValueError(f"`--output` must be of another format, such as .wav, for this model: {error}") from error


def song_files(
    output: Path | None, raw: bool, stream: bool, num_samples: int, force: bool, inputs: Sequence[Path | None]
) -> list[Path] | None:
    """Absolute paths of songs, checked as by [`output_file`]; `None` for standard output."""
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
    suffixes = SUFFIXES[:3] if stream else SUFFIXES
    others = ", or be -" + (" (with `--stream`)" if stream else "")
    return [output_file("output", each, suffixes, others, force, inputs) for each in numbered(path, num_samples)]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def _try_name(name: str, output: Path) -> None:
    """Raise a `ValueError` where the file system does not take the name: made once, empty, and removed."""
    try:
        os.close(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        output.unlink()
    except (OSError, UnicodeEncodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"`--{name}` must be a file that can be written, got {str(output)!r}: {why}") from error


def path_text(path: Path) -> str:
    r"""A path as it is printed; bytes of a name that is no UTF-8 are written as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Text that may hold names of files, and what is in them, with what could steer a terminal written as an escape."""
    if text.isprintable():
        return text
    from fast_jukebox.utils import text as texts

    return texts.printable(text)


def numbered(path: Path, count: int) -> list[Path]:
    """`song.wav`, or `song-1.wav`, `song-2.wav`, ... for several."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


def free_path(path: Path, count: int = 1) -> Path:
    """`path`, or the first of `song-2.wav`, `song-3.wav`, ... of which no file exists (of several songs, no one's)."""
    attempt, number = path, 1
    while any(os.path.lexists(each) for each in numbered(attempt, count)):
        number += 1
        attempt = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return attempt


class Waiting:
    """A line on a terminal of what takes longer than a second, with the time so far; removed when it is done. A log or
    a pipe gets a line now and then.
    """

    def __init__(self, what: str, quiet: bool = False) -> None:
        self.what, self._done = what, threading.Event()
        self._bar: tqdm[None] | None = None
        tick = self._tick if sys.stderr.isatty() else self._tick_in_log
        self._thread = None if quiet else threading.Thread(target=tick, daemon=True)

    def __enter__(self) -> Waiting:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        """Print a line on standard error, above what is under way."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._done.wait(1.0):
            if self._bar is None:
                from tqdm import tqdm  # keeps apart from the bars of what is under way

                self._bar = tqdm(desc=self.what, bar_format="{desc}, {elapsed}", leave=False)
            else:
                self._bar.refresh()

    def _tick_in_log(self) -> None:
        from fast_jukebox.utils import log_lines

        begin = time.monotonic()
        while not self._done.wait(0.0 if log_lines.is_due() else 0.25):
            if log_lines.is_due():
                log_lines.print_line(f"{self.what}, {time.monotonic() - begin:.0f} s")


def with_options(message: str, command: Callable[..., None]) -> str:
    """An error's message in which arguments of Python have the names that a command gives them as options."""
    options = {
        name
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if any(isinstance(each, OptionInfo) for each in getattr(parameter.annotation, "__metadata__", ()))
    }

    def named(found: re.Match[str]) -> str:
        name = found[1] if found[1] in options else _OTHER_NAMES.get(found[1], "")
        return f"`--{name.replace('_', '-')}`" if name in options else found[0]

    if "artist" in options:
        message = message.replace("`metadata` must", "the song's metadata (`--artist` and the like) must")
    return re.sub(r"`(\w+)(?:=True)?`", named, message)
