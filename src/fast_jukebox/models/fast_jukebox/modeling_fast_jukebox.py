"""The complete model: one VQ-VAE and one prior a level."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from fast_jukebox.hub import Download, clear_hub_errors, download_arguments
from fast_jukebox.hub.push_mixin import HubPushMixin
from fast_jukebox.models.adapters import check_adapter_levels, load_adapters
from fast_jukebox.models.configuration_utils import PathLike, finish_saving
from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.fast_jukebox.features_fast_jukebox import FastJukeboxFeaturesMixin
from fast_jukebox.models.fast_jukebox.generation_fast_jukebox import FastJukeboxGenerationMixin
from fast_jukebox.models.loading import (
    COMPOSITE_MODEL_TYPE,
    check_weights,
    load_foreign,
    load_whole,
    parts_of,
    pin_revision,
    read_config,
)
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.models.vqvae.modeling_vqvae import FastJukeboxVQVAE
from fast_jukebox.models.weight_files import clear_shape_errors, clear_weight_errors, file_shapes
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.text import shown

Model = TypeVar("Model", bound="FastJukeboxModel")


@dataclass
class FastJukeboxOutput(ModelOutput):
    """Output of [`FastJukeboxModel.forward`]. Lists have one entry a level, bottom first.

    Args:
        loss (`Tensor` scalar): sum of `losses`.
        losses (`Tensor` (levels,)): nats a code that each prior needs.
        logits (`list` of `Tensor` (N, L, K)): of each prior, for the codes that it scored.
        codes (`list` of int64 `Tensor` (N, T / hop length)): of the complete recording.
    """

    loss: Tensor | None = None
    losses: Tensor | None = None
    logits: list[Tensor] | None = None
    codes: list[Tensor] | None = None


class FastJukeboxModel(FastJukeboxGenerationMixin, FastJukeboxFeaturesMixin, HubPushMixin, PreTrainedModel):
    """A VQ-VAE and one sparse transformer prior for each of its levels (Fast Jukebox, section 3; Jukebox, section 4).

    `model.vqvae` is a [`FastJukeboxVQVAE`], `model.priors` lists a [`FastJukeboxPrior`] a level, bottom first. Either
    part is a model too, can be saved and trained alone, and is loaded alone from the complete model's repository by
    `FastJukeboxVQVAE.from_pretrained(name)` and `FastJukeboxPrior.from_pretrained(name, level=2)`.

    The dtype of the priors is the file's unless `dtype` is given to `from_pretrained`; they run in float32, bfloat16
    and float16, on CPUs too, where float32 is the fastest. The VQ-VAE stays in float32, so that neither codes nor sound
    depend on it.

    `model.processor` is a [`FastJukeboxProcessor`] where the model has labels and its folder the vocabularies, else
    `None`; one may be set. With it `generate` takes `metadata` in words, and it is saved with the model.
    `model.adapters` is by level the folder or Hub name of the adapter that was merged into the prior.
    """

    config_class = FastJukeboxConfig
    base_model_prefix = "fast_jukebox"
    main_input_name = "audio"
    input_modalities = ("audio",)
    output_modalities = ("audio",)
    supports_gradient_checkpointing = True
    # transformers gathers these from the parts, but does not look into the list of priors.
    _no_split_modules = sorted({*FastJukeboxVQVAE._no_split_modules, *FastJukeboxPrior._no_split_modules})
    _supports_sdpa = True
    processor: FastJukeboxProcessor | None = None
    adapters: Mapping[int, str] = MappingProxyType({})

    def __init__(self, config: FastJukeboxConfig) -> None:
        config.validate()  # its fields may have changed since it was made
        super().__init__(config)
        config.vqvae_config.dtype = torch.float32
        for prior_config in config.prior_configs:
            prior_config.dtype = config.dtype
        self.vqvae = FastJukeboxVQVAE(config.vqvae_config)
        self.priors = nn.ModuleList(FastJukeboxPrior(prior_config) for prior_config in config.prior_configs)
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """`torch.dtype` of the priors; the VQ-VAE has its own."""
        return next(self.priors.parameters()).dtype

    def forward(self, audio: Tensor, metadata: Sequence[Tensor | None] | None = None) -> FastJukeboxOutput:
        """Score recordings: their codes at every level, and how well each prior predicts the first window of them.

        A prior scores as many codes as the recording gives, at most one context, with the level above it as
        condition. Gradients reach the priors; the VQ-VAE encodes without.

        Args:
            audio: (N, T) in [-1, 1] at `config.sampling_rate`; T a positive multiple of the largest hop length.
            metadata: label vectors of each level, bottom first, int64 (N, 4 + genre slots) or None where the prior is
                not labelled; None for no labels at all.

        Raises:
            ValueError: audio of another rank or length, or `metadata` of another number of levels.
        """
        if metadata is None:
            metadata = [None] * len(self.priors)
        if len(metadata) != len(self.priors):
            raise ValueError(
                f"`metadata` must have one entry for each of {len(self.priors)} levels, got {len(metadata)}"
            )
        codes = self.vqvae.encode(audio)
        outputs = []
        for level, prior in enumerate(self.priors):
            length = min(codes[level].shape[1], prior.config.n_ctx)
            own, upper = codes[level][:, :length], None
            if level + 1 < len(codes):
                upper = codes[level + 1][:, : length // prior.config.upper_ratio]
            outputs.append(prior(own, upper_codes=upper, metadata=metadata[level], labels=own))
        losses = torch.stack([output.loss for output in outputs])
        return FastJukeboxOutput(
            loss=losses.sum(), losses=losses, logits=[output.logits for output in outputs], codes=codes
        )

    @classmethod
    def from_levels(
        cls: type[Model],
        vqvae: FastJukeboxVQVAE | PathLike,
        priors: Sequence[FastJukeboxPrior | PathLike],
        **kwargs: Any,
    ) -> Model:
        """Join parts to a complete model, which shares them with the caller.

        Args:
            vqvae: the VQ-VAE, or the folder or repository it is loaded from.
            priors: one for each level, bottom first, given in the same ways. A repository may also hold a complete
                model, of which the part is taken.
            kwargs: for `from_pretrained` of the parts given by name, such as `dtype` or `revision`.

        The model has a `processor` if one lies beside each labelled prior.

        Raises:
            ValueError: the parts do not fit together: names the field, its value and what fits; or the dtypes of the
                priors differ.
        """
        if not isinstance(vqvae, FastJukeboxVQVAE):
            vqvae = FastJukeboxVQVAE.from_pretrained(vqvae, **kwargs)
        levels = [
            prior
            if isinstance(prior, FastJukeboxPrior)
            else FastJukeboxPrior.from_pretrained(prior, level=level, **kwargs)
            for level, prior in enumerate(priors)
        ]
        dtypes = {str(prior.dtype).removeprefix("torch.") for prior in levels}
        if len(dtypes) > 1:
            raise ValueError(f"`dtype` must be the same in all priors, got {', '.join(sorted(dtypes))}")
        config = FastJukeboxConfig(
            vqvae_config=copy.deepcopy(vqvae.config), prior_configs=[copy.deepcopy(prior.config) for prior in levels]
        )
        config.dtype = levels[0].dtype if levels else vqvae.dtype
        with torch.device("meta"):  # the parts bring their weights
            model = cls(config)
        model.vqvae, model.priors = vqvae, nn.ModuleList(levels)
        model.config.vqvae_config = vqvae.config
        model.config.prior_configs = [prior.config for prior in levels]
        model.processor = _joined_processor(priors, levels, download_arguments(kwargs))
        return model.train(vqvae.training)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: PathLike | None,
        *model_args: object,
        adapters: Mapping[int, PathLike] | None = None,
        **kwargs: Any,
    ) -> Model:
        """Load as [`~transformers.PreTrainedModel.from_pretrained`] does, from safetensors only.

        Args:
            pretrained_model_name_or_path: a folder or repository.
            model_args: passed on.
            adapters: folder or Hub name of an adapter (see [`~fast_jukebox.models.adapters.add_lora`]) by level, which
                is merged into the prior.
            kwargs: passed on.

        Raises:
            ImportError: `adapters` are given, and peft is not installed.
            ValueError: the folder or repository holds something else, or lacks a level: names it and what is there; or
                weights are of another shape than the configuration says, or some are missing: names them; or an adapter
                is of another level or does not fit.
            HubError: there is no such repository or revision, no right to read it, or no connection.
            OSError: there is no configuration or no weights, or a file of weights is lost.
        """
        if adapters:
            common = ("cache_dir", "token", "local_files_only")
            of_all = download_arguments({key: kwargs[key] for key in common if key in kwargs})
            check_adapter_levels(adapters, **of_all)  # before long work
            result = cls.from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
            load_adapters(result[0] if isinstance(result, tuple) else result, adapters, **of_all)
            return result
        finish_saving(pretrained_model_name_or_path)
        kwargs.setdefault("use_safetensors", True)
        source = pretrained_model_name_or_path
        weights: dict[str, str] = {}
        config: PreTrainedConfig = kwargs.get("config")
        download = download_arguments(kwargs)
        if source is not None:
            download = pin_revision(source, download)
            if not isinstance(config, PreTrainedConfig):
                written = read_config(source, **download)
                foreign = load_foreign(cls, source, written, None, None, **{**kwargs, **download})
                if foreign is not None:
                    return _with_processor(foreign, source, download)
                _check_model_type(source, written)
                config = FastJukeboxConfig.from_pretrained(config or source, **download)
            if kwargs["use_safetensors"]:
                weights = check_weights(source, kwargs.get("variant"), **download)
                _check_levels(source, parts_of(weights), config.num_levels)
            kwargs.update(download)
        with (
            clear_hub_errors(source, download.get("revision")),
            clear_weight_errors(source or "", weights, download),
            clear_shape_errors(source, lambda: cls(config), lambda: file_shapes(source or "", weights, download)),
        ):
            load = partial(super().from_pretrained, source, *model_args, **kwargs)
            if source is None:
                return load()
            result = load_whole(load, source, variant=kwargs.get("variant"), **download)
        return _with_processor(result, source, download)

    def save_pretrained(
        self, save_directory: PathLike, *args: object, max_shard_size: int | str = "1GB", **kwargs: Any
    ) -> None:
        """Save as [`~transformers.PreTrainedModel.save_pretrained`] does.

        The shards are smaller than transformers' own, so that loading one level alone fetches little of the others.
        """
        if self.processor is not None and kwargs.get("is_main_process", True):
            self.processor.check(self.config)
            self.processor.save_pretrained(save_directory)
        super().save_pretrained(save_directory, *args, max_shard_size=max_shard_size, **kwargs)


def _with_processor(result: Model, source: PathLike, download: Download) -> Model:
    """The loaded result, its model with the processor beside it, if there is one."""
    model: PreTrainedModel = (
        result[0] if isinstance(result, tuple) else result
    )  # a pair with `output_loading_info=True`
    model.processor = FastJukeboxProcessor.find(source, model.config, **download)
    return result


def _joined_processor(
    given: Sequence[FastJukeboxPrior | PathLike], priors: Sequence[FastJukeboxPrior], download: Download
) -> FastJukeboxProcessor | None:
    """The processor of a model made of parts, where one lies beside each prior that has labels."""
    found = [
        None if isinstance(source, FastJukeboxPrior) else FastJukeboxProcessor.find(source, prior.config, **download)
        for source, prior in zip(given, priors, strict=True)
    ]
    labelled = [own for own, prior in zip(found, priors, strict=True) if prior.config.has_labels]
    return None if not labelled or None in labelled else FastJukeboxProcessor.join(found)


def _check_model_type(source: PathLike, config: Mapping[str, object]) -> None:
    """Refuse a repository that holds no complete model."""
    found = config.get("model_type")
    if found != COMPOSITE_MODEL_TYPE:
        hint = ""
        if str(found).startswith(COMPOSITE_MODEL_TYPE):
            hint = "; load a part with its own class, or join parts with FastJukeboxModel.from_levels"
        raise ValueError(f"`model_type` of `{source}` must be {COMPOSITE_MODEL_TYPE!r}, got {shown(found)}{hint}")


def _check_levels(source: PathLike, found: Sequence[str], num_levels: int) -> None:
    """Refuse a repository in which all weights of a part are missing."""
    names = {"vqvae": "the VQ-VAE"}
    names.update(
        {f"priors.{level}": f"the {level_name(level, num_levels, numbered=True)}" for level in range(num_levels)}
    )
    missing = [part for part in names if part not in found]
    if missing:
        raise ValueError(
            f"`{source}` lacks the weights of {' and '.join(f'{names[part]} (`{part}`)' for part in missing)}; "
            f"it holds those of {', '.join(f'`{part}`' for part in found)}: save it again, or fetch it again"
        )
