"""Sampling settings and checks of input that need no tensors: a `ValueError` names the field, the value and what is
allowed, before anything is sampled. Loads no torch, as the notes of a session are read without it.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

MAX_SEED = 2**63 - 1
"""The largest seed."""


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


MOST_SONGS = 2**16
"""Songs that one call makes at most: more is a mistake, which would fill the memory or take for ever."""


def check_count(name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """`value` itself.

    Raises:
        ValueError: it is no integer from `minimum` to `maximum`.
    """
    good = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, int) or not good or value < minimum or (maximum is not None and value > maximum):
        allowed = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"`{name}` must be an integer {allowed}, got {value!r}")
    return value


def common_batch(sizes: dict[str, int]) -> int:
    """The number of songs that inputs of these batch sizes make: 1 goes with any.

    Raises:
        ValueError: two sizes above 1 differ.
    """
    batch = max(sizes.values())
    for name, size in sizes.items():
        if size not in (1, batch):
            others = ", ".join(f"`{other}` {count}" for other, count in sizes.items() if other != name)
            raise ValueError(f"`{name}` has {size} songs, which must be 1 or that of the others: {others}")
    return batch


def resolve_seeds(seed: object, songs: object, batch: int) -> tuple[int | list[int], list[int], list[int]]:
    """Seed and song number of each song of a batch, for its noise.

    Args:
        seed: one seed; or one a song, each of which then stands for the first song of its seed; or `None`, drawn
            afresh.
        songs: which song of its seed each one is; `None` counts from 0.
        batch: number of songs.

    Returns:
        The seed (or seeds) to report, then for each song its seed and its number.

    Raises:
        ValueError: a seed or a song number is out of its range, or there are more or fewer than songs.
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
            raise ValueError(f"`song_ids` must be a list of one number for each of {batch} songs, got {songs!r}")
        numbers = [check_count("song_ids", number, 0, 2**32 - 1) for number in songs]
    return reported, seeds, numbers


def check_levels(start_level: object, stop_level: object, num_levels: int) -> tuple[int, int]:
    """The highest and the lowest level to sample; `None` for the first is the top.

    Raises:
        ValueError: a level does not exist, or they are in the wrong order.
    """
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
    """`seed` itself.

    Raises:
        ValueError: it is no integer in [0, 2**63).
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"`seed` must be an integer from 0 to 2**63 - 1, got {seed!r}")
    return seed


def fresh_seed() -> int:
    """A seed from the operating system's randomness, below 2**53 so that it survives JSON and spreadsheets."""
    return secrets.randbelow(2**53)


MIN_TEMPERATURE = 1e-3
"""The lowest temperature: still less and logits would leave the range of float32. `do_sample=False` is the limit."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the draw of a code from logits.

    Attributes:
        do_sample: draw; if `False`, take the most probable code.
        temperature: what logits are divided by, at least `MIN_TEMPERATURE`.
        top_k: keep only the `top_k` most probable codes (and those that tie with the last of them); 0 keeps all.
        top_p: keep only the fewest most probable codes whose probabilities sum to at least `top_p`, in (0, 1]; 1 keeps
            all.

    Raises:
        ValueError: a value is not as asked.
    """

    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.do_sample, bool):
            raise ValueError(f"`do_sample` must be True or False, got {self.do_sample!r}")
        if not _is_number(self.temperature) or not self.temperature >= MIN_TEMPERATURE:
            raise ValueError(
                f"`temperature` must be a finite number of at least {MIN_TEMPERATURE:g} (do_sample=False takes the "
                f"most probable code), got {self.temperature!r}"
            )
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 0:
            raise ValueError(f"`top_k` must be an integer of at least 0 (0 keeps every code), got {self.top_k!r}")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1] (1 keeps every code), got {self.top_p!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
