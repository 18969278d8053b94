"""Pictures of sound files and of what models play."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging

from fast_jukebox.audio.io import load_audio
from fast_jukebox.audio.resample import resample_audio
from fast_jukebox.evaluation.pictures import plot_levels, plot_waveforms
from fast_jukebox.evaluation.systems import heard
from fast_jukebox.utils.figures import require_matplotlib
from fast_jukebox_cli.model import ModelSource, chosen_device, load_model
from fast_jukebox_cli.values import SUFFIXES, named_sources

ALL, TOP = "all levels", "top level alone"
_FILE_RATE = 44100


def plot(sources: Sequence[str], output: Path, kind: str, seconds: float, seed: int, device: str) -> Path:
    """Draw sound files and what models play; returns the picture's path. The arguments are the command's options."""
    require_matplotlib([str(output)])
    logging.disable_progress_bar()
    titled = named_sources(sources, "sources")
    clips: dict[str, dict[str, tuple[Tensor, int]]] = {}
    for title, source in titled.items():  # files first: they fail at once
        path = Path(source).expanduser()
        if path.is_file():
            clips[title] = {ALL: (load_audio(path, _FILE_RATE, duration=seconds), _FILE_RATE)}
        elif path.suffix.lower() in SUFFIXES and not path.is_dir():
            raise FileNotFoundError(f"there is no file {source!r}")
    for title, source in titled.items():
        if title not in clips:
            clips[title] = _played(source, seconds, seed, device)
    rate = max(rate for own in clips.values() for _, rate in own.values())
    placed = {
        title: {name: resample_audio(clip, own_rate, rate) for name, (clip, own_rate) in clips[title].items()}
        for title in titled
    }
    if kind == "levels":
        return plot_levels(output, placed, rate)
    return plot_waveforms(output, {title: own[ALL] for title, own in placed.items()}, rate, seconds)


@torch.no_grad()
def _played(source: str, seconds: float, seed: int, device: str) -> dict[str, tuple[Tensor, int]]:
    """A song of a model: from its top level's codes alone, and from all levels."""
    model = load_model(ModelSource(source), chosen_device(device))
    song, top = heard(model, model.generate(duration=seconds, seed=seed))
    rate = model.vqvae.config.sampling_rate
    return {TOP: (top[0], rate), ALL: (song[0], rate)}
