"""Loading one part (the VQ-VAE, or the prior of one level) from a repository that holds a whole model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import resolve_revision

COMPOSITE_MODEL_TYPE = "fast_jukebox"
# Arguments of `from_pretrained` that say where files are, not what is made of them.
_DOWNLOAD_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")

PathLike = str | os.PathLike[str]
Part = TypeVar("Part", bound="SubmodelLoadingMixin")


def level_name(level: int, num_levels: int = 3) -> str:
    """Name of a level for messages: bottom, middle or top of three levels, `level 1` and so on of another number."""
    names = {1: ("only",), 2: ("bottom", "top"), 3: ("bottom", "middle", "top")}.get(num_levels)
    return f"{names[level]} level ({level})" if names and 0 <= level < num_levels else f"level {level}"


def download_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `from_pretrained`'s arguments that say where files are."""
    return {key: arguments[key] for key in _DOWNLOAD_ARGUMENTS if arguments.get(key) is not None}


def read_config(name_or_path: PathLike, **download: Any) -> dict[str, Any]:
    """`config.json` of a folder or repository as it is written there."""
    return PreTrainedConfig.get_config_dict(name_or_path, **download)[0]


def find_weights(name_or_path: PathLike, variant: str | None = None, **download: Any) -> dict[str, str]:
    """Which file holds which tensor, reading no tensor (of a sharded repository, fetching no shard).

    Args:
        name_or_path: a folder, or the name of a repository.
        variant: as in `from_pretrained`: `model.{variant}.safetensors`.
        download: `cache_dir`, `revision`, `token` and their like.

    Returns:
        A dict from tensor names to file names; empty where the repository has no safetensors.
    """
    single, index = _with_variant(SAFE_WEIGHTS_NAME, variant), _with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)
    # As in `from_pretrained`, one file wins over shards.
    path = cached_file(name_or_path, single, _raise_exceptions_for_missing_entries=False, **download)
    if path is not None:
        with safe_open(path, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    path = cached_file(name_or_path, index, _raise_exceptions_for_missing_entries=False, **download)
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)["weight_map"]


