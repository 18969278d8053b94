"""Where the command `fast-jukebox` enters.

`fast_jukebox/cli.py` holds its words and loads nothing, but whoever imports it as part of its package imports torch and
transformers first, for seconds. Read from its file alone it shows its help at once, and answers Ctrl-C while the rest
is loaded.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        import importlib.util
        from pathlib import Path

        package = importlib.util.find_spec("fast_jukebox")  # found, not imported
        folders = [] if package is None else list(package.submodule_search_locations or [])
        path = Path(folders[0]) / "cli.py"
        spec = importlib.util.spec_from_file_location("fast_jukebox_command.cli", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot read {path}")
        cli = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = cli  # typer looks its annotations up there
        spec.loader.exec_module(cli)
    except KeyboardInterrupt:
        sys.stderr.write("fast-jukebox: interrupted\n")
        sys.exit(130)
    cli.main()


__all__ = ["main"]
