"""A codebook that learns by exponential moving averages and revives codes that nobody uses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

# Rows of latents whose distances to all codes are held at once: 8192 x 2048 floats are 64 MB.
_ROWS_AT_ONCE = 8192


class Quantised(NamedTuple):
    """What [`Codebook.forward`] returns."""

    codes: Tensor
    """int64 (N, L)"""
    vectors: Tensor
    """(N, D, L), the codes' vectors, with the latents' gradient (straight through)"""
    commitment_loss: Tensor
    """scalar: mean squared distance of the latents to their (detached) vectors"""


class Codebook(nn.Module):
    """K vectors of width D; a latent's code is the index of the nearest by squared distance.

    In training mode `forward` also moves the vectors: running sums and counts decay by `decay`, a vector is its sum
    over its count, and one whose running count falls under `revival_threshold` restarts from a random latent of the
    batch. The first training batch initialises all vectors. A codebook that has vectors but no counts (one taken from
    a published checkpoint) starts from the counts of an even use.

    Args:
        size: K, number of vectors.
        width: D, width of a vector.
        decay: of the moving averages, in [0, 1).
        revival_threshold: running count a batch under which a vector is replaced.
    """

    vectors: Tensor
    counts: Tensor
    initialized: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99, revival_threshold: float = 1.0) -> None:
        super().__init__()
        self.size, self.width = size, width
        self.decay, self.revival_threshold = decay, revival_threshold
        self.register_buffer("vectors", torch.empty(size, width))
        self.register_buffer("counts", torch.empty(size))
        self.register_buffer("initialized", torch.empty((), dtype=torch.bool))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Make it a fresh codebook: random vectors until the first training batch."""
        self.vectors.normal_()
        self.counts.zero_()
        self.initialized.zero_()

    @torch.no_grad()
    def load_vectors(self, vectors: Tensor) -> None:
        """Take over trained `vectors` (K, D) whose counts are not known."""
        self.vectors.copy_(vectors)
        self.counts.zero_()
        self.initialized.fill_(True)

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Codes (N, L) of latents (N, D, L)."""
        batch, width, length = latents.shape
        rows = latents.transpose(1, 2).reshape(-1, width).float()
        vectors = self.vectors.float()
        # |x - k|^2 without |x|^2, which is the same for every k.
        bias = vectors.square().sum(1)
        codes = [torch.addmm(bias, part, vectors.T, alpha=-2.0).argmin(1) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(codes).view(batch, length)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors (N, D, L) of codes (N, L)."""
        return F.embedding(codes, self.vectors).transpose(1, 2)

    def forward(self, latents: Tensor) -> Quantised:
        """Quantise latents (N, D, L); in training mode, learn from them first as the class says.

        The codes and vectors returned are those of the codebook before this batch moved it.
        """
        if self.training:
            random_rows = self._random_rows(latents)
            self._initialize(random_rows)
        codes = self.encode(latents)
        vectors = self.decode(codes).to(latents.dtype)
        if self.training:
            self._update(latents, codes, random_rows)
        commitment_loss = F.mse_loss(latents.float(), vectors.float())
        return Quantised(codes, latents + (vectors - latents).detach(), commitment_loss)

    @torch.no_grad()
    def _random_rows(self, latents: Tensor) -> Tensor:
        """K random latents of the batch (K, D), the same in every process."""
        rows = latents.detach().transpose(1, 2).reshape(-1, self.width).to(self.vectors.dtype)
        scores = torch.rand(max(self.size, rows.shape[0]), device=rows.device)
        chosen = scores.argsort()[: self.size] % rows.shape[0]
        rows = rows[chosen]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast(rows, 0)
        return rows

    @torch.no_grad()
    def _initialize(self, random_rows: Tensor) -> None:
        self.vectors.copy_(torch.where(self.initialized, self.vectors, random_rows))
        self.initialized.fill_(True)

    @torch.no_grad()
    def _update(self, latents: Tensor, codes: Tensor, random_rows: Tensor) -> None:
        rows = latents.detach().transpose(1, 2).reshape(-1, self.width).to(self.vectors.dtype)
        drawn = codes.flatten()
        # Not bincount, whose shape depends on the codes, which torch.compile cannot take.
        batch_counts = torch.zeros_like(self.counts).index_add_(0, drawn, torch.ones_like(rows[:, 0]))
        batch_sums = torch.zeros_like(self.vectors).index_add_(0, drawn, rows)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(batch_counts)
            distributed.all_reduce(batch_sums)
        even_use = batch_counts.sum() / self.size
        counts = torch.where(self.counts.sum() > 0, self.counts, even_use)
        sums = torch.lerp(batch_sums, self.vectors * counts[:, None], self.decay)
        counts = torch.lerp(batch_counts, counts, self.decay)
        alive = counts >= self.revival_threshold
        self.vectors.copy_(torch.where(alive[:, None], sums / counts.clamp_min(1e-8)[:, None], random_rows))
        # A revived code starts with just enough count to have a few batches to find its latents.
        self.counts.copy_(torch.where(alive, counts, counts.clamp_min(self.revival_threshold)))
