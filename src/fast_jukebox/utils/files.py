"""Names for what is being written, which tell by whom, so that what a killed process left can be told and cleared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
from pathlib import Path

_NAME = re.compile(r"\..*\.(\d+)-([0-9a-f]{8})\.tmp(\..*)?")


def unfinished_path(path: Path) -> Path:
    """Where to write what shall become `path`: beside it, hidden, with the same suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{_machine()}.tmp{path.suffix}")


def clear_unfinished(folder: Path) -> None:
    """Delete what processes of this machine were writing into a folder when they were killed.

    What live processes write is left, and what other machines do; on systems other than POSIX, all. Nothing is raised.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = _NAME.fullmatch(path.name)
            if found is None or found[2] != _machine() or _may_live(int(found[1])):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _may_live(process: int) -> bool:
    if os.name != "posix":  # elsewhere the question could end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True
    return True
