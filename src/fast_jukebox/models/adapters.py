"""LoRA and other adapters of peft on a prior: made, saved beside the name of their base, loaded, merged."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from fast_jukebox.hub import Download, prefer_cache
from fast_jukebox.models.configuration_utils import PathLike
from fast_jukebox.models.loading import ADAPTER_CONFIG, find_file, pin_revision
from fast_jukebox.models.weight_files import open_weights
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.utils.files import check_folder, read_file, write_file
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from peft import PeftModel
    from typing_extensions import Unpack  # comes with torch

logger = logging.getLogger(__name__)

ADAPTER_WEIGHTS = "adapter_model.safetensors"

LABELS = ("artist_embedding", "genre_embedding")
"""Names of the embeddings that are trained beside adapters where there are new artists and genres."""

TARGETS = ("qkv", "projection", "expand", "contract")
"""Names of the four matrices of each layer of a prior, which get adapters by default."""

_ADAPTER = "default"
_IMPORTED = ("megatron_config", "megatron_core")
"""Settings by which peft imports a module that a file names; they are of another kind of model."""
_SAMPLE = "base_sample"
_LARGEST_CONFIG = 2**20
_LARGEST_RANK = 2**14


def _peft() -> ModuleType:
    try:
        with _without_old_names():
            import peft
    except ImportError as error:
        raise ImportError('adapters need peft: pip install "fast-jukebox[lora]"') from error
    return peft


def has_adapters(model: object) -> TypeGuard[PeftModel]:
    """True for a model that peft made of another."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def add_lora(
    prior: PreTrainedModel,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = TARGETS,
    **settings: object,
) -> PeftModel:
    """Give a prior LoRA adapters to train (Hu et al. 2021); at first they add nothing.

    Args:
        prior: gets the adapters in its layers, and its own weights are frozen.
        rank: of the product that is added to each weight, at least 1.
        alpha: the product is multiplied by `alpha / rank`; twice the rank by default.
        dropout: fraction of each adapter's inputs that are zeroed in training, in [0, 1).
        targets: last parts of the names of linear layers, or `["all-linear"]` for all of them.
        settings: further ones of `peft.LoraConfig`, such as `use_dora=True`.

    Returns:
        The model to train, which wraps the prior.

    Raises:
        ImportError: peft is not installed.
        ValueError: a number out of its range, or a target that no linear layer is called.
    """
    if not isinstance(rank, int) or not 1 <= rank <= _LARGEST_RANK:
        raise ValueError(f"`rank` must be an integer from 1 to {_LARGEST_RANK}, got {shown(rank)}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"`dropout` must be in [0, 1), got {shown(dropout)}")
    if alpha is not None and not alpha > 0:
        raise ValueError(f"`alpha` must be positive, got {shown(alpha)}")
    known = {name.rpartition(".")[2] for name, module in prior.named_modules() if isinstance(module, nn.Linear)}
    unknown = [name for name in targets if name not in known]
    if list(targets) != ["all-linear"] and (unknown or not targets):
        raise ValueError(
            f"`targets` must be names of linear layers, {', '.join(sorted(known))}, or all-linear, got "
            f"{', '.join(map(shown, unknown[:5])) or 'none'}"
        )
    config = _peft().LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if list(targets) == ["all-linear"] else list(targets),
        **settings,
    )
    with _without_old_names():
        model: PeftModel = _peft().get_peft_model(prior, config)
    return model


