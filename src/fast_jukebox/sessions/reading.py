"""What a session gives: the codes, the sound and the tree of its takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.sampling.checks import check_count, level_name
from fast_jukebox.sessions.export import decode_stretch, write_stretch
from fast_jukebox.sessions.state import SessionState
from fast_jukebox.sessions.takes import Take
from fast_jukebox.sessions.tree import tree_lines


class SessionReading(SessionState):
    """The half of a [`Session`] that reads, for which nothing is locked."""

    def codes(self, take: int | Take | None = None) -> list[Tensor | None]:
        """Codes int64 (1, length) of each level of a take, bottom first; `None` for levels that are not made whole."""
        found = self.take(take)
        whole = [self._codes.span(found, level, 0, found.length(level)) for level in range(len(found.layouts))]
        return [None if own is None else own.unsqueeze(0) for own in whole]

    def shares(self, take: int | Take | None = None) -> list[float]:
        """How much of each level of a take is made, in [0, 1], bottom first."""
        return self._codes.shares(self.take(take))

    def tree(self) -> str:
        """The takes as a tree, one a line: how each came about, what it is told and what is made of it."""
        shares = {number: self.shares(number) for number in self.takes}
        return "\n".join(tree_lines(list(self.takes.values()), self._kept, shares, self.facts.sampling_rate))

    def audio(
        self,
        take: int | Take | None = None,
        level: int | None = None,
        start: float | None = None,
        end: float | None = None,
        model: Any = None,
    ) -> Tensor:
        """Sound float32 (T,) of a take or of a part of it.

        Args:
            take: by default the one that is kept.
            level: which level to decode; by default the lowest that is made there.
            start: seconds; by default the beginning.
            end: seconds; by default the end.
            model: by default the one that the session was made or opened with.

        Raises:
            ValueError: the level is not made there, there is no such take or part, or the model is not the session's.
        """
        return torch.cat(list(self._pieces(take, level, start, end, model)))

    def export(
        self,
        path: str | os.PathLike[str],
        take: int | Take | None = None,
        level: int | None = None,
        start: float | None = None,
        end: float | None = None,
        model: Any = None,
    ) -> Path:
        """Write what `audio` returns to a `.wav` or `.flac` file, piece by piece, whole or not at all; or the codes of
        every level that is made to a `.safetensors` file.

        Raises:
            ValueError: as `audio`, or another suffix.
            SessionError: the file cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() == ".safetensors":
            return self._codes.export(path, self.take(take), self.codes(take))
        return write_stretch(path, self._pieces(take, level, start, end, model), self.facts.sampling_rate)

    def _pieces(self, take: Any, level: int | None, start: Any, end: Any, model: Any) -> Iterator[Tensor]:
        model, found = self._model(model), self.take(take)
        self.facts.check(model, [])
        first, last = self._samples_of(start, end, found.samples)
        for own in range(len(found.layouts)) if level is None else [level]:
            check_count("level", own, 0, len(found.layouts) - 1)
            read = partial(self._codes.span, found, own)
            pieces = decode_stretch(model.vqvae, read, own, first, last, found.length(own))
            if pieces is not None:
                return pieces
        what = "any level" if level is None else f"the {level_name(level, len(found.layouts))} level"
        raise ValueError(f"take {found.number} has no sound of {what} there yet; `run` or `upsample` makes it")

    def _model(self, model: Any) -> Any:
        model = self.model if model is None else model
        if model is None:
            raise ValueError("`model` must be given, as the session was opened without one")
        return model
