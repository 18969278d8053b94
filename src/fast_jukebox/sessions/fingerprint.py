"""What a session remembers of the model that it was made with, to know it again on another day and machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from fast_jukebox.sampling.adapters import adapter_settings
from fast_jukebox.sampling.checks import level_name

_NUMBERS = 8
"""Numbers of each tensor that a fingerprint reads."""

# Of a configuration; the type is that of the tensors.
_OF_NO_EFFECT = {
    *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype"),
}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without having it. Lists have an entry a level, bottom first.

    Attributes:
        name: the folder or repository that it was loaded from, or another word for it; may be empty.
        revision: the commit of the repository, or `None`.
        sampling_rate: audio samples a second.
        hop_lengths: audio samples a code stands for.
        codebook_size: codes are below it.
        n_ctx: codes of a prior's context.
        vqvae: digest of the VQ-VAE's weights, which give codes their meaning.
        priors: fingerprint of each prior.
    """

    name: str
    revision: str | None
    sampling_rate: int
    hop_lengths: tuple[int, ...]
    codebook_size: int
    n_ctx: tuple[int, ...]
    vqvae: str
    priors: tuple[str, ...]

    @classmethod
    def of(cls, model: Any, name: str | None = None) -> ModelFacts:
        """Look at a whole model."""
        config = model.vqvae.config
        known = name if name is not None else getattr(model, "name_or_path", None) or ""
        return cls(
            name=os.path.abspath(known) if os.path.isdir(known) else known,  # found from other folders, too
            revision=getattr(getattr(model, "config", None), "_commit_hash", None),
            sampling_rate=int(config.sampling_rate),
            hop_lengths=tuple(config.hop_lengths),
            codebook_size=int(config.codebook_size),
            n_ctx=tuple(prior.config.n_ctx for prior in model.priors),
            vqvae=weights_digest(model.vqvae),
            priors=tuple(fingerprint(prior) for prior in model.priors),
        )

    def record(self) -> dict[str, Any]:
        """The facts as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Any) -> ModelFacts:
        """The facts that `record` was made of.

        Raises:
            KeyError, TypeError, ValueError: `record` is none.
        """
        if not isinstance(record, dict) or set(record) != {field.name for field in fields(cls)}:
            raise ValueError("a model has other fields")
        lists = {name: tuple(record[name]) for name in ("hop_lengths", "n_ctx", "priors")}
        facts = cls(**{**record, **lists})
        texts = [facts.name, facts.vqvae, *facts.priors, *([] if facts.revision is None else [facts.revision])]
        counts = [facts.sampling_rate, facts.codebook_size, *facts.hop_lengths, *facts.n_ctx]
        right = len(facts.hop_lengths) == len(facts.n_ctx) == len(facts.priors) > 0
        right = right and all(isinstance(text, str) for text in texts)
        right = right and all(type(count) is int and 0 < count < 2**31 for count in counts)
        ratios = zip(facts.hop_lengths, facts.hop_lengths[1:], strict=False)
        if not right or any(upper % hop for hop, upper in ratios):
            raise ValueError("a model is not as it was written")
        return facts

    def check(self, model: Any, levels: Sequence[int]) -> None:
        """Refuse a model that would go on differently.

        Args:
            model: a whole model.
            levels: those whose priors are asked for codes.

        Raises:
            ValueError: its VQ-VAE or one of these priors is another one, or of another dtype.
        """
        from_here = f"the session was made with {self.name or 'another model'}" + (
            f" at revision {self.revision}" if self.revision else ""
        )
        if weights_digest(model.vqvae) != self.vqvae:
            raise ValueError(
                "`model` must have the session's VQ-VAE in the same dtype, as its codes mean nothing to others; "
                f"{from_here}"
            )
        for level in levels:
            if level >= len(model.priors) or fingerprint(model.priors[level]) != self.priors[level]:
                raise ValueError(
                    f"`model` must have the session's {level_name(level, len(self.priors))} prior in the same dtype, "
                    f"or the codes would not be those of one run; {from_here}"
                )


def weights_digest(module: nn.Module) -> str:
    """Digest of all weights and buffers of a module: two VQ-VAEs with the same digest give the same codes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(part: Any) -> str:
    """Fingerprint of a prior, however large: its configuration, and of each tensor the name, type, shape and a few
    numbers. Takes milliseconds, also for a large model; the same wherever the part lies.
    """
    # What has its default is left out, so that a field that is new in a later version makes no difference.
    config = part.config.to_diff_dict() if hasattr(part.config, "to_diff_dict") else vars(part.config)
    config = {key: value for key, value in config.items() if key not in _OF_NO_EFFECT}
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(part.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel() and tensor.device.type != "meta":
            places = torch.linspace(0, tensor.numel() - 1, _NUMBERS, dtype=torch.float64).long().to(tensor.device)
            seen = tensor.detach().reshape(-1)[places].to("cpu", torch.float64)
            found.update(seen.numpy().tobytes())
    if settings := adapter_settings(part):
        found.update(repr(settings).encode())
    return found.hexdigest()[:32]
