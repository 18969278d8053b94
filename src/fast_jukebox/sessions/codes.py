"""The codes of takes on the disk: what a take begins with, and of each level the windows that are sampled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from fast_jukebox.generation.decoding import KeptRecording
from fast_jukebox.generation.windows import sampled_codes
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sessions.fingerprint import ModelFacts
from fast_jukebox.sessions.store import SessionError, SessionStore, codes_dtype, write_whole
from fast_jukebox.sessions.takes import Take, WindowCodes, made_from_start, read_span
from fast_jukebox.utils.files import clear_temporary


class TakeCodes:
    """Reads and writes the codes of takes.

    A file `given-*` holds the codes that takes begin with, a file `recording-*` the samples; its name is that of its
    content, so that siblings share one. A file `take-*-level-*` holds what was sampled of one level: of a sequential
    level all codes so far, so that the file of a top level says on its own how the song goes, of a parallel one the
    codes of each window.

    Args:
        store: the session's folder.
        facts: of the session's model.
    """

    def __init__(self, store: SessionStore, facts: ModelFacts) -> None:
        self.store, self.facts = store, facts

    def write_given(self, given: Sequence[Tensor | None]) -> str | None:
        """Keep codes (known,) of each level that takes begin with; the file's name, `None` where there are none."""
        tensors = {
            f"level_{level}": self._narrow(own) for level, own in enumerate(given) if own is not None and len(own)
        }
        if not tensors:
            return None
        return self._write_once("given", tensors)

    def _write_once(self, kind: str, tensors: Mapping[str, Tensor]) -> str:
        """Write a file that is called by its content, unless it is there; its name."""
        found = hashlib.sha256(self.facts.vqvae.encode())
        for name, tensor in tensors.items():
            found.update(name.encode() + tensor.numpy().tobytes())
        name = f"{kind}-{found.hexdigest()[:24]}"
        if not self.store.has_codes(name):
            self.store.write_codes(name, tensors, {"vqvae": self.facts.vqvae})
        return name

    def write_recording(self, recording: KeptRecording | None, length: int | None = None) -> list[str | None]:
        """Keep the samples of the recordings that takes begin with, at most `length`; the name of each one's file."""
        if recording is None:
            return [None]
        return [self._write_once("recording", {"samples": own[:length].clone()}) for own in recording.samples]

    def recording(self, take: Take) -> KeptRecording | None:
        """The samples that a take begins with; `None` where it continues no recording.

        Raises:
            SessionError: the file is lost, damaged or another one.
        """
        if take.recording is None:
            return None
        found = self.store.read_codes(take.recording, take.recorded)
        if found is None:
            raise SessionError(f"the session has lost the recording of take {take.number}, the file {take.recording!r}")
        samples = found[0].get("samples", torch.empty(0))
        if samples.dtype != torch.float32 or samples.shape != (take.recorded,):
            raise self._another(take.recording, take)
        return KeptRecording.of(samples.unsqueeze(0), self.facts.sampling_rate)

    def given(self, take: Take) -> list[Tensor | None]:
        """Codes int64 (known,) that a take begins with at each level.

        Raises:
            SessionError: the file is lost, damaged or another one.
        """
        if take.given is None:
            return [None] * len(take.layouts)
        found = self.store.read_codes(take.given, sum(take.known))
        if found is None:
            raise SessionError(f"the session has lost what take {take.number} begins with, the file {take.given!r}")
        tensors, facts = found
        own = [tensors.get(f"level_{level}") if count else None for level, count in enumerate(take.known)]
        lengths = [0 if each is None else each.numel() for each in own]
        if lengths != list(take.known) or any(each is not None and each.dim() != 1 for each in own):
            raise self._another(take.given, take)
        return [None if each is None else self._checked(each, facts, take.given, take) for each in own]

    def window_codes(self, take: Take, level: int) -> WindowCodes:
        """What is sampled of a level: of each window that is done, by its number, the new codes.

        Raises:
            SessionError: the file is damaged or another one.
        """
        name, layout = _name(take, level), take.layouts[level]
        windows = list(layout.windows())
        found = self.store.read_codes(name, layout.given + sampled_codes(windows) + len(windows))
        if found is None:
            return {}
        tensors, facts = found
        try:
            numbers = [int(number) for number in tensors["windows"].tolist()]
            counts = [windows[number].new_length for number in numbers]
            codes = tensors["codes"].reshape(-1)[layout.given if not layout.parallel else 0 :]
            right = sorted(set(numbers)) == numbers and min([0, *numbers]) == 0 and len(codes) == sum(counts)
            right = right and (layout.parallel or numbers == list(range(len(numbers))))
        except (KeyError, IndexError, TypeError) as error:
            raise self._another(name, take) from error
        if not right or facts.get("take") != take.number or facts.get("level") != level:
            raise self._another(name, take)
        if facts.get("record", own := _digest(take)) != own:  # sessions of older versions do not state it
            raise self._another(name, take)
        return dict(zip(numbers, self._checked(codes, facts, name, take).split(counts), strict=True))

    def write_window_codes(self, take: Take, level: int, sampled: WindowCodes) -> None:
        """Replace what is sampled of a level.

        Raises:
            SessionError: it cannot be written; what was saved before stands.
        """
        numbers = sorted(sampled)
        parts = [sampled[number] for number in numbers]
        given = self.given(take)[level]
        if not take.layouts[level].parallel and given is not None:
            parts = [given, *parts]
        tensors = {"codes": self._narrow(torch.cat(parts)), "windows": torch.tensor(numbers, dtype=torch.int64)}
        facts = {"take": take.number, "level": level, "vqvae": self.facts.vqvae, "record": _digest(take)}
        self.store.write_codes(_name(take, level), tensors, facts)

    def span(self, take: Take, level: int, first: int, last: int) -> Tensor | None:
        """Codes int64 (last - first,) of a level, or `None` where not all of them are made."""
        return read_span(take.layouts[level], self.given(take)[level], self.window_codes(take, level), first, last)

    def shares(self, take: Take) -> list[float]:
        """How much of each level is made, in [0, 1], bottom first."""
        shares = []
        for level, layout in enumerate(take.layouts):
            windows = list(layout.windows())
            wanted = layout.given + sum(window.new_length for window in windows)
            sampled = self.window_codes(take, level)
            done = sum(window.new_length for number, window in enumerate(windows) if number in sampled)
            shares.append((layout.given + done) / wanted)
        return shares

    def beginning(self, take: Take, kept: int) -> list[Tensor | None]:
        """The first `kept` top codes of a take, and what is made of them below.

        Raises:
            ValueError: so many top codes are not made yet.
        """
        top = len(take.layouts) - 1
        codes = self.span(take, top, 0, kept)
        if codes is None:
            raise ValueError(
                f"`take` must be made up to where it is gone on from, but the {level_name(top, top + 1)} level of take "
                f"{take.number} is not; `run` makes it"
            )
        own: list[Tensor | None] = [None] * top + [codes]
        made = kept
        for level in reversed(range(top)):
            ratio = take.length(level) // take.length(top)
            made = min(made, made_from_start(take.layouts[level], self.window_codes(take, level)) // ratio)
            own[level] = self.span(take, level, 0, made * ratio) if made else None
        return own

    def complete(self, take: Take) -> list[Tensor | None]:
        """Codes (1, length) of each level, bottom first; `None` for levels that are not complete."""
        found = [self.span(take, level, 0, take.length(level)) for level in range(len(take.layouts))]
        return [None if own is None else own.unsqueeze(0) for own in found]

    def export(self, path: Path, take: Take) -> Path:
        """Write codes (1, length) of each level that is made to a `.safetensors` file that any program reads.

        Raises:
            ValueError: nothing is made.
            SessionError: the file cannot be written.
        """
        tensors = {f"level_{level}": own for level, own in enumerate(self.complete(take)) if own is not None}
        if not tensors:
            raise ValueError(f"take {take.number} has no level that is made whole; `run` makes it")
        clear_temporary(path.parent)
        write_whole(path, save_safetensors(tensors, {"vqvae": self.facts.vqvae}))
        return path

    def _narrow(self, codes: Tensor) -> Tensor:
        return codes.to("cpu", codes_dtype(self.facts.codebook_size))

    def _checked(self, codes: Tensor, facts: dict, name: str, take: Take) -> Tensor:
        if facts.get("vqvae") != self.facts.vqvae:
            raise SessionError(f"the codes in {name!r} are of another model's codebook than the session's")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.facts.codebook_size:
            raise SessionError(
                f"the codes in {name!r} must be from 0 to {self.facts.codebook_size - 1}, got {int(codes.min())} to "
                f"{int(codes.max())}"
            )
        return codes.to(torch.int64)

    @staticmethod
    def _another(name: str, take: Take) -> SessionError:
        return SessionError(f"the file {name!r} does not belong to take {take.number} of this session")


def _digest(take: Take) -> str:
    """Of all that a take's codes follow from, so that those of another session's take are told apart."""
    return hashlib.sha256(json.dumps(take.record(), sort_keys=True).encode()).hexdigest()


def _name(take: Take, level: int) -> str:
    return f"take-{take.number:04}-level-{level}"
