"""Adapters of peft in a prior that is sampled: the weights that a layer computes with, and which adapters are active.

Engines read weights and call no layer, and a layer with adapters answers with its base layer's. peft need not be
installed: where nothing has imported it, no layer has adapters.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn


def effective_weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that a layer with one matrix computes with: its own, or a copy with the active adapters merged.

    Raises:
        ValueError: its adapters cannot be merged into a weight.
    """
    tuner, _ = _peft_layers()
    if not isinstance(layer, tuner):  # peft's layers with complete copies of a module answer with the active copy
        weight: Any = layer.weight
        return weight, getattr(layer, "bias", None)
    # Also in inference mode, in which nothing made outside of it may be written to.
    with torch.inference_mode(False), torch.no_grad():
        own: Any = copy.deepcopy(layer)
        while isinstance(own, tuner):
            _settle(own)
            own = cast(Any, own).base_layer
    return own.weight, getattr(own, "bias", None)


def _settle(layer: Any) -> None:
    """Merge the adapters that a layer computes with into its base layer, and take out those that it does not.

    Raises:
        ValueError: that cannot be done.
    """
    try:
        if layer.disable_adapters and layer.merged:
            layer.unmerge()
        elif not layer.disable_adapters and not layer.merged:
            layer.merge()
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"adapters of the kind {type(layer).__module__}.{type(layer).__name__} must be mergeable to be "
            f"sampled, and peft says: {error or type(error).__name__}. Disable them "
            "(`disable_adapter_layers()`), or train adapters of another kind, such as LoRA"
        ) from error


def check_adapters(priors: Iterable[nn.Module]) -> None:
    """Raise a `ValueError` for priors with adapters that engines cannot compute with.

    Raises:
        ValueError: adapters of a kind that cannot be merged, or on an embedding that is the output matrix too, where
            the unmerged prior and the merged one differ.
    """
    tuner, _ = _peft_layers()
    for prior in priors if tuner else ():
        if getattr(prior, "output", 0) is None and isinstance(getattr(prior, "code_embedding", None), tuner):
            raise ValueError(
                "adapters must not be on `code_embedding` of a prior with `tie_word_embeddings`, where it is "
                "the output matrix too: name it in `modules_to_save` in place of `target_modules`"
            )
        tried: set[type] = set()
        for layer in prior.modules():
            if isinstance(layer, tuner) and type(layer) not in tried:
                tried.add(type(layer))
                effective_weights(layer)


def base_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of a module without those of adapters, which may be of another dtype."""
    tuner, _ = _peft_layers()
    if isinstance(module, tuner):
        module = module.get_base_layer()  # type: ignore[operator]
    yield from module.parameters(recurse=False)
    for child in module.children():
        yield from base_parameters(child)


def adapter_settings(module: object) -> tuple[Hashable, ...]:
    """Name, adapters, strengths and state of each layer with adapters; empty where there is none."""
    return tuple(_settings(name, layer) for name, layer in _adapted(module))


def adapter_state(module: object) -> tuple[Hashable, ...]:
    """`adapter_settings`, and a hash of all numbers of these layers: what engines make of them holds for one state."""
    layers = _adapted(module)
    tensors = [
        tensor.detach() for _, layer in layers for tensor in (*layer.parameters(), *layer.buffers()) if tensor.numel()
    ]
    bits = torch.stack([torch.hash_tensor(tensor) for tensor in tensors]).view(torch.int64).tolist() if tensors else []
    return (*(_settings(name, layer) for name, layer in layers), *bits)


def _settings(name: str, layer: Any) -> tuple[Hashable, ...]:
    scaling = repr(sorted(getattr(layer, "scaling", {}).items()))
    return name, tuple(layer.active_adapters), layer.disable_adapters, tuple(layer.merged_adapters), scaling


def _adapted(module: object) -> list[tuple[str, Any]]:
    kinds = tuple(kind for kinds in _peft_layers() for kind in kinds)
    if not kinds or not isinstance(module, nn.Module):
        return []
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]


def _peft_layers() -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Peft's classes of layers with adapters, and of layers with complete copies; empty where peft is not imported."""
    tuners, others = sys.modules.get("peft.tuners.tuners_utils"), sys.modules.get("peft.utils.other")
    if tuners is None or others is None:
        return (), ()
    return (tuners.BaseTunerLayer,), (others.AuxiliaryTrainingWrapper,)
