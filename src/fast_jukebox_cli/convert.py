"""What `fast-jukebox convert` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from fast_jukebox.conversion.convert import convert_checkpoint


def convert(source: str, output: Path, *, quiet: bool = False, **settings: Any) -> Path:
    """Convert with a bar on standard error; arguments, result and errors as [`convert_checkpoint`]."""
    bar: Any = None

    def progress(done: int, total: int, part: str) -> None:
        nonlocal bar
        if bar is None:  # what goes wrong before the first shard is reported without a bar
            bar = tqdm(total=total, unit="B", unit_scale=True, disable=quiet)
        bar.set_description(part, refresh=False)
        bar.update(done - bar.n)

    try:
        return convert_checkpoint(source, output, progress=progress, **settings)
    finally:
        if bar is not None:
            bar.close()
