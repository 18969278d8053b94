"""Loading of one part (the VQ-VAE, or the prior of one level) from a repository that holds a complete model."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from huggingface_hub import is_offline_mode
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import resolve_revision

from fast_jukebox.hub import Download, clear_hub_errors, download_arguments, prefer_cache
from fast_jukebox.hub.push_mixin import HubPushMixin
from fast_jukebox.models.configuration_utils import PathLike, clear_config_errors, finish_saving, written_config
from fast_jukebox.models.weight_files import clear_shape_errors, clear_weight_errors, file_shapes, open_weights
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.files import read_file
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from typing_extensions import Unpack  # comes with torch

logger = logging.getLogger(__name__)

COMPOSITE_MODEL_TYPE = "fast_jukebox"
ADAPTER_CONFIG = "adapter_config.json"
LARGEST_INDEX = 2**26
"""Bytes of an index of shards at most."""
_REMEDY = "save it again, or fetch it again"


Layout = Callable[..., tuple[dict[str, object], dict[str, Tensor]]]
"""Reads another package's layout: (source, its config.json, part or None for all, level, **download) to our
configuration as a dict and our tensors by name."""
_LAYOUTS: dict[str, Layout] = {}

Part = TypeVar("Part", bound="SubmodelLoadingMixin")


def default_model_path() -> Path:
    """The folder of the model that comes inside the package, which `pipeline("fast-jukebox")` loads with no network."""
    return Path(str(resources.files("fast_jukebox") / "pretrained"))


def register_layout(model_type: str, read: Layout) -> None:
    """Let `from_pretrained` load models of another `model_type`, whose layout `read` knows."""
    _LAYOUTS[model_type] = read


def load_foreign(
    model_class: type[PreTrainedModel],
    source: PathLike,
    config: dict[str, object],
    part: str | None,
    level: int | None,
    **kwargs: object,
) -> PreTrainedModel | None:
    """A model of a registered layout, or None where `config` is of none of them.

    Args:
        model_class: ours.
        source: the folder or repository.
        config: its `config.json`.
        part: as [`register_layout`]'s functions take it, as is `level`.
        level: which prior.
        kwargs: of `from_pretrained`.
    """
    read = _LAYOUTS.get(str(config.get("model_type")))
    if read is None:
        return None
    own_config, weights = read(source, config, part, level, **download_arguments(kwargs))
    kwargs = {key: value for key, value in kwargs.items() if key not in (*Download.__annotations__, "variant")}
    made, kwargs = model_class.config_class.from_dict(own_config, return_unused_kwargs=True, **kwargs)
    result = model_class.from_pretrained(None, config=made, state_dict=weights, **kwargs)
    model = result[0] if isinstance(result, tuple) else result
    model.name_or_path = model.config.name_or_path = str(source)
    return result


def pin_revision(name_or_path: PathLike, download: Mapping[str, object]) -> Download:
    """`download` with the commit that its revision stands for now, so that all files of a load come from one commit; of
    the cache alone where the Hub cannot be reached.

    Raises:
        HubError: it cannot, and nothing of the repository is in the cache.
    """
    pinned = cast(Download, prefer_cache(name_or_path, download))
    if pinned.get("revision") is not None and os.path.isdir(name_or_path):
        logger.warning("`revision` %r is ignored: `%s` is a folder", pinned["revision"], name_or_path)
    revision = resolve_revision(
        name_or_path,
        pinned.get("revision"),
        token=pinned.get("token"),
        local_files_only=pinned.get("local_files_only", False),
        cache_dir=pinned.get("cache_dir"),
    )
    if revision is not None:
        pinned["revision"] = revision
    return pinned


def read_config(name_or_path: PathLike, **download: Unpack[Download]) -> dict[str, object]:
    """`config.json` of a folder or repository as it is written there.

    Raises:
        HubError: there is no such repository or revision, no right to read it, or no connection.
        OSError: it has no `config.json`.
        ValueError: that holds no mapping.
    """
    with clear_hub_errors(name_or_path, download.get("revision")):
        config = written_config(PreTrainedConfig.get_config_dict, name_or_path, **download)[0]
    if not config and find_file(name_or_path, ADAPTER_CONFIG, **download) is not None:
        raise OSError(
            f"`{name_or_path}` holds an adapter and no model: load the model that it was trained on, with the adapter "
            f"as `adapters={{level: {str(name_or_path)!r}}}`"
        )
    if not config:
        raise OSError(f"`{name_or_path}` has no config.json, so it holds no model of fast_jukebox")
    return config


def find_weights(name_or_path: PathLike, variant: str | None = None, **download: Unpack[Download]) -> dict[str, str]:
    """The file of each tensor, reading no tensor (of a sharded repository, fetching no shard).

    Args:
        name_or_path: a folder, or the name of a repository.
        variant: as in `from_pretrained`: `model.{variant}.safetensors`.
        download: `cache_dir`, `revision`, `token` and their like.

    Returns:
        A dict from tensor names to file names; empty where the repository has no safetensors.

    Raises:
        HubError: the repository cannot be read.
        OSError: the file of weights or the index of the shards is damaged.
    """
    single, index = _with_variant(SAFE_WEIGHTS_NAME, variant), _with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)
    # As in `from_pretrained`, one file wins over shards.
    path = cached_file(name_or_path, single, _raise_exceptions_for_missing_entries=False, **download)
    if path is not None:
        with open_weights(path) as file:
            return dict.fromkeys(file.keys(), single)
    path = find_file(name_or_path, index, **download)
    if path is None:
        return {}
    try:
        content = json.loads(read_file(path, LARGEST_INDEX))
        weights, _ = content["weight_map"], content["metadata"].items()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise OSError(
            f"`{index}` of `{name_or_path}` must hold `metadata` and a `weight_map` ({reason}): {_REMEDY}"
        ) from error
    strangers = [shard for shard in weights.values() if not is_shard(shard)] if isinstance(weights, dict) else [weights]
    if strangers:  # transformers would read pickles, and files of other folders
        raise OSError(
            f"the `weight_map` in `{index}` of `{name_or_path}` must hold names of `.safetensors` files beside it by "
            f"tensor name, got {shown(strangers[0])}: {_REMEDY}"
        )
    return weights


def is_shard(name: object, suffix: str = ".safetensors") -> bool:
    """True for the name of a file of weights that lies beside its index."""
    return isinstance(name, str) and name.endswith(suffix) and re.fullmatch(r"[^/\\\0]+", name) is not None


def find_file(name_or_path: PathLike, filename: str, **download: Unpack[Download]) -> str | None:
    """Path of a file of a folder or repository; None where it has none of that name.

    Raises:
        HubError: the repository cannot be read.
    """
    path: str | None = cached_file(name_or_path, filename, _raise_exceptions_for_missing_entries=False, **download)
    if path is None:
        # A file that is not there differs from one that could not be asked for only in the error that is raised.
        with clear_hub_errors(name_or_path, download.get("revision")):
            try:
                cached_file(name_or_path, filename, **download)
            except OSError as error:
                if error.__cause__ is not None:  # of a file that is not there, it has none
                    raise
    return path


def check_weights(name_or_path: PathLike, variant: str | None = None, **download: Unpack[Download]) -> dict[str, str]:
    """As [`find_weights`], for weights that must be there, all of them.

    Raises:
        HubError: the repository cannot be read.
        OSError: there are no safetensors weights, or the folder lacks a shard that the index names.
    """
    with clear_hub_errors(name_or_path, download.get("revision")):
        weights = find_weights(name_or_path, variant, **download)
    if not weights:
        raise OSError(
            f"`{name_or_path}` holds no weights in safetensors: neither {_with_variant(SAFE_WEIGHTS_NAME, variant)} "
            f"nor {_with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)}"
        )
    if os.path.isdir(name_or_path) or download.get("local_files_only") or is_offline_mode():
        for shard in sorted(set(weights.values())):
            _fetch_shard(name_or_path, shard, weights, variant, download)
    return weights


def read_weights(
    name_or_path: PathLike, prefix: str, variant: str | None = None, **download: Unpack[Download]
) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it; other tensors and shards are not read.

    Raises:
        ValueError: there is no such tensor.
        HubError: the repository cannot be read.
        OSError: a shard that the index names is not there.
    """
    with clear_hub_errors(name_or_path, download.get("revision")):
        weights = find_weights(name_or_path, variant, **download)
    wanted = {key: file for key, file in weights.items() if key.startswith(prefix)}
    if not wanted:
        raise ValueError(
            f"`{name_or_path}` holds no weights of `{prefix.rstrip('.')}`; it holds "
            f"{', '.join(f'`{part}`' for part in parts_of(weights)) or 'no safetensors weights'}: {_REMEDY}"
        )
    tensors = {}
    for name in sorted(set(wanted.values())):
        with open_weights(_fetch_shard(name_or_path, name, weights, variant, download)) as file:
            for key in (key for key, its_file in wanted.items() if its_file == name):
                tensors[key.removeprefix(prefix)] = file.get_tensor(key)
    return tensors


