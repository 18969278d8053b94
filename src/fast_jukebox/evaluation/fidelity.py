"""How close students are to their teacher, and how well each predicts the data, on the same held-out windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.evaluation.likelihood import stacked_windows
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior


@dataclass(frozen=True)
class TeacherFidelity:
    """A prior beside its teacher, on held-out codes.

    Attributes:
        bits_per_code: mean of -log2 of the probability that the prior gave each code.
        kl_to_teacher: mean KL divergence of the prior's distribution from the teacher's, in bits a code.
        agreement: share of positions where prior and teacher find the same code the most probable.
        accuracy: share of the codes that the prior found the most probable.
        codes: how many codes were predicted.
    """

    bits_per_code: float
    kl_to_teacher: float
    agreement: float
    accuracy: float
    codes: int

    @property
    def perplexity(self) -> float:
        """Two to the bits."""
        return 2.0**self.bits_per_code


@torch.no_grad()
def compare_with_teacher(
    priors: Mapping[str, FastJukeboxPrior],
    teacher: FastJukeboxPrior,
    windows: Iterable[Mapping[str, Tensor]],
    batch_size: int = 4,
) -> dict[str, TeacherFidelity]:
    """Score several priors against one teacher, which sees each window once.

    Args:
        priors: by name; of the teacher's codes, each used in evaluation mode.
        teacher: may itself be one of the priors.
        windows: as for [`~fast_jukebox.evaluation.likelihood.prior_likelihood`].
        batch_size: windows at a time.

    Returns:
        A [`TeacherFidelity`] for each name.

    Raises:
        ValueError: no windows, or a prior that predicts another number of codes than the teacher.
    """
    models = [teacher, *priors.values()]
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    sums = {name: torch.zeros(4, dtype=torch.float64) for name in priors}
    total = 0
    try:
        for batch in stacked_windows(windows, batch_size):
            theirs = _log_probabilities(teacher, batch)
            total += batch["codes"].numel()
            for name, prior in priors.items():
                ours = theirs if prior is teacher else _log_probabilities(prior, batch)
                if ours.shape != theirs.shape:
                    raise ValueError(
                        f"`codebook_size` must be the teacher's {theirs.shape[-1]}, got {ours.shape[-1]} in {name!r}"
                    )
                sums[name] += _sums(ours, theirs.to(ours.device), batch["codes"].to(ours.device))
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    if not total:
        raise ValueError("`windows` must hold at least one window, got none")
    return {name: _fidelity(values, total) for name, values in sums.items()}


def _log_probabilities(prior: FastJukeboxPrior, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: value.to(prior.device) for name, value in batch.items() if name in ("upper_codes", "metadata")}
    return F.log_softmax(prior(batch["codes"].to(prior.device), **inputs).logits.float(), dim=-1)


def _sums(ours: Tensor, theirs: Tensor, codes: Tensor) -> Tensor:
    """Nats, divergence in nats, agreements and hits over all codes of a batch, float64 (4,)."""
    nats = -ours.gather(2, codes[..., None]).sum()
    divergence = (theirs.exp() * (theirs - ours)).sum()
    argmax = ours.argmax(-1)
    agreements = (argmax == theirs.argmax(-1)).sum()
    return torch.stack([nats, divergence, agreements.float(), (argmax == codes).sum().float()]).cpu().double()


def _fidelity(sums: Tensor, codes: int) -> TeacherFidelity:
    nats, divergence, agreements, hits = (value / codes for value in sums.tolist())
    return TeacherFidelity(
        bits_per_code=nats / math.log(2),
        kl_to_teacher=divergence / math.log(2),
        agreement=agreements,
        accuracy=hits,
        codes=codes,
    )
