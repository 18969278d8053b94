"""Base of the configurations: unknown keys are refused, bad values are named, pushes need a licence.

Values are checked here: huggingface_hub's strict fields check types alone, take no int for a float, and raise no
`ValueError`.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import torch
from transformers import PreTrainedConfig

from fast_jukebox.hub import clear_hub_errors, prefer_cache
from fast_jukebox.hub.push_mixin import HubPushMixin
from fast_jukebox.utils.files import clear_json_errors, finish_replacing
from fast_jukebox.utils.text import shown

# Keys that transformers itself writes to or passes through a configuration without declaring a field for them.
_TRANSFORMERS_KEYS = frozenset(
    {
        "model_type",
        "name_or_path",
        "_name_or_path",
        "_commit_hash",
        "torch_dtype",
        "num_labels",
        "output_attentions",
        "attn_implementation",
        "experts_implementation",
        "_attn_implementation_internal",
        "_experts_implementation_internal",
        "per_layer_config",
        "quantization_config",
    }
)
PathLike = str | os.PathLike[str]

MOST = 2**24
"""Largest integer of a field without a separate bound. A stranger's configuration of a few bytes must not fill the
memory or take hours, so every number is bounded before anything is built by it; no real model comes near.
"""
MOST_ENTRIES = 16
"""Most entries of a list of integers, and most levels."""
MOST_FACTOR = 1024.0
"""Largest factor on a width."""

# Keys that transformers passes to `from_dict`, and no configuration has or needs.
_LOADING_KEYS = frozenset({"_commit_hash", "_configuration_file", "gguf_file", "torch_dtype", "dtype"})


class FastJukeboxBaseConfig(HubPushMixin, PreTrainedConfig):
    """Base of the package's configurations.

    Differs from [`~transformers.PreTrainedConfig`] in three ways: a key that is no field of the configuration raises a
    `ValueError` naming the nearest field (transformers would keep and save it silently, or drop it while loading),
    `validate` is called when the configuration is made, loaded with changes and saved, and a push needs a licence.
    """

    def __post_init__(self, **kwargs: object) -> None:
        # The Trainer leaves this on every configuration; it means nothing here.
        kwargs.pop("use_cache", None)
        own_fields = {field.name for field in fields(self)}
        for key in kwargs:
            if key not in own_fields and key not in _TRANSFORMERS_KEYS:
                raise ValueError(_unknown_key_message(type(self).__name__, key, own_fields))
        for key, value in (("dtype", self.dtype), ("torch_dtype", kwargs.get("torch_dtype"))):
            _check_dtype(key, value)
        for key in ("id2label", "label2id"):
            if not isinstance(getattr(self, key), dict | None):
                raise ValueError(f"`{key}` must be a dict or None, got {shown(getattr(self, key))}")
        for key in ("layer_types", "mtp_layer_types"):  # transformers looks at them before they are checked
            words = getattr(self, key, kwargs.get(key))
            if words is not None and not (
                isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
            ):
                raise ValueError(f"`{key}` must be a list of words, got {shown(words)}")
        if kwargs.get("model_type", self.model_type) != type(self).model_type:
            raise ValueError(
                f"`model_type` of a {type(self).__name__} must be {type(self).model_type!r}, got "
                f"{shown(kwargs.get('model_type', self.model_type))}"
            )
        if kwargs.get("num_labels") is not None:  # transformers makes a dict of so many names
            check_int("num_labels", kwargs["num_labels"], minimum=0, maximum=MOST_ENTRIES)
        super().__post_init__(**kwargs)
        self.validate()

    def validate(self) -> None:
        """Check every field and the rules between fields.

        Raises:
            ValueError: naming the field, the value it had and what is allowed.
        """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: PathLike, **kwargs: object) -> Any:
        """Load as [`~transformers.PreTrainedConfig.from_pretrained`] does.

        Raises:
            ValueError: an argument is neither a field nor one of loading, or a value is not allowed.
            HubError: there is no such repository or revision, no right to read it, or no connection.
            OSError: there is no `config.json`.
        """
        revision = kwargs.get("revision")
        with (
            clear_hub_errors(pretrained_model_name_or_path, revision if isinstance(revision, str) else None),
            clear_config_errors(pretrained_model_name_or_path, kwargs),
        ):
            return super().from_pretrained(
                pretrained_model_name_or_path, **prefer_cache(pretrained_model_name_or_path, kwargs)
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: PathLike, **kwargs: object
    ) -> tuple[dict[str, object], dict[str, object]]:
        """See [`~transformers.PreTrainedConfig.get_config_dict`]; another configuration, or none, is refused.

        Raises:
            OSError: there is no `config.json`.
            ValueError: it holds no mapping, or is neither of this `model_type` nor holds a part that is.
        """
        config, unused = written_config(super().get_config_dict, pretrained_model_name_or_path, **kwargs)
        if not config:
            raise OSError(f"`{pretrained_model_name_or_path}` has no config.json, so it holds no {cls.__name__}")
        found = config.get("model_type", cls.model_type)
        types = [part.get("model_type") for part in config.values() if isinstance(part, dict)]
        if cls.model_type not in (found, *types):
            hint = "; `prior_configs[level]` of the complete configuration is one" if "prior_configs" in config else ""
            raise ValueError(
                f"`model_type` of `{pretrained_model_name_or_path}` must be {cls.model_type!r}, got "
                f"{shown(found)}{hint}"
            )
        return config, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, object], **kwargs: object) -> Any:  # itself, or with unused arguments
        """As [`~transformers.PreTrainedConfig.from_dict`]; unknown keys are refused unless they are asked for.

        Raises:
            ValueError: a key of `kwargs` is no field and `return_unused_kwargs` is not set, or a value is not allowed.
        """
        wants_unused = kwargs.pop("return_unused_kwargs", False)
        # A method or property is no field, though transformers would overwrite it.
        taken = {key: kwargs.pop(key) for key in list(kwargs) if _is_part_of_class(cls, key)}
        config, unused = super().from_dict(config_dict, return_unused_kwargs=True, **kwargs)
        config.validate()
        unused |= taken
        if wants_unused:
            return config, unused
        for key in unused:
            if key not in _LOADING_KEYS:
                raise ValueError(_unknown_key_message(cls.__name__, key, {field.name for field in fields(config)}))
        return config

    def to_dict(self) -> dict[str, object]:
        """See [`~transformers.PreTrainedConfig.to_dict`]; without the key that the Trainer adds."""
        output: dict[str, object] = super().to_dict()
        output.pop("use_cache", None)
        return output

    def save_pretrained(
        self, save_directory: PathLike, *args: object, push_to_hub: bool = False, **kwargs: object
    ) -> object:
        """Validate, then save as [`~transformers.PreTrainedConfig.save_pretrained`] does.

        A push, which transformers also takes as the second argument, is that of [`HubPushMixin`].
        """
        self.validate()
        return super().save_pretrained(save_directory, *args[1:], push_to_hub=any(args[:1]) or push_to_hub, **kwargs)


@contextlib.contextmanager
def clear_config_errors(source: object, arguments: Iterable[str] = ()) -> Iterator[None]:
    """While a configuration is made of the `config.json` of a folder or repository, whose errors name a field alone.

    Args:
        source: the folder or repository.
        arguments: names of those of the call, some of which may be fields in place of the file's.

    Raises:
        ValueError: names the file too, unless the field is an argument.
    """
    try:
        yield
    except ValueError as error:
        if str(source) in str(error) or any(f"`{name}`" in str(error) for name in arguments):
            raise
        raise ValueError(
            f"`config.json` of `{source}` cannot be used, correct it, or fetch or save it again: {error}"
        ) from error


def finish_saving(source: object) -> None:
    """Finish a save into a folder whose process was killed; nothing for names on the Hub and folders of others."""
    if isinstance(source, str | os.PathLike):
        with contextlib.suppress(OSError):
            finish_replacing(source)


def written_config(
    read: Callable[..., tuple[dict[str, object], dict[str, object]]], source: object, **kwargs: object
) -> tuple[dict[str, object], dict[str, object]]:
    """The configuration that a class's `get_config_dict`, given as `read`, finds in a folder or repository.

    Raises:
        ValueError: its `config.json` holds something else than a mapping, which transformers stumbles over, or nothing,
            or numbers that cannot be read.
        OSError: it is no JSON.
    """
    finish_saving(source)
    try:
        with clear_json_errors("config.json", source):
            config, unused = read(source, **kwargs)
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{_no_names(source)}: {error}") from error
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"`config.json` of `{source}` is damaged, fetch or save it again: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{_no_names(source)}: got {type(config).__name__}")
    if not config and isinstance(source, str | os.PathLike) and os.path.isfile(os.path.join(source, "config.json")):
        raise ValueError(f"{_no_names(source)}: it is empty")
    return config, unused


def _no_names(source: object) -> str:
    return f"`config.json` of `{source}` must hold names with their values, fetch or save it again"


def _is_part_of_class(cls: type[PreTrainedConfig], key: str) -> bool:
    """True for the name of a method of the configuration, or of a property that cannot be set."""
    if key in cls.__dataclass_fields__ or key in _TRANSFORMERS_KEYS:
        return False
    found = getattr(cls, key, None)
    return callable(found) or (isinstance(found, property) and found.fset is None)


def _unknown_key_message(owner: str, key: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)
    return f"{owner} has no field `{key}`; did you mean `{nearest[0]}`?"


def _check_dtype(name: str, value: object) -> None:
    """Raise a `ValueError` unless it is a dtype of floating-point numbers, the name of one, or None."""
    dtype = getattr(torch, value, value) if isinstance(value, str) else value
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"`{name}` must be a dtype of floating-point numbers such as 'float32', got {shown(value)}")


def check_int(name: str, value: object, minimum: int = 1, maximum: int = MOST) -> None:
    """Raise a `ValueError` unless `value` is an `int` in `[minimum, maximum]`."""
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        large = maximum != MOST or (isinstance(value, int) and value > MOST)  # else the bound `MOST` need not be named
        limit = f"from {minimum} to {maximum}" if large else f"at least {minimum}"
        raise ValueError(f"`{name}` must be an integer {limit}, got {shown(value)}")


def check_float(
    name: str, value: object, minimum: float, maximum: float = math.inf, *, open_minimum: bool = False
) -> None:
    """Raise a `ValueError` unless `value` is a finite number in `[minimum, maximum]` (`(minimum, ...` when open)."""
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not -1e308 <= value <= 1e308  # no NaN either
        or not minimum <= value <= maximum
        or (open_minimum and value == minimum)
    ):
        bracket = "(" if open_minimum else "["
        raise ValueError(f"`{name}` must be a finite number in {bracket}{minimum}, {maximum}], got {shown(value)}")


def check_bool(name: str, value: object) -> None:
    """Raise a `ValueError` unless `value` is `True` or `False`."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, got {shown(value)}")


