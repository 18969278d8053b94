"""Weights of a prior as engines read them: with adapters of peft merged, and what is made of them kept between windows.

Engines read weights and call no layer, and a layer with adapters answers with its base layer's. peft need not be
installed: where nothing has imported it, no layer has adapters.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

Value = TypeVar("Value")


def effective_weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that a layer with one matrix computes with: its own, or a copy with the active adapters merged.

    Raises:
        ValueError: its adapters cannot be merged into a weight.
    """
    tuner = _peft_layers()[0] if hasattr(layer, "base_layer") else ()
    if isinstance(layer, tuner):
        # Also in inference mode, in which nothing made outside of it may be written to.
        with torch.inference_mode(False), torch.no_grad():
            layer = copy.deepcopy(layer)
            while isinstance(layer, tuner):
                _settle(layer)
                layer = cast(nn.Module, layer.base_layer)
    # peft's layers with complete copies of a module answer with the active copy.
    return cast(Tensor, layer.weight), cast("Tensor | None", getattr(layer, "bias", None))


def _settle(layer: BaseTunerLayer) -> None:
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
    """Refuse priors with adapters that engines cannot compute with.

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
        for layer in {type(layer): layer for layer in prior.modules() if isinstance(layer, tuner)}.values():
            effective_weights(layer)


def base_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of a module without those of adapters, which may be of another dtype."""
    tuner, _ = _peft_layers()
    if isinstance(module, tuner):
        module = module.get_base_layer()
    yield from module.parameters(recurse=False)
    for child in module.children():
        yield from base_parameters(child)


def adapter_settings(module: object) -> tuple[Hashable, ...]:
    """Name, adapters, strengths and state of each layer with adapters; empty where there is none."""
    return tuple(
        (
            name,
            tuple(layer.active_adapters),
            layer.disable_adapters,
            tuple(layer.merged_adapters),
            repr(sorted(getattr(layer, "scaling", {}).items())),
        )
        for name, layer in _adapted(module)
    )


def adapter_state(module: object) -> tuple[Hashable, ...]:
    """`adapter_settings`, and a hash of all numbers of these layers: what engines make of them holds for one state."""
    tensors = [
        tensor.detach()
        for _, layer in _adapted(module)
        for tensor in (*layer.parameters(), *layer.buffers())
        if tensor.numel()
    ]
    bits = torch.stack([torch.hash_tensor(tensor) for tensor in tensors]).view(torch.int64).tolist() if tensors else []
    return *adapter_settings(module), *bits


class _AdaptedLayer(Protocol):
    """Common interface of peft's layers with adapters and of those with complete copies."""

    active_adapters: list[str]
    disable_adapters: bool
    merged_adapters: list[str]

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...


def _adapted(module: object) -> list[tuple[str, _AdaptedLayer]]:
    tuners, copies = _peft_layers()
    if not tuners or not isinstance(module, nn.Module):
        return []
    layers = ((name, layer) for name, layer in module.named_modules() if isinstance(layer, (*tuners, *copies)))
    return [(name, cast(_AdaptedLayer, layer)) for name, layer in layers]


def _peft_layers() -> tuple[tuple[type[BaseTunerLayer], ...], tuple[type[nn.Module], ...]]:
    """Peft's classes of layers with adapters, and of layers with complete copies; empty where peft is not imported."""
    tuners, others = sys.modules.get("peft.tuners.tuners_utils"), sys.modules.get("peft.utils.other")
    if tuners is None or others is None:
        return (), ()
    return (tuners.BaseTunerLayer,), (others.AuxiliaryTrainingWrapper,)


_lock = threading.RLock()  # windows of several levels, or of one, are sampled at the same time
_kept: WeakKeyDictionary[object, dict[str, tuple[Hashable, object]]] = WeakKeyDictionary()


def kept_for_prior(prior: object, name: str, state: Hashable, make: Callable[[], Value]) -> Value:
    """Something that engines make of a prior's weights, made once and kept as long as the prior lives.

    Args:
        prior: whose it is.
        name: what it is.
        state: of the weights (see `weight_state`); where it differs it is made again.
        make: called to make it; what it returns must not hold the prior.
    """
    with _lock:
        kept = _kept.setdefault(prior, {})
        if name not in kept or kept[name][0] != state:
            kept.pop(name, None)  # its memory first
            kept[name] = state, make()
        return cast(Value, kept[name][1])


def release_decoders() -> None:
    """Release the memory of all recorded and compiled steps and packed weights that are kept for the next window."""
    with _lock:
        _kept.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def weight_state(weights: Iterable[Tensor]) -> tuple[tuple[int, int], ...]:
    """Address and version of each weight; both stay as they are where `.data` of a weight is changed in its place."""
    return tuple([(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights])
