"""What the commands on sessions do: each opens the folder, does one thing and shows the takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fast_jukebox.audio import io as audio
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.engine import check_engine
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.sessions.notes import Job, Take
from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionStore
from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name
from fast_jukebox_cli.rescue import all_codes, top_codes
from fast_jukebox_cli.values import Waiting
from fast_jukebox_cli.words import words_for

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

    def load(self, name: str | None, revision: str | None = None) -> Any:
        """A model, ready to sample."""
        check_engine(self.engine)
        return load_model(ModelSource(name, revision), chosen_device(self.device), self.offload, self.quiet)

    def open(self, folder: Path) -> Session:
        """A session with its model, at the revision that it was made with unless another model is named."""
        session = Session.open(folder)
        known = session.facts.name
        if self.model is not None:
            session.model = self.load(self.model)
        elif known == "":
            raise ValueError("`--model` must be given: the session does not know where its model was loaded from")
        else:
            session.model = self.load(None if known == _EMBEDDED else known, session.facts.revision)
        return session

    def run(self, session: Session, missing: bool = False) -> list[Path]:
        """Do what is asked for, with bars, and write how it sounds; the files.

        Args:
            session: with its model.
            missing: write the sound of other takes too, if there was no time for it before.

        Raises:
            KeyboardInterrupt: Ctrl-C; its text says how to go on.
        """
        jobs = list(session.jobs)
        wanted = {number for job in jobs if not job.is_part for number in job.takes}
        try:
            with ProgressBars(False if self.quiet else None) as bars:
                session.run(progress=bars, engine=self.engine)
            wanted |= {number for number, take in session.takes.items() if missing and not _is_heard(session, take)}
            parts = [(session.takes[number], job) for job in jobs if job.is_part for number in job.takes]
            with Waiting("writing the sound", self.quiet):
                return [*sounds(session, sorted(wanted)), *[_part_sound(session, *part) for part in parts]]
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; what was made is saved, `fast-jukebox resume {session.folder}` goes on"
            ) from None


def new(
    folder: Path,
    machine: Machine,
    *,
    prompt: Path | None = None,
    codes: Path | None = None,
    draft: bool = False,
    **arguments: Any,
) -> list[Path]:
    """Begin a session and make its first takes; the sound files written."""
    if prompt is not None and codes is not None:
        raise ValueError("`--prompt` must not be given with `--codes`, got both")

    def given(model: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"stop_level": _lowest(model, draft)}
        if prompt is not None:
            found["prompt"] = audio.load_audio(prompt, sampling_rate=model.vqvae.config.sampling_rate)
        if codes is not None:
            found["codes"] = all_codes(codes, model)
        return found

    return machine.run(_begun(folder, machine, given, **arguments))


def rescue(folder: Path, machine: Machine, file: Path, stop_level: int = 0, **arguments: Any) -> list[Path]:
    """Begin a session with the top codes of a file and make the lower levels; the sound files written."""

    def given(model: Any) -> dict[str, Any]:
        return {"codes": [*[None] * (len(model.priors) - 1), top_codes(file, model)], "stop_level": stop_level}

    return machine.run(_begun(folder, machine, given, **arguments))


def _begun(folder: Path, machine: Machine, given: Callable[[Any], dict[str, Any]], **arguments: Any) -> Session:
    """A new session, of what is `given` too, which is found with the model's help."""
    words, prompt_duration = arguments.pop("metadata", None), arguments.pop("prompt_duration", None)
    request = SongRequest(**_said(arguments))
    SessionStore(folder).check_new()  # before the model is loaded
    model = machine.load(machine.model)
    request = replace(request, metadata=words_for(model, words), **given(model))
    if prompt_duration is not None:
        request = replace(request, prompt_duration=prompt_duration)
    name = _EMBEDDED if machine.model is None else model_name(machine.model)
    return Session.create(folder, model, request, model_name=name)


def resume(folder: Path, machine: Machine) -> list[Path]:
    """Finish what was asked for; the sound files written: also those for which there was no time."""
    return machine.run(machine.open(folder), missing=True)


def branch(folder: Path, machine: Machine, count: int, seconds: float, take: int | None, **options: Any) -> list[Path]:
    """Make candidates of what comes next; the sound files written."""
    session = machine.open(folder)
    session.branch(count, seconds, take, **_said(options))
    return machine.run(session)


def extend(
    folder: Path, machine: Machine, duration: float, take: int | None, draft: bool = True, **options: Any
) -> list[Path]:
    """Go on with a take; the sound files written."""
    session = machine.open(folder)
    session.extend(duration, take, stop_level=_lowest(session.model, draft), **_said(options))
    return machine.run(session)


def upsample(
    folder: Path, machine: Machine, take: int | None, stop_level: int, start: float | None, end: float | None
) -> list[Path]:
    """Make the lower levels of a take, or of a part; the sound files written."""
    session = machine.open(folder)
    session.request([session.take(take)], stop_level, start, end)
    return machine.run(session)


def export(folder: Path, machine: Machine, output: Path, take: int | None, level: int | None, *span: Any) -> Path:
    """Write the sound or the codes of a take."""
    if output.suffix.lower() == ".safetensors":
        for name, value in zip(("level", "start", "end"), (level, *span), strict=True):
            if value is not None:
                raise ValueError(f"`{name}` must go with sound, as codes are written whole, got {value!r}")
        return Session.open(folder).export(output, take)
    session = machine.open(folder)
    with Waiting("writing the sound", machine.quiet):
        return session.export(output, take, level, *span)


def sounds(session: Session, takes: Sequence[int]) -> list[Path]:
    """Write the sound of takes at the lowest level that is made, into the session's folder."""
    found = [(number, _sound_of(session, session.takes[number])) for number in takes]
    return [session.export(sound[0], number, sound[1]) for number, sound in found if sound is not None]


def _sound_of(session: Session, take: Take) -> tuple[Path, int] | None:
    """The sound file of a take, and its level; `None` where no level is complete."""
    fractions = session.fractions(take)
    made = [level for level, fraction in enumerate(fractions) if fraction >= 1]
    return (session.folder / f"take-{take.number}-{level_name(made[0], len(fractions))}.wav", made[0]) if made else None


def _is_heard(session: Session, take: Take) -> bool:
    """Whether there is a file of how a take sounds; of a beginning of another take nobody waits for one."""
    sound = _sound_of(session, take)
    return take.origin == "cut" or sound is None or sound[0].exists()


def _part_sound(session: Session, take: Take, job: Job) -> Path:
    """Write how the part of a take sounds that a job made."""
    rate = session.facts.sampling_rate
    start, end = job.start / rate, (take.samples if job.end is None else job.end) / rate
    path = session.folder / f"take-{take.number}-{start:g}-{end:g}.wav"
    return session.export(path, take, job.stop_level, start, end)


def _lowest(model: Any, draft: bool) -> int:
    return len(model.priors) - 1 if draft else 0


def _said(arguments: dict[str, Any]) -> dict[str, Any]:
    """Without what was not said."""
    return {name: value for name, value in arguments.items() if value is not None}
