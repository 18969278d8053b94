"""Codes of takes: those that a take begins with, and those of the windows sampled at each level. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_safetensors

from fast_jukebox.generation.windows import Layout, Window, sampled_codes, seam_in
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sessions.notes import ModelFacts, Take
from fast_jukebox.sessions.store import Arrays, SessionError, SessionStore, codes_dtype, remedy_for, write_complete
from fast_jukebox.utils.files import clear_temporary

WindowCodes = dict[int, np.ndarray]
"""The new codes of each window of a level that is done, by `window.end`, which is different for each."""


@dataclass(frozen=True)
class PartLayout(Layout):
    """The windows of a level that give its codes from `first` to `last` as the complete layout does: of parallel
    windows those that reach into the part, of sequential ones all up to its end.
    """

    first: int = 0
    last: int = 0

    @classmethod
    def of(cls, layout: Layout, first: int, last: int) -> PartLayout:
        """The part of a layout from one code to another."""
        return cls(**{field.name: getattr(layout, field.name) for field in fields(Layout)}, first=first, last=last)

    def windows(self) -> Iterator[Window]:
        """The windows, in order."""
        every = list(super().windows())
        if not self.parallel:
            yield from (window for window in every if window.new_start < self.last)
            return
        ends = [*(window.seam_end for window in every[1:]), self.length or 0][: len(every)]
        joins = False
        for window, end in zip(every, ends, strict=True):
            earliest = max(window.seam_end - window.seam_length, window.new_start)
            if earliest < self.last and end > self.first:
                # The first of a part joins nothing: where it would, lies before the part.
                yield window if joins else replace(window, seam_end=0, seam_length=0)
                joins = True


def part_layouts(layouts: Sequence[Layout], stop_level: int, first: int, last: int) -> list[Layout | None]:
    """The windows to sample at each level, so that the codes of `stop_level` from `first` to `last` are known; `None`
    below. Each level above is needed under complete windows of the one below.
    """
    parts: list[Layout | None] = [None] * len(layouts)
    for level in range(stop_level, len(layouts)):
        part = PartLayout.of(layouts[level], first, last)
        parts[level] = part
        if level + 1 < len(layouts):
            ratio = (layouts[level].length or 0) // (layouts[level + 1].length or 1)
            windows = list(part.windows())
            first = min([first, *(window.start for window in windows)]) // ratio
            last = -(-max([last, *(window.end for window in windows)]) // ratio)
    return parts


def read_span(
    layout: Layout, given: np.ndarray | None, sampled: WindowCodes, first: int, last: int
) -> np.ndarray | None:
    """Codes int64 (last - first,) of a level of a take, or `None` where not all are made.

    Args:
        layout: of the level.
        given: int64 (known,) codes that the take begins with, or `None`.
        sampled: of the level.
        first: the song's position of the first code.
        last: the one after the last.
    """
    song = np.zeros(layout.length or 0, np.int64)
    if given is not None:
        song[: len(given)] = given
    for window in PartLayout.of(layout, first, last).windows():
        new = sampled.get(window.end)
        if new is None:
            return None
        codes = np.concatenate([song[window.start : window.new_start], new])
        seam = window.new_start
        if window.seam_end:  # see LevelCodes.place
            begin = max(window.seam_end - window.seam_length, window.start)
            agreed = song[begin : window.seam_end] == codes[begin - window.start : window.seam_end - window.start]
            seam = begin + seam_in(agreed.tolist())
        song[seam : window.end] = codes[seam - window.start :]
    return song[first:last].copy()


def made_from_start(layout: Layout, sampled: WindowCodes) -> int:
    """Number of codes from the song's beginning that are made and will not change."""
    made = layout.given
    for window in layout.windows():
        if window.end not in sampled:
            break
        made = max(made, window.final)
    return made


