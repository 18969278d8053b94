"""Work of the commands on sessions: a model on a device, a new session, and the sound of what was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from fast_jukebox.audio import io as audio
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.engine import check_engine
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.sessions.fingerprint import check_model
from fast_jukebox.sessions.notes import Job, Take
from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionStore
from fast_jukebox_cli.code_files import all_codes, top_codes
from fast_jukebox_cli.model import EMBEDDED, ModelSource, chosen_device, load_model, model_name
from fast_jukebox_cli.options import Machine
from fast_jukebox_cli.values import Waiting, adapters
from fast_jukebox_cli.words import words_for


def load(
    machine: Machine, name: str | None, revision: str | None = None, own: Mapping[int, str] | None = None
) -> FastJukeboxModel:
    """A model ready to sample, with the adapters that are asked for, or else its `own`."""
    check_engine(machine.engine)
    source = ModelSource(name, revision, adapters=adapters(machine.adapter) or own or {})
    return load_model(source, chosen_device(machine.device), machine.offload, machine.quiet)


def open_session(folder: Path, machine: Machine) -> Session:
    """A session with the model, revision and adapters that it was made with unless others are named.

    A `ValueError` where the model cannot be found without `--model`, or adapters are not the session's.
    """
    session = Session.open(folder)
    facts = session.facts
    if machine.model is not None:
        session.model = load(machine, machine.model)
    elif facts.name == "":
        raise ValueError("`--model` must be given: the session does not know where its model was loaded from")
    else:
        own = {level: source for level, source in enumerate(facts.adapters) if source is not None}
        session.model = load(machine, facts.name, facts.revision, own)
    if machine.adapter:
        check_model(facts, session.model, sorted(adapters(machine.adapter)))
    return session


def run(session: Session, machine: Machine, missing: bool = False) -> list[Path]:
    """Do what is asked for, with progress bars, and write the sound; the files.

    With `missing`, the sound of other takes is written too, if there was no time for it before. After Ctrl-C the text
    of the `KeyboardInterrupt` says how to go on.
    """
    jobs = list(session.jobs)
    wanted = {number for job in jobs if not job.is_part for number in job.takes}
    try:
        with ProgressBars(False if machine.quiet else None, lines=True) as bars:
            session.run(progress=bars, engine=machine.engine)
        wanted |= {number for number, take in session.takes.items() if missing and not _is_heard(session, take)}
        parts = [(session.takes[number], job) for job in jobs if job.is_part for number in job.takes]
        with Waiting("writing the sound", machine.quiet):
            return [*sounds(session, sorted(wanted)), *[_part_sound(session, *part) for part in parts]]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what was made is saved, `fast-jukebox resume {quote(str(session.folder))}` goes on"
        ) from None


def new_session(
    folder: Path,
    machine: Machine,
    request: SongRequest,
    words: dict[str, object] | None,
    *,
    prompt: Path | None = None,
    prompt_duration: float | None = None,
    codes: Path | None = None,
    played_again: Path | None = None,
    draft: bool = False,
) -> Session:
    """Begin a session. Nothing is sampled yet.

    `words` are the songs' metadata, `played_again` is a recording or a file of codes whose top codes are the songs'.
    The other arguments are the command's options, checked before the model is loaded where that is possible.
    """
    if prompt is not None and codes is not None:
        raise ValueError("`--prompt` must not be given with `--codes`, got both")
    SessionStore(folder).check_new()  # before the model is loaded
    model = load(machine, machine.model)
    request = replace(request, metadata=words_for(model, words))
    if draft:
        request = replace(request, stop_level=len(model.priors) - 1)
    if prompt is not None:
        request = replace(request, prompt=audio.load_audio(prompt, sampling_rate=model.vqvae.config.sampling_rate))
    if prompt_duration is not None:
        request = replace(request, prompt_duration=prompt_duration)
    if codes is not None:
        request = replace(request, codes=all_codes(codes, model))
    if played_again is not None:
        request = replace(request, codes=[*[None] * (len(model.priors) - 1), top_codes(played_again, model)])
    name = EMBEDDED if machine.model in (None, EMBEDDED) else model_name(machine.model)
    return Session.create(folder, model, request, model_name=name)


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
    """There is a sound file of a take, or nobody waits for one, as for the beginning of another take."""
    sound = _sound_of(session, take)
    return take.origin == "cut" or sound is None or sound[0].exists()


def _part_sound(session: Session, take: Take, job: Job) -> Path:
    """Write the sound of the part of a take that a job made."""
    rate = session.facts.sampling_rate
    start, end = job.start / rate, (take.samples if job.end is None else job.end) / rate
    path = session.folder / f"take-{take.number}-{start:g}-{end:g}.wav"
    return session.export(path, take, job.stop_level, start, end)
