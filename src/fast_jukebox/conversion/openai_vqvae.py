"""A published Jukebox VQ-VAE to ours."""

from __future__ import annotations

from fast_jukebox.conversion.published import Hyperparameters
from fast_jukebox.conversion.state_dict import Source
from fast_jukebox.models.vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.utils.files import JsonObject


def vqvae_config(hparams: JsonObject) -> FastJukeboxVQVAEConfig:
    """Our configuration for hyperparameters under their published names.

    Args:
        hparams: needs `downs_t`, `strides_t`, `emb_width`, `l_bins`, `width`, `depth`; the rest have the published
            defaults.

    Raises:
        ValueError: a hyperparameter is missing.
    """
    hparams = Hyperparameters("hparams", hparams)
    levels = len(hparams["downs_t"])
    return FastJukeboxVQVAEConfig(
        sampling_rate=hparams.get("sr", 44100),
        downs=list(hparams["downs_t"]),
        strides=list(hparams["strides_t"]),
        embed_dim=hparams["emb_width"],
        codebook_size=hparams["l_bins"],
        width=hparams["width"],
        depth=hparams["depth"],
        multipliers=list(hparams.get("hvqvae_multipliers") or [1] * levels),
        conv_multiplier=hparams.get("m_conv", 1.0),
        dilation_growth_rate=hparams.get("dilation_growth_rate", 1),
        dilation_cycle=hparams.get("dilation_cycle"),
        reverse_decoder_dilation=bool(hparams.get("vqvae_reverse_decoder_dilation", True)),
        codebook_decay=hparams.get("l_mu", 0.99),
        commit_weight=hparams.get("commit", 0.02),
        l1_weight=hparams.get("lmix_l1", 0.0),
        l2_weight=hparams.get("lmix_l2", 1.0),
        linf_weight=hparams.get("lmix_linf", 0.02),
        linf_k=hparams.get("linf_k", 2048),
        multispectral_weight=hparams.get("multispectral", 1.0),
        multispectral_n_fft=list(hparams.get("multispec_loss_n_fft", (2048, 1024, 512))),
        multispectral_hop_length=list(hparams.get("multispec_loss_hop_length", (240, 120, 50))),
        multispectral_win_length=list(hparams.get("multispec_loss_window_size", (1200, 600, 240))),
    )


def key_map(config: FastJukeboxVQVAEConfig) -> dict[str, Source]:
    """Our name of each tensor to its published name."""
    names: dict[str, str] = {}
    for level in range(config.num_levels):
        depth = config.depth * config.multipliers[level]
        ours, encoder, decoder = f"levels.{level}", f"encoders.{level}", f"decoders.{level}"
        for stage in range(level + 1):
            downs = config.downs[stage]
            there, here = f"{encoder}.level_blocks.{stage}.model", f"{ours}.encoder.{stage}"
            for down in range(downs):
                names[f"{here}.downsamplers.{down}"] = f"{there}.{down}.0"
                names |= _stack(f"{here}.stacks.{down}", f"{there}.{down}.1", depth)
            names[f"{here}.project"] = f"{there}.{downs}"
            # Our decoder lists its stages in the order in which they run: top stage first.
            there, here = f"{decoder}.level_blocks.{stage}.model", f"{ours}.decoder.{level - stage}"
            names[f"{here}.project"] = f"{there}.0"
            for up in range(downs):
                names |= _stack(f"{here}.stacks.{up}", f"{there}.{up + 1}.0", depth)
                names[f"{here}.upsamplers.{up}"] = f"{there}.{up + 1}.1"
        names[f"{ours}.out"] = f"{decoder}.out"
    tensors: dict[str, Source] = {
        f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in names.items() for kind in ("weight", "bias")
    }
    for level in range(config.num_levels):
        tensors[f"levels.{level}.codebook.vectors"] = f"bottleneck.level_blocks.{level}.k"
    return tensors


def _stack(ours: str, theirs: str, depth: int) -> dict[str, str]:
    names = {}
    for block in range(depth):
        names[f"{ours}.blocks.{block}.conv_in"] = f"{theirs}.model.{block}.model.1"
        names[f"{ours}.blocks.{block}.conv_out"] = f"{theirs}.model.{block}.model.3"
    return names
