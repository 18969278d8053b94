"""The words of `demo`. Loads nothing, as `--help` is to come at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fast_jukebox_cli.sessions import Offload
from fast_jukebox_cli.values import Waiting


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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default what suits the device.")
    ] = None,
    offload: Offload = None,
) -> None:
    """Open the studio in the browser: play, continue recordings, compose, compare. Ctrl-C ends it."""
    if share not in ("yes", "no"):
        raise ValueError(f"`--share` must be yes or no, got {share!r}")
    if not 1 <= max_duration <= 3600:
        raise ValueError(f"`--max-duration` must be from 1 to 3600 seconds, got {max_duration:g}")
    with Waiting("loading torch and the model"):
        from fast_jukebox_cli.demo import open_studio

        studio = open_studio(model or [], folder, device, dtype, offload, max_duration)

    from fast_jukebox.demo import launch

    launch(studio, host=host, port=port, share=share == "yes")


def register(app: typer.Typer, clean_errors: Callable[[Callable[..., Any]], Callable[..., object]]) -> None:
    """Add the command.

    Args:
        app: to which.
        clean_errors: makes one line of an error.
    """
    app.command()(clean_errors(demo))
