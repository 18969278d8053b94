"""Lines about work under way, for logs and pipes, where a bar would not be seen."""

from __future__ import annotations

import contextlib
import sys
import time

FIRST = 1.5
"""Seconds of silence before the first line."""
INTERVAL = 10.0
"""Seconds between two lines, at least."""

_next: float | None = None


def is_due() -> bool:
    """Whether a line may be printed now: `FIRST` seconds after this was first asked, then every `INTERVAL` seconds."""
    global _next
    now = time.monotonic()
    if _next is None:
        _next = now + FIRST
    return now >= _next


def print_line(text: str) -> None:
    """Print a line on standard error, and let the next one wait. One that nobody reads any more is lost."""
    global _next
    _next = time.monotonic() + INTERVAL
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
