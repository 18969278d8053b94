"""A published Jukebox prior to ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.conversion.state_dict import convert_state_dict, strip_prefix
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig

# Published `attn_order` to the cycle of patterns over the depth.
_PATTERN_CYCLES = {
    0: ["dense"],
    1: ["row", "column"],
    2: ["row", "column", "previous_row"],
    9: ["row", "column", "previous_row", "dense"],
}
# Residual stacks trained with gradient checkpointing list their blocks under another name.
_CHECKPOINTED_BLOCK = re.compile(r"^(conditioner_blocks\.\d+\.cond\.model\.\d+\.0)\.blocks\.")


def prior_config(hparams: Mapping[str, Any], vqvae_hparams: Mapping[str, Any]) -> FastJukeboxPriorConfig:
    """Our configuration for hyperparameters under their published names.

    Args:
        hparams: of the prior: needs `level`, `n_ctx`, `blocks`, `prior_width`, `prior_depth`, `heads` and, for an
            upsampler, `cond_width` and `cond_depth`; with `labels` also `y_bins` (genres, artists),
            `max_bow_genre_size` and, at the top, `t_bins`, `min_duration`, `max_duration`. The rest have the published
            defaults.
        vqvae_hparams: of the VQ-VAE: `l_bins`, `downs_t`, `strides_t`.

    Raises:
        ValueError: a hyperparameter is missing, or asks for what the prior does not have.
    """
    _check_supported(hparams, vqvae_hparams)
    level, downs, strides = hparams["level"], vqvae_hparams["downs_t"], vqvae_hparams["strides_t"]
    is_top = level == len(downs) - 1
    merged = bool(hparams.get("merged_decoder", False))
    fields: dict[str, Any] = {
        "level": level,
        "codebook_size": vqvae_hparams["l_bins"],
        "n_ctx": hparams["n_ctx"],
        "blocks": hparams["blocks"],
        "hidden_size": hparams["prior_width"],
        "num_hidden_layers": hparams["prior_depth"],
        "num_attention_heads": hparams["heads"],
        "attention_ratio": hparams.get("m_attn", 0.25),
        "mlp_ratio": hparams.get("m_mlp", 1.0),
        "attention_patterns": _PATTERN_CYCLES[hparams.get("attn_order", 2)],
        "residual_scale": bool(hparams.get("res_scale", False)),
        "tie_output": not merged,
        "add_conditioning_after": not merged,
        "sampling_rate": hparams.get("sr", 44100),
        "hop_length": math.prod(stride**down for stride, down in zip(strides[: level + 1], downs, strict=False)),
    }
    if not is_top:
        fields |= {
            "upper_downs": downs[level + 1],
            "upper_stride": strides[level + 1],
            "upper_codebook_size": vqvae_hparams["l_bins"],
            "conditioner_width": hparams["cond_width"],
            "conditioner_depth": hparams["cond_depth"],
            "conditioner_conv_multiplier": hparams.get("cond_m_conv", 1.0),
            "conditioner_dilation_growth_rate": hparams.get("cond_dilation_growth_rate", 1),
            "conditioner_dilation_cycle": hparams.get("cond_dilation_cycle"),
            "conditioner_residual_scale": bool(hparams.get("cond_res_scale", False)),
        }
    if hparams.get("labels", False):
        genres, artists = hparams["y_bins"]
        fields |= {"num_genres": genres, "num_artists": artists, "max_genres": hparams["max_bow_genre_size"]}
        if is_top:
            fields |= {"use_timing": True, "timing_bins": hparams["t_bins"]}
            fields |= {name: float(hparams[name]) for name in ("min_duration", "max_duration")}
    return FastJukeboxPriorConfig(**fields)


def convert_prior(
    state_dict: Mapping[str, Tensor], hparams: Mapping[str, Any], vqvae_hparams: Mapping[str, Any]
) -> FastJukeboxPrior:
    """Make a [`FastJukeboxPrior`] of a published prior without lyrics.

    Args:
        state_dict: tensors under their published names; a prefix `module.` is taken off.
        hparams: hyperparameters of the prior under their published names, see [`prior_config`].
        vqvae_hparams: those of its VQ-VAE; `l_bins`, `downs_t` and `strides_t` are enough.

    Returns:
        The prior in float32 and in evaluation mode.

    Raises:
        ValueError: as [`prior_config`]; or tensors that are missing, left over or of another shape, all by name; or a
            tied output that is not the code embedding.
    """
    config = prior_config(hparams, vqvae_hparams)
    tensors = {_CHECKPOINTED_BLOCK.sub(r"\1.model.", name): t for name, t in strip_prefix(state_dict).items()}
    if config.tie_output:
        output, embedding = tensors.pop("prior.x_out.weight", None), tensors.get("prior.x_emb.weight")
        if output is not None and embedding is not None and not torch.equal(output, embedding):
            raise ValueError(
                "`state_dict` holds a `prior.x_out.weight` that is not `prior.x_emb.weight`, but `merged_decoder` "
                "is False: the output is tied"
            )
    prior = FastJukeboxPrior(config)
    names = key_map(config)
    convert_state_dict(tensors, prior, names, transposed_keys(config))
    return prior.eval()


def key_map(config: FastJukeboxPriorConfig) -> dict[str, str]:
    """Our name of each tensor to its published name."""
    names = {"code_embedding.weight": "prior.x_emb.weight", "position_embedding": "prior.pos_emb.pos_emb"}
    if not config.tie_output:
        names["output.weight"] = "prior.x_out.weight"
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"prior.transformer._attn_mods.{layer}"
        for here, there in (("attention_norm", "ln_0"), ("mlp_norm", "ln_1")):
            names |= {f"{ours}.{here}.{kind}": f"{theirs}.{there}.{kind}" for kind in ("weight", "bias")}
        for here, there in _LINEAR_NAMES.items():
            names |= {f"{ours}.{here}.weight": f"{theirs}.{there}.w", f"{ours}.{here}.bias": f"{theirs}.{there}.b"}
    if config.has_upper_level:
        names |= _conditioner_keys(config)
    if not config.has_labels:
        return {**names, "start_token": "prior.start_token"}
    labels = {"artist_embedding": "artist_emb", "genre_embedding": "bow_genre_emb"}
    if config.use_timing:
        labels |= {
            "total_length_embedding": "total_length_emb",
            "absolute_position_embedding": "absolute_pos_emb",
            "relative_position_embedding": "relative_pos_emb",
        }
    return names | {f"label_conditioner.{here}.weight": f"y_emb.{there}.emb.weight" for here, there in labels.items()}


def transposed_keys(config: FastJukeboxPriorConfig) -> set[str]:
    """Our names of the matrices that are published as (in, out)."""
    return {f"blocks.{layer}.{name}.weight" for layer in range(config.num_hidden_layers) for name in _LINEAR_NAMES}


_LINEAR_NAMES = {
    "attention.qkv": "attn.c_attn",
    "attention.projection": "attn.c_proj",
    "mlp.expand": "mlp.c_fc",
    "mlp.contract": "mlp.c_proj",
}


def _conditioner_keys(config: FastJukeboxPriorConfig) -> dict[str, str]:
    ours, theirs = "upper_conditioner", "conditioner_blocks.0"
    modules = {f"{ours}.norm": f"{theirs}.ln", f"{ours}.stage.project": f"{theirs}.cond.model.0"}
    for up in range(config.upper_downs or 0):
        there = f"{theirs}.cond.model.{up + 1}"
        modules[f"{ours}.stage.upsamplers.{up}"] = f"{there}.1"
        for block in range(config.conditioner_depth):
            for here, convolution in (("conv_in", 1), ("conv_out", 3)):
                modules[f"{ours}.stage.stacks.{up}.blocks.{block}.{here}"] = (
                    f"{there}.0.model.{block}.model.{convolution}"
                )
    names = {f"{here}.{kind}": f"{there}.{kind}" for here, there in modules.items() for kind in ("weight", "bias")}
    return {**names, f"{ours}.code_embedding.weight": f"{theirs}.x_emb.weight"}


def _check_supported(hparams: Mapping[str, Any], vqvae_hparams: Mapping[str, Any]) -> None:
    for name in ("l_bins", "downs_t", "strides_t"):
        if name not in vqvae_hparams:
            raise ValueError(f"`vqvae_hparams` must hold `{name}`, got {sorted(vqvae_hparams)}")
    levels = len(vqvae_hparams["downs_t"])
    wanted = ["level", "n_ctx", "blocks", "prior_width", "prior_depth", "heads"]
    if hparams.get("level", levels) < levels - 1:
        wanted += ["cond_width", "cond_depth"]
    if hparams.get("labels", False):
        wanted += ["y_bins", "max_bow_genre_size"]
        if hparams.get("level") == levels - 1:
            wanted += ["t_bins", "min_duration", "max_duration"]
    for name in wanted:
        if name not in hparams:
            raise ValueError(f"`hparams` must hold `{name}`, got {sorted(hparams)}")
    if not 0 <= hparams["level"] < levels:
        raise ValueError(f"`level` must be in [0, {levels}), the VQ-VAE's levels, got {hparams['level']}")
    order = hparams.get("attn_order", 2)
    if order not in _PATTERN_CYCLES:
        raise ValueError(
            f"`attn_order` must be one of {sorted(_PATTERN_CYCLES)} (patterns without lyrics), got {order}"
        )
    if hparams.get("use_tokens", False) or hparams.get("n_tokens", 0):
        raise ValueError(f"`n_tokens` must be 0: priors with lyrics are not read, got {hparams.get('n_tokens')}")


__all__ = ["convert_prior", "key_map", "prior_config", "transposed_keys"]
