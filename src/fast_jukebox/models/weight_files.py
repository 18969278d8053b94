"""Files of weights: opening, shapes, and errors that name the file or the tensors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.initialization import no_init_weights
from transformers.utils import cached_file

from fast_jukebox.models.configuration_utils import PathLike

Shape = tuple[int, ...]


@contextmanager
def open_weights(path: str) -> Iterator[safe_open]:
    """A file of safetensors.

    Raises:
        OSError: it is damaged, or may not be read; names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:  # safetensors' answer also for a file that may not be read
        if not os.path.exists(path):
            raise
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from error
    except SafetensorError as error:
        raise OSError(
            f"`{path}` is damaged or cut short ({error}): save it again, or fetch it again with `force_download=True`"
        ) from error


@contextmanager
def clear_weight_errors(
    name_or_path: PathLike, weights: Mapping[str, str], download: Mapping[str, object]
) -> Iterator[None]:
    """While transformers reads weights, which names no file where one is damaged.

    Args:
        name_or_path: the folder or repository.
        weights: as [`~fast_jukebox.models.loading.check_weights`] gives them.
        download: where the files are.

    Raises:
        OSError: a file is damaged; names it.
    """
    try:
        yield
    except SafetensorError:
        for shard in sorted(set(weights.values())):
            path = cached_file(name_or_path, shard, **{**download, "force_download": False, "local_files_only": True})
            with open_weights(path):
                pass
        raise


def file_shapes(name_or_path: PathLike, weights: Mapping[str, str], download: Mapping[str, object]) -> dict[str, Shape]:
    """The shape of each tensor of a folder or repository; the tensors are not read.

    Args:
        name_or_path: the folder or repository.
        weights: as [`~fast_jukebox.models.loading.check_weights`] gives them.
        download: where the files are.
    """
    shapes: dict[str, Shape] = {}
    for shard in sorted(set(weights.values())):
        path = cached_file(name_or_path, shard, **{**download, "force_download": False})
        with open_weights(path) as file:
            shapes.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    return shapes


@contextmanager
def clear_shape_errors(
    source: PathLike | None, make: Callable[[], nn.Module], shapes: Callable[[], Mapping[str, Shape]], prefix: str = ""
) -> Iterator[None]:
    """While transformers loads weights, whose error over shapes names no tensor.

    Args:
        source: the folder or repository, for messages.
        make: makes the model that is loaded; called on the meta device, and only after an error.
        shapes: returns the shapes of the weights by the model's names; called only after an error.
        prefix: of these names in the file.

    Raises:
        ValueError: weights are of another shape than the model's: names them.
    """
    try:
        yield
    except RuntimeError as error:
        found, wrong = shapes(), {}
        if found:
            with torch.device("meta"), no_init_weights():
                wanted = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
            wrong = {name: shape for name, shape in found.items() if wanted.get(name, shape) != shape}
        if not wrong:  # something else failed
            raise
        raise ValueError(
            f"`{source}` does not fit its configuration: {len(wrong)} tensors of another shape: "
            f"{_listing(wrong, wanted, prefix)}. Bring back the config.json that was saved with these weights; or "
            "initialise them again with `ignore_mismatched_sizes=True`, and train them"
        ) from error


def _listing(wrong: Mapping[str, Shape], wanted: Mapping[str, Shape], prefix: str) -> str:
    """Names with their shapes; of names that differ in numbers alone, as of many layers, the first stands for all."""
    groups: dict[tuple[str, Shape, Shape], list[str]] = {}
    for name, shape in wrong.items():
        groups.setdefault((re.sub(r"\d+", "#", name), shape, wanted[name]), []).append(name)
    return "; ".join(
        f"{prefix}{names[0]}{f' and {len(names) - 1} like it' if len(names) > 1 else ''} {shape}, wanted {right}"
        for (_, shape, right), names in groups.items()
    )
