"""The layout in which transformers 4 kept Jukebox: `model_type` `jukebox`, level and prior 0 at the top."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from fast_jukebox.conversion.openai_prior import drop_tied_output, prior_config
from fast_jukebox.conversion.openai_vqvae import vqvae_config
from fast_jukebox.conversion.parts import Part, prior_part, vqvae_part
from fast_jukebox.conversion.pickles import read_state_dict
from fast_jukebox.conversion.published import MODELS, check_hyperparameters
from fast_jukebox.models.loading import LARGEST_INDEX, is_shard
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.files import JsonObject, read_file
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

MODEL_TYPE = "jukebox"

# Defaults, which the published configurations do not state.
_VQVAE_DEFAULTS = {
    "nb_discrete_codes": 2048, "embed_dim": 64, "res_conv_width": 32, "res_conv_depth": 4, "res_downs_t": [3, 2, 2],
    "res_strides_t": [2, 2, 2], "multipliers": [2, 1, 1], "res_convolution_multiplier": 1,
    "res_dilation_growth_rate": 3, "res_dilation_cycle": None, "lmu": 0.99, "commit": 0.02, "conv_res_scale": False,
}  # fmt: skip
_PRIOR_DEFAULTS = {
    "n_ctx": 6144, "blocks": 64, "hidden_size": 2048, "num_layers": 72, "n_heads": 2, "attention_multiplier": 0.25,
    "mlp_multiplier": 1.0, "attention_pattern": "enc_dec_with_lyrics", "attn_res_scale": False, "merged_decoder": True,
    "metadata_conditioning": True, "metadata_dims": [604, 7898], "max_nb_genres": 1, "timing_dims": 64,
    "min_duration": 0, "max_duration": 600, "sampling_rate": 44100, "nb_relevant_lyric_tokens": 384,
    "lyric_vocab_size": 80, "is_encoder_decoder": True, "encoder_loss_fraction": 0.4, "encoder_config": None,
    "alignment_layer": 68, "alignment_head": 2, "res_conv_width": 128, "res_conv_depth": 3,
    "res_dilation_growth_rate": 1, "res_dilation_cycle": None, "res_convolution_multiplier": 1, "conv_res_scale": None,
}  # fmt: skip
# Names that were in use before the others.
_OLDER_NAMES = {"depth": "num_layers", "width": "hidden_size", "codebook_dimension": "nb_discrete_codes"}
_PATTERNS = {
    "fulldenseattention": 0, "rawcolumnpreviousrowattention": 2, "largeseparatedencdecwlyrics": 10,
    "encdecwithlyrics": 12,
}  # fmt: skip

_VQVAE_NAMES = {
    "l_bins": "nb_discrete_codes", "emb_width": "embed_dim", "width": "res_conv_width", "depth": "res_conv_depth",
    "downs_t": "res_downs_t", "strides_t": "res_strides_t", "hvqvae_multipliers": "multipliers",
    "m_conv": "res_convolution_multiplier", "dilation_growth_rate": "res_dilation_growth_rate",
    "dilation_cycle": "res_dilation_cycle", "l_mu": "lmu", "commit": "commit",
}  # fmt: skip
_PRIOR_NAMES = {
    "n_ctx": "n_ctx", "blocks": "blocks", "prior_width": "hidden_size", "prior_depth": "num_layers", "heads": "n_heads",
    "m_attn": "attention_multiplier", "m_mlp": "mlp_multiplier", "res_scale": "attn_res_scale",
    "merged_decoder": "merged_decoder", "labels": "metadata_conditioning", "y_bins": "metadata_dims",
    "max_bow_genre_size": "max_nb_genres", "t_bins": "timing_dims", "min_duration": "min_duration",
    "max_duration": "max_duration", "sr": "sampling_rate",
}  # fmt: skip
_UPSAMPLER_NAMES = {
    "cond_width": "res_conv_width", "cond_depth": "res_conv_depth",
    "cond_dilation_growth_rate": "res_dilation_growth_rate", "cond_dilation_cycle": "res_dilation_cycle",
    "cond_m_conv": "res_convolution_multiplier",
}  # fmt: skip
_LYRIC_NAMES = {
    "n_tokens": "nb_relevant_lyric_tokens", "n_vocab": "lyric_vocab_size", "single_enc_dec": "is_encoder_decoder",
    "alignment_layer": "alignment_layer", "alignment_head": "alignment_head",
}  # fmt: skip
_LYRIC_ENCODER_NAMES = {
    "prime_width": "hidden_size", "prime_depth": "num_layers", "prime_heads": "n_heads", "prime_blocks": "blocks",
    "prime_m_attn": "attention_multiplier", "prime_m_mlp": "mlp_multiplier", "prime_res_scale": "attn_res_scale",
}  # fmt: skip


def hyperparameters(config: Mapping[str, object]) -> tuple[JsonObject, list[JsonObject]]:
    """Hyperparameters under their published names: the VQ-VAE's, and the priors', bottom first.

    A `ValueError` names a part that is missing, or a field of a value that is not allowed.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"`config` must be a mapping from names to values, got {type(config).__name__}")
    vqvae_fields = _filled("vqvae_config", config.get("vqvae_config") or {}, _VQVAE_DEFAULTS)
    if vqvae_fields["conv_res_scale"]:
        raise ValueError(f"`conv_res_scale` of `vqvae_config` must be false, got {vqvae_fields['conv_res_scale']!r}")
    vqvae = {published: vqvae_fields[name] for published, name in _VQVAE_NAMES.items()}
    vqvae["sr"] = config.get("sampling_rate", 44100)
    check_hyperparameters("vqvae_config", vqvae)
    priors = [
        _prior_hyperparameters(level, name, fields, len(vqvae["downs_t"]))
        for level, name, fields in _prior_fields(config, len(vqvae["downs_t"]))
    ]
    return vqvae, priors


