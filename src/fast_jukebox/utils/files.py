"""Atomic writes, temporary names and their clearing, and paths that stay in their folder.

Files are written by [`write_file`], [`writing`] or [`replacing`]: under a temporary name, synced and renamed, so that a
reader finds the old file or the new one, whenever the process or the power goes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

JsonObject: TypeAlias = dict[str, Any]
"""An object of JSON, whose reader checks the types of its values."""

_NAME = re.compile(r"\..*\.(\d+)-([0-9a-f]{8})-\d+\.tmp(\..*)?", re.DOTALL)
_count = itertools.count()

_READY = ".saved"
_STALE = ".stale.json"
_MOST_STALE = 2**20
_LARGEST_CLAIM = 2**24

_LONGEST = 150
"""Bytes of a name that a temporary one repeats; file systems take 255, and the rest needs up to 60."""

# Errors of a full or broken disk; others mean that the file system cannot sync.
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC)


def temporary_path(path: Path) -> Path:
    """A new hidden path beside `path`, with the same suffix, where its content is written first."""
    stem, suffix = path.stem, path.suffix
    if len(os.fsencode(path.name)) > _LONGEST:
        stem, suffix = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16], suffix if len(suffix) < 16 else ""
    return path.with_name(f".{stem}.{os.getpid()}-{_machine()}-{next(_count)}.tmp{suffix}")


def clear_temporary(folder: Path) -> None:
    """Delete temporary files in a folder of processes of this machine that are dead; raises nothing.

    Those of live processes and of other machines stay; on systems other than POSIX, all.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = _NAME.fullmatch(path.name)
            if found is None or found[2] != _machine() or may_live(int(found[1])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[Path]:
    """A temporary path beside `path`, for a file that replaces it when the block ends.

    An error within, Ctrl-C included, removes the temporary file and leaves `path` as it was.

    Raises:
        OSError: the file cannot be synced or renamed; `path` is as it was.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        if mode is not None:
            os.chmod(temporary, mode)
        with open(temporary, "rb+") as file:
            _sync(file.fileno(), path)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _name_target(error, temporary, path)
        raise


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[FileIO]:
    """A new binary file that replaces `path` when the block ends, see [`replacing`].

    It is unbuffered: what a full disk does not take would be written again, and fail again, as the file is closed.
    """
    with replacing(path, mode) as temporary, open(temporary, "x+b", buffering=0) as file:
        yield file


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path` that is renamed to it, complete, when the block ends.

    An error within, or of the disk at the end, leaves nothing at `path`. Temporary files of dead processes are deleted.

    Raises:
        OSError: the files cannot be synced, or `path` holds something.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_temporary(path.parent)
    temporary = temporary_path(path)
    try:
        temporary.mkdir()
        yield temporary
        sync_files(temporary)
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
        try:
            sync_folder(path.parent)
        except OSError:
            os.replace(path, temporary)
            raise
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_target(error, temporary, path)
        raise


@contextlib.contextmanager
def replacing_files(folder: str | os.PathLike[str], kept: re.Pattern[str] | None = None) -> Iterator[Path]:
    """A temporary folder whose files are all moved to `folder` when the block ends, or none.

    Where the process is killed while it moves them, [`finish_replacing`] moves the rest. An error within leaves
    `folder` as it was.

    Args:
        folder: made where it is missing. Other files in it stay.
        kept: names that go together, as those of the files of one model's weights: where at least one is written, older
            ones are deleted.

    Raises:
        OSError: the files cannot be synced; the folder is as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish_replacing(folder)
    clear_temporary(folder)
    temporary = temporary_path(folder / "saved")
    try:
        temporary.mkdir()
        yield temporary
        names = sorted(path.name for path in temporary.iterdir())
        together = kept is not None and any(kept.fullmatch(name) for name in names)
        old = [path.name for path in folder.iterdir() if together and kept is not None and kept.fullmatch(path.name)]
        write_file(temporary / _STALE, json.dumps(sorted(set(old) - set(names))))
        mode = (temporary / _STALE).stat().st_mode & 0o777
        for name in names:  # safetensors writes files that nobody else may read
            if (temporary / name).is_file():
                os.chmod(temporary / name, mode)
        sync_files(temporary)
        os.replace(temporary, folder / _READY)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_target(error, temporary, folder)
        raise
    finish_replacing(folder)


def finish_replacing(folder: str | os.PathLike[str]) -> None:
    """Move the files that a process killed in [`replacing_files`] had ready; an `OSError` if the disk is read-only."""
    folder = Path(folder)
    ready = folder / _READY
    if not ready.is_dir() or ready.is_symlink():
        return
    stale: object = []
    with contextlib.suppress(ValueError, RecursionError, FileNotFoundError):
        stale = json.loads(read_file(ready / _STALE, _MOST_STALE))
    for path in sorted(ready.iterdir()):
        if path.name != _STALE:
            os.replace(path, folder / path.name)
    for name in stale if isinstance(stale, list) else []:
        if isinstance(name, str) and Path(name).name == name:  # a name alone, whoever wrote the list
            (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    shutil.rmtree(ready)


def write_file(path: str | os.PathLike[str], content: Buffer | str, mode: int | None = None) -> None:
    """Write a file completely or not at all.

    Args:
        content: text is written as UTF-8, its line ends as they are.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    rest = memoryview(content.encode() if isinstance(content, str) else content)
    with writing(path, mode) as file:
        while rest:
            rest = rest[file.write(rest) :]


def claim_folder(path: Path, claim: Mapping[str, object], what: str) -> None:
    """State in a file of JSON what the results in its folder are made with, or refuse a folder that holds others.

    Args:
        path: of the file; it and its folder are made where missing.
        claim: settings by name; what JSON does not have counts by its text.
        what: kind of the results, such as `songs sampled`, for the error.

    Raises:
        ValueError: the file states other settings, or is damaged. Everything is left as it is.
    """
    claim = json.loads(json.dumps(claim, default=str))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(claim, indent=1))
        return
    try:
        there = json.loads(read_file(path, _LARGEST_CLAIM))
        if not isinstance(there, dict):
            raise ValueError("it must hold a mapping")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): name another folder than {path.parent}") from error
    pairs = {name: (there.get(name), value) for name, value in claim.items()}
    unlike = [f"{name} {old!s:.40}, not {new!s:.40}" for name, (old, new) in pairs.items() if old != new]
    if unlike:
        raise ValueError(f"{path.parent} holds {what} with {'; '.join(unlike)}. They are kept: name another folder")


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder, where the system and the file system can; a disk that fails is an `OSError`."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it may be written to, but not be read
        return
    try:
        _sync(handle, folder)
    finally:
        os.close(handle)


def _name_target(error: BaseException, temporary: Path, path: Path) -> None:
    """Let an error of the disk name the path that the caller knows in place of a temporary one, or of none, as a full
    disk states it.
    """
    if not isinstance(error, OSError) or not error.errno:
        return
    named = error.filename
    if named is None:
        error.filename = os.fspath(path)
    elif isinstance(named, str | os.PathLike) and Path(named).is_relative_to(temporary):
        error.filename = os.fspath(path / Path(named).relative_to(temporary))


def _sync(handle: int, path: Path) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _LOST:
            error.filename = os.fspath(path)
            raise


def sync_files(folder: Path) -> None:
    """Sync the files of a folder, which others wrote, and the folder's name; errors as [`sync_folder`]."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            with open(path, "rb+") as file:
                _sync(file.fileno(), path)
    sync_folder(folder)
    sync_folder(folder.parent)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise an error for a folder that may not be read, of which the system's questions say that it holds nothing, or
    is not there. Any other path is left alone.

    Raises:
        PermissionError: it may not be read, or a folder above it may not be entered.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise
        return
    if is_folder and not os.access(path, os.R_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder may not be read by this user", os.fspath(path))


def cache_folder() -> Path:
    """The user's folder for what can be made again, which may not exist: in `$XDG_CACHE_HOME`, or in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # as the XDG Base Directory Specification asks
        root = os.path.expanduser("~/.cache")
    return Path(root) / "fast_jukebox"


def check_apart(names: Iterable[str], what: str) -> None:
    """Refuse names of files of which two are the same, or are on the disks of Windows and macOS, where capital letters
    and small ones are one, and so are a letter with its accent and the two apart.

    Args:
        names: of the files that are to be written.
        what: they are, such as `songs`, for the error.

    Raises:
        ValueError: names both.
    """
    known: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in known:
            alike = f"beside {known[key]!r}, which is the same file on the disks of Windows and macOS"
            beside = "twice" if known[key] == name else alike
            raise ValueError(f"{what} must have names that differ, got {name!r} {beside}: rename one")
        known[key] = name


def path_within(folder: Path, name: str, also: tuple[Path, ...] = ()) -> Path:
    """The absolute path of a file named in data, which must lie in a folder when every link is followed.

    Args:
        folder: that the name is relative to.
        name: any text.
        also: absolute folders that links may lead into too.

    Raises:
        ValueError: it leads out of the folder, or cannot be a name.
    """
    path = folder.absolute() / name
    try:
        target = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, or a null byte
        raise ValueError(f"cannot be the name of a file: {error}") from error
    inside = any(target.is_relative_to(each) for each in (folder.resolve(), *also))
    if not inside or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise ValueError("leads out of the folder")
    return path


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a file that somebody else may have made; a `ValueError` where it has more bytes than `most`, an
    `OSError` where it is no regular file, as a pipe, which would be waited for without end.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{os.fspath(path)!r} has more than {most} bytes, which is more than such a file can have")
    return content


@contextlib.contextmanager
def clear_json_errors(name: str, source: object) -> Iterator[None]:
    """Say what to do where transformers finds that a file of a model is no JSON; other errors pass as they are.

    Raises:
        OSError: in place of such an error.
    """
    try:
        yield
    except OSError as error:
        reason = error.__cause__ or error.__context__
        if not isinstance(reason, json.JSONDecodeError | UnicodeDecodeError):
            raise
        raise OSError(
            f"`{name}` of `{source}` is damaged, it must be JSON ({reason}): save it again, or fetch it again"
        ) from error


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, every line end as that of POSIX; errors as
    [`read_file`], and a `UnicodeDecodeError`.
    """
    text = read_file(path, most).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file opened to be read; an `OSError` where it is no regular one, as a pipe, which would be waited for."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller's to close)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def may_live(process: int) -> bool:
    """True where a process of this machine of that number may be running; on systems other than POSIX always."""
    if os.name != "posix":  # elsewhere the question could end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True
    return True
