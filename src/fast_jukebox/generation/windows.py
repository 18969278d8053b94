"""Windows of a song: the settings that lay them out, and what is sampled when. Integers alone; loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TypeVar

from fast_jukebox.sampling.checks import SamplingSettings, is_number
from fast_jukebox.utils.text import shown

_Value = TypeVar("_Value")

SCHEDULES = ("parallel", "sequential")
"""How the windows of a level follow each other; see [`Layout`]."""

MOST_WINDOWS = 2**22
"""Windows of a level of one song at most; a day at a hop length of 8, in windows of 512 codes, takes a quarter."""


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
        seam_end: the song's position by which the window has taken over from the one before; 0 where it joins nothing.
        seam_length: it does so somewhere in the `seam_length` codes before `seam_end`.
        provisional: how many codes at the window's end the next window may replace.
    """

    level: int
    start: int
    prompt_length: int
    length: int
    seam_end: int = 0
    seam_length: int = 0
    provisional: int = 0

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

    @property
    def final(self) -> int:
        """The song's position up to which no later window changes a code."""
        return self.end - self.provisional


@dataclass(frozen=True)
class Layout:
    """The windows of a level, which begin the same whatever the song's length: only its last window may differ.

    *Sequential*: each window takes what it shares with the window before as its prompt, as Jukebox samples.

    ```
    |==============|
        |··········====|            · prompt   = sampled
            |··········====|
    ```

    *Parallel*: no window waits for another. Neighbours both sample what they share, with the same noise. The first
    codes of a window lack what came before them and its last ones what comes after, so a window takes over from the
    one before somewhere in the middle half of what they share.

    ```
    |==============--|
                |--==============--|     - heard of neither, as a rule
                            |--==============|
    ```

    In both, the last window is pulled back to end with the song, a song shorter than a window is one shorter window,
    and codes given at the song's beginning are known: windows that lie wholly within them vanish, those that begin
    within them take them as their prompt.

    Attributes:
        level: 0 is the bottom.
        length: codes of the song at this level, a multiple of `upper_ratio`; `None` for a song without end.
        size: codes of a window.
        hop: codes between the starts of two windows, at most `size`.
        given: codes known at the song's beginning.
        parallel: see above.
        segment: sequential windows that sample more codes than this are sampled in segments of so many, each with what
            is known as its prompt, so that levels below need not wait for a whole window; `None` for whole windows.
    """

    level: int
    length: int | None
    size: int
    hop: int
    given: int = 0
    parallel: bool = False
    segment: int | None = None

    def __post_init__(self) -> None:
        """Raise a `ValueError` where there would be so many windows that listing them fills the memory."""
        least = max(self.hop if self.segment is None else min(self.hop, self.segment), 1)
        if self.length is not None and self.length > MOST_WINDOWS * least:
            raise ValueError(
                f"`hop_fractions` must be larger: {self.length} codes of level {self.level} in steps of {least} would "
                f"take more than {MOST_WINDOWS} windows"
            )

    def windows(self) -> Iterator[Window]:
        """The windows in their order; endless where the song is."""
        return self._parallel() if self.parallel else self._sequential()

    @property
    def _overlap(self) -> int:
        return self.size - self.hop

    @property
    def _seam_length(self) -> int:
        """Codes among which a parallel window takes over: half of the overlap, and never more than a hop."""
        return min(self._overlap - 2 * (self._overlap // 4), self.hop)

    def _sequential(self) -> Iterator[Window]:
        size = self.size if self.length is None else min(self.size, self.length)
        known, start = self.given, 0
        while self.length is None or known < self.length:
            first = start if self.length is None else min(start, self.length - size)
            while known < first + size:
                end = first + size if self.segment is None else min(known + self.segment, first + size)
                yield Window(self.level, first, known - first, end - first)
                known = end
            start += self.hop

    def _parallel(self) -> Iterator[Window]:
        size = self.size if self.length is None else min(self.size, self.length)
        before, start, last = 0, 0, False  # the end of the window before
        lead, seam_length = self._overlap // 4, self._seam_length
        while not last:
            last = self.length is not None and start + size >= self.length
            first = self.length - size if last and self.length is not None else start
            if first + size > self.given:
                yield Window(
                    self.level,
                    first,
                    max(self.given - first, 0),
                    size,
                    seam_end=before - lead if before else 0,
                    seam_length=seam_length if before else 0,
                    provisional=0 if last else lead + seam_length,
                )
                before = first + size
            start += self.hop


def hop_of(hop_fraction: float, size: int, upper_ratio: int = 1) -> int:
    """Codes between the starts of two windows: `hop_fraction` of a window, rounded to whole codes of the level above.

    Args:
        hop_fraction: in (0, 1].
        size: codes of a window, a multiple of `upper_ratio`.
        upper_ratio: codes that a code of the level above stands for; 1 at the top.

    Returns:
        A multiple of `upper_ratio` from `upper_ratio` to `size`.

    Raises:
        ValueError: `hop_fraction` or `size` is not as asked.
    """
    return _share("hop_fractions", hop_fraction, size, upper_ratio)


def size_of(window_fraction: float, n_ctx: int, upper_ratio: int = 1) -> int:
    """Codes of a window: `window_fraction` of the context, rounded to whole codes of the level above.

    Args:
        window_fraction: in (0, 1].
        n_ctx: codes of the context, a multiple of `upper_ratio`.
        upper_ratio: codes that a code of the level above stands for; 1 at the top.

    Returns:
        A multiple of `upper_ratio` from `upper_ratio` to `n_ctx`.

    Raises:
        ValueError: `window_fraction` or `n_ctx` is not as asked.
    """
    return _share("window_fractions", window_fraction, n_ctx, upper_ratio)


def _share(name: str, fraction: float, whole: int, upper_ratio: int) -> int:
    check_fraction(name, fraction)
    if whole % upper_ratio:
        raise ValueError(f"`n_ctx` must be a multiple of {upper_ratio} codes, one code of the level above; got {whole}")
    return min(max(round(fraction * whole / upper_ratio), 1) * upper_ratio, whole)


def sampled_codes(windows: Sequence[Window]) -> int:
    """How many codes a song's `windows` sample in all."""
    return sum(window.new_length for window in windows)


def covered_codes(windows: Sequence[Window]) -> int:
    """How many positions of a song its `windows` sample, those that several do counted once."""
    covered, end = 0, 0
    for window in windows:
        covered += max(window.end - max(window.new_start, end), 0)
        end = window.end
    return covered


def even_parts(items: list[_Value], most: int) -> list[list[_Value]]:
    """`items` in as few parts of at most `most` as there can be, which differ by one item at most."""
    count = -(-len(items) // most)
    bounds = [part * len(items) // count for part in range(count + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


def seam_in(agreed: Sequence[bool] | Sequence[int]) -> int:
    """Where to change from one window to the next among codes that both have sampled: in the middle of the first of the
    longest runs of codes on which they agree, or in the middle of all where no code agrees.
    """
    best_start, best, start = 0, 0, 0
    for position, same in enumerate(agreed):
        if not same:
            start = position + 1
        elif position + 1 - start > best:
            best_start, best = start, position + 1 - start
    return best_start + best // 2 if best else len(agreed) // 2


DEFAULT_DURATION = 20.0
"""Seconds of a song where nothing says otherwise."""

MAX_DURATION_SECONDS = 24 * 3600.0
"""The longest song that one call makes: a day."""

DRAW_SETTINGS = tuple(field.name for field in fields(SamplingSettings))
"""Settings of how a code is drawn from its logits."""

WINDOW_SETTINGS = ("schedule", "window_fractions", "hop_fractions")
"""Settings of how the windows of a level are laid out."""

SETTINGS = (*WINDOW_SETTINGS, *DRAW_SETTINGS)
"""All sampling settings: one value for all levels, or a list with one for each, bottom first."""


def check_settings(settings: Mapping[str, object]) -> None:
    """Raise a `ValueError` unless the values of some of [`SETTINGS`] are in their ranges; of those of windows, `None`
    is.
    """
    check_schedule(settings.get("schedule"))
    for name, value in settings.items():
        for entry in _entries(value):
            if name in DRAW_SETTINGS:
                SamplingSettings(**{name: entry})  # type: ignore[arg-type]  # it is what checks them
            elif name != "schedule" and entry is not None:
                check_fraction(name, entry)


def _entries(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else [value]


def per_level(name: str, value: _Value | Sequence[_Value], num_levels: int) -> list[_Value]:
    """One value a level, bottom first, from one value for all or a list.

    Raises:
        ValueError: a list of another length.
    """
    if not isinstance(value, list | tuple):
        return [value] * num_levels  # type: ignore[list-item]  # a text is one value, not a sequence of them
    if len(value) != num_levels:
        raise ValueError(
            f"`{name}` must be one value or a list of {num_levels}, one for each level, bottom first; "
            f"got {shown(value)}"
        )
    return list(value)


def draw_settings(settings: Mapping[str, object], num_levels: int) -> list[SamplingSettings]:
    """How codes are drawn at each level, bottom first.

    Raises:
        ValueError: a list has another number of levels.
    """
    columns = [per_level(name, settings[name], num_levels) for name in DRAW_SETTINGS]
    return [SamplingSettings(*row) for row in zip(*columns, strict=True)]


def song_layouts(
    settings: Mapping[str, object],
    lengths: Sequence[int | None],
    hop_lengths: Sequence[int],
    n_ctx: Sequence[int],
    given: Sequence[int],
) -> list[Layout]:
    """The windows of each level of a song. All lists have an entry a level, bottom first.

    The top level's first window is sampled a hop at a time, like those after it, so that the levels below need not wait
    for a whole context.

    Args:
        settings: values of [`WINDOW_SETTINGS`].
        lengths: codes of the song; `None` for one without end.
        hop_lengths: audio samples a code stands for.
        n_ctx: codes of a context.
        given: codes known at the song's beginning.

    Raises:
        ValueError: a list in `settings` has another number of levels.
    """
    count = len(hop_lengths)
    columns = [per_level(name, settings.get(name), count) for name in WINDOW_SETTINGS]
    layouts = []
    for level, (schedule, window_fraction, hop_fraction) in enumerate(zip(*columns, strict=True)):
        top = level == count - 1
        ratio = 1 if top else hop_lengths[level + 1] // hop_lengths[level]
        parallel = not top and schedule != "sequential"
        share = window_fraction if parallel and window_fraction is not None else 1.0
        size = size_of(share, n_ctx[level], ratio)
        hop = hop_of(default_hop_fraction(parallel, top, share) if hop_fraction is None else hop_fraction, size, ratio)
        layouts.append(Layout(level, lengths[level], size, hop, given[level], parallel, segment=hop if top else None))
    return layouts


def default_hop_fraction(parallel: bool, top: bool, window_fraction: float = 1.0) -> float:
    """Hop fraction of a level where nothing says otherwise: see [`FastJukeboxGenerationConfig`]."""
    if parallel:
        return 1.0 - min(0.125 / window_fraction, 0.25)
    return 0.125 if top else 0.5


def check_duration(name: str, value: object) -> float:
    """`value` itself.

    Raises:
        ValueError: it is no number of seconds above 0 and at most [`MAX_DURATION_SECONDS`].
    """
    if not is_number(value) or not 0 < value <= MAX_DURATION_SECONDS:
        raise ValueError(
            f"`{name}` must be a number of seconds above 0 and at most {MAX_DURATION_SECONDS:.0f}, got {shown(value)}"
        )
    return value


def check_fraction(name: str, value: object) -> float:
    """`value` itself.

    Raises:
        ValueError: it is no number in (0, 1].
    """
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must be in (0, 1], got {shown(value)}")
    return value


def check_schedule(value: object) -> None:
    """Raise a `ValueError` unless `value` is one of `SCHEDULES`, or a list of them whose last entry, the top level's,
    is sequential; `None` stands for the default.
    """
    allowed = " or ".join(map(repr, SCHEDULES))
    for entry in _entries(value):
        if entry is not None and entry not in SCHEDULES:
            raise ValueError(f"`schedule` must be {allowed}, or a list of them, bottom first; got {shown(value)}")
    if isinstance(value, list | tuple) and value and value[-1] == "parallel":
        raise ValueError(
            "`schedule` must end with 'sequential': windows of the top level, which nothing conditions, cannot be "
            f"sampled apart; got {shown(value)}"
        )