def read_weights(name_or_path: PathLike, prefix: str, variant: str | None = None, **download: Any) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it; other tensors and shards are not read.

    Raises:
        ValueError: there is no such tensor.
    """
    weights = find_weights(name_or_path, variant, **download)
    wanted = {key: file for key, file in weights.items() if key.startswith(prefix)}
    if not wanted:
        raise ValueError(
            f"`{name_or_path}` holds no weights of `{prefix.rstrip('.')}`; it holds {_parts_message(weights)}"
        )
    tensors = {}
    for name in sorted(set(wanted.values())):
        with safe_open(cached_file(name_or_path, name, **download), framework="pt") as file:
            for key in (key for key, its_file in wanted.items() if its_file == name):
                tensors[key.removeprefix(prefix)] = file.get_tensor(key)
    return tensors


def parts_of(weights: Iterable[str]) -> list[str]:
    """The parts of a composite model that tensor names belong to, as `["priors.0", "priors.1", "vqvae"]`."""
    return sorted({".".join(key.split(".")[: 2 if key.startswith("priors.") else 1]) for key in weights})


class SubmodelLoadingMixin:
    """Lets a model be loaded alone from a repository of its own or from one that holds a whole Fast Jukebox model.

    Set `composite_part` to the part's name in the whole model: `"vqvae"`, or `"priors"`, of which `level` picks one.
    """

    composite_part: ClassVar[str]

    @classmethod
    def from_pretrained(
        cls: type[Part],
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        level: int | None = None,
        **kwargs: Any,
    ) -> Part:
        """Load as [`~transformers.PreTrainedModel.from_pretrained`] does, from safetensors only.

        Args:
            pretrained_model_name_or_path: a folder or repository that holds this model, or a whole model of which this
                is a part; then no other part is read (nor fetched, as far as it lies in other shards).
            model_args: passed on.
            level: which prior of a whole model, 0 is the bottom. Must be the prior's own where it stands alone.
            kwargs: passed on.

        Raises:
            ValueError: `level` is missing, does not exist or is not the level of the model found; or the whole model
                has no weights of this part.
        """
        kwargs.setdefault("use_safetensors", True)
        load = super().from_pretrained  # type: ignore[misc]
        if pretrained_model_name_or_path is None or isinstance(kwargs.get("config"), PreTrainedConfig):
            return _checked_level(load(pretrained_model_name_or_path, *model_args, **kwargs), level)
        download = download_arguments(kwargs)
        download["revision"] = resolve_revision(
            pretrained_model_name_or_path,
            download.get("revision"),
            token=download.get("token"),
            local_files_only=download.get("local_files_only", False),
            cache_dir=download.get("cache_dir"),
        )
        config = read_config(pretrained_model_name_or_path, **download)
        if config.get("model_type") != COMPOSITE_MODEL_TYPE:
            own_type = cls.config_class.model_type  # type: ignore[attr-defined]
            if config.get("model_type", own_type) != own_type:
                raise ValueError(
                    f"`model_type` of `{pretrained_model_name_or_path}` must be {own_type!r}, or "
                    f"{COMPOSITE_MODEL_TYPE!r} for a whole model that holds one, got {config['model_type']!r}"
                )
            return _checked_level(load(pretrained_model_name_or_path, *model_args, **kwargs), level)

        own_config, prefix = _part_of_config(config, cls.composite_part, level, pretrained_model_name_or_path)
        weights = read_weights(pretrained_model_name_or_path, prefix, kwargs.pop("variant", None), **download)
        kwargs = {key: value for key, value in kwargs.items() if key not in _DOWNLOAD_ARGUMENTS}
        own_config, kwargs = cls.config_class.from_dict(  # type: ignore[attr-defined]
            own_config, return_unused_kwargs=True, **kwargs
        )
        result = load(None, *model_args, config=own_config, state_dict=weights, **kwargs)
        model = result[0] if isinstance(result, tuple) else result  # a pair with `output_loading_info=True`
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return result


def _part_of_config(
    config: dict[str, Any], part: str, level: int | None, source: PathLike
) -> tuple[dict[str, Any], str]:
    """Configuration and tensor prefix of one part of a whole model."""
    if part == "vqvae":
        if level is not None:
            raise ValueError(f"`level` picks a prior; the VQ-VAE holds every level, got {level!r}")
        own, prefix = config.get("vqvae_config"), "vqvae."
        if own is None:
            raise ValueError(f"`{source}` lacks `vqvae_config`; its config.json holds {sorted(config)}")
    else:
        priors = config.get("prior_configs") or []
        known = range(len(priors))
        if level is None or level not in known:
            names = ", ".join(level_name(known_level, len(priors)) for known_level in known)
            raise ValueError(f"`level` must name a prior of `{source}`, which holds {names or 'none'}; got {level!r}")
        own, prefix = priors[level], f"priors.{level}."
    own = {key: value for key, value in own.items() if key != "model_type"}
    # The weights' own precision is that of the file, which the whole model's configuration states.
    return {**own, "dtype": config.get("dtype")}, prefix


def _checked_level(result: Any, level: int | None) -> Any:
    model = result[0] if isinstance(result, tuple) else result
    found = getattr(model.config, "level", None)
    if level is not None and found != level:
        held = "every level" if found is None else level_name(found)
        raise ValueError(f"`level` must be that of the model loaded, which holds {held}; got {level!r}")
    return result


def _parts_message(weights: Iterable[str]) -> str:
    return ", ".join(f"`{part}`" for part in parts_of(weights)) or "no safetensors weights"


def _with_variant(filename: str, variant: str | None) -> str:
    if variant is None:
        return filename
    stem, extension = filename.rsplit(".", 1)
    return f"{stem}.{variant}.{extension}"


__all__ = [
    "COMPOSITE_MODEL_TYPE",
    "SubmodelLoadingMixin",
    "download_arguments",
    "find_weights",
    "level_name",
    "parts_of",
    "read_config",
    "read_weights",
]