def save_adapter(
    model: PeftModel,
    folder: PathLike,
    base_model: str | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Save the adapter that trains, as peft reads it: `adapter_model.safetensors` and `adapter_config.json`, which
    names the base model and the `level`.

    Args:
        model: as [`add_lora`] returns it.
        folder: made where it is missing.
        base_model: name of the base, by default that which the prior was loaded from.
        state_dict: all weights of the model, where they are not in it, as with sharded training.
    """
    peft, folder = _peft(), Path(folder)
    (name,) = model.active_adapters
    weights = peft.get_peft_model_state_dict(
        model, state_dict=state_dict, adapter_name=name, save_embedding_layers=False
    )
    with TemporaryDirectory() as temporary:
        model.peft_config[name].save_pretrained(temporary)
        config = json.loads((Path(temporary) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config |= {"inference_mode": True, "level": model.config.level}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # of a set, whose order varies
    config["base_model_name_or_path"] = base_model or config["base_model_name_or_path"]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().contiguous().cpu() for key, tensor in weights.items()}
    metadata = {"format": "pt"}
    if state_dict is None:
        metadata[_SAMPLE] = json.dumps(_sample(model.get_base_model()))
    write_file(folder / ADAPTER_WEIGHTS, save(tensors, metadata=metadata))
    write_file(folder / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True))


def read_adapter_config(source: PathLike, **download: Unpack[Download]) -> dict[str, object]:
    """`adapter_config.json` of a folder or repository.

    Raises:
        HubError: the repository cannot be read.
        OSError: there is no such file.
        ValueError: it holds no settings of an adapter.
    """
    source = _place(source)
    path = find_file(source, ADAPTER_CONFIG, **cast(Download, prefer_cache(source, download)))
    if path is None:
        raise OSError(f"`{source}` has no {ADAPTER_CONFIG}, so it holds no adapter")
    try:
        config = json.loads(read_file(path, _LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ADAPTER_CONFIG} of `{source}` must hold JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ValueError(f"{ADAPTER_CONFIG} of `{source}` must hold the settings of an adapter, `peft_type` among them")
    return config


def load_adapter(
    prior: PreTrainedModel,
    source: PathLike,
    merge: bool = True,
    base_model: str | None = None,
    **download: Unpack[Download],
) -> PreTrainedModel | PeftModel:
    """Load an adapter onto its base.

    Args:
        prior: the base; is changed.
        source: folder or Hub name of the adapter.
        merge: add it to the prior's weights, so that the prior is one like any other. Otherwise the prior gets layers
            with adapters, which engines compute with too, and which peft can disable, switch and train.
        base_model: name of the prior's weights, for a warning where the adapter was trained on others; by default where
            the prior was loaded from.
        download: `revision`, `token` and their like, of the adapter.

    Returns:
        The prior, or the `PeftModel` around it.

    Raises:
        ImportError: peft is not installed.
        HubError: the repository cannot be read.
        OSError: there is no adapter in safetensors, or the file is damaged.
        ValueError: it is of another level or does not fit the prior.
    """
    peft, source = _peft(), _place(source)
    download = pin_revision(source, download)
    config = read_adapter_config(source, **download)
    weights = _read_weights(source, download)
    level = config.pop("level", None)
    for name in _IMPORTED:
        config.pop(name, None)
    if level is not None and level != prior.config.level:
        raise ValueError(f"the adapter `{source}` is of level {level}, and the prior of level {prior.config.level}")
    _check_ranks(config, source)
    _grow_labels(prior, weights)
    base, name = config.get("base_model_name_or_path"), base_model or prior.name_or_path
    if not _is_base(prior, _known_sample(source, download)):
        logger.warning(
            "the adapter %s was trained on %s, whose weights are not those of %s: it may not fit them",
            source,
            base or "another model",
            name or "this one",
        )
    trained = [(parameter, parameter.requires_grad) for parameter in prior.parameters()]
    try:
        with _without_old_names():
            loaded_from = vars(prior).get("name_or_path") or None
            settings = peft.PeftConfig.from_peft_type(**{**config, "base_model_name_or_path": loaded_from})
            # Nothing is allocated before the weights are read, whatever the settings say.
            model = peft.get_peft_model(prior, settings, adapter_name=_ADAPTER, low_cpu_mem_usage=True)
            found = peft.set_peft_model_state_dict(model, weights, adapter_name=_ADAPTER, low_cpu_mem_usage=True)
        missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
        if missing or found.unexpected_keys:
            what = f"lacks {missing[0]}" if missing else f"has {found.unexpected_keys[0]}, which no layer takes"
            raise ValueError(f"its file of weights {what}")
        model.eval()
        if not merge:
            return model
        merged = model.merge_and_unload(safe_merge=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])  # of many tensors the first
        raise ValueError(f"the adapter `{source}` must fit the prior of level {prior.config.level}: {said}") from error
    vars(merged).pop("peft_config", None)  # left behind by some versions of peft
    for parameter, requires_grad in trained:
        parameter.requires_grad_(requires_grad)
    return merged


def adapter_usage(model: PeftModel, name: str, base_model: str | None) -> str:
    """Python that loads an adapter, for its card."""
    return f"""\
from fast_jukebox import FastJukeboxModel

model = FastJukeboxModel.from_pretrained("{base_model or "BASE"}", adapters={{{model.config.level}: "{name}"}})
song = model.generate(duration=20, seed=0)"""


def describe_adapter(model: PeftModel) -> str:
    """Kind, sizes and layers of the adapter that trains, for its card."""
    (name,) = model.active_adapters
    config = model.peft_config[name]
    targets = config.target_modules
    where = ", ".join(sorted(targets)) if isinstance(targets, (set, list)) else str(targets)
    return f"LoRA adapters of rank {config.r} (alpha {config.lora_alpha:g}, dropout {config.lora_dropout:g}) on {where}"


def load_adapter_weights(model: PeftModel, folder: PathLike) -> None:
    """Set the weights of the adapter that trains to those that [`save_adapter`] wrote.

    Raises:
        OSError: there are none, or the file is damaged.
    """
    (name,) = model.active_adapters
    _peft().set_peft_model_state_dict(model, _read_weights(folder, {}), adapter_name=name)


def load_adapters(model: PreTrainedModel, adapters: Mapping[int, PathLike], **download: Unpack[Download]) -> None:
    """Merge adapters into the priors of a complete model, and note in `model.adapters` where they are from.

    Args:
        model: has `priors`, bottom first, which are changed, and `name_or_path`.
        adapters: folder or Hub name of an adapter by level.
        download: as in [`load_adapter`].

    Raises:
        ImportError, HubError, OSError, ValueError: as in [`load_adapter`], or a level that is not there.
    """
    check_adapter_levels(adapters, len(model.priors), **download)
    for level, source in adapters.items():
        load_adapter(model.priors[level], source, base_model=model.name_or_path, **download)
        model.adapters = {**model.adapters, level: os.path.expanduser(source)}
    model.processor = adapted_processor(model.processor, [prior.config for prior in model.priors], adapters, **download)


def adapted_processor(
    processor: FastJukeboxProcessor | None,
    configs: Sequence[PreTrainedConfig],
    adapters: Mapping[int, PathLike],
    **download: Unpack[Download],
) -> FastJukeboxProcessor | None:
    """The processor of priors with adapters, which may have been trained on new artists and genres.

    Args:
        processor: of the base.
        configs: of the priors, bottom first, with the adapters merged.
        adapters: as in [`load_adapters`], like `download`.
    """
    own = {level: FastJukeboxProcessor.find(source, configs[level], **download) for level, source in adapters.items()}
    if not any(own.values()):
        return processor
    levels: list[FastJukeboxProcessor | None] = []
    for level, config in enumerate(configs):
        base = None if processor is None or not config.has_labels else processor.only(level)
        levels.append(own.get(level) or base)
        if config.has_labels and levels[-1] is None:  # a prior whose names are not at hand
            return processor
    return FastJukeboxProcessor.join(levels)


def check_adapter_levels(
    adapters: Mapping[int, PathLike], num_levels: int | None = None, **download: Unpack[Download]
) -> None:
    """Raise an error for adapters that are not there, or are of other levels than they are given for.

    Args:
        adapters: folder or Hub name of an adapter by level.
        num_levels: of the model, where it is known.
        download: as in [`load_adapter`].
    """
    _peft()
    if not isinstance(adapters, Mapping):
        raise ValueError(f"`adapters` must be a dict from levels to folders or Hub names, got {shown(adapters)}")
    most = num_levels or sys.maxsize
    for level, source in adapters.items():
        if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level < most:
            allowed = "0 or above" if num_levels is None else f"from 0 to {num_levels - 1}"
            raise ValueError(f"`adapters` must be by level, {allowed}, got {shown(level)}")
        trained = read_adapter_config(source, **download).get("level", level)
        if trained != level:
            raise ValueError(f"`adapters` must be by their levels: `{source}` is of level {trained}, got {level}")


def _grow_labels(prior: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Give the base room for the artists and genres that an adapter was trained on."""
    labels = getattr(prior, "label_conditioner", None)
    if labels is None:
        return
    rows = [
        max(len(embedding.weight), *(len(tensor) for name, tensor in weights.items() if name.endswith(ending)), 0)
        for embedding, ending in (
            (labels.artist_embedding, ".label_conditioner.artist_embedding.weight"),
            (labels.genre_embedding, ".label_conditioner.genre_embedding.weight"),
        )
    ]
    labels.grow(*rows)


def _read_weights(source: PathLike, download: Download) -> dict[str, Tensor]:
    path = find_file(source, ADAPTER_WEIGHTS, **download)
    if path is None:
        raise OSError(f"`{source}` must hold {ADAPTER_WEIGHTS}, and has none; pickles are not read")
    with open_weights(path):
        pass
    weights: dict[str, Tensor] = load_file(path)
    return weights


def _check_ranks(config: Mapping[str, object], source: PathLike) -> None:
    """Raise a `ValueError` for a rank that is none, as sizes follow from it."""
    patterns = config.get("rank_pattern")
    for rank in (config.get("r", 1), *(patterns.values() if isinstance(patterns, dict) else ())):
        if not isinstance(rank, int) or not 1 <= rank <= _LARGEST_RANK:
            raise ValueError(f"`r` of the adapter `{source}` must be from 1 to {_LARGEST_RANK}, got {shown(rank)}")


def _place(source: PathLike) -> PathLike:
    """A folder, or the name of a repository.

    Raises:
        FileNotFoundError: it is no folder that is there, and can be no name.
        NotADirectoryError: it is a file.
        PermissionError: it may not be read.
    """
    folder = os.path.expanduser(source)
    check_folder(folder)
    if os.path.isdir(folder):
        return folder
    if os.path.lexists(folder) and not os.path.islink(folder):
        raise NotADirectoryError(f"{folder!r} is a file; an adapter is a folder with {ADAPTER_WEIGHTS} in it")
    try:
        validate_repo_id(str(source))
        is_name = True
    except HFValidationError:
        is_name = False
    if not is_name or str(source).startswith((".", "~", os.sep)):
        raise FileNotFoundError(f"there is no folder {folder!r}; an adapter is a folder or a Hub repository")
    return source


def _sample(prior: PreTrainedModel) -> list[float]:
    """A number of each matrix of the prior's base layers, to recognise them in another dtype and under another name."""
    layers = [(block.attention.qkv, block.attention.projection, *block.mlp.children()) for block in prior.blocks]
    weights = torch.stack([layer.weight.flatten()[layer.weight.numel() // 2] for own in layers for layer in own])
    numbers: list[float] = weights.detach().float().tolist()
    return numbers


def _known_sample(source: PathLike, download: Download) -> list[float] | None:
    """The numbers of the base that are kept with an adapter; None of one that another program saved."""
    with open_weights(str(find_file(source, ADAPTER_WEIGHTS, **download))) as file:
        kept = (file.metadata() or {}).get(_SAMPLE)
    try:
        numbers = None if kept is None else [float(number) for number in json.loads(kept)]
    except (RecursionError, TypeError, ValueError):
        return None
    return numbers


def _is_base(prior: PreTrainedModel, known: list[float] | None) -> bool:
    """True where the numbers are a prior's, to the precision of 16 bits, or none are known."""
    own = _sample(prior)
    if known is None or len(known) != len(own):  # of another depth it does not fit at all
        return True
    return torch.allclose(torch.tensor(own), torch.tensor(known), rtol=1e-2, atol=1e-5)


@contextmanager
def _without_old_names() -> Iterator[None]:
    """Hide the warning that peft asks transformers by a deprecated name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
