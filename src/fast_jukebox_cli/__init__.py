"""The command `fast-jukebox`. Importing it loads neither torch nor transformers; each command loads what it needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from fast_jukebox_cli import app
    except KeyboardInterrupt:
        sys.stderr.write("fast-jukebox: interrupted\n")
        sys.exit(130)
    app.main()


__all__ = ["main"]
