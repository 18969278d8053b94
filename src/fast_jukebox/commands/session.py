"""What the commands on sessions do: each opens the folder, does one thing and tells what there is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast_jukebox import audio
from fast_jukebox.commands.model import chosen_device, load_model
from fast_jukebox.commands.rescue import top_codes
from fast_jukebox.generation.offload import set_offload
from fast_jukebox.generation.progress import ProgressBars, level_name
from fast_jukebox.generation.session import Session
from fast_jukebox.generation.takes import Take

_EMBEDDED = "embedded"
"""What a session calls the model inside the package, whose folder differs from machine to machine."""


@dataclass(frozen=True)
class Machine:
    """How a command computes.

    Attributes:
        model: a folder or repository; `None` for the session's own, in a new session the embedded one.
        device: see [`chosen_device`].
        engine: what runs the steps.
        offload: where levels live that do not sample: `"cpu"`, `"disk"`, or `None` for the device.
        quiet: no progress bars.
    """

    model: str | None
    device: str
    engine: str
    offload: str | None
    quiet: bool

    def load(self, name: str | None) -> Any:
        """A model, ready to sample."""
        where = chosen_device(self.device)
        if self.offload is None:
            return load_model(name, where)
        loaded = load_model(name, chosen_device("cpu"))
        set_offload(loaded, self.offload, where)
        return loaded

    def open(self, folder: Path) -> Session:
        """A session with its model."""
        session = Session.open(folder)
        known = session.facts.name
        name = self.model if self.model is not None else None if known == _EMBEDDED else known
        if name == "":
            raise ValueError("`--model` must be given: the session does not know where its model was loaded from")
        session.model = self.load(name)
        return session

    def run(self, session: Session) -> None:
        """Do what is asked for, with bars.

        Raises:
            KeyboardInterrupt: Ctrl-C; its text says how to go on.
        """
        try:
            with ProgressBars(False if self.quiet else None) as bars:
                session.run(progress=bars, engine=self.engine)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; `fast-jukebox resume {session.folder}` goes on") from None


def new(
    folder: Path,
    machine: Machine,
    *,
    prompt: Path | None = None,
    draft: bool = False,
    **arguments: Any,
) -> list[Path]:
    """Begin a session and make its first takes; the sound files written."""
    model = machine.load(machine.model)
    if prompt is not None:
        arguments["prompt"] = audio.load_audio(prompt, sampling_rate=model.vqvae.config.sampling_rate)
    name = _EMBEDDED if machine.model is None else machine.model
    session = Session.create(folder, model, stop_level=_lowest(model, draft), model_name=name, **_said(arguments))
    machine.run(session)
    return sounds(session, list(session.takes.values()))


def rescue(folder: Path, machine: Machine, file: Path, **arguments: Any) -> list[Path]:
    """Begin a session with the top codes of a file and make the lower levels; the sound files written."""
    model = machine.load(machine.model)
    codes = [*[None] * (len(model.priors) - 1), top_codes(file, model)]
    name = _EMBEDDED if machine.model is None else machine.model
    session = Session.create(folder, model, codes=codes, model_name=name, **_said(arguments))
    machine.run(session)
    return sounds(session, list(session.takes.values()))


def resume(folder: Path, machine: Machine) -> list[Path]:
    """Finish what was asked for; the sound files written."""
    session = machine.open(folder)
    waiting = sorted({number for job in session.jobs for number in job.takes})
    machine.run(session)
    return sounds(session, [session.takes[number] for number in waiting])


def branch(folder: Path, machine: Machine, count: int, seconds: float, take: int | None, **told: Any) -> list[Path]:
    """Make candidates of what comes next; the sound files written."""
    session = machine.open(folder)
    takes = session.branch(count, seconds, take, **_said(told))
    machine.run(session)
    return sounds(session, takes)


def extend(
    folder: Path, machine: Machine, duration: float, take: int | None, draft: bool = True, **told: Any
) -> list[Path]:
    """Go on with a take; the sound files written."""
    session = machine.open(folder)
    longer = session.extend(duration, take, stop_level=_lowest(session.model, draft), **_said(told))
    machine.run(session)
    return sounds(session, [longer])


def upsample(
    folder: Path, machine: Machine, take: int | None, stop_level: int, start: float | None, end: float | None
) -> list[Path]:
    """Make the lower levels of a take, or of a part; the sound files written."""
    session = machine.open(folder)
    found = session.take(take)
    session.request([found], stop_level, start, end)
    machine.run(session)
    if start is None and end is None:
        return sounds(session, [found])
    part = folder / f"take-{found.number}-{start or 0:g}-{end or found.samples / session.facts.sampling_rate:g}.wav"
    return [session.export(part, found, stop_level, start, end)]


def export(folder: Path, machine: Machine, output: Path, take: int | None, level: int | None, *span: Any) -> Path:
    """Write the sound or the codes of a take."""
    if output.suffix.lower() == ".safetensors":
        return Session.open(folder).export(output, take)
    return machine.open(folder).export(output, take, level, *span)


def sounds(session: Session, takes: Sequence[Take]) -> list[Path]:
    """Write the sound of takes at the lowest level that is made, into the session's folder."""
    paths = []
    for take in takes:
        shares = session.shares(take)
        made = [level for level, share in enumerate(shares) if share >= 1]
        if made:
            path = session.folder / f"take-{take.number}-{level_name(made[0], len(shares))}.wav"
            paths.append(session.export(path, take, made[0]))
    return paths


def _lowest(model: Any, draft: bool) -> int:
    return len(model.priors) - 1 if draft else 0


def _said(arguments: dict[str, Any]) -> dict[str, Any]:
    """Without what was not said."""
    return {name: value for name, value in arguments.items() if value is not None}


def words(artist: str | None, genre: str | None, lyrics: Path | None) -> dict[str, Any] | None:
    """Metadata of what was said on a command line."""
    told = _said({"artist": artist, "genre": genre})
    if lyrics is not None:
        told["lyrics"] = lyrics.expanduser().read_text(encoding="utf-8")
    return told or None


__all__ = [
    "Machine",
    "branch",
    "export",
    "extend",
    "new",
    "rescue",
    "resume",
    "sounds",
    "upsample",
    "words",
]
