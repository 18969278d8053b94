"""Checks of tensors and devices: a `ValueError` names the argument, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, overload

import torch
from torch import Tensor

_LOUDEST = 8.0
"""Peak above which samples cannot be meant to lie in [-1, 1]."""


_values_are_checked: ContextVar[bool] = ContextVar("values_are_checked", default=False)


@contextmanager
def values_checked() -> Iterator[None]:
    """Inputs of a prior are in their ranges, as its caller has made sure of: their values are not read again.

    For training on an accelerator, which each look at a value would wait for. Shapes and dtypes are checked as ever.
    """
    token = _values_are_checked.set(True)
    try:
        yield
    finally:
        _values_are_checked.reset(token)


def are_values_checked() -> bool:
    """Whether values are not to be read: within `values_checked`, and while compiling."""
    return torch.compiler.is_compiling() or _values_are_checked.get()


def check_codes(name: str, codes: object, codebook_size: int, *, ignored: int | None = None) -> Tensor:
    """`codes` itself.

    Reads the values, which waits for an accelerator; not while compiling or within `values_checked`.

    Args:
        name: of the argument.
        codes: anything.
        codebook_size: codes are below it.
        ignored: a value that stands for no code.

    Raises:
        ValueError: it is no int64 tensor (N, L), or holds something that is no code.
    """
    if not isinstance(codes, Tensor) or codes.dtype != torch.int64 or codes.dim() != 2 or codes.shape[0] == 0:
        got = f"{codes.dtype} {tuple(codes.shape)}" if isinstance(codes, Tensor) else type(codes).__name__
        raise ValueError(f"`{name}` must be an int64 tensor (batch, length), of a batch of at least 1, got {got}")
    if are_values_checked() or codes.is_meta or codes.numel() == 0:
        return codes
    known = codes if ignored is None else codes.masked_fill(codes == ignored, 0)
    low, high = torch.stack(torch.aminmax(known)).tolist()
    if low < 0 or high >= codebook_size:
        also = "" if ignored is None else f" or {ignored}"
        raise ValueError(f"`{name}` must hold codes from 0 to {codebook_size - 1}{also}, got {low} to {high}")
    return codes


def check_metadata(name: str, metadata: object, width: int, fewest: int | None = None) -> Tensor:
    """`metadata` itself.

    Raises:
        ValueError: it is no int64 tensor (N, `width`), or with `fewest` of at least so many columns; or `width` is 0,
            which stands for a prior without labels.
    """
    if width == 0:
        raise ValueError(f"`{name}` must be None where no prior has labels, got {type(metadata).__name__}")
    shape = f"(songs, {width})" if fewest is None else f"(songs, {fewest} or more)"
    if not isinstance(metadata, Tensor):
        raise ValueError(f"`{name}` must be an int64 tensor of shape {shape}, got {type(metadata).__name__}")
    fits = metadata.dim() == 2 and metadata.shape[0] > 0
    fits = fits and (metadata.shape[1] == width if fewest is None else metadata.shape[1] >= fewest)
    if metadata.dtype != torch.int64 or not fits:
        raise ValueError(
            f"`{name}` must be an int64 tensor of shape {shape}, got {metadata.dtype} {tuple(metadata.shape)}"
        )
    return metadata


def check_prompt_audio(prompt: object, name: str = "prompt") -> Tensor:
    """A recording as a floating-point tensor (N, T).

    Raises:
        ValueError: it has another rank or type, is empty, or holds samples that are not finite or far outside [-1, 1].
    """
    try:
        audio = prompt if isinstance(prompt, Tensor) else torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`{name}` must be floating-point audio of shape (samples,) or (songs, samples), got "
            f"{type(prompt).__name__}"
        ) from error
    if not audio.is_floating_point() or audio.dim() not in (1, 2) or audio.numel() == 0:
        raise ValueError(
            f"`{name}` must be floating-point audio of shape (samples,) or (songs, samples), not empty, got "
            f"{audio.dtype} {tuple(audio.shape)}"
        )
    peak = float(audio.abs().max())
    if not math.isfinite(peak):
        raise ValueError(f"`{name}` must be finite, got audio with NaN or infinite samples")
    if peak > _LOUDEST:
        raise ValueError(f"`{name}` must be audio in [-1, 1], got samples of up to {peak:g}")
    return audio.unsqueeze(0) if audio.dim() == 1 else audio


class SamplingConfig(Protocol):
    """Configuration of a prior, as far as sampling reads it."""

    level: int
    codebook_size: int
    n_ctx: int


class HasParameters(Protocol):
    """Whatever has weights, such as a module."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All weights."""


