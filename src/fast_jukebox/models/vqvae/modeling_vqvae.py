"""The hierarchical VQ-VAE: raw audio to codes of several rates, and back from any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from fast_jukebox.models.loading import SubmodelLoadingMixin
from fast_jukebox.models.vqvae.configuration_vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.models.vqvae.layers import Codebook, DecoderStage, EncoderStage, StackOptions
from fast_jukebox.models.vqvae.losses import linf_loss, multispectral_loss
from fast_jukebox.sampling.checks import check_codes, kind_of
from fast_jukebox.utils.text import shown

# Audio samples worked on at once (3 s at 44.1 kHz): bounds the memory of long songs at a small cost in margins.
CHUNK_SAMPLES = 131072


@dataclass
class FastJukeboxVQVAEOutput(ModelOutput):
    """Output of [`FastJukeboxVQVAE.forward`]. Lists are in the order of the levels asked for, bottom first.

    Args:
        loss (`Tensor` scalar): sum over the levels of reconstruction, spectral and commitment loss, weighted.
        reconstruction_losses (`Tensor` (levels,)): weighted l1, l2 and linf losses of each level.
        multispectral_losses (`Tensor` (levels,)): multi-resolution STFT loss of each level, unweighted.
        commitment_losses (`Tensor` (levels,)): commitment loss of each level, unweighted.
        reconstructions (`list` of `Tensor` (N, T)): audio decoded from each level.
        codes (`list` of int64 `Tensor` (N, T / hop)): codes of each level.
    """

    loss: Tensor | None = None
    reconstruction_losses: Tensor | None = None
    multispectral_losses: Tensor | None = None
    commitment_losses: Tensor | None = None
    reconstructions: list[Tensor] | None = None
    codes: list[Tensor] | None = None


class VQVAELevel(nn.Module):
    """One level: an encoder from raw audio, a codebook, a decoder to raw audio. Levels share nothing.

    Args:
        config: of the VQ-VAE.
        level: 0 is the bottom.
    """

    def __init__(self, config: FastJukeboxVQVAEConfig, level: int) -> None:
        super().__init__()
        width = config.width * config.multipliers[level]
        depth = config.depth * config.multipliers[level]
        stack: StackOptions = {
            "inner_width": max(1, int(config.conv_multiplier * width)),
            "dilation_growth_rate": config.dilation_growth_rate,
            "dilation_cycle": config.dilation_cycle,
        }
        embed_dim = config.embed_dim
        encoder = [
            EncoderStage(
                1 if i == 0 else embed_dim, embed_dim, [config.strides[i]] * config.downs[i], width, depth, **stack
            )
            for i in range(level + 1)
        ]
        self.encoder = nn.ModuleList(encoder)
        self.codebook = Codebook(config.codebook_size, embed_dim, config.codebook_decay, config.revival_threshold)
        stack["reverse_dilation"] = config.reverse_decoder_dilation
        decoder = [
            DecoderStage(embed_dim, embed_dim, [config.strides[i]] * config.downs[i], width, depth, **stack)
            for i in reversed(range(level + 1))
        ]
        self.decoder = nn.ModuleList(decoder)
        self.out = nn.Conv1d(embed_dim, 1, 3, padding=1)
        self.hop_length = config.hop_lengths[level]
        # Audio samples to either side that a latent may depend on, and codes that an audio sample may depend on.
        samples, step = 0, 1
        for stage in encoder:
            samples, step = samples + step * stage.reach, step * stage.ratio
        self.encoder_reach = samples
        codes, fraction = 0.0, 1.0
        for upwards in decoder:
            codes, fraction = codes + fraction * upwards.reach, fraction / upwards.ratio
        self.decoder_reach = math.ceil(codes + fraction)

    def latents(self, audio: Tensor) -> Tensor:
        """(N, T) -> (N, D, T / hop)."""
        hidden = audio.unsqueeze(1)
        for stage in self.encoder:
            hidden = stage(hidden)
        return hidden

    def codes(self, audio: Tensor) -> Tensor:
        """(N, T) -> int64 (N, T / hop)."""
        return self.codebook.encode(self.latents(audio))

    def audio(self, vectors: Tensor) -> Tensor:
        """(N, D, L) -> (N, L * hop)."""
        for stage in self.decoder:
            vectors = stage(vectors)
        return self.out(vectors).squeeze(1)


class FastJukeboxVQVAEPreTrainedModel(PreTrainedModel):
    """Base of the VQ-VAE for loading, saving and initialising."""

    config_class = FastJukeboxVQVAEConfig
    base_model_prefix = "vqvae"
    main_input_name = "audio"
    _no_split_modules = ["VQVAELevel"]  # noqa: RUF012 (transformers reads it from the class)
    _supports_sdpa = True
    # Half precision changes codes and adds noise to the sound; so few weights gain nothing from it.
    _keep_in_fp32_modules_strict = [r"levels.\d+.(?:encoder|decoder|out|codebook.(?:vectors|counts))"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            # torch's own default for convolutions, times the configured factor.
            fan_in = module.weight[0].numel() if isinstance(module, nn.Conv1d) else module.weight[:, 0].numel()
            bound = self.config.initializer_range / math.sqrt(fan_in)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, Codebook):
            # As `Codebook.reset`, but sparing what was loaded from a file.
            init.normal_(module.vectors)
            init.zeros_(module.counts)
            init.zeros_(module.initialized)


class FastJukeboxVQVAE(SubmodelLoadingMixin, FastJukeboxVQVAEPreTrainedModel):
    """Hierarchical VQ-VAE over raw audio (Jukebox, section 3; Fast Jukebox, "Representation").

    Every level encodes and decodes raw audio on its own: level l has one code for `config.hop_lengths[l]` samples.

    It is loaded in float32 whatever dtype is asked for, as published Jukebox runs it: the same recording has the same
    codes beside priors of any precision. `.to(torch.bfloat16)` changes it like any module.
    """

    composite_part = "vqvae"

    def __init__(self, config: FastJukeboxVQVAEConfig) -> None:
        config.validate()  # its fields may have changed since it was made
        super().__init__(config)
        self.levels = nn.ModuleList(VQVAELevel(config, level) for level in range(config.num_levels))
        self.hop_lengths = config.hop_lengths
        self.post_init()

    @torch.no_grad()
    def encode(self, audio: Tensor, levels: Sequence[int] | None = None) -> list[Tensor]:
        """Codes of a recording.

        Works in chunks whose margins cover all that a code depends on: besides input and result the memory does not
        grow with the length, and the codes are those of the complete signal.

        Args:
            audio: (N, T) in [-1, 1] at `config.sampling_rate`; T a positive multiple of the largest hop length.
            levels: which levels, all where None.

        Returns:
            int64 codes (N, T / hop length) for each level asked for, bottom first.

        Raises:
            ValueError: audio of another rank or length or with NaN or infinite samples, or a level that does not exist.
        """
        chosen = self._chosen_levels(levels)
        self._check_audio(audio)
        _check_finite(audio)
        audio = audio.to(self.dtype)
        largest_hop = self.hop_lengths[-1]
        codes = []
        for level in chosen:
            module: VQVAELevel = self.levels[level]  # type: ignore[assignment]
            margin = math.ceil(module.encoder_reach / largest_hop) * largest_hop
            chunk = max(CHUNK_SAMPLES // largest_hop, 1) * largest_hop
            parts = _in_chunks(audio, chunk, margin, 1 / module.hop_length, module.codes)
            codes.append(torch.cat(parts, dim=1))
        return codes

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor], start_level: int = 0, chunk_samples: int | None = None) -> Tensor:
        """Audio of the codes of one level, in chunks as `encode` works.

        Args:
            codes: the levels from `start_level` up, each int64 (N, L); only the first is used, the others may be left
                out.
            start_level: level of the first entry of `codes`.
            chunk_samples: audio samples decoded at once, margins apart; by default 131072.

        Returns:
            (N, L * hop length of `start_level`), at about [-1, 1] (not clipped).

        Raises:
            ValueError: a level that does not exist, no codes or those of more levels than there are from `start_level`
                up, or codes of a wrong rank, type, range or length.
        """
        (level,) = self._chosen_levels([start_level])
        self._check_levels_of_codes(codes, level)
        module: VQVAELevel = self.levels[level]  # type: ignore[assignment]
        first = codes[0].long()
        chunk = max((chunk_samples or CHUNK_SAMPLES) // module.hop_length, 1)
        parts = _in_chunks(
            first,
            chunk,
            module.decoder_reach,
            module.hop_length,
            lambda part: module.audio(module.codebook.decode(part)),
        )
        return torch.cat(parts, dim=1)

    def forward(self, audio: Tensor, levels: Sequence[int] | None = None) -> FastJukeboxVQVAEOutput:
        """Reconstruct through the codes and score it; in training mode the codebooks learn as well.

        Args:
            audio: (N, T) in [-1, 1]; T a positive multiple of the largest hop length.
            levels: which levels, all where None. As levels share nothing, training them apart is the same training.
        """
        chosen = self._chosen_levels(levels)
        self._check_audio(audio)
        config = self.config
        reconstruction, multispectral, commitment, reconstructions, codes = [], [], [], [], []
        for level in chosen:
            module: VQVAELevel = self.levels[level]  # type: ignore[assignment]
            quantised = module.codebook(module.latents(audio))
            output = module.audio(quantised.vectors)
            reconstruction.append(self._reconstruction_loss(audio, output))
            spectral = multispectral_loss(
                audio,
                output,
                config.multispectral_n_fft,
                config.multispectral_hop_length,
                config.multispectral_win_length,
            )
            multispectral.append(spectral / config.bandwidth_spectral)
            commitment.append(quantised.commitment_loss)
            reconstructions.append(output)
            codes.append(quantised.codes)
        losses = [torch.stack(values) for values in (reconstruction, multispectral, commitment)]
        weighted = losses[0] + config.multispectral_weight * losses[1] + config.commit_weight * losses[2]
        return FastJukeboxVQVAEOutput(
            loss=weighted.sum(),
            reconstruction_losses=losses[0],
            multispectral_losses=losses[1],
            commitment_losses=losses[2],
            reconstructions=reconstructions,
            codes=codes,
        )

    def _reconstruction_loss(self, audio: Tensor, output: Tensor) -> Tensor:
        config = self.config
        error = (audio - output).float()
        loss = config.l2_weight * error.square().mean() / config.bandwidth_l2
        if config.l1_weight:
            loss = loss + config.l1_weight * error.abs().mean() / config.bandwidth_l1
        if config.linf_weight:
            loss = loss + config.linf_weight * linf_loss(audio, output, config.linf_k) / config.bandwidth_l2
        return loss

    def _chosen_levels(self, levels: Sequence[int] | None) -> list[int]:
        known = range(len(self.hop_lengths))
        chosen = list(known) if levels is None else sorted(levels)
        for level in chosen:
            if level not in known:
                raise ValueError(f"level must be from 0 (bottom) to {len(known) - 1} (top), got {shown(level)}")
        return chosen

    def _check_audio(self, audio: Tensor) -> None:
        hop = self.hop_lengths[-1]
        if not isinstance(audio, Tensor) or audio.dim() != 2 or not audio.is_floating_point():
            raise ValueError(f"`audio` must be a floating-point tensor of shape (batch, samples), got {kind_of(audio)}")
        if audio.shape[0] == 0:
            raise ValueError(f"`audio` must be of at least one song, got {tuple(audio.shape)}")
        if audio.shape[1] == 0 or audio.shape[1] % hop:
            raise ValueError(
                f"`audio` must have a positive number of samples that is a multiple of {hop}, got {audio.shape[1]}"
            )

    def _check_levels_of_codes(self, codes: Sequence[Tensor], level: int) -> None:
        hops = self.hop_lengths
        known = len(hops) - level
        if not 1 <= len(codes) <= known:
            raise ValueError(
                f"`codes` must list the codes of the levels from `start_level` {level} up, 1 to {known} entries; got "
                f"{len(codes)}"
            )
        self._check_codes(codes[0])
        for above, entry in enumerate(codes[1:], start=level + 1):
            wanted = codes[0].shape[1] * hops[level] / hops[above]
            if isinstance(entry, Tensor) and entry.dim() == 2 and entry.shape[1] != wanted:
                raise ValueError(
                    f"`codes` of level {above} must be {wanted:g} long to stand for the same time as the "
                    f"{codes[0].shape[1]} of level {level}, got {entry.shape[1]}"
                )

    def _check_codes(self, codes: Tensor) -> None:
        integers = isinstance(codes, Tensor) and not codes.is_floating_point() and codes.dtype != torch.bool
        if not integers or codes.dim() != 2 or codes.numel() == 0:
            raise ValueError(f"`codes` must be integers of shape (batch, length >= 1), got {kind_of(codes)}")
        check_codes("codes", codes.to(torch.int64), self.config.codebook_size)


def _check_finite(audio: Tensor) -> None:
    """Raise a `ValueError` for NaN or infinite samples, which would get codes too."""
    low, high = (float(extreme) for extreme in torch.aminmax(audio))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"`audio` must be finite, got samples from {low:g} to {high:g}")


def _in_chunks(signal: Tensor, chunk: int, margin: int, ratio: float, work: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Apply `work`, which maps length L to L * ratio, to chunks of `signal` (N, L) with `margin` more on either side.

    Returns the results without their margins, in order.
    """
    length = signal.shape[1]
    parts = []
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        left, right = max(start - margin, 0), min(stop + margin, length)
        result = work(signal[:, left:right])
        offset = round((start - left) * ratio)
        parts.append(result[:, offset : offset + round((stop - start) * ratio)])
    return parts
