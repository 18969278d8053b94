"""What `fast-jukebox info` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from rich.table import Table
from rich.text import Text
from transformers import AutoModel

from fast_jukebox.hub.load_card import load_card
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import printable
from fast_jukebox_cli.model import model_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_LONGEST_LINE = 2000
"""Characters of a line of a card that are shown."""

_MOST_NAMES = 60
"""Artists or genres that are listed."""


def description(name: str) -> list[object]:
    """What is known of a model without its weights, as things that rich can print.

    Raises:
        ValueError: it is no model of this package.
    """
    config = model_config(name)
    known = (FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig)
    if not isinstance(config, known):
        types = ", ".join(kind.model_type for kind in known)
        raise ValueError(f"`model_type` of {name} must be one of {types}, got {config.model_type!r}")
    with torch.device("meta"):  # counts parameters, holds none
        model = AutoModel.from_config(config)

    vqvae, priors = None, []
    if isinstance(config, FastJukeboxConfig):
        vqvae, priors = model.vqvae, list(model.priors)
    elif isinstance(config, FastJukeboxPriorConfig):
        priors = [model]
    else:
        vqvae = model
    what = f"{type(model).__name__}, {_parameters(model)} parameters, {_dtype(config)}"
    parts: list[object] = [Text(f"{printable(name)}\n{what}")]
    if vqvae is not None:
        parts.append(_vqvae_table(vqvae))
    if priors:
        parts.append(_prior_table(priors))
    # What strangers wrote is no markup, and steers no terminal.
    lines = [*_label_names(name, config), *_card_summary(name)]
    return [*parts, *(Text(printable(line, _LONGEST_LINE)) for line in lines)]


def _parameters(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def _dtype(config: PreTrainedConfig) -> str:
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _columns_table(title: str, columns: list[str], rows: dict[str, list[str]]) -> object:

    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for label, values in rows.items():
        table.add_row(label, *values)
    return table


def _vqvae_table(vqvae: PreTrainedModel) -> object:

    config, count = vqvae.config, vqvae.config.num_levels
    rows = {
        "hop length": [f"{hop} samples" for hop in config.hop_lengths],
        "codes a second": [f"{config.sampling_rate / hop:,.1f}" for hop in config.hop_lengths],
        "codebook": [f"{config.codebook_size} x {config.embed_dim}"] * count,
        "parameters": [_parameters(level) for level in vqvae.levels],
    }
    title = f"VQ-VAE: {count} levels at {config.sampling_rate} Hz, {_parameters(vqvae)} parameters"
    return _columns_table(title, [level_name(level, count) for level in range(count)], rows)


def _prior_table(priors: list[Any]) -> Any:

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
    return _columns_table("Priors" if len(priors) > 1 else "Prior", names, rows)


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
    path = Path(name) / "README.md"
    if not path.parent.is_dir():
        try:
            path = Path(hf_hub_download(name, "README.md"))
        except EntryNotFoundError:
            return ["no model card"]
    if not path.is_file():
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
