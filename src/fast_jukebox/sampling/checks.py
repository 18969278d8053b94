"""Sampling settings and checks of arguments. A check returns what it was given, or raises a `ValueError` that names the
argument, its value and what is allowed.

The notes of a session are read without torch, so that only the checks of tensors and devices load it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_SEED = 2**63 - 1
"""The largest seed."""
MOST_SONGS = 2**16
"""Songs that one call makes at most: more is a mistake, which would fill the memory or never end."""
MIN_TEMPERATURE = 1e-3
"""The lowest temperature: still less and logits would leave the range of float32. `do_sample=False` is the limit."""
_LOUDEST = 8.0
"""Peak above which samples cannot be meant to lie in [-1, 1]."""

_values_are_checked: ContextVar[bool] = ContextVar("values_are_checked", default=False)


def level_name(level: int, num_levels: int, numbered: bool = False) -> str:
    """Bottom, middle or top of three levels; bottom or top of two; of more, `level 1` and so on between them.

    Args:
        level: 0 is the bottom.
        num_levels: of the model.
        numbered: with the number, for messages: `bottom level (0)`.
    """
    between = ["middle"] if num_levels == 3 else [f"level {own}" for own in range(1, num_levels - 1)]
    names = ["only"] if num_levels == 1 else ["bottom", *between, "top"]
    name = names[level] if 0 <= level < num_levels else f"level {level}"
    return f"{name} level ({level})" if numbered and not name.startswith("level") else name


def check_count(name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """An integer from `minimum` to `maximum`."""
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < minimum
        or (maximum is not None and value > maximum)
    ):
        allowed = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"`{name}` must be an integer {allowed}, got {shown(value)}")
    return value


def common_batch(sizes: dict[str, int]) -> int:
    """The number of songs that inputs of these batch sizes make, which must be equal where they are above 1."""
    batch = max(sizes.values())
    for name, size in sizes.items():
        if size not in (1, batch):
            others = ", ".join(f"`{other}` {count}" for other, count in sizes.items() if other != name)
            raise ValueError(f"`{name}` has {size} songs, which must be 1 or that of the others: {others}")
    return batch


def resolve_seeds(seed: object, songs: object, batch: int) -> tuple[int | list[int], list[int], list[int]]:
    """Seed and song number of each song of a batch, for its noise.

    Args:
        seed: one seed; or one a song, each of which then stands for the first song of its seed; or `None` for a random
            one.
        songs: which song of its seed each one is; `None` counts from 0.
        batch: number of songs.

    Returns:
        The seed (or seeds) to report, then for each song its seed and its number.
    """
    if isinstance(seed, list | tuple):
        if len(seed) != batch:
            raise ValueError(f"`seed` must be one seed or one for each of {batch} songs, got {len(seed)}")
        seeds, numbers = [check_seed(each) for each in seed], [0] * batch
        reported: int | list[int] = list(seeds)
    else:
        reported = fresh_seed() if seed is None else check_seed(seed)
        seeds, numbers = [reported] * batch, list(range(batch))
    if songs is not None:
        if not isinstance(songs, list | tuple | range) or len(songs) != batch:
            raise ValueError(f"`song_ids` must be a list of one number for each of {batch} songs, got {shown(songs)}")
        numbers = [check_count("song_ids", number, 0, 2**32 - 1) for number in songs]
    return reported, seeds, numbers


def check_levels(start_level: object, stop_level: object, num_levels: int) -> tuple[int, int]:
    """The highest and the lowest level to sample, in this order; `None` for the first is the top."""
    top = num_levels - 1
    start_level = check_count("start_level", top if start_level is None else start_level, 0, top)
    stop_level = check_count("stop_level", stop_level, 0, top)
    if stop_level > start_level:
        raise ValueError(
            "`stop_level` must be at most `start_level`, as levels are made from the top down; got stop_level "
            f"{stop_level} and start_level {start_level}"
        )
    return start_level, stop_level


def check_seed(seed: object) -> int:
    """An integer in [0, 2**63)."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"`seed` must be an integer from 0 to 2**63 - 1, got {shown(seed)}")
    return seed