def _fetch_shard(
    name_or_path: PathLike, name: str, weights: Mapping[str, str], variant: str | None, download: Download
) -> str:
    with clear_hub_errors(name_or_path, download.get("revision")):
        path = find_file(name_or_path, name, **download)
        if path is None:
            parts = ", ".join(f"`{part}`" for part in parts_of(key for key, file in weights.items() if file == name))
            raise OSError(
                f"`{name_or_path}` lacks {name}, in which its {_with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)} says "
                f"that weights of {parts} are: {_REMEDY}"
            )
    return path


def load_whole(
    load: partial[Any], source: PathLike, prefix: str = "", variant: str | None = None, **download: Unpack[Download]
) -> Any:
    """Load with transformers' `from_pretrained`, which draws what the files lack at random, and refuse that.

    Args:
        load: `from_pretrained` with its arguments; with `ignore_mismatched_sizes=True` tensors may be missing.
        source: the folder or repository of the weights.
        prefix: of the model's names in its files.
        variant, download: as in [`find_weights`].

    Returns:
        The model; with `output_loading_info=True` among the arguments a pair, as transformers has it.

    Raises:
        ValueError: tensors of the model are missing: names the first one, and the file that lacks it.
    """
    model, info = load(output_loading_info=True)
    missing = [prefix + name for name in sorted(info["missing_keys"])]
    if missing and not load.keywords.get("ignore_mismatched_sizes"):
        weights = find_weights(source, variant, **download)
        single, index = _with_variant(SAFE_WEIGHTS_NAME, variant), _with_variant(SAFE_WEIGHTS_INDEX_NAME, variant)
        file = weights.get(missing[0], single if single in weights.values() else index)  # an index may name it in vain
        others = f" and {len(missing) - 1} other tensors" if len(missing) > 1 else ""
        raise ValueError(
            f"{file} of `{source}` lacks {missing[0]}{others} of the model that its configuration describes: save it "
            "again, or fetch it again; or draw them at random with `ignore_mismatched_sizes=True`, and train them"
        )
    return (model, info) if load.keywords.get("output_loading_info") else model


