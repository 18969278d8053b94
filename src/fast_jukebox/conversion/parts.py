"""One part of a published model: its configuration, and where in a checkpoint its tensors come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from fast_jukebox.conversion import openai_prior, openai_vqvae
from fast_jukebox.conversion.state_dict import Shape, Source, check_tensors, taken
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEConfig

Rename = Callable[[str], str]
Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Part:
    """The VQ-VAE or a prior, before its weights are there.

    Args:
        name: in the complete model: `vqvae` or `priors.{level}`.
        key_map: our names to the checkpoint's, of all tensors but `constants`.
        transposed: our names of matrices that the checkpoint holds the other way round.
        constants: our tensors that no checkpoint holds.
    """

    name: str
    config: FastJukeboxVQVAEConfig | FastJukeboxPriorConfig
    shapes: Mapping[str, Shape]
    key_map: Mapping[str, Source]
    transposed: frozenset[str]
    constants: Mapping[str, Tensor]

    def check(self, source: Mapping[str, Tensor], name: str) -> None:
        """Refuse a checkpoint (called `name`) that does not fit; see [`check_tensors`]."""
        check_tensors(source, {ours: self.shapes[ours] for ours in self.key_map}, self.key_map, self.transposed, name)

    def tensors(self, source: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Our tensors by name in the order of `shapes`, each made when it is asked for; a view where it can be one."""
        for ours in self.shapes:
            if ours in self.constants:
                yield ours, self.constants[ours]
            else:
                yield ours, taken(source, self.key_map[ours], ours in self.transposed)


def vqvae_part(config: FastJukeboxVQVAEConfig, rename: Rename = str) -> Part:
    """The VQ-VAE of a configuration; `rename` makes the checkpoint's name of a published one."""
    model = _without_weights(FastJukeboxVQVAE, config)
    constants: dict[str, Tensor] = {}
    for level in range(config.num_levels):
        constants[f"levels.{level}.codebook.counts"] = torch.zeros(config.codebook_size)
        constants[f"levels.{level}.codebook.initialized"] = torch.tensor(True)
    return _part("vqvae", model, openai_vqvae.key_map(config), set(), constants, rename)


def prior_part(config: FastJukeboxPriorConfig, rename: Rename = str) -> Part:
    """The prior of a configuration; see [`vqvae_part`]."""
    model = _without_weights(FastJukeboxPrior, config)
    names, transposed = openai_prior.key_map(config), openai_prior.transposed_keys(config)
    return _part(f"priors.{config.level}", model, names, transposed, {}, rename)


def _part(
    name: str,
    model: PreTrainedModel,
    key_map: Mapping[str, Source],
    transposed: set[str],
    constants: Mapping[str, Tensor],
    rename: Rename,
) -> Part:
    renamed: dict[str, Source] = {
        ours: rename(theirs) if isinstance(theirs, str) else tuple((rename(each), rows) for each, rows in theirs)
        for ours, theirs in key_map.items()
    }
    shapes = {ours: tuple(tensor.shape) for ours, tensor in model.state_dict().items()}
    return Part(name, model.config, shapes, renamed, frozenset(transposed), constants)


def _without_weights(kind: type[Model], config: PreTrainedConfig) -> Model:
    """A model of shapes alone."""
    with torch.device("meta"), no_init_weights():
        return kind(config)
