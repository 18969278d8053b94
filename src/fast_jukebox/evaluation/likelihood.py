"""Prediction of held-out codes, in bits: by priors, by students beside their teacher, and by counts alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.data.windows import stack_items
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.sampling.engine import sampling_mode


@dataclass(frozen=True)
class CodeLikelihood:
    """Metrics of the prediction of held-out codes.

    Attributes:
        bits_per_code: mean over codes of -log2 of the probability that each was given.
        accuracy: fraction of the codes that were the most probable one.
        codes: how many codes were predicted.
        windows: in how many windows.
    """

    bits_per_code: float
    accuracy: float
    codes: int
    windows: int

    @property
    def perplexity(self) -> float:
        """Two to the bits: between how many codes, equally likely, the model is undecided."""
        return 2.0**self.bits_per_code


class _CodeModel(Protocol):
    def log_probabilities(self, codes: Tensor) -> Tensor: ...


class UnigramModel:
    """Codes drawn one by one, each with its fraction of the training codes (add-one smoothing).

    Args:
        counts: how often each code occurred, (K,), non-negative.
    """

    def __init__(self, counts: Tensor) -> None:
        smoothed = counts.double() + 1.0
        self.probabilities = smoothed / smoothed.sum()

    @classmethod
    def fit(cls, songs: Iterable[Tensor], codebook_size: int) -> UnigramModel:
        """Count the codes of songs, int64 (L,) each, in [0, `codebook_size`)."""
        counts = torch.zeros(codebook_size, dtype=torch.int64)
        for song in songs:
            counts += torch.bincount(_checked(song, codebook_size), minlength=codebook_size)
        return cls(counts)

    def log_probabilities(self, codes: Tensor) -> Tensor:
        """Log probability in nats of each next code: for codes (N, L), (N, L, K)."""
        return self.probabilities.log().expand(*codes.shape, -1)


class BigramModel:
    """Each code given the one before it: `(count(a, b) + s * unigram(b)) / (count(a) + s)`.

    A window's first code has the unigram's probability. The strength s of the smoothing is the one of 0.5, 1, 2, ...
    1024 at which the training codes are most probable when each is left out of the counts that predict it.

    Args:
        counts: how often code b followed code a, (K, K), a first.
        unigram: fitted on the same codes.
    """

    def __init__(self, counts: Tensor, unigram: UnigramModel) -> None:
        counts = counts.double()
        totals = counts.sum(dim=1, keepdim=True)
        prior = unigram.probabilities
        first, second = counts.nonzero(as_tuple=True)
        pairs = counts[first, second]

        def left_out(strength: float) -> float:
            fraction = (pairs - 1 + strength * prior[second]) / (totals[first, 0] - 1 + strength)
            return float((pairs * fraction.log()).sum())

        self.unigram = unigram
        self.strength = max((2.0**exponent for exponent in range(-1, 11)), key=left_out)
        self.probabilities = (counts + self.strength * prior) / (totals + self.strength)

    @classmethod
    def fit(cls, songs: Iterable[Tensor], codebook_size: int) -> BigramModel:
        """Count the pairs of neighbours in songs, int64 (L,) each, in [0, `codebook_size`)."""
        pairs = torch.zeros(codebook_size**2, dtype=torch.int64)
        singles = torch.zeros(codebook_size, dtype=torch.int64)
        for song in songs:
            song = _checked(song, codebook_size)
            singles += torch.bincount(song, minlength=codebook_size)
            pairs += torch.bincount(song[:-1] * codebook_size + song[1:], minlength=codebook_size**2)
        return cls(pairs.view(codebook_size, codebook_size), UnigramModel(singles))

    def log_probabilities(self, codes: Tensor) -> Tensor:
        """Log probability in nats of each next code: for codes (N, L), (N, L, K)."""
        first = self.unigram.probabilities.log().expand(codes.shape[0], 1, -1)
        return torch.cat([first, self.probabilities.log()[codes[:, :-1]]], dim=1)


def count_likelihood(model: _CodeModel, windows: Iterable[Mapping[str, Tensor]]) -> CodeLikelihood:
    """Score windows with a [`UnigramModel`] or [`BigramModel`]; arguments as for [`prior_likelihood`]."""
    rows = []
    for window in windows:
        codes = window["codes"][None].cpu()
        rows += _score(model.log_probabilities(codes), codes)
    return _summarise(rows)


def prior_likelihood(
    prior: FastJukeboxPrior,
    windows: Iterable[Mapping[str, Tensor]],
    batch_size: int = 4,
) -> CodeLikelihood:
    """Score windows with a prior, each code given those before it in its window and the level above.

    Args:
        prior: on any device; used in evaluation mode.
        windows: `codes` int64 (L,), with `upper_codes` int64 (L / upper_ratio,) and `metadata` where the prior is
            conditioned on them; all of one length.
        batch_size: windows at a time.

    Raises:
        ValueError: no windows, or what [`FastJukeboxPrior.forward`] refuses.
    """
    rows = []
    with sampling_mode(prior):
        for batch in stacked_windows(windows, batch_size):
            rows += _score(_log_probabilities(prior, batch), batch["codes"].to(prior.device))
    return _summarise(rows)


@dataclass(frozen=True)
class TeacherFidelity:
    """A prior beside its teacher, on held-out codes.

    Attributes:
        bits_per_code: mean of -log2 of the probability that the prior gave each code.
        kl_to_teacher: mean KL divergence of the prior's distribution from the teacher's, in bits a code.
        agreement: fraction of positions where prior and teacher find the same code the most probable.
        accuracy: fraction of the codes that the prior found the most probable.
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