def check_int_list(name: str, value: object, minimum: int = 1, length: int | None = None, maximum: int = MOST) -> None:
    """Raise a `ValueError` unless `value` is a list of 1 to `MOST_ENTRIES` integers in `[minimum, maximum]` (of that
    `length`).
    """
    limit = f"of at least {minimum}" if maximum == MOST else f"from {minimum} to {maximum}"
    wanted = f"a list of {'one or more' if length is None else length} integers {limit}"
    if not isinstance(value, list | tuple) or len(value) == 0 or len(value) != (length or len(value)):
        raise ValueError(f"`{name}` must be {wanted}, got {shown(value)}")
    if len(value) > MOST_ENTRIES:
        raise ValueError(f"`{name}` must be a list of at most {MOST_ENTRIES} integers, got {len(value)}")
    for entry in value:
        if not isinstance(entry, int) or isinstance(entry, bool) or not minimum <= entry <= maximum:
            raise ValueError(f"`{name}` must be {wanted}, got {shown(value)}")


def check_dilations(name: str, rate: int, cycle: int | None, depth: int) -> None:
    """Raise a `ValueError` where the largest dilation of a residual stack, `rate ** (min(depth, cycle) - 1)`, is above
    `MOST`.
    """
    power = min(depth, depth if cycle is None else cycle) - 1
    if power * math.log2(rate) > math.log2(MOST):
        raise ValueError(
            f"`{name}` must give dilations of at most {MOST}, got {rate} ** {power} for a stack of {depth} blocks"
        )
