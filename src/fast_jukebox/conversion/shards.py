"""Safetensors written shard by shard, with no more than one shard in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of a size such as `"1GB"`, `"500MB"` or `2**30`; a `ValueError` for what is none."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)\s*", size.upper()) if isinstance(size, str) else None
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"`max_shard_size` must be bytes or a size such as '1GB' or '500MB', got {size!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, in shards of at most `limit` bytes; a tensor larger than that is a separate shard."""
    shards: list[list[str]] = []
    held = limit
    for name, size in sizes.items():
        if not shards or held + size > limit:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    return shards


def write_shards(
    folder: Path,
    sizes: Mapping[str, int],
    tensors: Iterable[tuple[str, Tensor]],
    dtypes: Mapping[str, torch.dtype],
    limit: int,
    written: Callable[[int], None] | None = None,
) -> None:
    """Write tensors as a model's safetensors, with an index where there is more than one file.

    Args:
        sizes: bytes of each tensor in its dtype, by name, in the order in which they come.
        tensors: name and tensor, in that order; each is released before the next shard but one is begun.
        dtypes: that the numbers of each tensor are written in, by name.

    Raises:
        OSError: a file could not be written.
        ValueError: a tensor holds numbers that are not finite, or are not in its dtype.
    """
    shards = plan_shards(sizes, limit)
    source = iter(tensors)
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = SAFE_WEIGHTS_NAME
        if len(shards) > 1:
            file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: _ready(name, tensor, dtypes[name]) for name, (_, tensor) in zip(names, source, strict=False)}
        if list(shard) != names:
            raise ValueError(f"`tensors` end before {names[len(shard)]}")
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"`{folder / file}` could not be written: {error}") from error
        weight_map |= dict.fromkeys(names, file)
        del shard
        if written is not None:
            written(sum(sizes[name] for name in names))
    if len(shards) > 1:
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def size_in(shape: Iterable[int], dtype: torch.dtype) -> int:
    """Bytes of a tensor."""
    return torch.Size(shape).numel() * dtype.itemsize


def _ready(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    ready = tensor.to(dtype).contiguous()
    if not _is_finite(ready):
        if _is_finite(tensor):
            raise ValueError(f"`{name}` holds numbers that are beyond the range of {dtype}: name another `dtype`")
        raise ValueError(f"`{name}` holds numbers that are not finite: fetch the file that it comes from again")
    # Own memory, for safetensors writes no tensor that is a part of another's.
    return ready if ready.data_ptr() != tensor.data_ptr() else ready.clone()


def _is_finite(tensor: Tensor) -> bool:
    """True where all numbers are finite, by the least and the greatest (NaN if there is one), without a mask."""
    return tensor.numel() == 0 or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())
