"""Locks between processes and threads: one writer of a folder at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from functools import lru_cache
from io import FileIO
from pathlib import Path

from fast_jukebox.utils.files import may_live, read_file

_logger = logging.getLogger(__name__)

_LOCKED_BYTE = 4096
"""Byte of the lock file that is locked where complete files cannot be, so that the others can be read."""

# What flock answers where the file system has none: NFS without lockd, Lustre without -o flock, FUSE, SMB.
_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}

_NO_FILE = "it is a link or no regular file; delete it, it is made again"


class InUseError(BlockingIOError):
    """Another process has the lock; the text says which one, as far as it is known."""


class FolderLock:
    """A lock that threads of this process wait for; other processes get an error.

    The operating system ends it with the process, however that ends. Where the file system has no locks, a second file
    stands for it, which holds the process and its machine: that of a process that died on this machine is taken over.
    (filelock, which is installed with huggingface_hub, falls back for one of the errors that file systems without locks
    give, and its older versions wait for dead processes.)
    """

    def __init__(self, path: Path) -> None:
        self.path, self.soft_path = path, path.with_name(path.name + ".soft")
        self._thread = threading.RLock()
        self._holders = 0
        self._file: FileIO | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock; yields True where it was taken now, False where the thread held it already.

        Raises:
            InUseError: another process has it.
            OSError: the lock file cannot be written, or is no regular file.
        """
        with self._thread:
            first = self._holders == 0
            if first:
                self._file = self._acquire()
            self._holders += 1
            try:
                yield first
            finally:
                self._holders -= 1
                if self._holders == 0:
                    self._release()

    def _acquire(self) -> FileIO | None:
        """The locked file, or `None` where the second file stands for the lock."""
        # Unbuffered, or what a full disk does not take would be written again, and fail again, when it is closed.
        file = open(self.path, "a+b", buffering=0, opener=_opener)  # noqa: SIM115 (closed by `_release`)
        try:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # a hard link is another file of the user's
                raise OSError(errno.EINVAL, _NO_FILE)
            _lock_file(file)
        except OSError as error:
            holder = _holder(file)
            file.close()
            if isinstance(error, BlockingIOError | PermissionError):
                raise InUseError(holder) from error
            if error.errno not in _WITHOUT_LOCKS or error.strerror == _NO_FILE:
                raise
            self._acquire_soft()
            return None
        with contextlib.suppress(OSError):  # for people; the lock does not depend on it
            file.truncate(0)
            file.write(_own_name())
        return file

    def _acquire_soft(self) -> None:
        _warn_once(self.path.parent)
        for last in (False, True):
            try:
                with open(self.soft_path, "xb", buffering=0, opener=_opener) as file:
                    file.write(_own_name())
                return
            except FileExistsError as error:
                holder = self._soft_holder()
                process, _, machine = holder.partition(" on ")
                dead = machine == socket.gethostname() and process.isdecimal() and not may_live(int(process))
                if last or not dead:
                    raise InUseError(f"{holder}; if it has ended, delete {str(self.soft_path)!r}") from error
                self.soft_path.unlink(missing_ok=True)

    def _soft_holder(self) -> str:
        try:
            return read_file(self.soft_path, 200).decode(errors="replace")
        except (OSError, ValueError):  # it went meanwhile, or is none of ours
            return "unknown"

    def _release(self) -> None:
        if self._file is None:
            with contextlib.suppress(OSError):
                self.soft_path.unlink()
        else:
            self._file.close()
            self._file = None


@lru_cache
def _warn_once(folder: Path) -> None:
    _logger.warning(
        "the file system of %r has no locks; a file stands for one, which does not stop a process that looks at the "
        "same moment: let one process at a time write there",
        str(folder),
    )


def _opener(path: str, flags: int) -> int:
    no_follow = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | no_follow, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, _NO_FILE) from error
        raise


def _lock_file(file: FileIO) -> None:
    """Lock an open file or raise at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _own_name() -> bytes:
    return f"{os.getpid()} on {socket.gethostname()}".encode()


def _holder(file: FileIO) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        file.seek(0)
        return file.read(200).decode()
    return ""