def parts_of(weights: Iterable[str]) -> list[str]:
    """The parts of a complete model that tensor names belong to, as `["priors.0", "priors.1", "vqvae"]`."""
    return sorted({".".join(key.split(".")[: 2 if key.startswith("priors.") else 1]) for key in weights})


class SubmodelLoadingMixin(HubPushMixin):
    """`from_pretrained` of a part: from its repository, or from one that holds a complete Fast Jukebox model.

    Set `composite_part` to the part's name in the complete model: `"vqvae"`, or `"priors"`, of which `level` picks one.
    """

    composite_part: ClassVar[str]
    config_class: ClassVar[type[PreTrainedConfig]]

    @classmethod
    def from_pretrained(
        cls: type[Part],
        pretrained_model_name_or_path: PathLike | None,
        *model_args: object,
        level: int | None = None,
        **kwargs: object,
    ) -> Part:
        """Load as [`~transformers.PreTrainedModel.from_pretrained`] does, from safetensors only.

        Args:
            pretrained_model_name_or_path: a folder or repository that holds this model, or a complete model of which
                this is a part; then no other part is read (nor fetched, as far as it is in other shards).
            model_args: passed on.
            level: which prior of a complete model, 0 is the bottom. Of a prior that stands alone, its level.
            kwargs: passed on.

        Raises:
            ValueError: `level` is missing, does not exist or is not the level of the model found; or the complete
                model has no weights of this part; or weights are of another shape than the configuration says, or some
                are missing: names them.
            HubError: there is no such repository or revision, no right to read it, or no connection.
            OSError: there is no configuration or no weights, or a file of weights is lost.
        """
        finish_saving(pretrained_model_name_or_path)
        kwargs.setdefault("use_safetensors", True)
        load = super().from_pretrained  # type: ignore[misc]
        make: type[PreTrainedModel] = cls
        source = pretrained_model_name_or_path
        download, variant = download_arguments(kwargs), cast("str | None", kwargs.get("variant"))
        if source is None or isinstance(kwargs.get("config"), PreTrainedConfig):
            whole = partial(load, source, *model_args, **kwargs)
            with clear_hub_errors(source, download.get("revision")):
                result = whole() if source is None else load_whole(whole, source, variant=variant, **download)
                return _checked_level(result, level)
        download = pin_revision(source, download)
        config = read_config(source, **download)
        foreign = load_foreign(make, source, config, cls.composite_part, level, **{**kwargs, **download})
        if foreign is not None:
            return foreign
        if config.get("model_type") != COMPOSITE_MODEL_TYPE:
            own_type = cls.config_class.model_type
            if config.get("model_type", own_type) != own_type:
                raise ValueError(
                    f"`model_type` of `{source}` must be {own_type!r}, or {COMPOSITE_MODEL_TYPE!r} for a complete "
                    f"model that holds one, got {shown(config['model_type'])}"
                )
            found = check_weights(source, variant, **download) if kwargs["use_safetensors"] else {}

            def empty() -> PreTrainedModel:
                return make(cls.config_class.from_dict(config, return_unused_kwargs=True, **kwargs)[0])

            with (
                clear_hub_errors(source, download.get("revision")),
                clear_weight_errors(source, found, download),
                clear_shape_errors(source, empty, lambda: file_shapes(source, found, download)),
            ):
                whole = partial(load, source, *model_args, **{**kwargs, **download})
                return _checked_level(load_whole(whole, source, variant=variant, **download), level)

        own_config, prefix = _part_of_config(config, cls.composite_part, level, source)
        weights = read_weights(source, prefix, variant, **download)
        kwargs = {key: value for key, value in kwargs.items() if key not in (*Download.__annotations__, "variant")}
        with clear_config_errors(source, kwargs):
            own_config, kwargs = cls.config_class.from_dict(own_config, return_unused_kwargs=True, **kwargs)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        with clear_shape_errors(source, lambda: make(own_config), lambda: shapes, prefix):
            whole = partial(load, None, *model_args, config=own_config, state_dict=weights, **kwargs)
            result = load_whole(whole, source, prefix, variant, **download)
        model = result[0] if isinstance(result, tuple) else result  # a pair with `output_loading_info=True`
        model.name_or_path = model.config.name_or_path = str(source)
        return result


