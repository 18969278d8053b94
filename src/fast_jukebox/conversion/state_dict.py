"""Filling a model with tensors that have other names: every one used once, every shape equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

_WRAPPER_PREFIX = "module."


def strip_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of the mapping in which `module.`, the prefix of distributed training, is taken off every name.

    Raises:
        ValueError: two names become one.
    """
    stripped: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        short = name.removeprefix(_WRAPPER_PREFIX)
        if short in stripped:
            raise ValueError(f"`state_dict` holds `{short}` twice, with and without the prefix `{_WRAPPER_PREFIX}`")
        stripped[short] = tensor
    return stripped


@torch.no_grad()
def convert_state_dict(
    state_dict: Mapping[str, Tensor], model: nn.Module, key_map: Mapping[str, str], transposed: Collection[str] = ()
) -> None:
    """Copy a checkpoint's tensors into a model, in the model's dtype.

    Args:
        state_dict: the checkpoint; a prefix `module.` is taken off its names.
        model: receives them.
        key_map: the model's name of each tensor to the checkpoint's; covers every parameter of the model.
        transposed: the model's names of matrices that the checkpoint holds the other way round.

    Raises:
        ValueError: tensors that are missing, left over, or of another shape: names all of them. The model is then
            left as it was.
    """
    source = strip_prefix(state_dict)
    target = dict(model.state_dict(keep_vars=True))
    used = set(key_map.values())
    problems = [
        _listing("missing", [theirs for theirs in key_map.values() if theirs not in source]),
        _listing("left over", [theirs for theirs in source if theirs not in used]),
        _listing("asked for twice", _repeated(key_map.values())),
        _listing("not in the model", [ours for ours in key_map if ours not in target]),
        _listing(
            "of the model without a source", [ours for ours, _ in model.named_parameters() if ours not in key_map]
        ),
    ]
    shapes = []
    for ours, theirs in key_map.items():
        if theirs in source and ours in target:
            wanted = tuple(target[ours].shape)
            wanted = wanted[::-1] if ours in transposed else wanted
            if tuple(source[theirs].shape) != wanted:
                shapes.append(f"{theirs} {tuple(source[theirs].shape)}, wanted {wanted}")
    problems.append(_listing("of another shape", shapes))
    if any(problems):
        raise ValueError("`state_dict` does not fit: " + "; ".join(problem for problem in problems if problem))
    for ours, theirs in key_map.items():
        tensor = source[theirs]
        target[ours].copy_(tensor.t() if ours in transposed else tensor)


def _repeated(names: Collection[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def _listing(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {', '.join(names)}" if names else ""


__all__ = ["convert_state_dict", "strip_prefix"]
