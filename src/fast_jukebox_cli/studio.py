"""The command that opens the studio in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, named_sources

if TYPE_CHECKING:
    from fast_jukebox.demo import Studio


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder or Hub repository, or NAME=MODEL; again for several, which can be compared. By default the "
            "model inside the package."
        ),
    ] = None,
    share: Annotated[
        str, typer.Option(help="yes makes the studio reachable for everybody with the address, through Gradio's relay.")
    ] = "no",
    folder: Annotated[Path, typer.Option(help="Where songs and sounds are kept.")] = Path("studio"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="By default the first free one from 7860.", min=1, max=65535)] = None,
    max_duration: Annotated[float, typer.Option(help="Seconds of the longest song that visitors may ask for.")] = 120.0,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    offload: options.Offload = None,
) -> None:
    """Open the studio in the browser: play, continue recordings, compose, compare. Ctrl-C ends it."""
    if share not in ("yes", "no"):
        raise ValueError(f"`--share` must be yes or no, got {share!r}")
    if not 1 <= max_duration <= 3600:
        raise ValueError(f"`--max-duration` must be from 1 to 3600 seconds, got {max_duration:g}")
    with Waiting("loading torch and the model"):
        studio = open_studio(model or [], folder, device, dtype, offload, max_duration)

    from fast_jukebox.demo import launch

    launch(studio, host=host, port=port, share=share == "yes")


def open_studio(
    models: Sequence[str],
    folder: Path,
    device: str = "auto",
    dtype: str | None = None,
    offload: str | None = None,
    max_duration: float | None = None,
) -> Studio:
    """Load models and make the studio that pages are laid out for.

    Gradio and matplotlib must be there (`ImportError`), and names differ (`ValueError`).
    """
    from fast_jukebox.demo import Limits, Studio, StudioModel
    from fast_jukebox.demo.app import require_gradio
    from fast_jukebox.utils.figures import require_matplotlib
    from fast_jukebox_cli.model import EMBEDDED, ModelSource, chosen_device, load_model, model_name

    require_gradio()
    require_matplotlib()
    where = chosen_device(device)
    loaded = [
        StudioModel(name, load_model(ModelSource(source, dtype=dtype), where, offload), model_name(source))
        for name, source in named_sources(models or [EMBEDDED], "`--model`").items()
    ]
    limits = Limits()
    return Studio(loaded, folder, limits if max_duration is None else replace(limits, duration=max_duration))
