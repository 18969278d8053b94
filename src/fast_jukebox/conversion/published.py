"""Hyperparameters under their published names: checks, and those of the three published models."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, NoReturn, TypeGuard, cast

from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown

# Names whose values are integers, numbers, booleans, or lists of integers; other names are not checked.
_WHOLE = (
    *("level", "n_ctx", "blocks", "prior_width", "prior_depth", "heads", "attn_order", "cond_width", "cond_depth"),
    *("cond_dilation_growth_rate", "cond_dilation_cycle", "max_bow_genre_size", "t_bins", "n_tokens", "n_vocab", "sr"),
    *("prime_width", "prime_depth", "prime_heads", "prime_blocks", "prime_attn_order", "l_bins", "emb_width", "width"),
    *("depth", "dilation_growth_rate", "dilation_cycle", "linf_k", "alignment_layer", "alignment_head"),
)
_NUMBERS = (
    *("m_attn", "m_mlp", "cond_m_conv", "min_duration", "max_duration", "prime_loss_fraction", "prime_m_attn"),
    *("prime_m_mlp", "m_conv", "l_mu", "commit", "lmix_l1", "lmix_l2", "lmix_linf", "multispectral"),
)
_FLAGS = (
    *("labels", "labels_v3", "use_tokens", "single_enc_dec", "merged_decoder", "res_scale", "cond_res_scale"),
    *("prime_res_scale", "vqvae_reverse_decoder_dilation"),
)
_LISTS = (
    *("downs_t", "strides_t", "y_bins", "hvqvae_multipliers", "multispec_loss_n_fft", "multispec_loss_hop_length"),
    "multispec_loss_window_size",
)
# May be None as well: no cycle, no alignment, no multipliers, no upper level to scale.
_OPTIONAL = (
    *("cond_dilation_cycle", "dilation_cycle", "alignment_layer", "alignment_head", "hvqvae_multipliers"),
    "cond_res_scale",
)

# Larger numbers are mistakes, which would otherwise cost hours or all memory.
_MOST = 2**24
_MOST_LAYERS = {"prior_depth": 1024, "prime_depth": 1024, "cond_depth": 256, "depth": 64}
_MOST_ENTRIES = 16
_MOST_IN_LIST = {"downs_t": 16, "strides_t": 64, "hvqvae_multipliers": 64}

VQVAE: dict[str, object] = {
    "sr": 44100, "l_bins": 2048, "downs_t": [3, 2, 2], "strides_t": [2, 2, 2], "emb_width": 64, "width": 32, "depth": 4,
    "hvqvae_multipliers": [2, 1, 1], "m_conv": 1.0, "dilation_growth_rate": 3, "dilation_cycle": None,
    "vqvae_reverse_decoder_dilation": True,
}  # fmt: skip
"""Of the VQ-VAE, which all published models share."""

# All published models share their upsamplers too, whose labels are those of the 5B model.
_LABELS_V2 = {"labels": True, "labels_v3": False, "y_bins": [120, 4111], "max_bow_genre_size": 5}
_UPSAMPLER = {
    "n_ctx": 8192, "blocks": 128, "prior_width": 1920, "prior_depth": 72, "heads": 1, "attn_order": 2,
    "cond_width": 1024, "cond_depth": 16, "cond_dilation_growth_rate": 3, "cond_dilation_cycle": 8, **_LABELS_V2,
}  # fmt: skip
_BOTTOM = {**_UPSAMPLER, "level": 0, "cond_res_scale": False}
_MIDDLE = {**_UPSAMPLER, "level": 1, "cond_res_scale": True}
_TOP_5B = {
    "level": 2, "n_ctx": 8192, "blocks": 128, "prior_width": 4800, "prior_depth": 72, "heads": 8, "attn_order": 2,
    "merged_decoder": True, "t_bins": 128, "min_duration": 60.0, "max_duration": 600.0, **_LABELS_V2,
}  # fmt: skip
_TOP_5B_LYRICS = {
    **_TOP_5B, "prior_depth": 79, "attn_order": 10, "min_duration": 23.8, "use_tokens": True, "single_enc_dec": False,
    "n_tokens": 512, "n_vocab": 80, "prime_loss_fraction": 0.4, "prime_width": 1280, "prime_depth": 18,
    "prime_heads": 4, "prime_blocks": 32, "alignment_layer": 68, "alignment_head": 2,
}  # fmt: skip
_TOP_1B_LYRICS = {
    "level": 2, "n_ctx": 6144, "blocks": 64, "prior_width": 2048, "prior_depth": 72, "heads": 2, "attn_order": 12,
    "labels": True, "labels_v3": True, "y_bins": [604, 7898], "max_bow_genre_size": 1, "t_bins": 64,
    "min_duration": 17.84, "max_duration": 600.0, "use_tokens": True, "single_enc_dec": True, "n_tokens": 384,
    "n_vocab": 79, "prime_loss_fraction": 0.4, "alignment_layer": 63, "alignment_head": 0,
}  # fmt: skip

MODELS: dict[str, list[dict[str, object]]] = {
    "1b_lyrics": [_BOTTOM, _MIDDLE, _TOP_1B_LYRICS],
    "5b": [_BOTTOM, _MIDDLE, _TOP_5B],
    "5b_lyrics": [_BOTTOM, _MIDDLE, _TOP_5B_LYRICS],
}
"""Of the priors of each published model, bottom first."""


def published_model(name: str) -> tuple[JsonObject, list[JsonObject]]:
    """Hyperparameters of a published model: of the VQ-VAE, and of the priors, bottom first."""
    if name not in MODELS:
        nearest = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.0)[0]
        raise ValueError(f"`model` must be one of {', '.join(MODELS)}; got {shown(name)}, did you mean `{nearest}`?")
    return dict(VQVAE), [dict(prior) for prior in MODELS[name]]


class Hyperparameters(dict[str, Any]):
    """Hyperparameters under their published names, checked, of which a missing one is a `ValueError`."""

    def __init__(self, name: str, hparams: object) -> None:
        check_hyperparameters(name, hparams)
        super().__init__(cast(JsonObject, hparams))
        self.name = name

    def __missing__(self, key: str) -> NoReturn:
        raise ValueError(f"`{self.name}` must hold `{key}`, got {sorted(self)}")


def check_hyperparameters(name: str, hparams: object) -> None:
    """Raise a `ValueError` that names a hyperparameter of the wrong kind, its value and what is allowed."""
    if not isinstance(hparams, Mapping):
        raise ValueError(f"`{name}` must be a mapping from names to values, got {type(hparams).__name__}")
    for key, value in hparams.items():
        wanted = _wanted_kind(key, value)
        if wanted is not None and not (value is None and key in _OPTIONAL):
            raise ValueError(f"`{key}` of `{name}` must be {wanted}, got {shown(value)}")


def _wanted_kind(key: str, value: object) -> str | None:
    """The kind of value that is wanted, or None where it is of that kind."""
    most = _MOST_LAYERS.get(key, _MOST)
    if key in _WHOLE and not _is_whole(value):
        return "a whole number"
    if key in _WHOLE and _is_whole(value) and value > most:
        return f"at most {most}"
    if key in _NUMBERS and not (_is_whole(value) or (isinstance(value, float) and math.isfinite(value))):
        return "a finite number"
    if key in _FLAGS and not isinstance(value, bool):
        return "true or false"
    if key in _LISTS:
        most = _MOST_IN_LIST.get(key, _MOST)
        entries = list(value) if isinstance(value, list | tuple) else []
        if not 0 < len(entries) <= _MOST_ENTRIES or not all(_is_whole(each) and 0 < each <= most for each in entries):
            return f"a list of whole numbers from 1 to {most}"
        if key == "y_bins" and len(entries) != 2:
            return "two numbers, genres and artists"
    return None


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
