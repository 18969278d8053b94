"""What is sampled when: the windows of a level, computed with integers before any tensor exists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """One context's worth of a level, sampled in one go.

    ```
    song      0 ............ start ............ start + prompt_length ............ end ........ length of the level
    window                   |---- prompt: known codes ----|---- sampled here ----|
    ```

    Attributes:
        level: 0 is the bottom.
        start: the song's position, in codes of the level, that is position 0 of the window. A multiple of the number of
            codes that a code of the level above stands for.
        prompt_length: how many codes at the window's beginning are known and only condition the others.
        length: codes of the window, the prompt included.
    """

    level: int
    start: int
    prompt_length: int
    length: int

    def __post_init__(self) -> None:
        if self.level < 0 or self.start < 0 or not 0 <= self.prompt_length < self.length:
            raise ValueError(
                "`Window` needs level >= 0, start >= 0 and 0 <= prompt_length < length, got "
                f"level {self.level}, start {self.start}, prompt_length {self.prompt_length}, length {self.length}"
            )

    @property
    def end(self) -> int:
        """The song's position after the window's last code."""
        return self.start + self.length

    @property
    def new_start(self) -> int:
        """The song's position of the first code that is sampled here."""
        return self.start + self.prompt_length

    @property
    def new_length(self) -> int:
        """How many codes are sampled here."""
        return self.length - self.prompt_length


def hop_of(hop_fraction: float, n_ctx: int, upper_ratio: int = 1) -> int:
    """Codes between the starts of two windows: `hop_fraction` of the context, rounded to whole codes of the level
    above.

    Args:
        hop_fraction: in (0, 1].
        n_ctx: codes of the context, a multiple of `upper_ratio`.
        upper_ratio: codes that a code of the level above stands for; 1 at the top.

    Returns:
        A multiple of `upper_ratio` from `upper_ratio` to `n_ctx`.

    Raises:
        ValueError: `hop_fraction` or `n_ctx` is not as asked.
    """
    if not (math.isfinite(hop_fraction) and 0.0 < hop_fraction <= 1.0):
        raise ValueError(f"`hop_fractions` must be in (0, 1], got {hop_fraction!r}")
    if n_ctx % upper_ratio:
        raise ValueError(f"`n_ctx` must be a multiple of {upper_ratio} codes, one code of the level above; got {n_ctx}")
    return min(max(round(hop_fraction * n_ctx / upper_ratio), 1) * upper_ratio, n_ctx)


def sequential_windows(
    level: int, length: int, n_ctx: int, hop_fraction: float, upper_ratio: int = 1, given: int = 0
) -> list[Window]:
    """The windows of a level one after the other, as Jukebox samples them.

    Windows start every `hop_fraction * n_ctx` codes and take what they share with the window before as their prompt;
    the last is pulled back to end with the song. A song shorter than the context is one shorter window. Codes that are
    given at the song's beginning are known from the start: windows that lie wholly within them vanish, the first of the
    others takes them as its prompt.

    Args:
        level: 0 is the bottom.
        length: codes of the whole song at this level, a multiple of `upper_ratio`.
        n_ctx: codes of the context, a multiple of `upper_ratio`.
        hop_fraction: in (0, 1].
        upper_ratio: codes that a code of the level above stands for; 1 at the top.
        given: codes known at the song's beginning, from 0 to `length`.

    Returns:
        Windows in the order in which they are sampled. Together they sample each position from `given` to `length`
        once, and a window's prompt was given or sampled by the windows before it.

    Raises:
        ValueError: a number is out of its range.
    """
    hop = hop_of(hop_fraction, n_ctx, upper_ratio)
    if length < 1 or length % upper_ratio:
        raise ValueError(f"`length` must be a positive multiple of {upper_ratio} codes, got {length}")
    if not 0 <= given <= length:
        raise ValueError(f"`given` must be from 0 to the song's {length} codes, got {given}")
    size = min(n_ctx, length)
    windows: list[Window] = []
    known = given
    for index in range(-(-(length - size) // hop) + 1):
        start = min(index * hop, length - size)
        if start + size > known:
            windows.append(Window(level=level, start=start, prompt_length=known - start, length=size))
            known = start + size
    return windows


def sampled_codes(windows: Sequence[Window]) -> int:
    """How many codes a song's `windows` sample in all."""
    return sum(window.new_length for window in windows)


__all__ = ["Window", "hop_of", "sampled_codes", "sequential_windows"]
