"""What every configuration of this package shares: unknown keys are refused, bad values are named."""

from __future__ import annotations

import difflib
import math
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

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


class FastJukeboxBaseConfig(PreTrainedConfig):
    """Base of the package's configurations.

    Differs from [`~transformers.PreTrainedConfig`] in two ways: a key that is no field of the configuration raises a
    `ValueError` naming the nearest field (transformers would keep and save it silently), and `validate` is called when
    the configuration is made and again when it is saved.
    """

    def __post_init__(self, **kwargs: Any) -> None:
        # The Trainer leaves this on every configuration; it means nothing here.
        kwargs.pop("use_cache", None)
        own_fields = {field.name for field in fields(self)}
        for key in kwargs:
            if key not in own_fields and key not in _TRANSFORMERS_KEYS:
                raise ValueError(_unknown_key_message(type(self).__name__, key, own_fields))
        super().__post_init__(**kwargs)
        self.validate()

    def validate(self) -> None:
        """Check every field and the rules between fields.

        Raises:
            ValueError: naming the field, the value it had and what is allowed.
        """

    def to_dict(self) -> dict[str, Any]:
        """See [`~transformers.PreTrainedConfig.to_dict`]; without what the Trainer leaves behind."""
        output = super().to_dict()
        output.pop("use_cache", None)
        return output

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Validate, then save as [`~transformers.PreTrainedConfig.save_pretrained`] does."""
        self.validate()
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


def _unknown_key_message(owner: str, key: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)
    return f"{owner} has no field `{key}`; did you mean `{nearest[0]}`?"


def check_int(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> None:
    """Raise a `ValueError` unless `value` is an `int` in `[minimum, maximum]`."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    if not good or (maximum is not None and value > maximum):
        limit = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"`{name}` must be an integer {limit}, got {value!r}")


def check_float(
    name: str, value: Any, minimum: float, maximum: float = math.inf, *, open_minimum: bool = False
) -> None:
    """Raise a `ValueError` unless `value` is a finite number in `[minimum, maximum]` (`(minimum, ...` when open)."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value > maximum or value < minimum or (open_minimum and value == minimum):
        bracket = "(" if open_minimum else "["
        raise ValueError(f"`{name}` must be a finite number in {bracket}{minimum}, {maximum}], got {value!r}")


def check_bool(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is `True` or `False`."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False, got {value!r}")


def check_int_list(name: str, value: Any, minimum: int = 1, length: int | None = None) -> None:
    """Raise a `ValueError` unless `value` is a non-empty list of integers of at least `minimum` (of that `length`)."""
    wanted = f"a list of {'one or more' if length is None else length} integers of at least {minimum}"
    if not isinstance(value, list | tuple) or not value or (length is not None and len(value) != length):
        raise ValueError(f"`{name}` must be {wanted}, got {value!r}")
    for entry in value:
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < minimum:
            raise ValueError(f"`{name}` must be {wanted}, got {value!r}")


__all__ = ["FastJukeboxBaseConfig", "check_bool", "check_float", "check_int", "check_int_list"]
