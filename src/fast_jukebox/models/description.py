"""Description of a model by its configuration and its card: levels, sizes, labels, licence. No weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from fast_jukebox.hub.cards import load_card
from fast_jukebox.models.adapters import read_adapter_config
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.loading import ADAPTER_CONFIG, find_file
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import shown

_MOST_NAMES = 60
"""Artists or genres that are listed."""


@dataclass(frozen=True)
class DescriptionTable:
    """A table of a description.

    Attributes:
        title: above it.
        columns: their heads, without that of the rows.
        rows: cells of each row by its head; a cell may have several lines.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model. All of it may be written by strangers.

    Attributes:
        summary: its class, number of parameters and dtype.
        tables: of the VQ-VAE and of the priors, where it has them.
        lines: names of labels, and what the card says first.
    """

    summary: str
    tables: Sequence[DescriptionTable]
    lines: Sequence[str]


def describe_model(name: str, config: PreTrainedConfig) -> ModelDescription:
    """Describe a model without its weights.

    Args:
        name: folder or repository.
        config: of the model there.

    Raises:
        ValueError: it is no model of this package.
    """
    known = (FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig)
    if not isinstance(config, known):
        types = ", ".join(kind.model_type for kind in known)
        raise ValueError(f"`model_type` of {name} must be one of {types}, got {shown(config.model_type)}")
    with torch.device("meta"):  # counts parameters, holds none
        model = AutoModel.from_config(config)

    tables = []
    if not isinstance(config, FastJukeboxPriorConfig):
        tables.append(_vqvae_table(model.vqvae if isinstance(config, FastJukeboxConfig) else model))
    if not isinstance(config, FastJukeboxVQVAEConfig):
        tables.append(_prior_table(list(model.priors) if isinstance(config, FastJukeboxConfig) else [model]))
    summary = f"{type(model).__name__}, {_parameters(model)} parameters, {_dtype(config)}"
    return ModelDescription(summary, tables, [*_label_names(name, config), *_card_summary(name)])


def describe_adapter(name: str) -> ModelDescription | None:
    """Description of an adapter and how to use it; `None` where there is none, or a model beside it.

    Args:
        name: folder or repository.

    Raises:
        HubError: the repository cannot be read.
        ValueError: its settings are damaged.
    """
    if find_file(name, "config.json") is not None or find_file(name, ADAPTER_CONFIG) is None:
        return None
    config = read_adapter_config(name)
    level, base = config.get("level", "LEVEL"), config.get("base_model_name_or_path")
    lines = [
        f"It holds no model: it changes the prior of one level of its base, {base or 'which it does not name'}.",
        f"Play it: fast-jukebox generate --model {base or 'BASE'} --adapter {level}={name}",
        f"Merge it: fast-jukebox merge {base or 'BASE'} FOLDER --adapter {level}={name}",
        *_card_summary(name),
    ]
    kind = "LoRA" if config["peft_type"] == "LORA" else config["peft_type"]
    rank = f" of rank {config['r']}" if "r" in config else ""
    return ModelDescription(f"adapter ({kind}){rank} for level {level}", [], lines)


def _parameters(module: PreTrainedModel) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def _dtype(config: PreTrainedConfig) -> str:
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _vqvae_table(vqvae: PreTrainedModel) -> DescriptionTable:
    config, count = vqvae.config, vqvae.config.num_levels
    rows = {
        "hop length": [f"{hop} samples" for hop in config.hop_lengths],
        "codes a second": [f"{config.sampling_rate / hop:,.1f}" for hop in config.hop_lengths],
        "codebook": [f"{config.codebook_size} x {config.embed_dim}"] * count,
        "parameters": [_parameters(level) for level in vqvae.levels],
    }
    title = f"VQ-VAE: {count} levels at {config.sampling_rate} Hz, {_parameters(vqvae)} parameters"
    return DescriptionTable(title, [level_name(level, count) for level in range(count)], rows)


def _prior_table(priors: list[PreTrainedModel]) -> DescriptionTable:
    configs = [prior.config for prior in priors]
    names = [
        level_name(config.level, len(configs)) if len(configs) > 1 else f"level {config.level}" for config in configs
    ]
    rows = {
        "layers": [str(config.num_hidden_layers) for config in configs],
        "width": [str(config.hidden_size) for config in configs],
        "heads": [str(config.num_attention_heads) for config in configs],
        "context": [f"{config.n_ctx} codes" for config in configs],
        "": [f"{config.n_ctx * config.hop_length / config.sampling_rate:.2f} s" for config in configs],
        "rows x columns": [f"{config.num_rows} x {config.row_length}" for config in configs],
        "patterns": ["\n".join(config.layer_types[: config.layer_period]) for config in configs],
        "level above": [f"1 for {config.upper_ratio}" if config.has_upper_level else "-" for config in configs],
        "labels": [
            f"{config.num_artists} artists\n{config.num_genres} genres" if config.has_labels else "-"
            for config in configs
        ],
        "parameters": [_parameters(prior) for prior in priors],
    }
    return DescriptionTable("Priors" if len(priors) > 1 else "Prior", names, rows)


def _label_names(name: str, config: PreTrainedConfig) -> list[str]:
    """The artists and genres that a model's vocabularies know, the first of many; nothing for models without labels."""
    if not isinstance(config, FastJukeboxConfig | FastJukeboxPriorConfig):
        return []
    processor = FastJukeboxProcessor.find(name, config)
    lines = []
    for vocabulary in [] if processor is None else processor.vocabularies:
        for kind, ids in (("artists", vocabulary.artists), ("genres", vocabulary.genres)):
            names = [own for own, number in ids.items() if number]
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            lines.append(f"{kind}: {', '.join(names[:_MOST_NAMES]) or 'none'}{more}")
    return lines


def _card_summary(name: str) -> list[str]:
    """The licence, the data and the first paragraph of a model's card; nothing where there is no card."""
    path = card_path(name)
    if path is None:
        return ["no model card"]
    try:
        card = load_card(path, strict=False)
    except (ValueError, OSError) as error:
        return [f"model card: {error}"]
    facts = [
        f"{key}: {getattr(card.data, key)}"
        for key in ("license", "datasets", "base_model")
        if getattr(card.data, key, None)
    ]
    blocks = [block.strip() for block in card.text.split("\n\n")]
    prose = [" ".join(block.split()) for block in blocks if block and block[0] not in "#<|`!-["]
    return [*facts, *prose[:1]]


def card_path(name: str) -> Path | None:
    """The file of a model's card; `None` where it has none.

    Args:
        name: folder or repository.
    """
    path = Path(name) / "README.md"
    if not path.parent.is_dir():
        try:
            path = Path(hf_hub_download(name, "README.md"))
        except EntryNotFoundError:
            return None
    return path if path.is_file() else None
