"""The model that a command names, and the device it runs on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from fast_jukebox.generation.offload import check_target, set_offload
from fast_jukebox.generation.request import FastJukeboxGenerationConfig
from fast_jukebox.hub import clear_hub_errors, prefer_cache
from fast_jukebox.models.configuration_utils import clear_config_errors
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import PRESETS
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.sampling.checks import check_device
from fast_jukebox.utils.files import check_folder, clear_json_errors
from fast_jukebox_cli.values import Waiting

EMBEDDED = "embedded"
"""Name of the model inside the package, whose folder differs from machine to machine."""


def model_config(name: str) -> PreTrainedConfig:
    """The configuration of any model of the package; a `ValueError` for a damaged one, or of another model."""
    try:
        with clear_hub_errors(name), clear_json_errors("config.json", name), clear_config_errors(name):
            return AutoConfig.from_pretrained(name, **prefer_cache(name, {}))
    except (RecursionError, AttributeError, TypeError) as error:  # transformers expects names with their values
        raise ValueError(
            f"`config.json` of `{name}` must hold names with their values, fetch or save it again: {error}"
        ) from error


def model_name(model: str | None) -> str:
    """`model`, or for `None` and `embedded` the folder of the model inside the package.

    Raises:
        FileNotFoundError: `model` looks like a folder that is not there, or the package holds no model.
        PermissionError: it is a folder that may not be read.
    """
    if model not in (None, EMBEDDED):
        looks_like_path = model.startswith((".", "~", os.sep)) or model.count("/") > 1
        folder = Path(model).expanduser()
        check_folder(folder)
        if folder.is_file():
            raise FileNotFoundError(f"{str(folder)!r} is a file; a model is a folder or a Hub repository")
        if looks_like_path and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; a model is a folder or a Hub repository")
        return str(folder) if folder.is_dir() else model
    folder = default_model_path()
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"this installation has no embedded model in {folder}; name one with --model")
    return str(folder)


def planned_model(model: str | None) -> tuple[FastJukeboxConfig, FastJukeboxGenerationConfig | None]:
    """Configuration of a complete model, and its settings where it has some; no weights are read.

    `model` is as for [`model_name`], or a preset's name, such as `fastjukebox-18`; a part of a model is a `ValueError`.
    """
    if model is not None and model in PRESETS:
        return FastJukeboxConfig.preset(model), None
    name = model_name(model)
    config = model_config(name)
    if not isinstance(config, FastJukeboxConfig):
        raise ValueError(f"`model` must be a complete model, {name} is a {config.model_type}")
    try:
        return config, FastJukeboxGenerationConfig.from_pretrained(name)
    except OSError:
        return config, None


def check_dtype(dtype: str) -> str:
    """`dtype` itself; a `ValueError` if priors cannot have it."""
    if dtype not in ("float32", "bfloat16", "float16", "auto"):
        raise ValueError(f"`dtype` must be float32, bfloat16 or float16, got {dtype!r}")
    return dtype


def chosen_device(device: str) -> torch.device:
    """The device of a name, which must be there; `"auto"` is the first accelerator, or else the CPU."""
    found = check_device(device)
    if found is not None:
        return found
    for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if there:
            return torch.device(kind)
    return torch.device("cpu")


@dataclass(frozen=True)
class ModelSource:
    """The model that a command loads.

    Attributes:
        name: a folder or repository; `None` for the embedded one.
        dtype: of the priors; by default the file's, on a CPU float32.
        adapters: folder or Hub name of an adapter by level, to merge into the priors.
    """

    name: str | None = None
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    dtype: str | None = None
    adapters: Mapping[int, str] = field(default_factory=dict)


def load_model(
    source: ModelSource, device: torch.device, offload: str | None = None, quiet: bool = False
) -> FastJukeboxModel:
    """A complete model with its weights, without bars, ready to sample.

    `offload` and the dtype are checked (`ValueError`) before the model is loaded.
    """
    check_target(offload)
    if source.revision is not None and Path(model_name(source.name)).is_dir():
        raise ValueError(f"`revision` must go with a Hub repository, got the folder {model_name(source.name)!r}")
    dtype = check_dtype(source.dtype or ("float32" if device.type == "cpu" else "auto"))
    logging.disable_progress_bar()
    at = {name: value for name in ("revision", "token") if (value := getattr(source, name)) is not None}
    with Waiting("loading the model", quiet):
        loaded: FastJukeboxModel = FastJukeboxModel.from_pretrained(
            model_name(source.name), dtype=dtype, adapters=source.adapters, **at
        )
        loaded.eval()
        if offload is None:
            loaded.to(device)
        else:
            set_offload(loaded, offload, device)
    return loaded
