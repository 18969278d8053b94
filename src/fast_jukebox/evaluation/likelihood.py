"""Prediction of held-out codes, in bits: by priors, by students beside their teacher, and by counts alone.

Of recordings, song by song, with an interval over the songs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.data.codes import CodeWindows, encode_song
from fast_jukebox.data.windows import stack_items
from fast_jukebox.evaluation.distance import Estimate, bootstrap
from fast_jukebox.evaluation.embeddings import Sound, read_sound
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.sampling.engine import sampling_mode

if TYPE_CHECKING:
    from datasets import Dataset


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


class UnigramModel:
    """Codes drawn one by one, each with its fraction of the training codes (add-one smoothing).

    Args:
        counts: how often each code occurred, (K,), non-negative.
    """

    def __init__(self, counts: Tensor) -> None:
        smoothed = counts.double() + 1.0
        self.probabilities = smoothed / smoothed.sum()

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


def count_likelihood(model: UnigramModel | BigramModel, windows: Iterable[Mapping[str, Tensor]]) -> CodeLikelihood:
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


@dataclass(frozen=True)
class SongBits:
    """Bits that one prior needs for each song.

    Attributes:
        bits: float64 (songs,) sum of -log2 of the probability given to each code.
        hits: float64 (songs,) how many of the codes were the most probable one.
        codes: float64 (songs,) how many codes were predicted.
    """

    bits: Tensor
    hits: Tensor
    codes: Tensor

    def estimate(self, resamples: int = 200, seed: int = 0) -> Estimate:
        """Bits per code of all songs, with an interval by a bootstrap over them."""
        return self._ratio(self.bits, resamples, seed)

    def accuracy(self, resamples: int = 200, seed: int = 0) -> Estimate:
        """Fraction of the codes that were the most probable one, with an interval."""
        return self._ratio(self.hits, resamples, seed)

    def _ratio(self, sums: Tensor, resamples: int, seed: int) -> Estimate:
        return bootstrap(
            lambda weights: float(weights @ sums / (weights @ self.codes)), range(len(sums)), resamples, seed
        )


@dataclass(frozen=True)
class SongWindows:
    """Windows of a song's codes that one prior is to predict.

    Attributes:
        windows: of one context each, as [`prior_likelihood`] takes them; at least one.
    """

    level: int
    windows: Sequence[Mapping[str, Tensor]]


@torch.no_grad()
def song_bits(
    model: FastJukeboxModel,
    sounds: Sequence[Sound],
    *,
    sampling_rate: int | None = None,
    duration: float | None = None,
    max_windows: int | None = 64,
    batch_size: int = 4,
) -> list[SongBits]:
    """Encode recordings and let each prior predict windows of their codes, of one context each.

    Args:
        model: a complete model, on any device. A prior with labels receives no names.
        sounds: files, or samples (T,) at `sampling_rate`.
        sampling_rate: of samples, in Hz.
        duration: seconds from the start of each song.
        max_windows: windows for each prior, spread evenly over the songs; None for all, side by side.

    Returns:
        One entry a level, bottom first, of the songs that have a window of that level.

    Raises:
        ValueError: every song is shorter than a prior's context, or a sound that cannot be used.
    """
    from datasets import Dataset

    vqvae, configs = model.vqvae.eval(), [prior.config for prior in model.priors]
    rate = vqvae.config.sampling_rate
    codes = [encode_song({}, read_sound(sound, rate, sampling_rate, duration), vqvae) for sound in sounds]
    for level, config in enumerate(configs):
        longest = max((len(song[f"codes_{level}"]) for song in codes), default=0)
        if longest < config.n_ctx:
            context, found = (count * config.hop_length / rate for count in (config.n_ctx, longest))
            raise ValueError(
                f"a song must last at least {context:.3g} s, the context of the prior of level {level}; the longest of "
                f"{len(codes)} has {found:.3g} s of codes"
            )
    songs = windows_of_songs(Dataset.from_list(codes), configs, max_windows)
    return bits_of_levels([predict_song(model, song, batch_size) for song in songs])


def windows_of_songs(
    rows: Dataset,
    configs: Sequence[FastJukeboxPriorConfig],
    max_windows: int | None,
    processor: FastJukeboxProcessor | None = None,
) -> Iterator[SongWindows]:
    """Windows of songs' codes that the priors, bottom first, are to predict, level by level and song by song.

    Args:
        rows: a song each, see [`~fast_jukebox.data.codes.encode_songs`].
        max_windows: windows for each prior, spread evenly over the songs; None for all, side by side.
        processor: knows the songs' names, which the priors receive; None for no names.

    Raises:
        ValueError: what [`~fast_jukebox.data.codes.CodeWindows`] refuses.
    """
    for level, config in enumerate(configs):
        windows = CodeWindows(rows, config, max_windows=max_windows, processor=processor)
        of_song: dict[int, list[int]] = {}
        for index in range(len(windows)):
            of_song.setdefault(windows.sampler[windows.window_number(index)][0], []).append(index)
        for own in of_song.values():
            yield SongWindows(level, [windows[index] for index in own])


def windows_digest(songs: Iterable[SongWindows]) -> str:
    """Eight hexadecimal digits that change with the windows: their codes, and the names that the priors receive."""
    digest = hashlib.sha256()
    for song in songs:
        digest.update(f"{song.level} {len(song.windows)}".encode())
        for window in song.windows:
            for name, values in sorted(window.items()):
                digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()[:8]


def predict_song(model: FastJukeboxModel, song: SongWindows, batch_size: int = 4) -> dict[str, float]:
    """What the prior of a level needs for the windows of a song: `level`, `bits`, `hits` and `codes`."""
    prior = cast("FastJukeboxPrior", model.priors[song.level])
    return _row(song.level, prior_likelihood(prior, song.windows, batch_size))


def predict_by_counts(
    songs: Sequence[SongWindows], training: Dataset, configs: Sequence[FastJukeboxPriorConfig]
) -> dict[str, list[SongBits]]:
    """Bits for windows of songs by counts of the training songs' codes, one entry a level, bottom first.

    Returns:
        Of the `unigram` and the `bigram` model.
    """
    rows: dict[str, list[dict[str, float]]] = {"unigram": [], "bigram": []}
    for level, config in enumerate(configs):
        column = f"codes_{level}"
        codes = (song[column] for song in training.select_columns([column]).with_format("numpy"))
        bigram = BigramModel.fit((torch.from_numpy(own.astype("int64")) for own in codes), config.codebook_size)
        for song in songs:
            if song.level == level:
                rows["unigram"].append(_row(level, count_likelihood(bigram.unigram, song.windows)))
                rows["bigram"].append(_row(level, count_likelihood(bigram, song.windows)))
    return {name: bits_of_levels(own) for name, own in rows.items()}


def _row(level: int, found: CodeLikelihood) -> dict[str, float]:
    codes = float(found.codes)
    return {"level": level, "bits": found.bits_per_code * codes, "hits": found.accuracy * codes, "codes": codes}


def bits_of_levels(rows: Sequence[Mapping[str, float]]) -> list[SongBits]:
    """One entry a level, bottom first, of what [`predict_song`] gave for each song."""
    levels = sorted({int(row["level"]) for row in rows})
    columns = [
        [torch.tensor([row[name] for row in rows if row["level"] == level], dtype=torch.float64) for level in levels]
        for name in ("bits", "hits", "codes")
    ]
    return [SongBits(*own) for own in zip(*columns, strict=True)]
