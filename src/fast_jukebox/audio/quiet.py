"""The terminal without what libmpg123 writes there by itself; libsndfile offers no way to stop it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_LOCK = threading.RLock()
_depth = 0
_COMPLAINT = re.compile(
    rb"\[src/libmpg123/|(Note|Warning|Error): .*(MPEG|resync|Skipped|Xing|header|stream|track|layer|ID3|frame)|\s*$"
)


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Keep a decoder's complaints from the process's error stream; what else is written there comes afterwards.

    One thread at a time. Where there is no error stream, nothing is done.
    """
    global _depth
    with _LOCK:
        if _depth:
            yield
            return
        try:
            with contextlib.suppress(AttributeError, ValueError, OSError):
                sys.stderr.flush()
            kept = os.dup(2)
        except OSError:
            yield
            return
        with tempfile.TemporaryFile() as heard:
            os.dup2(heard.fileno(), 2)
            _depth = 1
            try:
                yield
            finally:
                _depth = 0
                with contextlib.suppress(AttributeError, ValueError, OSError):
                    sys.stderr.flush()
                os.dup2(kept, 2)
                os.close(kept)
                heard.seek(0)
                rest = [line for line in heard.read().splitlines(keepends=True) if not _COMPLAINT.match(line)]
                if rest:
                    os.write(2, b"".join(rest))
