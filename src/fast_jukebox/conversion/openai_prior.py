"""A published Jukebox prior to ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fast_jukebox.conversion.published import Hyperparameters
from fast_jukebox.conversion.state_dict import Source, strip_prefix
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown

_FACTORED = ("row", "column", "previous_row")
# Published `attn_order` to the cycle of patterns over the depth.
_PATTERN_CYCLES: dict[int, list[str]] = {
    0: ["dense"],
    1: ["row", "column"],
    2: [*_FACTORED],
    6: [*_FACTORED, "lyric_cross"],
    7: [*_FACTORED * 5, "lyric_cross"],
    8: [*_FACTORED * 3, "lyric_cross"],
    9: [*_FACTORED, "dense"],
    10: [*_FACTORED * 3, *(*_FACTORED * 3, "lyric_cross") * 7],
}
# Every 16th layer of these sees the lyrics, the lyrics or everything; the others have their turn in the three.
for _order, _word in ((11, "lyric_cross"), (12, "lyric_prefix")):
    _PATTERN_CYCLES[_order] = [
        (_word, _word, "dense")[layer % 3] if layer % 16 == 15 else _FACTORED[layer % 3] for layer in range(48)
    ]
# Residual stacks trained with gradient checkpointing list their blocks under another name.
_CHECKPOINTED_BLOCK = re.compile(r"^(conditioner_blocks\.\d+\.cond\.model\.\d+\.0)\.blocks\.")


def prior_config(hparams: JsonObject, vqvae_hparams: JsonObject) -> FastJukeboxPriorConfig:
    """Our configuration for hyperparameters under their published names.

    Args:
        hparams: of the prior: needs `level`, `n_ctx`, `blocks`, `prior_width`, `prior_depth`, `heads` and, for an
            upsampler, `cond_width` and `cond_depth`; with `labels` also `y_bins` (genres, artists),
            `max_bow_genre_size` and, at the top, `t_bins`, `min_duration`, `max_duration`; with `use_tokens` also
            `n_tokens`, `n_vocab`, `single_enc_dec` and, where that is False, `prime_width`, `prime_depth`,
            `prime_heads`, `prime_blocks`. The rest have the published defaults.
        vqvae_hparams: of the VQ-VAE: `l_bins`, `downs_t`, `strides_t`.

    Raises:
        ValueError: a hyperparameter is missing, or asks for what the prior does not have.
    """
    hparams, vqvae_hparams = Hyperparameters("hparams", hparams), Hyperparameters("vqvae_hparams", vqvae_hparams)
    level, downs, strides = hparams["level"], vqvae_hparams["downs_t"], vqvae_hparams["strides_t"]
    if len(strides) != len(downs):
        raise ValueError(f"`strides_t` must have {len(downs)} entries, as `downs_t`, got {shown(strides)}")
    if not 0 <= level < len(downs):
        raise ValueError(f"`level` must be in [0, {len(downs)}), the VQ-VAE's levels, got {level}")
    order = hparams.get("attn_order", 2)
    if order not in _PATTERN_CYCLES:
        raise ValueError(f"`attn_order` must be one of {sorted(_PATTERN_CYCLES)}, got {shown(order)}")
    is_top = level == len(downs) - 1
    merged = bool(hparams.get("merged_decoder", False))
    fields: dict[str, object] = {
        "level": level,
        "codebook_size": vqvae_hparams["l_bins"],
        "n_ctx": hparams["n_ctx"],
        "num_rows": hparams["blocks"],
        "hidden_size": hparams["prior_width"],
        "num_hidden_layers": hparams["prior_depth"],
        "num_attention_heads": hparams["heads"],
        "attention_ratio": hparams.get("m_attn", 0.25),
        "mlp_ratio": hparams.get("m_mlp", 1.0),
        "layer_types": _PATTERN_CYCLES[order],
        "residual_scale": bool(hparams.get("res_scale", False)),
        "tie_word_embeddings": not merged,
        "add_conditioning_after": not merged,
        "sampling_rate": hparams.get("sr", 44100),
        "hop_length": math.prod(stride**down for stride, down in zip(strides[: level + 1], downs, strict=False)),
    }
    if not is_top:
        fields |= {
            "upsampling_strides": [strides[level + 1]] * downs[level + 1],
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
    if hparams.get("use_tokens", False):
        fields |= _lyric_fields(hparams)
    return FastJukeboxPriorConfig(**fields)


def _lyric_fields(hparams: Hyperparameters) -> JsonObject:
    if hparams.get("prime_attn_order", 2) != 2:
        raise ValueError(f"`prime_attn_order` must be 2, got {hparams['prime_attn_order']!r}")
    fields = {
        "lyric_length": hparams["n_tokens"],
        "lyric_vocab_size": hparams["n_vocab"],
        "lyric_loss_weight": float(hparams.get("prime_loss_fraction", 0.4)),
        "alignment_layer": hparams.get("alignment_layer"),
        "alignment_head": hparams.get("alignment_head"),
    }
    if hparams["single_enc_dec"]:
        return fields
    return fields | {
        "lyric_encoder_hidden_size": hparams["prime_width"],
        "lyric_encoder_layers": hparams["prime_depth"],
        "lyric_encoder_heads": hparams["prime_heads"],
        "lyric_encoder_num_rows": hparams["prime_blocks"],
        "lyric_encoder_attention_ratio": hparams.get("prime_m_attn", 0.25),
        "lyric_encoder_mlp_ratio": hparams.get("prime_m_mlp", 1.0),
        "lyric_encoder_residual_scale": bool(hparams.get("prime_res_scale", False)),
    }


def prior_tensors(state_dict: Mapping[str, Tensor], config: FastJukeboxPriorConfig) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names of [`key_map`], without those that only repeat another."""
    tensors = {_CHECKPOINTED_BLOCK.sub(r"\1.model.", name): t for name, t in strip_prefix(state_dict).items()}
    if config.tie_word_embeddings:
        drop_tied_output(tensors, "prior.x_emb.weight", "prior.x_out.weight")
    return tensors


