"""Models larger than a GPU: the priors live in main memory or on the disk and are on the GPU one at a time.

accelerate's hooks move a module around its `forward`, which sampling does not call.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fast_jukebox.sampling.checks import check_device
from fast_jukebox.sampling.weights import release_decoders
from fast_jukebox.utils.files import clear_temporary, temporary_path
from fast_jukebox.utils.text import shown

TARGETS = ("cpu", "disk")
"""Where the priors can live while they do not sample."""


def check_target(target: str | None) -> str | None:
    """`target`, or a `ValueError` where priors cannot be offloaded to it."""
    if target is not None and target not in TARGETS:
        raise ValueError(f"`target` must be one of {', '.join(map(repr, TARGETS))} or None, got {shown(target)}")
    return target


class Offload:
    """Brings the priors of a model to a device one at a time. The VQ-VAE, which is small, stays there.

    A prior comes when it is asked to `condition` a window, which is how every window begins, and stays until another
    one is asked. Its stored weights are never written to: what is on the device is a copy that is dropped.

    Args:
        model: has `vqvae` and `priors`.
        target: one of [`TARGETS`]. On the disk they are read through the page cache, which the system gives to others
            when memory runs short.
        device: where they sample; by default the model's, or the GPU where that is the CPU.
        folder: for the target `"disk"`, where to keep the weights; by default the system's temporary folder, which
            `TMPDIR` names. The files have no name while they are in use, so that none is left behind, however the
            process ends; where a system cannot do that they are deleted when the offloading ends.

    Raises:
        ValueError: there is no such target or device.
        OSError: the weights cannot be written.
    """

    def __init__(
        self,
        model: Any,
        target: str,
        device: torch.device | str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check_target(target)
        self.target, self.device = target, _device_for(model, device)
        self._loaded: nn.Module | None = None
        self._stored: dict[int, dict[str, Tensor]] = {}
        self._files: list[Path] = []
        self._priors: list[Any] = list(model.priors)
        for level, prior in enumerate(self._priors):
            tensors = {name: tensor.detach().cpu() for name, tensor in _tensors_of(prior).items()}
            self._stored[id(prior)] = self._on_disk(tensors, level, folder) if target == "disk" else tensors
        model.vqvae.to(self.device)
        for prior in self._priors:  # from here on nothing fails, so no prior is away while another one is not
            _put(prior, self._stored[id(prior)])
            prior.condition = _OffloadedCondition(self, prior)
            prior.sampling_device = self.device
        release_decoders()

    def bring(self, prior: nn.Module) -> None:
        """Move a prior to the device in place of the one that is there."""
        if self._loaded is prior:
            return
        self.unload()
        # Ordinary tensors, whether or not this happens while sampling.
        with torch.inference_mode(False), torch.no_grad():
            _put(prior, {name: tensor.to(self.device) for name, tensor in self._stored[id(prior)].items()})
        self._loaded = prior

    def unload(self) -> None:
        """Drop what is on the device."""
        if self._loaded is not None:
            _put(self._loaded, self._stored[id(self._loaded)])
            self._loaded = None
            release_decoders()  # recorded steps hold the weights that they were recorded with

    def end(self) -> None:
        """All priors stay on the device from now on."""
        self.unload()
        for prior in self._priors:
            del prior.condition, prior.sampling_device
            own = self._stored[id(prior)]
            _put(prior, {name: tensor.to(self.device, copy=True) for name, tensor in own.items()})  # no part of a file
        self._stored = {}
        self._files = [path for path in self._files if not _unlinked(path)]

    def _on_disk(
        self, tensors: dict[str, Tensor], level: int, folder: str | os.PathLike[str] | None
    ) -> dict[str, Tensor]:
        place = Path(tempfile.gettempdir() if folder is None else folder).expanduser()
        clear_temporary(place)
        path = temporary_path(place / f"fast-jukebox-level-{level}.safetensors")
        try:
            save_file(_apart(tensors), path)
            return load_file(path)  # mapped, not read
        except SafetensorError as error:
            raise OSError(f"cannot keep the weights of level {level} in {str(place)!r}: {error}") from error
        finally:
            if not _unlinked(path):
                self._files.append(path)


class _OffloadedCondition:
    """Stands for a prior's `condition`."""

    def __init__(self, offload: Offload, prior: Any) -> None:
        self.offload, self.prior = offload, prior

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.offload.bring(self.prior)
        return type(self.prior).condition(self.prior, *args, **kwargs)


def set_offload(
    model: Any,
    target: str | None,
    device: torch.device | str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> None:
    """Offload the priors of a model, of which one at a time is on the device, or move them all there; see [`Offload`].

    Args:
        model: a whole model, as it was loaded, on the CPU.
        target: `"cpu"`, `"disk"`, or `None` to keep them on the device.
        device: where they sample.
        folder: see [`Offload`].

    Raises:
        ValueError: there is no such target or device.
        OSError: the weights cannot be written.
    """
    check_target(target)
    before: Offload | None = getattr(model, "_offload", None)
    if before is not None:
        before.end()
        model._offload = None
    if target is not None:
        model._offload = Offload(model, target, device, folder)
    elif device is not None:
        model.to(check_device(device))


def _device_for(model: Any, device: torch.device | str | None) -> torch.device:
    found = check_device(device)
    if found is not None:
        return found
    here = next(model.vqvae.parameters()).device
    return torch.device("cuda") if here.type == "cpu" and torch.cuda.is_available() else here


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those too that are not saved; what is shared only once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _put(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let a module have other tensors, also where it has one under two names."""
    shared: dict[int, Any] = {}
    old = _tensors_of(module)
    for name, tensor in tensors.items():
        trained = isinstance(old[name], nn.Parameter)
        shared[id(old[name])] = nn.Parameter(tensor, requires_grad=False) if trained else tensor
    for part in module.modules():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for own in stores:
            own.update({name: shared[id(tensor)] for name, tensor in own.items() if tensor is not None})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a file takes them, each with a storage of its own; copies only where it is not so already."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        apart[name] = tensor if alone and tensor.is_contiguous() else tensor.contiguous().clone()
    return apart


def _unlinked(path: Path) -> bool:
    """Delete a file; `False` where the system keeps files that are mapped."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
