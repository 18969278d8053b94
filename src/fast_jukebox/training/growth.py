"""A deep prior that begins where a shallow one stands, so that a teacher need not learn everything anew."""

from __future__ import annotations

import copy
import re

import torch

from fast_jukebox.models.prior import FastJukeboxPrior


@torch.no_grad()
def deepen(prior: FastJukeboxPrior, num_hidden_layers: int) -> FastJukeboxPrior:
    """A prior of more layers that computes the same as the one it is made from.

    Each pattern's layers are spread evenly over the deeper model's layers of that pattern, last to last, which is where
    [`~fast_jukebox.distillation.layer_map.LayerMap`] looks for them. The layers between are new: initialised as usual,
    but with zeros where their branches end, so that they add nothing until they have been trained.

    Args:
        prior: is not changed.
        num_hidden_layers: whole cycles of the attention patterns, as many as the prior has or more.

    Returns:
        A new prior in float32 on the CPU.

    Raises:
        ValueError: `num_hidden_layers` is below the prior's, either is no whole number of cycles of patterns, or the
            prior scales its residual branches by its depth, so that no deeper one computes the same.
    """
    config, cycle = prior.config, prior.config.layer_period
    depth = config.num_hidden_layers
    if depth % cycle or num_hidden_layers % cycle or num_hidden_layers < depth:
        raise ValueError(
            f"`num_hidden_layers` must be a multiple of the {cycle} attention patterns and at least the prior's "
            f"{depth}, itself such a multiple; got {num_hidden_layers!r}"
        )
    if config.residual_scale:
        raise ValueError("`residual_scale` must be False in a prior that is made deeper, got True")
    deep_config = copy.deepcopy(config)
    deep_config.num_hidden_layers = num_hidden_layers
    deep_config.validate()
    deep = FastJukeboxPrior(deep_config)
    places = {layer: deep_layer(layer, depth, num_hidden_layers, cycle) for layer in range(depth)}
    weights = {
        re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{places[int(found[1])]}", name): tensor
        for name, tensor in prior.state_dict().items()
    }
    missing, unexpected = deep.load_state_dict(weights, strict=False)
    kept = set(places.values())
    strangers = [name for name in missing if not name.startswith("blocks.") or int(name.split(".")[1]) in kept]
    if strangers or unexpected:
        raise RuntimeError(f"weights that have no place in the deeper prior: {strangers + unexpected}")
    for layer, block in enumerate(deep.blocks):
        if layer not in kept:
            for end in (block.attention.projection, block.mlp.contract):
                end.weight.zero_()
                end.bias.zero_()
    return deep


def deep_layer(layer: int, depth: int, deep: int, cycle: int) -> int:
    """Where layer `layer` of `depth` stands among `deep` layers whose patterns go round in `cycle`."""
    index, pattern = divmod(layer, cycle)
    return ((index + 1) * (deep // cycle) // (depth // cycle) - 1) * cycle + pattern