def parts_of(config: Mapping[str, object]) -> tuple[Part, list[Part]]:
    """The VQ-VAE and the priors, bottom first, of a complete model's `config.json`; errors as [`hyperparameters`]."""
    vqvae, priors = hyperparameters(config)
    top = len(priors) - 1
    return vqvae_part(vqvae_config(vqvae), lambda name: f"vqvae.{vqvae_name(name)}"), [
        prior_part(prior_config(prior, vqvae), lambda name, index=top - level: f"priors.{index}.{prior_name(name)}")  # type: ignore[misc]  # of a default value
        for level, prior in enumerate(priors)
    ]


def read_model(
    source: str | os.PathLike[str],
    config: Mapping[str, object],
    part: str | None,
    level: int | None,
    **download: object,
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Our configuration and our tensors, see [`~fast_jukebox.models.loading.register_layout`].

    Args:
        part: `"vqvae"`; `"priors"`, of which `level` picks one, 0 the bottom; or None for the complete model.

    Raises:
        OSError, ValueError: as [`parts_of`], [`read_tensors`] and [`checked_tensors`]; or `level` is given for the
            VQ-VAE, or is none of the priors'.
    """
    vqvae, priors = parts_of(config)
    dtype = config.get("torch_dtype") or config.get("dtype")
    if part is None:
        tensors = read_tensors(source, **download)
        check_prefixes(tensors, [vqvae, *priors], source)
        ours = {
            f"{own.name}.{name}": tensor
            for own in (vqvae, *priors)
            for name, tensor in own.tensors(checked_tensors(own, tensors, source))
        }
        parts = {"vqvae_config": vqvae.config.to_dict(), "prior_configs": [prior.config.to_dict() for prior in priors]}
        return {**parts, "dtype": dtype}, ours
    if part == "vqvae" and level is not None:
        raise ValueError(f"`level` picks a prior; the VQ-VAE holds every level, got {shown(level)}")
    if part == "priors" and level not in range(len(priors)):
        names = ", ".join(level_name(known, len(priors), numbered=True) for known in range(len(priors)))
        raise ValueError(f"`level` must name a prior of `{source}`, which holds {names}; got {shown(level)}")
    own = vqvae if part == "vqvae" or level is None else priors[level]
    held = checked_tensors(own, read_tensors(source, prefix_of(own), **download), source)
    return {**own.config.to_dict(), "dtype": "float32" if part == "vqvae" else dtype}, dict(own.tensors(held))


def read_tensors(source: str | os.PathLike[str], prefix: str = "", /, **download: object) -> dict[str, Tensor]:
    """The tensors of a folder or repository whose names begin with `prefix`, mapped and not read where they can be.

    Only the files that hold them are fetched. Safetensors are taken where there are some, else pickles, of which
    weights alone are read.

    Raises:
        OSError: there are no weights, or a file of them is missing.
        ValueError: a file is damaged.
    """
    for single, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", read_state_dict)):
        path = cached_file(source, single, _raise_exceptions_for_missing_entries=False, **download)
        if path is not None:
            return {name: tensor for name, tensor in read(path).items() if name.startswith(prefix)}
        index = cached_file(source, f"{single}.index.json", _raise_exceptions_for_missing_entries=False, **download)
        if index is None:
            continue
        shards = {file for name, file in _weight_map(index).items() if name.startswith(prefix)}
        tensors: dict[str, Tensor] = {}
        for shard in sorted(shards):
            path = cached_file(source, shard, _raise_exceptions_for_missing_entries=False, **download)
            if path is None:
                raise OSError(f"`{source}` lacks {shard}, which its {single}.index.json names")
            tensors |= {name: tensor for name, tensor in read(path).items() if name.startswith(prefix)}
        return tensors
    raise OSError(
        f"`{source}` holds no weights: neither model.safetensors nor pytorch_model.bin, in one file or in shards"
    )


def checked_tensors(part: Part, tensors: Mapping[str, Tensor], source: object) -> Mapping[str, Tensor]:
    """The tensors of one part of a complete model's; errors as of [`Part.check`]."""
    prefix = prefix_of(part)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if part.name != "vqvae" and part.config.tie_word_embeddings:
        drop_tied_output(own, f"{prefix}prior.embed_tokens.weight", f"{prefix}prior.fc_proj_out.weight")
    part.check(own, str(source))
    return own


def prefix_of(part: Part) -> str:
    """Prefix of the names of a part's tensors in a complete model: `vqvae.`, or `priors.0.` for the top prior."""
    theirs = next(iter(part.key_map.values()))
    name = theirs if isinstance(theirs, str) else theirs[0][0]
    return ".".join(name.split(".")[: 1 if part.name == "vqvae" else 2]) + "."


def check_prefixes(tensors: Mapping[str, Tensor], parts: Sequence[Part], source: object) -> None:
    """Raise a `ValueError` that names the tensors that belong to no part."""
    prefixes = tuple(prefix_of(part) for part in parts)
    strangers = [name for name in tensors if not name.startswith(prefixes)]
    if strangers:
        raise ValueError(f"`{source}` does not fit: {len(strangers)} left over: {', '.join(strangers)}")


def prior_name(published: str) -> str:
    """The name that a published tensor of a prior has in this layout, without `priors.{i}.`."""
    name = re.sub(r"^prime_prior\.", "encoder.", published)
    name = re.sub(r"^prime_state_proj\.", "encoder.proj_in.", name)
    name = re.sub(r"^prime_state_ln\.", "encoder.final_layer_norm.", name)
    name = re.sub(r"^prime_x_out\.", "encoder.lm_head.", name)
    name = re.sub(r"^y_emb\.(artist_emb|bow_genre_emb)\.emb\.", r"metadata_embedding.\1.", name)
    name = re.sub(r"^y_emb\.", "metadata_embedding.", name)
    name = re.sub(r"^conditioner_blocks\.0\.ln\.", "conditioner_blocks.layer_norm.", name)
    name = re.sub(r"^conditioner_blocks\.0\.cond\.", "conditioner_blocks.upsampler.", name)
    name = name.replace("conditioner_blocks.0.", "conditioner_blocks.")
    name = name.replace(".x_emb.", ".embed_tokens.").replace(".x_out.", ".fc_proj_out.")
    name = re.sub(r"\.ln_([01])\.", r".layer_norm_\1.", name)
    name = re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", name))
    return _decoder_name(name, "upsampler.model")


def vqvae_name(published: str) -> str:
    """The name that a published tensor of the VQ-VAE has in this layout, without `vqvae.`."""
    name = re.sub(r"^(bottleneck\.level_blocks\.\d+)\.k$", r"\1.codebook", published)
    if name.startswith("encoders."):
        name = re.sub(r"\.model\.(\d+)\.0\.(weight|bias)$", lambda m: f".downsample_block.{2 * int(m[1])}.{m[2]}", name)
        name = re.sub(
            r"\.model\.(\d+)\.1\.model\.(\d+)\.model\.",
            lambda m: f".downsample_block.{2 * int(m[1]) + 1}.resnet_block.{m[2]}.model.",
            name,
        )
        return _convolutions(re.sub(r"(level_blocks\.\d+)\.model\.\d+\.(weight|bias)$", r"\1.proj_out.\2", name))
    return _decoder_name(name, r"level_blocks\.\d+\.model")


def _decoder_name(name: str, stage: str) -> str:
    """Names within a stage that goes up in rate, found after `stage`, which ends in `model`."""
    head = rf"({stage.removesuffix('model')})model"
    name = re.sub(rf"{head}\.0\.(weight|bias)$", r"\1proj_in.\2", name)
    name = re.sub(
        rf"{head}\.(\d+)\.1\.(weight|bias)$", lambda m: f"{m[1]}upsample_block.{2 * int(m[2]) - 1}.{m[3]}", name
    )
    name = re.sub(
        rf"{head}\.(\d+)\.0\.model\.(\d+)\.model\.",
        lambda m: f"{m[1]}upsample_block.{2 * int(m[2]) - 2}.resnet_block.{m[3]}.model.",
        name,
    )
    return _convolutions(name)


def _convolutions(name: str) -> str:
    return re.sub(r"(resnet_block\.\d+)\.model\.([13])\.", lambda m: f"{m[1]}.conv1d_{(int(m[2]) + 1) // 2}.", name)


def _filled(name: str, fields: object, defaults: Mapping[str, object]) -> JsonObject:
    """A part's fields with the defaults of those that are not there."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"`{name}` must be a mapping from names to values, got {type(fields).__name__}")
    named = {str(_OLDER_NAMES.get(key, key)): value for key, value in fields.items()}
    return {**defaults, **{key: value for key, value in named.items() if key in defaults}}


def _prior_fields(config: Mapping[str, object], levels: int) -> list[tuple[int, str, object]]:
    """Level, name and fields of each prior, bottom first."""
    listed = config.get("prior_config_list")
    if listed is not None and (not isinstance(listed, list) or len(listed) != levels):
        raise ValueError(f"`prior_config_list` must be a list of {levels} priors, top first, got {shown(listed)}")
    found = []
    for index in reversed(range(levels)):
        name = f"prior_{index}" if listed is None else f"prior_config_list[{index}]"
        fields = config.get(name) if listed is None else listed[index]
        if fields is None:
            raise ValueError(f"`{name}` is missing in the configuration, which holds {sorted(map(str, config))}")
        found.append((levels - 1 - index, name, fields))
    return found


def _prior_hyperparameters(level: int, name: str, fields: object, levels: int) -> JsonObject:
    full = _filled(name, fields, _PRIOR_DEFAULTS)
    hparams = {published: full[own] for published, own in _PRIOR_NAMES.items()}
    hparams |= {"level": level, "attn_order": _attention_order(name, full["attention_pattern"])}
    if level < levels - 1:
        hparams |= {published: full[own] for published, own in _UPSAMPLER_NAMES.items()}
        hparams["cond_res_scale"] = full["conv_res_scale"] or False
    lyrics = full["nb_relevant_lyric_tokens"]
    if lyrics and level == levels - 1:
        fraction = full["encoder_loss_fraction"]
        hparams |= {published: full[own] for published, own in _LYRIC_NAMES.items()}
        hparams |= {"use_tokens": True, "prime_loss_fraction": fraction[0] if isinstance(fraction, list) else fraction}
        if not full["is_encoder_decoder"]:
            encoder = _filled(f"{name}.encoder_config", full["encoder_config"], _PRIOR_DEFAULTS)
            hparams |= {published: encoder[own] for published, own in _LYRIC_ENCODER_NAMES.items()}
            hparams["prime_attn_order"] = _attention_order(f"{name}.encoder_config", encoder["attention_pattern"])
    check_hyperparameters(name, hparams)
    return _as_published(name, hparams)


def _attention_order(name: str, pattern: object) -> int:
    known = str(pattern).replace("_", "").lower()
    if known not in _PATTERNS:
        raise ValueError(f"`attention_pattern` of `{name}` must be one of {', '.join(_PATTERNS)}, got {shown(pattern)}")
    return _PATTERNS[known]


def _as_published(name: str, hparams: JsonObject) -> JsonObject:
    """Corrections, for a prior of a published model, of what no tensor's shape shows."""
    known = ("level", "prior_width", "prior_depth", "n_ctx", "attn_order")
    for priors in MODELS.values():
        for published in priors:
            if any(hparams[key] != published[key] for key in known):
                continue
            if hparams["blocks"] != published["blocks"]:
                logger.warning(
                    "`blocks` of `%s` is %s; the published model of this size was trained with %s, which is used",
                    name, hparams["blocks"], published["blocks"],
                )  # fmt: skip
            alignment = {key: published[key] for key in ("alignment_layer", "alignment_head") if key in published}
            return hparams | {"blocks": published["blocks"]} | alignment
    return hparams


def _weight_map(index: str) -> dict[str, str]:
    try:
        found = dict(json.loads(read_file(index, LARGEST_INDEX))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"`{index}` must hold a `weight_map` ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if not all(is_shard(shard, "") for shard in found.values()):
        raise ValueError(
            f"the `weight_map` in `{index}` must hold names of files beside it by tensor name: fetch it again"
        )
    return found


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"`{path}` is damaged or cut short ({error}): fetch it again") from error