class TakeCodes:
    """Reads and writes the codes of takes.

    A file `given-*` holds the codes that takes begin with, a file `recording-*` the samples; its name is that of its
    content, so that siblings share one. A file `take-*-level-*` holds what was sampled of one level: of a sequential
    level all codes so far, so that the file of a top level alone gives the song, of a parallel one the codes of each
    window. Methods raise a `SessionError` where a file is lost, damaged or of another take, or cannot be written.

    Args:
        store: the session's folder.
        facts: of the session's model.
    """

    def __init__(self, store: SessionStore, facts: ModelFacts) -> None:
        self.store, self.facts = store, facts

    def write_given(self, given: Sequence[np.ndarray | None]) -> str | None:
        """Keep codes (known,) of each level that takes begin with; the file's name, `None` where there are none."""
        arrays = {f"level_{level}": self._narrow(own) for level, own in enumerate(given) if own is not None}
        arrays = {name: own for name, own in arrays.items() if len(own)}
        return self._write_once("given", arrays) if arrays else None

    def write_recording(self, samples: np.ndarray) -> str:
        """Keep samples float32 (length,) of a recording that takes begin with; the file's name."""
        return self._write_once("recording", {"samples": samples})

    def _write_once(self, kind: str, arrays: Arrays) -> str:
        """Write a file named by its content, unless it is there; its name."""
        digest = hashlib.sha256(self.facts.vqvae.encode())
        for key, array in arrays.items():
            digest.update(key.encode() + array.tobytes())
        name = f"{kind}-{digest.hexdigest()[:24]}"
        if not self.store.has_codes(name):
            self.store.write_codes(name, arrays, {"vqvae": self.facts.vqvae})
        return name

    def recording(self, take: Take) -> np.ndarray | None:
        """The samples float32 (recorded,) that a take begins with; `None` where it continues no recording."""
        if take.recording is None:
            return None
        arrays, _ = self._read(take.recording, take.recorded, f"the recording of take {take.number}")
        samples = arrays.get("samples")
        if samples is None or samples.dtype != np.float32 or samples.shape != (take.recorded,):
            raise self._another(take.recording, take)
        return samples

    def given(self, take: Take) -> list[np.ndarray | None]:
        """Codes int64 (known,) that a take begins with at each level."""
        if take.given is None:
            return [None] * len(take.layouts)
        arrays, facts = self._read(take.given, sum(take.known), f"what take {take.number} begins with")
        given = [arrays.get(f"level_{level}") if count else None for level, count in enumerate(take.known)]
        if [(0,) if own is None else own.shape for own in given] != [(count,) for count in take.known]:
            raise self._another(take.given, take)
        return [None if own is None else self._checked(own, facts, take.given) for own in given]

    def _read(self, name: str, most: int, what: str) -> tuple[Arrays, dict[str, object]]:
        found = self.store.read_codes(name, most)
        if found is None:
            path = str(self.store.codes_path(name))
            raise SessionError(f"the session has lost {what}, {path!r}: bring it back from a copy")
        return found

    def window_codes(self, take: Take, level: int) -> WindowCodes:
        """The codes sampled of a level."""
        name, layout = _name(take, level), take.layouts[level]
        lengths = {window.end: window.new_length for window in layout.windows()}
        found = self.store.read_codes(name, layout.given + sum(lengths.values()) + len(lengths))
        if found is None:
            return {}
        arrays, facts = found
        try:
            ends = arrays["ends"].tolist()
            counts = [lengths[end] for end in ends]
            codes = arrays["codes"].reshape(-1)[0 if layout.parallel else layout.given :]
            right = ends == sorted(set(ends)) and len(codes) == sum(counts)
            right = right and (layout.parallel or ends == list(lengths)[: len(ends)])
            right = right and facts == {**facts, **self._record(take, level)}
        except (KeyError, TypeError) as error:
            raise self._another(name, take) from error
        if not right:
            raise self._another(name, take)
        codes = self._checked(codes, facts, name)
        return dict(zip(ends, np.split(codes, np.cumsum(counts)[:-1]), strict=True)) if ends else {}

    def write_window_codes(self, take: Take, level: int, sampled: WindowCodes) -> None:
        """Replace the codes sampled of a level."""
        ends = sorted(sampled)
        parts = [sampled[end] for end in ends]
        given = None if take.layouts[level].parallel else self.given(take)[level]
        arrays = {
            "codes": self._narrow(np.concatenate(parts if given is None else [given, *parts])),
            "ends": np.array(ends, np.int64),
        }
        self.store.write_codes(_name(take, level), arrays, {**self._record(take, level), "vqvae": self.facts.vqvae})

    def span(self, take: Take, level: int, first: int, last: int) -> np.ndarray | None:
        """Codes int64 (last - first,) of a level, or `None` where not all of them are made."""
        return read_span(take.layouts[level], self.given(take)[level], self.window_codes(take, level), first, last)

    def fractions(self, take: Take) -> list[float]:
        """Fraction of each level that is made, in [0, 1], bottom first."""
        fractions = []
        for level, layout in enumerate(take.layouts):
            done = sum(map(len, self.window_codes(take, level).values()))
            fractions.append((layout.given + done) / (layout.given + sampled_codes(list(layout.windows()))))
        return fractions

    def beginning(self, take: Take, kept: int) -> list[np.ndarray | None]:
        """The first `kept` top codes of a take, and the codes below that are made of them.

        Raises:
            ValueError: so many top codes are not made yet.
        """
        top = len(take.layouts) - 1
        codes = self.span(take, top, 0, kept)
        if codes is None:
            raise ValueError(
                f"`take` must be made up to where it is continued, but the {level_name(top, top + 1)} level of take "
                f"{take.number} is not; `run` makes it"
            )
        found: list[np.ndarray | None] = [*[None] * top, codes]
        made = kept
        for level in reversed(range(top)):
            ratio = take.length(level) // take.length(top)
            made = min(made, made_from_start(take.layouts[level], self.window_codes(take, level)) // ratio)
            found[level] = self.span(take, level, 0, made * ratio) if made else None
        return found

    def complete(self, take: Take) -> list[np.ndarray | None]:
        """Codes int64 (length,) of each level, bottom first; `None` for levels that are not complete."""
        return [self.span(take, level, 0, take.length(level)) for level in range(len(take.layouts))]

    def export(self, path: Path, take: Take) -> Path:
        """Write codes (1, length) of each level that is made to a `.safetensors` file that any program reads.

        Raises:
            ValueError: nothing is made.
            SessionError: the file cannot be written.
        """
        arrays = {f"level_{level}": own[None] for level, own in enumerate(self.complete(take)) if own is not None}
        if not arrays:
            raise ValueError(f"take {take.number} has no level that is complete; `run` makes it")
        clear_temporary(path.parent)
        write_complete(path, save_safetensors(arrays, {"vqvae": self.facts.vqvae}))
        return path

    @staticmethod
    def _record(take: Take, level: int) -> dict[str, object]:
        """Take and level of the codes in a file, with a digest of all that they follow from."""
        digest = hashlib.sha256(json.dumps(take.record(), sort_keys=True).encode()).hexdigest()
        return {"take": take.number, "level": level, "record": digest}

    def _narrow(self, codes: np.ndarray) -> np.ndarray:
        return codes.astype(codes_dtype(self.facts.codebook_size))

    def _checked(self, codes: np.ndarray, facts: dict[str, object], name: str) -> np.ndarray:
        path = str(self.store.codes_path(name))
        if facts.get("vqvae") != self.facts.vqvae:
            raise SessionError(
                f"{path!r} holds codes of another model's codebook than the session's; {remedy_for(name)}"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < self.facts.codebook_size:
            raise SessionError(
                f"{path!r} must hold codes from 0 to {self.facts.codebook_size - 1}, got {codes.min()} to "
                f"{codes.max()}; {remedy_for(name)}"
            )
        return codes.astype(np.int64)

    def _another(self, name: str, take: Take) -> SessionError:
        path = str(self.store.codes_path(name))
        return SessionError(f"{path!r} does not belong to take {take.number} of this session; {remedy_for(name)}")


def _name(take: Take, level: int) -> str:
    return f"take-{take.number:04}-level-{level}"
