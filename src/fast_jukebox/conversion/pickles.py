"""Published pickles: weights alone are read, never code, and mapped where the file allows."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

# Jukebox puts a mapping of hyperparameters, a kind of dict, beside the weights that it trains. It is not looked at.
_STAND_INS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (OrderedDict, "jukebox.hparams.Hyperparams")
]
_REMEDY = "fetch it again, or save its tensors alone"


def read_pickle(path: str | os.PathLike[str]) -> object:
    """Read a file of `torch.save`, tensors on the CPU.

    Files of the zip format (torch 1.6 and later) are mapped: a tensor takes memory only while it is used. Older ones
    are read completely.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is damaged, or holds Python objects, whose code is not run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file `{path}`")
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path)
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are not expected; what cannot be read is an error
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        _check_sizes(content)
        return content
    # The bytes of a damaged file can lead the reader anywhere, so that any error may come.
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # torch names none for a damaged file
            raise
        raise ValueError(f"`{path}` {_explained(error)}") from error


def _check_archive(path: Path) -> None:
    """Raise a `ValueError` where parts are compressed, which `torch.save` never does: a few bytes fill any memory."""
    with zipfile.ZipFile(path) as archive:
        packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"its part {packed[0]!r} is compressed")


def _check_sizes(content: object) -> None:
    """Raise a `ValueError` where a tensor has more numbers than the file holds, by repeating them."""
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # a list may hold itself, or the same one many times
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            held = value.untyped_storage().nbytes()
            if value.numel() * value.element_size() > held:
                raise ValueError(f"a tensor of {tuple(value.shape)} is made of {held} bytes")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors by name of a checkpoint's entry `model`, or of the file itself; errors as of [`read_pickle`]."""
    content = read_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"`{path}` must hold tensors by name, got {type(content).__name__}: {_REMEDY}")
    strangers = [
        repr(name) if isinstance(name, str | int) else f"a {type(name).__name__}"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor) and value.device.type == "cpu")
    ]
    if strangers:
        raise ValueError(f"`{path}` must hold tensors by name, but {', '.join(strangers[:8])} is none: {_REMEDY}")
    return dict(content)


def _explained(error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found:
        kept = "only weights are read, and no code is run"
        return f"holds a Python object, {found[1]}; {kept}: {_REMEDY}"
    # What torch says first is how to read it all the same, code included.
    reason = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
    first = reason[1] if reason else next(iter(str(error).splitlines()), "")
    first = "" if first.startswith("Weights only load failed") else f": {first}"
    kind = type(error).__name__
    return f"is no checkpoint that can be read; it may be damaged or cut short ({kind}{first}): fetch it again"
