"""Weights that a prior starts from: of a file, of a shallower prior, or of one with fewer artists and genres."""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fast_jukebox.data.labels import labelled_config
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.processing import FastJukeboxProcessor, LabelVocabulary
from fast_jukebox.utils.files import replacing

logger = logging.getLogger(__name__)


def save_weights(source: str | os.PathLike[str], path: str | os.PathLike[str], level: int | None = None) -> None:
    """Write the weights of a prior in float16, as one safetensors file that [`take_weights`] takes.

    Args:
        source: folder or Hub name of the prior, or of a complete model, of which it is that of `level`.
        path: of the file.
    """
    prior = FastJukeboxPrior.from_pretrained(source, level=level, dtype=torch.float32)
    tensors = {name: tensor.half().contiguous() for name, tensor in prior.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def take_weights(prior: FastJukeboxPrior, path: str | os.PathLike[str]) -> list[str]:
    """Copy the tensors of a safetensors file into those of a prior; see [`copy_weights`].

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
    and genres and times begin at zero. Where its window is longer, the positions beyond that of `found` begin as those
    of its second half, again and again.

    Args:
        prior: is changed.
        found: tensors by name.

    Returns:
        Names of the prior's tensors that are not among them, sorted.

    Raises:
        ValueError: none fits.
    """
    own, found = prior.state_dict(), dict(found)
    positions = found.get("position_embedding")
    if positions is not None and positions.dim() == 2 and not prior.config.lyric_prefix_length:
        half, missing = len(positions) // 2, len(own["position_embedding"]) - len(positions)
        if missing > 0 and len(positions):
            second = positions[half:].repeat(-(-missing // (len(positions) - half)), 1)[:missing]
            found["position_embedding"] = torch.cat([positions, second])
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


@torch.no_grad()
def deepen(prior: FastJukeboxPrior, num_hidden_layers: int) -> FastJukeboxPrior:
    """A prior of more layers that computes the same as the one it is made from.

    Each pattern's layers are spread evenly over the deeper model's layers of that pattern, last to last, which is where
    [`~fast_jukebox.distillation.layer_map.LayerMap`] looks for them. The layers between are new: initialised as usual,
    but with zeros where their branches end, so that they add nothing until they have been trained.

    Args:
        prior: is not changed.
        num_hidden_layers: complete cycles of the attention patterns, as many as the prior has or more.

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
    deep.load_state_dict(weights, strict=False)
    for layer, block in enumerate(deep.blocks):
        if layer not in places.values():
            for end in (block.attention.projection, block.mlp.contract):
                end.weight.zero_()
                end.bias.zero_()
    return deep


def deep_layer(layer: int, depth: int, deep: int, cycle: int) -> int:
    """Position of layer `layer` of `depth` among `deep` layers whose patterns go round in `cycle`."""
    index, pattern = divmod(layer, cycle)
    return ((index + 1) * (deep // cycle) // (depth // cycle) - 1) * cycle + pattern


@torch.no_grad()
def add_names(prior: FastJukeboxPrior, processor: FastJukeboxProcessor | None, rows: object) -> FastJukeboxProcessor:
    """Add the artists and genres of songs that a labelled prior does not know yet.

    The rows of its embeddings stay bit for bit; each new one begins as the mean of the rows of the names known before,
    or as the unknown one's where there are none, so that a new name sounds like the model at large until it is trained.

    Args:
        prior: with labels; changed in place, its configuration too.
        processor: of the prior; `None` where its names are not at hand, whose rows are then left alone.
        rows: of songs, with `artist` and `genre`; see
            [`~fast_jukebox.processing.vocabulary.LabelVocabulary.from_metadata`].

    Returns:
        The processor that knows the new names too.

    Raises:
        ValueError: the processor does not fit the prior.
    """
    config = prior.config
    vocabulary = (processor or FastJukeboxProcessor.without_names(config)).for_prior(config)[1]
    grown = vocabulary.extended(rows, num_artists=config.num_artists, num_genres=config.num_genres)
    labels = prior.label_conditioner
    assert labels is not None  # `for_prior` refuses priors without labels
    labels.grow(
        max(grown.num_artists, config.num_artists),
        max(grown.num_genres, config.num_genres),
        set(vocabulary.artists.values()) - {0},
        set(vocabulary.genres.values()) - {0},
    )
    for kind in ("artists", "genres"):
        new = [name for name in getattr(grown, kind) if name not in getattr(vocabulary, kind)]
        if new:
            shown = ", ".join(map(repr, new[:10])) + (f" and {len(new) - 10} more" if len(new) > 10 else "")
            logger.info("new %s of the prior of level %d: %s", kind, config.level, shown)
    return FastJukeboxProcessor.from_vocabulary(grown, config)


def add_labels(
    prior: FastJukeboxPrior, rows: object, *, max_genres: int = 1, longest: float = 600.0
) -> FastJukeboxPrior:
    """A prior conditioned on the artists and genres of songs, and at the top on time, that computes the same as one
    without labels whatever the labels are.

    Args:
        prior: without labels; not changed.
        rows: see [`add_names`].
        max_genres: genre slots; above 1 for words of genres in place of genres.
        longest: seconds of the longest song.

    Returns:
        A new prior in float32 on the CPU.

    Raises:
        ValueError: the prior has labels.
    """
    if prior.config.has_labels:
        raise ValueError(f"`prior` must have no labels, got one with {prior.config.num_artists} artists")
    vocabulary = LabelVocabulary.from_metadata(rows, genre_words=max_genres > 1)
    labelled = FastJukeboxPrior(labelled_config(prior.config, vocabulary, max_genres=max_genres, longest=longest))
    copy_weights(labelled, prior.state_dict())
    return labelled