def compare_with_teacher(
    priors: Mapping[str, FastJukeboxPrior],
    teacher: FastJukeboxPrior,
    windows: Iterable[Mapping[str, Tensor]],
    batch_size: int = 4,
) -> dict[str, TeacherFidelity]:
    """Score several priors against one teacher, which sees each window once.

    Args:
        priors: by name; of the teacher's codes. The teacher may be one of them.
        windows, batch_size: as for [`prior_likelihood`].

    Raises:
        ValueError: no windows, or a prior that predicts another number of codes than the teacher.
    """
    sums = {name: torch.zeros(4, dtype=torch.float64) for name in priors}
    total = 0
    with sampling_mode(teacher, *priors.values()):
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
    if not total:
        raise ValueError("`windows` must hold at least one window, got none")
    return {
        name: TeacherFidelity(nats / math.log(2), divergence / math.log(2), agreements, hits, total)
        for name, (nats, divergence, agreements, hits) in (
            (name, (values / total).tolist()) for name, values in sums.items()
        )
    }


def _log_probabilities(prior: FastJukeboxPrior, batch: Mapping[str, Tensor]) -> Tensor:
    """Log probabilities (N, L, K) in nats that a prior gives the codes of a batch of windows."""
    inputs = {name: value.to(prior.device) for name, value in batch.items() if name in ("upper_codes", "metadata")}
    return F.log_softmax(prior(batch["codes"].to(prior.device), **inputs).logits.float(), dim=-1)


def _sums(ours: Tensor, theirs: Tensor, codes: Tensor) -> Tensor:
    """Nats, divergence in nats, agreements and hits over all codes of a batch, float64 (4,)."""
    nats = -ours.gather(2, codes[..., None]).sum()
    divergence = (theirs.exp() * (theirs - ours)).sum()
    argmax = ours.argmax(-1)
    agreements = (argmax == theirs.argmax(-1)).sum()
    return torch.stack([nats, divergence, agreements.float(), (argmax == codes).sum().float()]).cpu().double()


def stacked_windows(windows: Iterable[Mapping[str, Tensor]], size: int) -> Iterator[dict[str, Tensor]]:
    """Windows of one length in batches of `size`, the last one smaller."""
    remaining = iter(windows)
    while batch := list(islice(remaining, size)):
        yield stack_items(batch)


def _score(log_probabilities: Tensor, codes: Tensor) -> list[tuple[float, float, int]]:
    """For each window, the sum of its bits, of its hits, and its number of codes."""
    nats = -log_probabilities.gather(2, codes[..., None])[..., 0]
    bits = nats.double() if nats.device.type == "cpu" else nats.cpu().double()
    hits = (log_probabilities.argmax(dim=-1) == codes).sum(dim=1)
    totals = zip((bits.sum(dim=1) / math.log(2)).tolist(), hits.tolist(), strict=True)
    return [(own_bits, own_hits, codes.shape[1]) for own_bits, own_hits in totals]


def _summarise(rows: Sequence[tuple[float, float, int]]) -> CodeLikelihood:
    if not rows:
        raise ValueError("`windows` must hold at least one window, got none")
    bits, hits, codes = (math.fsum(column) for column in zip(*rows, strict=True))
    return CodeLikelihood(bits / codes, hits / codes, int(codes), len(rows))


def _checked(codes: Tensor, codebook_size: int) -> Tensor:
    codes = codes.cpu().long()
    if codes.dim() != 1 or (len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size):
        raise ValueError(
            f"`songs` must be codes of shape (length,) from 0 to {codebook_size - 1}, got {tuple(codes.shape)} "
            + (f"from {int(codes.min())} to {int(codes.max())}" if len(codes) else "")
        )
    return codes