def fresh_seed() -> int:
    """A seed from the operating system's randomness, below 2**53 so that it survives JSON and spreadsheets."""
    return secrets.randbelow(2**53)


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the draw of a code from logits.

    Attributes:
        do_sample: draw; if `False`, take the most probable code.
        temperature: what logits are divided by, at least `MIN_TEMPERATURE`.
        top_k: keep only the `top_k` most probable codes (and those that tie with the last of them); 0 keeps all.
        top_p: keep only the fewest most probable codes whose probabilities sum to at least `top_p`, in (0, 1]; 1 keeps
            all.
    """

    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.do_sample, bool):
            raise ValueError(f"`do_sample` must be True or False, got {shown(self.do_sample)}")
        if not is_number(self.temperature) or not self.temperature >= MIN_TEMPERATURE:
            raise ValueError(
                f"`temperature` must be a finite number of at least {MIN_TEMPERATURE:g} (do_sample=False takes the "
                f"most probable code), got {shown(self.temperature)}"
            )
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 0:
            raise ValueError(f"`top_k` must be an integer of at least 0 (0 keeps every code), got {shown(self.top_k)}")
        if not is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1] (1 keeps every code), got {shown(self.top_p)}")


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite number, as a float too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e308 <= value <= 1e308  # no NaN either


@contextmanager
def values_checked() -> Iterator[None]:
    """The caller has checked the values of a prior's inputs: they are not read again, shapes and dtypes still are.

    For training on an accelerator, which has to finish its work before a value can be read.
    """
    token = _values_are_checked.set(True)
    try:
        yield
    finally:
        _values_are_checked.reset(token)


def are_values_checked() -> bool:
    """True within `values_checked` and while compiling, where values are not to be read."""
    import torch

    return torch.compiler.is_compiling() or _values_are_checked.get()


def kind_of(value: object) -> str:
    """Dtype and shape of a tensor, type of anything else, for an error."""
    from torch import Tensor

    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_codes(name: str, codes: object, codebook_size: int, *, ignored: int | None = None) -> Tensor:
    """Codes int64 (N, L) below `codebook_size`, or `ignored`, which stands for no code.

    Reads the values, which waits for an accelerator, unless `are_values_checked`.
    """
    import torch
    from torch import Tensor

    if not isinstance(codes, Tensor) or codes.dtype != torch.int64 or codes.dim() != 2 or codes.shape[0] == 0:
        raise ValueError(
            f"`{name}` must be an int64 tensor (batch, length), of a batch of at least 1, got {kind_of(codes)}"
        )
    if are_values_checked() or codes.is_meta or codes.numel() == 0:
        return codes
    known = codes if ignored is None else codes.masked_fill(codes == ignored, 0)
    low, high = torch.stack(torch.aminmax(known)).tolist()
    if low < 0 or high >= codebook_size:
        also = "" if ignored is None else f" or {ignored}"
        raise ValueError(f"`{name}` must hold codes from 0 to {codebook_size - 1}{also}, got {low} to {high}")
    return codes


def check_metadata(name: str, metadata: object, width: int, fewest: int | None = None) -> Tensor:
    """Label vectors int64 (N, `width`), or with `fewest` of at least so many columns. No `width`, 0, allows none."""
    import torch
    from torch import Tensor

    if width == 0:
        raise ValueError(f"`{name}` must be None where no prior has labels, got {type(metadata).__name__}")
    if (
        isinstance(metadata, Tensor)
        and metadata.dtype == torch.int64
        and metadata.dim() == 2
        and metadata.shape[0] > 0
        and (metadata.shape[1] == width if fewest is None else metadata.shape[1] >= fewest)
    ):
        return metadata
    shape = f"(songs, {width})" if fewest is None else f"(songs, {fewest} or more)"
    raise ValueError(f"`{name}` must be an int64 tensor of shape {shape}, got {kind_of(metadata)}")


def check_prompt_audio(prompt: object, name: str = "prompt") -> Tensor:
    """A recording as a floating-point tensor (N, T), not empty, finite and not far outside [-1, 1]."""
    import torch
    from torch import Tensor

    audio: object = prompt
    if not isinstance(prompt, Tensor):
        with suppress(TypeError, ValueError, RuntimeError):
            audio = torch.as_tensor(prompt)
    if (
        not isinstance(audio, Tensor)
        or not audio.is_floating_point()
        or audio.dim() not in (1, 2)
        or audio.numel() == 0
    ):
        raise ValueError(
            f"`{name}` must be floating-point audio of shape (samples,) or (songs, samples), not empty, got "
            f"{kind_of(audio)}"
        )
    peak = float(audio.abs().max())
    if not math.isfinite(peak):
        raise ValueError(f"`{name}` must be finite, got audio with NaN or infinite samples")
    if peak > _LOUDEST:
        raise ValueError(f"`{name}` must be audio in [-1, 1], got samples of up to {peak:g}")
    return audio.unsqueeze(0) if audio.dim() == 1 else audio


def check_device(device: object) -> torch.device | None:
    """`device` as [`~transformers.Pipeline`] takes it: a name, a `torch.device`, the number of an accelerator or -1 for
    the CPU; `None` for `None` and `"auto"`. It must be on this machine.
    """
    import torch

    if device is None or device == "auto":
        return None
    allowed = "auto, cpu, cuda, cuda:1, mps and so on"
    if isinstance(device, bool):
        raise ValueError(f"`device` must be {allowed}, got {shown(device)}")
    if isinstance(device, int):
        name = "cpu" if device == -1 else f"cuda:{device}" if torch.cuda.is_available() else f"mps:{device}"
    else:
        name = str(device)
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be {allowed}, got {shown(device)}") from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= there.get(found.type, math.inf):
        raise ValueError(f"`device` must be one that this machine has, such as auto or cpu, got {shown(device)}")
    return found


def check_codes_by_level(codes: object, codebook_size: int, hop_lengths: Sequence[int]) -> list[Tensor | None]:
    """A list of codes that ends at the top level, as one with an entry for each level, bottom first.

    There must be codes at the top, and of no level for a longer time than of the level above it.
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
