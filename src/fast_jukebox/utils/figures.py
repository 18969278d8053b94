"""Pictures by matplotlib, which may be absent: empty figures, and the files that they are written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fast_jukebox.utils.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
"""Suffixes of pictures."""


def picture_path(path: str | os.PathLike[str]) -> Path:
    """A path that a picture can be written to.

    Raises:
        ValueError: another suffix than [`FORMATS`].
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"a picture's file must end in {' or '.join(FORMATS)}, got {str(path)!r}")
    return path


def require_matplotlib(names: Sequence[str] = ()) -> None:
    """Fail before long work where pictures are wanted and cannot be drawn.

    Args:
        names: of pictures; their suffixes are looked at too.

    Raises:
        ImportError: matplotlib is not there; the message says how to install it.
        ValueError: a name with another suffix than [`FORMATS`].
    """
    for name in names:
        picture_path(name)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "fast-jukebox[plots]"') from error


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a figure as a picture, the same bytes for the same content."""
    import matplotlib

    kind = path.suffix.lower()[1:]
    metadata: dict[str, str | None] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context({"svg.hashsalt": "fast-jukebox"}), writing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return path
