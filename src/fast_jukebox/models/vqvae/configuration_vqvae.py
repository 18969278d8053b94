"""Configuration of the hierarchical VQ-VAE."""

from __future__ import annotations

import itertools
import operator

from fast_jukebox.models.configuration_utils import (
    MOST,
    MOST_FACTOR,
    FastJukeboxBaseConfig,
    check_bool,
    check_dilations,
    check_float,
    check_int,
    check_int_list,
)
from fast_jukebox.utils.text import shown

# The largest values of fields, see `MOST`; sizes that are products of fields are bounded too.
_LARGEST = {"sampling_rate": 2**20, "embed_dim": 2**14, "codebook_size": 2**20, "width": 2**14, "depth": 64}
_MOST_BLOCKS = 4096


class FastJukeboxVQVAEConfig(FastJukeboxBaseConfig):
    r"""Configuration of a [`FastJukeboxVQVAE`]. The defaults are the published Jukebox size.

    Args:
        sampling_rate (`int`, defaults to 44100): samples of audio a second.
        downs (`list[int]`, defaults to `[3, 2, 2]`): how often each level, bottom first, divides time by its stride.
        strides (`list[int]`, defaults to `[2, 2, 2]`): stride of each level, even.
        embed_dim (`int`, defaults to 64): width of a codebook vector.
        codebook_size (`int`, defaults to 2048): vectors in each level's codebook, K.
        width (`int`, defaults to 32): channels of the residual stacks, times the level's multiplier.
        depth (`int`, defaults to 4): blocks in a residual stack, times the level's multiplier.
        multipliers (`list[int]`, defaults to `[2, 1, 1]`): factor on width and depth of each level, bottom first.
        conv_multiplier (`float`, defaults to 1.0): inner channels of a residual block, as a fraction of its width.
        dilation_growth_rate (`int`, defaults to 3): block i of a stack has dilation `rate ** i`.
        dilation_cycle (`int`, *optional*): the exponent restarts every so many blocks.
        reverse_decoder_dilation (`bool`, defaults to `True`): decoders have the largest dilation first.
        codebook_decay (`float`, defaults to 0.99): decay of the codebooks' moving averages, in [0, 1).
        revival_threshold (`float`, defaults to 1.0): a code whose running count falls below it is replaced by a random
            encoder output of the batch.
        commit_weight (`float`, defaults to 0.02): weight of the commitment loss.
        l1_weight, l2_weight, linf_weight (`float`, default to 0, 1, 0.02): weights of the reconstruction losses.
        linf_k (`int`, defaults to 2048): how many of the largest squared errors of a song the linf loss averages.
        multispectral_weight (`float`, defaults to 1.0): weight of the multi-resolution STFT loss.
        multispectral_n_fft, multispectral_hop_length, multispectral_win_length (`list[int]`): its resolutions,
            default to `[2048, 1024, 512]`, `[240, 120, 50]`, `[1200, 600, 240]`.
        bandwidth_l1, bandwidth_l2, bandwidth_spectral (`float`, default to 1.0): statistics of the data set by which
            the losses are divided (mean absolute value, mean square, mean spectral norm; see
            [`~fast_jukebox.training.vqvae.measure_bandwidth`]).
        initializer_range (`float`, defaults to 1.0): factor on the initial scale of the convolutions.
    """

    model_type = "fast_jukebox_vqvae"

    sampling_rate: int = 44100
    downs: list[int] | tuple[int, ...] = (3, 2, 2)
    strides: list[int] | tuple[int, ...] = (2, 2, 2)
    embed_dim: int = 64
    codebook_size: int = 2048
    width: int = 32
    depth: int = 4
    multipliers: list[int] | tuple[int, ...] = (2, 1, 1)
    conv_multiplier: float = 1.0
    dilation_growth_rate: int = 3
    dilation_cycle: int | None = None
    reverse_decoder_dilation: bool = True
    codebook_decay: float = 0.99
    revival_threshold: float = 1.0
    commit_weight: float = 0.02
    l1_weight: float = 0.0
    l2_weight: float = 1.0
    linf_weight: float = 0.02
    linf_k: int = 2048
    multispectral_weight: float = 1.0
    multispectral_n_fft: list[int] | tuple[int, ...] = (2048, 1024, 512)
    multispectral_hop_length: list[int] | tuple[int, ...] = (240, 120, 50)
    multispectral_win_length: list[int] | tuple[int, ...] = (1200, 600, 240)
    bandwidth_l1: float = 1.0
    bandwidth_l2: float = 1.0
    bandwidth_spectral: float = 1.0
    initializer_range: float = 1.0

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.downs)

    @property
    def hop_lengths(self) -> list[int]:
        """Audio samples that a code of each level stands for, bottom first."""
        ratios = (stride**down for stride, down in zip(self.strides, self.downs, strict=True))
        return list(itertools.accumulate(ratios, operator.mul))

    def validate(self) -> None:
        """See [`FastJukeboxBaseConfig.validate`]."""
        for name in ("sampling_rate", "embed_dim", "codebook_size", "width", "depth", "dilation_growth_rate", "linf_k"):
            check_int(name, getattr(self, name), maximum=_LARGEST.get(name, MOST))
        check_int_list("downs", self.downs, maximum=16)
        check_int_list("strides", self.strides, minimum=2, length=len(self.downs), maximum=64)
        for stride in self.strides:
            if stride % 2:
                raise ValueError(f"`strides` must be even, so that lengths divide exactly, got {shown(self.strides)}")
        check_int_list("multipliers", self.multipliers, length=len(self.downs), maximum=64)
        if self.dilation_cycle is not None:
            check_int("dilation_cycle", self.dilation_cycle)
        self._validate_sizes()
        check_bool("reverse_decoder_dilation", self.reverse_decoder_dilation)
        check_float("conv_multiplier", self.conv_multiplier, 0.0, MOST_FACTOR, open_minimum=True)
        check_float("codebook_decay", self.codebook_decay, 0.0, 1.0)
        for name in ("revival_threshold", "commit_weight", "l1_weight", "l2_weight", "linf_weight"):
            check_float(name, getattr(self, name), 0.0)
        check_float("multispectral_weight", self.multispectral_weight, 0.0)
        check_int_list("multispectral_n_fft", self.multispectral_n_fft, maximum=2**20)
        resolutions = len(self.multispectral_n_fft)
        check_int_list("multispectral_hop_length", self.multispectral_hop_length, length=resolutions)
        check_int_list("multispectral_win_length", self.multispectral_win_length, length=resolutions)
        for name in ("bandwidth_l1", "bandwidth_l2", "bandwidth_spectral", "initializer_range"):
            check_float(name, getattr(self, name), 0.0, open_minimum=True)

    def _validate_sizes(self) -> None:
        """Check sizes that follow from several fields."""
        hop = self.hop_lengths[-1]
        if hop > MOST:
            raise ValueError(f"`strides` ** `downs` must multiply to at most {MOST} samples a code, got {shown(hop)}")
        deepest = self.depth * max(self.multipliers)
        check_dilations("dilation_growth_rate", self.dilation_growth_rate, self.dilation_cycle, deepest)
        # A level has a stack for each halving up to it, so many blocks long.
        halvings = itertools.accumulate(self.downs)
        blocks = sum(down * self.depth * factor for down, factor in zip(halvings, self.multipliers, strict=True))
        if blocks > _MOST_BLOCKS:
            raise ValueError(
                f"`downs`, `depth` and `multipliers` must give an encoder at most {_MOST_BLOCKS} residual blocks, got "
                f"{blocks}"
            )
