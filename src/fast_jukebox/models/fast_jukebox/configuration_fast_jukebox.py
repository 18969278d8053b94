"""Configuration of the complete model: one VQ-VAE and one prior a level, and the named sizes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedModel

from fast_jukebox.models.configuration_utils import MOST_ENTRIES, FastJukeboxBaseConfig
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae.configuration_vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import shown

# Keys that a nested configuration does not repeat: the complete model states them once.
_STATED_ONCE = ("transformers_version", "dtype", "architectures", "_name_or_path")


class FastJukeboxConfig(FastJukeboxBaseConfig):
    r"""Configuration of a [`FastJukeboxModel`]. Its parts are configurations themselves and are checked together.

    Args:
        vqvae_config ([`FastJukeboxVQVAEConfig`] or `dict`, *optional*): of the VQ-VAE; the published size by default.
        prior_configs (`list` of [`FastJukeboxPriorConfig`] or `dict`, *optional*): of the priors, bottom first, one for
            each level of the VQ-VAE; those of the preset `fastjukebox-72` by default.

    Example:
        ```python
        >>> from fast_jukebox import FastJukeboxConfig

        >>> config = FastJukeboxConfig.preset("fastjukebox-mini-12")
        >>> [prior.num_hidden_layers for prior in config.prior_configs]
        [12, 12, 12]
        ```
    """

    model_type = "fast_jukebox"
    sub_configs_defaults = {"vqvae_config": FastJukeboxVQVAEConfig}  # noqa: RUF012 (read by transformers)

    if TYPE_CHECKING:  # what `__post_init__` makes of the fields
        vqvae_config: FastJukeboxVQVAEConfig
        prior_configs: list[FastJukeboxPriorConfig]
    else:
        vqvae_config: dict | PreTrainedConfig | None = None
        prior_configs: list | tuple | None = None

    def __post_init__(self, **kwargs: object) -> None:
        if self.prior_configs is None:
            self.prior_configs = _paper_priors(72)
        if not isinstance(self.prior_configs, list | tuple):
            raise ValueError(
                "`prior_configs` must be a list of FastJukeboxPriorConfig or dicts of their fields, bottom first, got "
                f"{type(self.prior_configs).__name__}"
            )
        if len(self.prior_configs) > MOST_ENTRIES:
            raise ValueError(
                f"`prior_configs` must list at most {MOST_ENTRIES} priors, one a level, got {len(self.prior_configs)}"
            )
        if not isinstance(self.vqvae_config, FastJukeboxVQVAEConfig | dict | None):
            raise ValueError(
                "`vqvae_config` must be a FastJukeboxVQVAEConfig or a dict of its fields, got "
                f"{type(self.vqvae_config).__name__}"
            )
        self.prior_configs = [_as_prior_config(index, prior) for index, prior in enumerate(self.prior_configs)]
        super().__post_init__(**kwargs)

    @classmethod
    def preset(cls, name: str) -> FastJukeboxConfig:
        """Configuration of a named size.

        Args:
            name: `"fastjukebox-72"` (teacher), `"fastjukebox-24"`, `"fastjukebox-18"` (students), the sizes of the Fast
                Jukebox paper, or `"fastjukebox-mini-36"`, `"fastjukebox-mini-12"`, `"fastjukebox-mini-9"`, a family of
                the same proportions that one GPU trains in minutes. The number is the depth of each prior.

        Returns:
            A new configuration. One level alone is `FastJukeboxConfig.preset(name).prior_configs[level]`.

        Raises:
            ValueError: there is no such preset; names the nearest.
        """
        if name not in PRESETS:
            nearest = difflib.get_close_matches(str(name), PRESETS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"`name` must be a preset, one of {', '.join(PRESETS)}; got {shown(name)}, did you mean `{nearest}`?"
            )
        family, depth = PRESETS[name]
        return family(depth)

    @classmethod
    def from_dict(cls, config_dict: dict[str, object], **kwargs: object) -> Any:
        """As [`~transformers.PreTrainedConfig.from_dict`]; no part is assumed that is not written there.

        Raises:
            ValueError: `vqvae_config` or `prior_configs` is missing, or what the configuration itself refuses.
        """
        for field in ("vqvae_config", "prior_configs"):
            if config_dict.get(field) is None and kwargs.get(field) is None:
                raise ValueError(
                    f"`{field}` is missing in the configuration of a complete model; got {sorted(config_dict)}"
                )
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return self.vqvae_config.num_levels

    @property
    def hop_lengths(self) -> list[int]:
        """Audio samples that a code of each level stands for, bottom first."""
        return self.vqvae_config.hop_lengths

    @property
    def sampling_rate(self) -> int:
        """Audio samples a second."""
        return self.vqvae_config.sampling_rate

    @property
    def _attn_implementation(self) -> str | None:
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict[str, str] | None) -> None:
        PreTrainedConfig._attn_implementation.fset(self, value)  # itself and the VQ-VAE
        for index, prior in enumerate(self.prior_configs or []):
            current = prior._attn_implementation
            prior._attn_implementation = (
                value.get(f"prior_configs.{index}", current) if isinstance(value, dict) else value
            )

    def validate(self) -> None:
        """See [`FastJukeboxBaseConfig.validate`]. Checks that the priors fit the VQ-VAE and one another."""
        self.vqvae_config.validate()
        if len(self.prior_configs) != self.num_levels:
            held = (
                ", ".join(level_name(prior.level, self.num_levels, numbered=True) for prior in self.prior_configs)
                or "none"
            )
            raise ValueError(
                f"`prior_configs` must list one prior for each of the VQ-VAE's {self.num_levels} levels, bottom first; "
                f"got {len(self.prior_configs)}: {held}"
            )
        for index, prior in enumerate(self.prior_configs):
            prior.validate()
            for field, wanted in self._wanted_of_prior(index, prior).items():
                found = getattr(prior, field)
                if found != wanted:
                    raise ValueError(
                        f"`prior_configs[{index}].{field}` must be {wanted!r} to fit the VQ-VAE at the "
                        f"{level_name(index, self.num_levels, numbered=True)}, got {shown(found)}"
                    )
            self._check_upper_ratio(index, prior)

    def _wanted_of_prior(self, index: int, prior: FastJukeboxPriorConfig) -> dict[str, int]:
        """Fields of the prior of a level that the VQ-VAE prescribes."""
        vqvae = self.vqvae_config
        wanted = {
            "level": index,
            "codebook_size": vqvae.codebook_size,
            "hop_length": vqvae.hop_lengths[index],
            "sampling_rate": vqvae.sampling_rate,
        }
        if index + 1 < vqvae.num_levels and prior.upper_codebook_size is not None:
            wanted["upper_codebook_size"] = vqvae.codebook_size
        return wanted

    def _check_upper_ratio(self, index: int, prior: FastJukeboxPriorConfig) -> None:
        name, hops = level_name(index, self.num_levels, numbered=True), self.hop_lengths
        if index + 1 == self.num_levels:
            if prior.upsampling_strides is not None:
                raise ValueError(
                    f"`prior_configs[{index}].upsampling_strides` must be None at the {name}, which has no level above "
                    f"it, got {prior.upsampling_strides!r}"
                )
            return
        wanted = hops[index + 1] // hops[index]
        if prior.upsampling_strides is None or prior.upper_ratio != wanted:
            raise ValueError(
                f"`prior_configs[{index}].upsampling_strides` must have the product {wanted} at the {name}, the ratio "
                f"of the VQ-VAE's hop lengths {hops[index + 1]} and {hops[index]}; got {prior.upsampling_strides!r}"
            )

    def to_dict(self) -> dict[str, object]:
        """As [`~transformers.PreTrainedConfig.to_dict`], the parts as dicts too."""
        output = super().to_dict()
        parts = [self.vqvae_config, *self.prior_configs]
        vqvae, *priors = (_without(part.to_diff_dict(), _STATED_ONCE) for part in parts)
        return {**output, "vqvae_config": vqvae, "prior_configs": priors}


def _as_prior_config(index: int, prior: PreTrainedModel) -> FastJukeboxPriorConfig:
    if isinstance(prior, FastJukeboxPriorConfig):
        return prior
    if isinstance(prior, dict):
        try:
            return FastJukeboxPriorConfig(**_without(prior, ("model_type",)))
        except ValueError as error:
            raise ValueError(f"`prior_configs[{index}]`: {error}") from error
    raise ValueError(
        f"`prior_configs[{index}]` must be a FastJukeboxPriorConfig or a dict of its fields, got {type(prior).__name__}"
    )


def _without(mapping: dict[str, object], keys: Sequence[str]) -> dict[str, object]:
    return {key: value for key, value in mapping.items() if key not in keys}


_PAPER_UPSAMPLER = {
    "hidden_size": 1920,
    "num_attention_heads": 1,
    "n_ctx": 8192,
    "num_rows": 128,
    "conditioner_width": 1024,
    "conditioner_depth": 16,
    "conditioner_dilation_growth_rate": 3,
    "conditioner_dilation_cycle": 8,
}
_MINI_UPSAMPLER = {
    **_PAPER_UPSAMPLER,
    "hidden_size": 180,
    "n_ctx": 2048,
    "num_rows": 64,
    "conditioner_width": 128,
    "conditioner_depth": 8,
    "conditioner_dilation_cycle": 4,
}


def _priors(depth: int, codebook_size: int, upsampler: Mapping[str, int], **top: int) -> list[FastJukeboxPriorConfig]:
    """Two upsamplers and an unconditional top prior, bottom first."""
    shared = {"num_hidden_layers": depth, "codebook_size": codebook_size}
    upper = {"upsampling_strides": [2, 2], "upper_codebook_size": codebook_size}
    return [
        FastJukeboxPriorConfig(level=0, hop_length=8, **shared, **upper, **upsampler),
        FastJukeboxPriorConfig(level=1, hop_length=32, conditioner_residual_scale=True, **shared, **upper, **upsampler),
        FastJukeboxPriorConfig(level=2, hop_length=128, num_attention_heads=2, **shared, **top),
    ]


def _paper_priors(depth: int) -> list[FastJukeboxPriorConfig]:
    """Priors of the Fast Jukebox paper: the 1B Jukebox's widths and contexts."""
    return _priors(depth, 2048, _PAPER_UPSAMPLER, hidden_size=2048, n_ctx=6144, num_rows=64)


def _paper(depth: int) -> FastJukeboxConfig:
    """The paper's sizes with the published VQ-VAE."""
    return FastJukeboxConfig(vqvae_config=FastJukeboxVQVAEConfig(), prior_configs=_paper_priors(depth))


def _mini(depth: int) -> FastJukeboxConfig:
    """The paper's proportions at about an eleventh of its widths and a quarter of its contexts."""
    vqvae = FastJukeboxVQVAEConfig(
        width=16, depth=2, multipliers=[1, 1, 2], embed_dim=32, codebook_size=512, revival_threshold=0.2
    )
    priors = _priors(depth, 512, _MINI_UPSAMPLER, hidden_size=192, n_ctx=1536, num_rows=32)
    return FastJukeboxConfig(vqvae_config=vqvae, prior_configs=priors)


PRESETS = {
    "fastjukebox-72": (_paper, 72),
    "fastjukebox-24": (_paper, 24),
    "fastjukebox-18": (_paper, 18),
    "fastjukebox-mini-36": (_mini, 36),
    "fastjukebox-mini-12": (_mini, 12),
    "fastjukebox-mini-9": (_mini, 9),
}
