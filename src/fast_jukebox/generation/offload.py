"""Models larger than a GPU: the priors live in main memory or on the disk and visit the GPU in turn."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fast_jukebox.sampling.engine import release_decoders
from fast_jukebox.sampling.inputs import check_device
from fast_jukebox.utils.files import clear_temporary, temporary_path

HOMES = ("cpu", "disk")
"""Where the priors can live while they do not sample."""


def check_home(home: str | None) -> str | None:
    """`home`, or a `ValueError` where priors cannot live there."""
    if home is not None and home not in HOMES:
        raise ValueError(f"`home` must be one of {', '.join(map(repr, HOMES))} or None, got {home!r}")
    return home


class Visits:
    """Brings the priors of a model to a device one at a time. The VQ-VAE, which is small, stays there.

    A prior comes when it is asked to `condition` a window, which is how every window begins, and stays until another
    one is asked. At home its weights are never written to: what is on the device is a copy that is dropped.

    Args:
        model: has `vqvae` and `priors`.
        home: one of [`HOMES`]. On the disk they are read through the page cache, which the system gives to others when
            memory runs short.
        device: where they sample; by default the model's, or the GPU where that is the CPU.
        folder: for the home `"disk"`, where to keep the weights; by default the system's temporary folder, which
            `TMPDIR` names. The files have no name while they are in use, so that none is left behind, however the
            process ends; where a system cannot do that they are deleted when the visits end.

    Raises:
        ValueError: there is no such home or device.
        OSError: the weights cannot be written.
    """

    def __init__(
        self,
        model: Any,
        home: str,
        device: torch.device | str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check_home(home)
        self.home, self.device = home, _device_for(model, device)
        self._guest: nn.Module | None = None
        self._homes: dict[int, dict[str, Tensor]] = {}
        self._files: list[Path] = []
        self._priors: list[Any] = list(model.priors)
        for level, prior in enumerate(self._priors):
            tensors = {name: tensor.detach().cpu() for name, tensor in _tensors_of(prior).items()}
            self._homes[id(prior)] = self._on_disk(tensors, level, folder) if home == "disk" else tensors
        model.vqvae.to(self.device)
        for prior in self._priors:  # from here on nothing fails, so no prior is away while another one is not
            _put(prior, self._homes[id(prior)])
            prior.condition = _Visit(self, prior)
            prior.sampling_device = self.device
        release_decoders()

    def bring(self, prior: nn.Module) -> None:
        """Send home whoever is there and bring a prior."""
        if self._guest is prior:
            return
        self.send_home()
        # Ordinary tensors, whether or not this happens while sampling.
        with torch.inference_mode(False), torch.no_grad():
            _put(prior, {name: tensor.to(self.device) for name, tensor in self._homes[id(prior)].items()})
        self._guest = prior

    def send_home(self) -> None:
        """Drop what is on the device."""
        if self._guest is not None:
            _put(self._guest, self._homes[id(self._guest)])
            self._guest = None
            release_decoders()  # recorded steps hold the weights that they were recorded with

    def end(self) -> None:
        """All priors stay on the device from now on."""
        self.send_home()
        for prior in self._priors:
            del prior.condition, prior.sampling_device
            own = self._homes[id(prior)]
            _put(prior, {name: _copied(tensor, self.device) for name, tensor in own.items()})
        self._homes = {}
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


class _Visit:
    """Stands for a prior's `condition`."""

    def __init__(self, visits: Visits, prior: Any) -> None:
        self.visits, self.prior = visits, prior

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.visits.bring(self.prior)
        return type(self.prior).condition(self.prior, *args, **kwargs)


def visits(prior: Any) -> bool:
    """Whether a prior is on its device only while its windows are sampled."""
    return isinstance(getattr(prior, "condition", None), _Visit)


def set_offload(
    model: Any,
    home: str | None,
    device: torch.device | str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> None:
    """Let the priors of a model live elsewhere and visit a device in turn, or bring them all there; see [`Visits`].

    Args:
        model: a whole model, as it was loaded, on the CPU.
        home: `"cpu"`, `"disk"`, or `None` for no visits.
        device: where they sample.
        folder: see [`Visits`].

    Raises:
        ValueError: there is no such home or device.
        OSError: the weights cannot be written.
    """
    check_home(home)
    before: Visits | None = getattr(model, "_visits", None)
    if before is not None:
        before.end()
        model._visits = None
    if home is not None:
        model._visits = Visits(model, home, device, folder)
    elif device is not None:
        model.to(check_device(device))


def _device_for(model: Any, device: torch.device | str | None) -> torch.device:
    if device is not None:
        found = check_device(device)
        if found is not None:
            return torch.device(found)
    here = next(model.vqvae.parameters()).device
    return torch.device("cuda") if here.type == "cpu" and torch.cuda.is_available() else here


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those too that are not saved; what is shared only once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _put(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let a module have other tensors, also where it has one under two names."""
    shared: dict[int, Any] = {}
    old: dict[str, Any] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
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


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    """On a device, and no part of a mapped file."""
    return tensor.to(device, copy=True)