def _part_of_config(
    config: dict[str, object], part: str, level: int | None, source: PathLike
) -> tuple[dict[str, object], str]:
    """Configuration and tensor prefix of one part of a complete model."""
    if part == "vqvae":
        if level is not None:
            raise ValueError(f"`level` picks a prior; the VQ-VAE holds every level, got {shown(level)}")
        own, prefix, field = config.get("vqvae_config"), "vqvae.", "vqvae_config"
        if own is None:
            raise ValueError(f"`{source}` lacks `vqvae_config`; its config.json holds {sorted(config)}")
    else:
        priors = config.get("prior_configs") or []
        if not isinstance(priors, list):
            raise ValueError(f"`prior_configs` of `{source}` must be a list, got {type(priors).__name__}")
        known = range(len(priors))
        if level is None or level not in known:
            names = ", ".join(level_name(known_level, len(priors), numbered=True) for known_level in known)
            raise ValueError(
                f"`level` must name a prior of `{source}`, which holds {names or 'none'}; got {shown(level)}"
            )
        own, prefix, field = priors[level], f"priors.{level}.", f"prior_configs[{level}]"
    if not isinstance(own, dict):
        raise ValueError(f"`{field}` of `{source}` must be a dict of its fields, got {type(own).__name__}")
    own = {key: value for key, value in own.items() if key != "model_type"}
    # The complete model's configuration states the precision of the priors.
    return {**own, "dtype": "float32" if part == "vqvae" else config.get("dtype")}, prefix


def _checked_level(result: Part, level: int | None) -> Part:
    model: PreTrainedModel = result[0] if isinstance(result, tuple) else result
    found = getattr(model.config, "level", None)
    if level is not None and found != level:
        held = "every level" if found is None else f"level {found}"
        raise ValueError(f"`level` must be that of the model loaded, which holds {held}; got {shown(level)}")
    return result


def _with_variant(filename: str, variant: str | None) -> str:
    stem, _, extension = filename.rpartition(".")
    return filename if variant is None else f"{stem}.{variant}.{extension}"
