"""Fingerprints of models, by which a session recognises its model on another day and machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from fast_jukebox.generation.request import SongModel
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.weights import adapter_settings
from fast_jukebox.sessions.notes import ModelFacts

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel

_NUMBERS = 8
"""Numbers of each tensor that a fingerprint reads."""

# Fields of a configuration that change no code; the type is that of the tensors.
_OF_NO_EFFECT = (
    *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype"),
)


def model_facts(model: SongModel, name: str | None = None) -> ModelFacts:
    """Facts of a complete model, which is found by `name`, by default where it was loaded from."""
    config = model.vqvae.config
    known = name if name is not None else getattr(model, "name_or_path", None) or ""
    merged = getattr(model, "adapters", None) or {}
    adapters = [merged.get(level) for level in range(len(model.priors))] if merged else []
    return ModelFacts(
        name=_findable(known),
        revision=getattr(getattr(model, "config", None), "_commit_hash", None),
        sampling_rate=int(config.sampling_rate),
        hop_lengths=tuple(model.vqvae.hop_lengths),
        codebook_size=int(config.codebook_size),
        n_ctx=tuple(prior.config.n_ctx for prior in model.priors),
        vqvae=weights_digest(model.vqvae),
        priors=tuple(fingerprint(prior) for prior in model.priors),
        adapters=tuple(None if source is None else _findable(source) for source in adapters),
    )


def _findable(name: str | os.PathLike[str]) -> str:
    """A folder that is found from other folders too, or the name of a repository."""
    return os.path.abspath(name) if os.path.isdir(name) else str(name)


def check_model(facts: ModelFacts, model: SongModel, levels: Sequence[int]) -> None:
    """Refuse a model that would sample other codes than the one of these facts.

    Args:
        facts: of the session's model.
        model: VQ-VAE and priors.
        levels: those whose priors are asked for codes.

    Raises:
        ValueError: its VQ-VAE or one of these priors is another one, or of another dtype.
    """
    from_here = f"the session was made with {facts.source}"
    if weights_digest(model.vqvae) != facts.vqvae:
        raise ValueError(
            f"`model` must have the session's VQ-VAE in the same dtype, as others know other codes; {from_here}"
        )
    for level in levels:
        if level >= len(model.priors) or fingerprint(model.priors[level]) != facts.priors[level]:
            raise ValueError(
                f"`model` must have the session's {level_name(level, len(facts.priors))} prior in the same dtype, or "
                f"the codes would not be those of one run; {from_here}"
            )


def weights_digest(module: nn.Module) -> str:
    """Digest of all weights and buffers of a module: two VQ-VAEs with the same digest give the same codes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(part: PreTrainedModel) -> str:
    """Fingerprint of a prior, however large: its configuration, and of each tensor the name, type, shape and a few
    numbers. Takes milliseconds, also for a large model; the same wherever the part lies.
    """
    # What has its default is left out, so that a field that is new in a later version makes no difference.
    config = part.config.to_diff_dict() if hasattr(part.config, "to_diff_dict") else vars(part.config)
    config = {key: value for key, value in config.items() if key not in _OF_NO_EFFECT}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(part.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel() and tensor.device.type != "meta":
            indices = torch.linspace(0, tensor.numel() - 1, _NUMBERS, dtype=torch.float64).long().to(tensor.device)
            numbers = tensor.detach().reshape(-1)[indices].to("cpu", torch.float64)
            digest.update(numbers.numpy().tobytes())
    if settings := adapter_settings(part):
        digest.update(repr(settings).encode())
    return digest.hexdigest()[:32]
