"""Suppression of what libmpg123 writes to the terminal; libsndfile offers no way to stop it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_lock = threading.RLock()
_kept: int | None = None
"""A copy of the error stream while it is redirected."""

_COMPLAINT = re.compile(
    rb"\[src/libmpg123/|(Note|Warning|Error): .*(MPEG|resync|Skipped|Xing|header|stream|track|layer|ID3|frame)|\s*$"
)


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Drop a decoder's complaints from the error stream of the process; other text written there follows afterwards.

    One thread at a time. Where there is no error stream, nothing is done.
    """
    global _kept
    with _lock:
        if _kept is not None:
            yield
            return
        try:
            _flush()
            _kept = os.dup(2)
        except OSError:
            yield
            return
        with tempfile.TemporaryFile() as captured:
            os.dup2(captured.fileno(), 2)
            try:
                yield
            finally:
                _flush()
                _restore()
                captured.seek(0)
                rest = [line for line in captured.read().splitlines(keepends=True) if not _COMPLAINT.match(line)]
                if rest:
                    os.write(2, b"".join(rest))


def _flush() -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()


def _restore() -> None:
    global _kept
    if _kept is not None:
        os.dup2(_kept, 2)
        os.close(_kept)
        _kept = None


def _reset_after_fork() -> None:
    """Undo what another thread, which a forked process does not have, was doing."""
    global _lock
    _lock = threading.RLock()
    _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
