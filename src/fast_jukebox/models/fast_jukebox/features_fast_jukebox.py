"""The `features` method of a complete model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from fast_jukebox.generation.metadata import encode_metadata, level_metadata
from fast_jukebox.models.prior.features_prior import PriorFeatures
from fast_jukebox.models.vqvae.modeling_vqvae import FastJukeboxVQVAE
from fast_jukebox.sampling.checks import check_count, check_prompt_audio


class FastJukeboxFeaturesMixin:
    """The `features` of a complete model."""

    vqvae: FastJukeboxVQVAE
    priors: nn.ModuleList

    def features(
        self,
        audio: object,
        *,
        level: int | None = None,
        layers: Sequence[int] | None = None,
        frame_rate: float | None = None,
        pool: str | None = None,
        overlap: float = 0.5,
        metadata: object = None,
        progress: bool | None = None,
    ) -> PriorFeatures:
        """States of a prior's layers over recordings of any length, for probing, retrieval and the like (Castellon,
        Donahue and Liang 2021).

        Args:
            audio: floating-point (T,) or (N, T) in [-1, 1] at the VQ-VAE's sampling rate, as
                [`~fast_jukebox.audio.io.load_audio`] reads it. Silence fills the last code of the top level up.
            level: whose prior, 0 is the bottom; by default the top one. Others read the level above them as well.
            layers: from 0, or from the last one by negative numbers; by default the middle one.
            frame_rate: frames a second, each the mean over its codes; by default those of the codes (344.5 at the top
                of published models).
            pool: `"mean"` over each recording, in place of frames.
            overlap: fraction of a window that the next one reads again, in [0, 1).
            metadata: of the songs, as `generate` takes it, for a prior with labels; of unknown artist and genre by
                default.
            progress: `True` and `False` show a bar or none; `None` shows it on terminals.

        Returns:
            [`~fast_jukebox.models.prior.features_prior.PriorFeatures`]: `result[layer]` is float32 on the CPU,
            (N, frames, W) or (N, W). Besides it, the recording and its codes this needs the memory of one window.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        songs, config = check_prompt_audio(audio, "audio"), self.vqvae.config
        level = len(self.priors) - 1 if level is None else check_count("level", level, 0, len(self.priors) - 1)
        prior: PreTrainedModel = self.priors[level]
        labels = None
        if metadata is not None:
            labels = level_metadata(encode_metadata(self, metadata)[0], list(self.priors))[level]
        songs = F.pad(songs.detach().float(), (0, -songs.shape[1] % config.hop_lengths[-1]))
        levels = [level, level + 1] if prior.config.has_upper_level else [level]
        # One by one: the same codes in any batch.
        encoded = [self.vqvae.encode(song.to(self.vqvae.device), levels) for song in songs.split(1)]
        codes, *upper = (torch.cat(own).cpu() for own in zip(*encoded, strict=True))
        above: Tensor | None = upper[0] if upper else None
        found: PriorFeatures = prior.features(
            codes,
            above,
            labels,
            layers=layers,
            frame_rate=frame_rate,
            pool=pool,
            overlap=overlap,
            progress=progress,
        )
        return found