def drop_tied_output(tensors: dict[str, Tensor], embedding: str, output: str) -> None:
    """Drop the output matrix of a prior whose output is its code embedding; a `ValueError` if it is another matrix."""
    ours, theirs = tensors.get(embedding), tensors.pop(output, None)
    if ours is None or theirs is None:
        return
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype or not torch.equal(theirs, ours):
        raise ValueError(
            f"`state_dict` holds a `{output}` that is not `{embedding}`, but `merged_decoder` is False: the output is "
            "tied"
        )


def key_map(config: FastJukeboxPriorConfig) -> dict[str, Source]:
    """Our name of each tensor to its published name."""
    names: dict[str, Source] = {
        "code_embedding.weight": "prior.x_emb.weight",
        "position_embedding": "prior.pos_emb.pos_emb",
    }
    if not config.tie_word_embeddings:
        names["output.weight"] = "prior.x_out.weight"
    names |= _block_keys("blocks", "prior.transformer", config)
    if config.has_upper_level:
        names |= _conditioner_keys(config)
    if config.has_lyric_encoder:
        names |= _lyric_encoder_keys(config)
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
    blocks = [f"blocks.{layer}" for layer in range(config.num_hidden_layers)]
    blocks += [f"lyric_encoder.blocks.{layer}" for layer in range(config.lyric_encoder_layers or 0)]
    names = {f"{block}.{name}.weight" for block in blocks for name in _LINEAR_NAMES}
    return names | ({"lyric_encoder.project.weight"} if config.has_lyric_encoder else set())


def _block_keys(ours: str, theirs: str, config: FastJukeboxPriorConfig) -> dict[str, Source]:
    names: dict[str, Source] = {}
    for layer, pattern in enumerate(config.layer_types):
        here, there = f"{ours}.{layer}", f"{theirs}._attn_mods.{layer}"
        for norm, published in (("attention_norm", "ln_0"), ("mlp_norm", "ln_1")):
            names |= {f"{here}.{norm}.{kind}": f"{there}.{published}.{kind}" for kind in ("weight", "bias")}
        for linear, published in _LINEAR_NAMES.items():
            for kind, short in (("weight", "w"), ("bias", "b")):
                name: Source = f"{there}.{published}.{short}"
                if pattern == "lyric_cross" and linear == "attention.qkv":
                    # Queries of the music, keys and values of the lyrics: one matrix here, two there.
                    name = ((f"{there}.attn.c_attn.{short}", 1), (f"{there}.attn.c_enc_kv.{short}", 2))
                names[f"{here}.{linear}.{kind}"] = name
    return names


def _lyric_encoder_keys(config: FastJukeboxPriorConfig) -> dict[str, Source]:
    names: dict[str, Source] = {
        "character_embedding.weight": "prime_prior.x_emb.weight",
        "position_embedding": "prime_prior.pos_emb.pos_emb",
        "start_token": "prime_prior.start_token",
        "project.weight": "prime_state_proj.w",
        "project.bias": "prime_state_proj.b",
        "norm.weight": "prime_state_ln.weight",
        "norm.bias": "prime_state_ln.bias",
        "output.weight": "prime_x_out.weight",
    }
    names |= _block_keys("blocks", "prime_prior.transformer", config.lyric_encoder_config)
    return {f"lyric_encoder.{ours}": theirs for ours, theirs in names.items()}


_LINEAR_NAMES = {
    "attention.qkv": "attn.c_attn", "attention.projection": "attn.c_proj", "mlp.expand": "mlp.c_fc",
    "mlp.contract": "mlp.c_proj",
}  # fmt: skip


def _conditioner_keys(config: FastJukeboxPriorConfig) -> dict[str, Source]:
    ours, theirs = "upper_conditioner", "conditioner_blocks.0"
    modules = {f"{ours}.norm": f"{theirs}.ln", f"{ours}.stage.project": f"{theirs}.cond.model.0"}
    for up in range(len(config.upsampling_strides or ())):
        there = f"{theirs}.cond.model.{up + 1}"
        modules[f"{ours}.stage.upsamplers.{up}"] = f"{there}.1"
        for block in range(config.conditioner_depth):
            for here, convolution in (("conv_in", 1), ("conv_out", 3)):
                modules[f"{ours}.stage.stacks.{up}.blocks.{block}.{here}"] = (
                    f"{there}.0.model.{block}.model.{convolution}"
                )
    names: dict[str, Source] = {
        f"{here}.{kind}": f"{there}.{kind}" for here, there in modules.items() for kind in ("weight", "bias")
    }
    return {**names, f"{ours}.code_embedding.weight": f"{theirs}.x_emb.weight"}
