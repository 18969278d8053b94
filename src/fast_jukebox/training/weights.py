"""Weights of a prior as one small file, and a training that begins with such a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.utils.files import replacing


def save_weights(source: str | os.PathLike[str], path: str | os.PathLike[str], level: int | None = None) -> None:
    """Write the weights of a prior in float16, as one safetensors file that [`take_weights`] takes.

    Args:
        source: folder or Hub name of the prior, or of a whole model.
        path: of the file.
        level: which prior of a whole model.
    """
    prior = FastJukeboxPrior.from_pretrained(source, level=level, dtype=torch.float32)
    tensors = {name: tensor.half().contiguous() for name, tensor in prior.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def take_weights(prior: FastJukeboxPrior, path: str | os.PathLike[str]) -> list[str]:
    """Copy the tensors of a file into those of a prior; see [`copy_weights`].

    Args:
        prior: is changed.
        path: of a safetensors file.

    Raises:
        ValueError: no tensor of the file fits.
        OSError: there is no such file.
    """
    try:
        return copy_weights(prior, load_file(Path(path)))
    except ValueError as error:
        raise ValueError(f"`{path}` has {error}") from None


@torch.no_grad()
def copy_weights(prior: FastJukeboxPrior, found: Mapping[str, Tensor]) -> list[str]:
    """Copy tensors into those of a prior with the same name and shape.

    Where a prior with labels takes weights of one without, each artist begins as what stood in the place of a label,
    and genres and times begin at zero.

    Args:
        prior: is changed.
        found: tensors by name.

    Returns:
        Names of the prior's tensors that are not among them, sorted.

    Raises:
        ValueError: none fits.
    """
    own = prior.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError("no tensor with the name and shape of one of the prior's")
    prior.load_state_dict({name: tensor.float() for name, tensor in fitting.items()}, strict=False)
    labels = prior.label_conditioner
    if labels is not None and "start_token" in found and not any(name.startswith("label_cond") for name in fitting):
        for embedding in labels.children():
            nn.init.zeros_(embedding.get_parameter("weight"))
        labels.artist_embedding.weight.add_(found["start_token"].float())
    return sorted(own.keys() - fitting.keys())
