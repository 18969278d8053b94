"""What `fast-jukebox demo` serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fast_jukebox.demo import Limits, Studio, StudioModel
from fast_jukebox.demo.app import require_gradio
from fast_jukebox.evaluation.pictures import require_matplotlib
from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name

_EMBEDDED = "embedded"
"""Name of the model inside the package."""


def open_studio(
    models: Sequence[str],
    folder: Path,
    device: str = "auto",
    dtype: str | None = None,
    offload: str | None = None,
    max_duration: float | None = None,
) -> Studio:
    """Load models and make the studio that pages are laid out for.

    Args:
        models: folders or Hub repositories, each alone or as `NAME=MODEL`; none for the embedded one.
        folder: where songs and sounds are kept.
        device: see [`chosen_device`].
        dtype: see [`ModelSource`].
        offload: see [`load_model`].
        max_duration: seconds of the longest song; by default that of [`Limits`].

    Raises:
        ImportError: Gradio or matplotlib is not there.
        ValueError: a name twice, or what the models refuse.
        OSError: there is no such model, or the folder cannot be made.
    """
    require_gradio()
    require_matplotlib()
    where = chosen_device(device)
    named: dict[str, str | None] = {}
    for given in models or [_EMBEDDED]:
        name, source = _named(given)
        if name in named:
            raise ValueError(f"`--model` must have different names; write NAME=MODEL, got {name!r} twice")
        named[name] = source
    loaded = [
        StudioModel(name, load_model(ModelSource(source, dtype=dtype), where, offload), model_name(source))
        for name, source in named.items()
    ]
    limits = Limits()
    return Studio(loaded, folder, limits if max_duration is None else replace(limits, duration=max_duration))


def _named(given: str) -> tuple[str, str | None]:
    name, equals, source = given.partition("=")
    if not (equals and name and source):
        name, source = Path(given).expanduser().name or given, given
    return name, None if source == _EMBEDDED else source
