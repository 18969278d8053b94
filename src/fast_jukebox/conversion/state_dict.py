"""Tensors under other names, each used once, with its shape and dtype checked; all problems are listed by name.

A key map gives for each of our names the published one, or where a matrix of ours is several of theirs, concatenated,
their names with each one's part of the rows: `(("c_attn.w", 1), ("c_enc_kv.w", 2))`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

_WRAPPER_PREFIX = "module."

Source = str | tuple[tuple[str, int], ...]
Shape = tuple[int, ...]


def strip_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix `module.` of distributed training; a `ValueError` if two names become one."""
    stripped: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        short = name.removeprefix(_WRAPPER_PREFIX)
        if short in stripped:
            raise ValueError(f"`state_dict` holds `{short}` twice, with and without the prefix `{_WRAPPER_PREFIX}`")
        stripped[short] = tensor
    return stripped


def check_tensors(
    source: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    key_map: Mapping[str, Source],
    transposed: Collection[str] = (),
    name: str = "state_dict",
) -> None:
    """Refuse a checkpoint that is not, tensor for tensor, what a key map asks for.

    Args:
        shapes: of the model's tensors that are filled, under our names.
        key_map: our name of each tensor to the checkpoint's.
        transposed: our names of matrices that the checkpoint holds the other way round.

    Raises:
        ValueError: names all tensors that are missing, left over, asked for twice, of another shape, or no dense
            floating-point numbers.
    """
    wanted = [pair for ours, shape in shapes.items() for pair in _wanted(key_map[ours], shape, ours in transposed)]
    used = [theirs for theirs, _ in wanted]
    known = set(used)
    shaped, dense = [], []
    for theirs, shape in wanted:
        tensor = source.get(theirs)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            dense.append(f"{theirs} ({getattr(tensor, 'dtype', type(tensor).__name__)})")
        elif tuple(tensor.shape) != shape:
            shaped.append(f"{theirs} {tuple(tensor.shape)}, wanted {shape}")
    problems = [
        _listing("missing", [theirs for theirs in used if theirs not in source]),
        _listing("left over", [theirs for theirs in source if theirs not in known]),
        _listing("asked for twice", [theirs for theirs, count in Counter(used).items() if count > 1]),
        _listing("of another shape", shaped),
        _listing("not dense tensors of floating-point numbers", dense),
    ]
    if any(problems):
        raise ValueError(f"`{name}` does not fit: " + "; ".join(problem for problem in problems if problem))


def taken(source: Mapping[str, Tensor], theirs: Source, transposed: bool) -> Tensor:
    """One of our tensors out of a checkpoint: a view where it is one of theirs, a new tensor where it is several."""
    parts = [source[name].t() if transposed else source[name] for name, _ in _parts(theirs)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _parts(theirs: Source) -> tuple[tuple[str, int], ...]:
    return ((theirs, 1),) if isinstance(theirs, str) else theirs


def _wanted(theirs: Source, shape: Shape, transposed: bool) -> list[tuple[str, Shape]]:
    """The checkpoint's names and shapes of what becomes one tensor of ours."""
    parts = _parts(theirs)
    total = sum(rows for _, rows in parts)
    shapes = [shape if len(parts) == 1 else (shape[0] * rows // total, *shape[1:]) for _, rows in parts]
    return [(name, own[::-1] if transposed else own) for (name, _), own in zip(parts, shapes, strict=True)]


def _listing(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {', '.join(names)}" if names else ""
