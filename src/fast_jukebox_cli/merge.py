"""Adapters merged into the weights of their base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers.utils import logging

from fast_jukebox.models.adapters import adapted_processor, check_adapter_levels, load_adapter
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox_cli.model import check_dtype, model_config, model_name


def merge(model: str, output: Path, adapters: Mapping[int, str], dtype: str | None = None) -> Path:
    """Save a model or a prior with adapters (folder or Hub name by level) merged into its weights; the new folder.

    An argument that cannot be, or an adapter that does not fit, is a `ValueError` before anything is written.
    """
    dtype = check_dtype(dtype or "auto")
    output, name = output.expanduser(), model_name(model)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"`output` must be a new or empty folder, got {str(output)!r}")
    logging.disable_progress_bar()
    config = model_config(name)
    if isinstance(config, FastJukeboxPriorConfig):
        check_adapter_levels(adapters)
        if list(adapters) != [config.level]:
            raise ValueError(
                f"`adapter` must be of level {config.level}, that of the prior {name}, got {list(adapters)}"
            )
        prior = FastJukeboxPrior.from_pretrained(name, dtype=dtype)
        processor = FastJukeboxProcessor.find(name, prior.config)
        source = adapters[config.level]
        load_adapter(prior, source).save_pretrained(str(output))
        processor = adapted_processor(processor, [prior.config], {0: source})
        if processor is not None:
            processor.save_pretrained(output)
        return output
    if not isinstance(config, FastJukeboxConfig):
        raise ValueError(f"`model` must be a model or a prior of this package, got {config.model_type!r}")
    FastJukeboxModel.from_pretrained(name, dtype=dtype, adapters=adapters).save_pretrained(output)
    return output
