"""The model that a command names, and the device it runs on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from fast_jukebox.generation.offload import check_home, set_offload
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.sampling.checks import check_device


def model_name(model: str | None) -> str:
    """`model`, or the folder of the model inside the package.

    Raises:
        FileNotFoundError: `model` looks like a folder that is not there, or the package holds no model.
    """
    if model is not None:
        looks_like_path = model.startswith((".", "~", os.sep)) or model.count("/") > 1
        folder = Path(model).expanduser()
        if looks_like_path and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; a model is a folder or a Hub repository")
        return str(folder) if folder.is_dir() else model
    folder = default_model_path()
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"this installation has no embedded model in {folder}; name one with --model")
    return str(folder)


def chosen_device(device: Any) -> torch.device:
    """The device that a name stands for; `"auto"` is the first accelerator, or the CPU where there is none.

    Raises:
        ValueError: there is no such device on this machine.
    """
    found = check_device(device)
    if found is not None:
        return torch.device(found)
    for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if there:
            return torch.device(kind)
    return torch.device("cpu")


def load_model(
    model: str | None, device: torch.device, offload: str | None = None, revision: str | None = None
) -> FastJukeboxModel:
    """A whole model with its weights, as its file has them, without bars, ready to sample.

    Args:
        model: a folder or repository; `None` for the embedded one.
        device: where it samples.
        offload: where levels live that do not sample: `"cpu"`, `"disk"`, or `None` for the device.
        revision: of a repository; by default the newest.

    Raises:
        ValueError: `offload` is none of these; found before the model is loaded.
        OSError: there is no such model, or it cannot be read.
    """
    check_home(offload)
    logging.disable_progress_bar()
    at = {} if revision is None else {"revision": revision}
    loaded: Any = FastJukeboxModel.from_pretrained(model_name(model), dtype="auto", **at)
    loaded.eval()
    if offload is None:
        return loaded.to(device)
    set_offload(loaded, offload, device)
    return loaded