class SizedPrior(HasParameters, Protocol):
    """A prior whose memory is counted."""

    @property
    def config(self) -> SamplingConfig:
        """Its level and sizes."""

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of its cache for so many songs."""


@overload
def rows(tensor: Tensor, batch: int, device: torch.device) -> Tensor: ...


@overload
def rows(tensor: Tensor | None, batch: int, device: torch.device) -> Tensor | None: ...


def rows(tensor: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    """`tensor` (1 or N, ...) on a device, one row for each of `batch` songs."""
    if tensor is None:
        return None
    return tensor.to(device).expand(batch, *tensor.shape[1:])


def device_of(module: HasParameters) -> torch.device:
    """Device of a module's parameters, or the one that they are moved to when it samples (see
    [`~fast_jukebox.generation.offload.Offload`]).
    """
    execution = getattr(module, "sampling_device", None)
    return next(module.parameters()).device if execution is None else execution


def check_device(device: object) -> torch.device | None:
    """`device` as [`~transformers.Pipeline`] takes it: a name, a `torch.device`, the number of an accelerator or -1 for
    the CPU; `None` for `None` and `"auto"`.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if device is None or device == "auto":
        return None
    allowed = "auto, cpu, cuda, cuda:1, mps and so on"
    if isinstance(device, bool):
        raise ValueError(f"`device` must be {allowed}, got {device!r}")
    if isinstance(device, int):
        name = "cpu" if device == -1 else f"cuda:{device}" if torch.cuda.is_available() else f"mps:{device}"
    else:
        name = str(device)
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be {allowed}, got {device!r}") from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= there.get(found.type, math.inf):
        raise ValueError(f"`device` must be one that this machine has, such as auto or cpu, got {device!r}")
    return found


def check_codes_by_level(codes: object, codebook_size: int, hop_lengths: Sequence[int]) -> list[Tensor | None]:
    """A list of codes that ends at the top level, as one with an entry for each level, bottom first.

    Raises:
        ValueError: too many or no entries, no codes at the top, entries that are no codes, or a level that is given for
            a longer time than the level above it.
    """
    num_levels = len(hop_lengths)
    if not isinstance(codes, list | tuple) or not 1 <= len(codes) <= num_levels:
        got = f"{len(codes)} entries" if isinstance(codes, list | tuple) else type(codes).__name__
        raise ValueError(f"`codes` must be a list of 1 to {num_levels} levels that ends at the top one, got {got}")
    levels: list[Tensor | None] = [None] * (num_levels - len(codes)) + list(codes)
    if levels[-1] is None:
        raise ValueError("`codes` must end with codes of the top level, got None there")
    span = None
    for level in reversed(range(num_levels)):
        own = levels[level]
        if own is None:
            span = 0
            continue
        own_span = check_codes(f"codes[{level - num_levels}]", own, codebook_size).shape[1] * hop_lengths[level]
        if span is not None and own_span > span:
            raise ValueError(
                f"`codes[{level - num_levels}]` (level {level}) must not reach further than the level above it, which "
                f"is given for {span} audio samples; got {own.shape[1]} codes, which are {own_span}"
            )
        span = own_span
    return levels
