"""The page Compose: a song as a tree of takes that are drafted, branched, kept, cut and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fast_jukebox.demo import html, song_view
from fast_jukebox.demo.limits import TEMPERATURES, whole_within, within
from fast_jukebox.demo.play import song as asked_song
from fast_jukebox.demo.songs import ComposedSong, read_record
from fast_jukebox.demo.studio import Studio, reporting
from fast_jukebox.demo.work import WorkState
from fast_jukebox.sampling.progress import ProgressCallback

PAGE = "compose"


@dataclass(frozen=True)
class Step:
    """Parts of the page that change.

    Attributes:
        status: progress, or what went wrong; `None` where it stays.
        key: of the song that is open.
        selected: number of the chosen take; 0 where no song is open.
        redraw: show the song again.
        working: something of it is being made.
    """

    status: str | None
    key: str
    selected: int
    redraw: bool = True
    working: bool = False


def _failed(alert: str, visitor: str, key: str, selected: int, *fields: object) -> Step:
    return Step(alert, key, selected)


@reporting(lambda alert, *fields: Step(alert, "", 0, redraw=False))
def draft(studio: Studio, visitor: str, title: object, *fields: object) -> Iterator[Step]:
    """Begin a song: the top level alone, which is rough and quick; `fields` are arguments of [`asked_song`]."""
    asked = asked_song(studio, *fields)
    request = asked.request
    song = ComposedSong.create(
        studio,
        title,
        asked.model,
        duration=request.duration,
        metadata=request.metadata,
        seed=request.seed,
        temperature=request.temperature,
        stop_level=asked.model.top,
    )
    yield from _run(studio, visitor, song.record.key, 1, "Drafting")


@reporting(_failed)
def branch(
    studio: Studio,
    visitor: str,
    key: str,
    selected: int,
    ways: object,
    seconds: object,
    genre: object,
    artist: object,
    lyrics: object,
    temperature: object,
) -> Iterator[Step]:
    """Drafts of what may come after a take; labels that are not given stay as they are."""
    song = ComposedSong.open(studio, key)
    take = song.session.take(selected)
    count = whole_within("Ways", ways, 1, studio.limits.variants)
    added = studio.duration(seconds, "Seconds to add")
    total = take.samples / song.rate + added
    within("The song's duration", total, 0.0, studio.limits.duration, " s")
    song.check_room(count)
    words = {"genre": genre, "artist": artist, "lyrics": studio.lyrics(lyrics)}
    given = {name: value.strip() for name, value in words.items() if isinstance(value, str) and value.strip()}
    own = within("Temperature", temperature, *TEMPERATURES)
    song.session.branch(count, added, take, metadata=given or None, temperature=song.model.temperatures(own))
    yield from _run(studio, visitor, key, selected, f"Branching take {selected}")


@reporting(_failed)
def cut(studio: Studio, visitor: str, key: str, selected: int, seconds: object) -> Iterator[Step]:
    """The beginning of a take as a take."""
    song = ComposedSong.open(studio, key)
    duration = song.session.take(selected).samples / song.rate
    at = within("Cut at", seconds, 0.05, duration, " s")
    song.check_room(1)
    made = song.session.cut(at, selected)
    yield from _run(studio, visitor, key, made.number, "Cutting")


@reporting(_failed)
def finish(studio: Studio, visitor: str, key: str, selected: int, start: object, end: object) -> Iterator[Step]:
    """Upsample a take, or a part of it, to full quality; no end is the take's end."""
    song = ComposedSong.open(studio, key)
    duration = song.session.take(selected).samples / song.rate
    first = within("From", start or 0.0, 0.0, duration, " s") or None
    last = None if end in (None, "", 0) else within("To", end, 0.0, duration + 0.01, " s")
    last = None if last is None or last >= duration else last
    song.session.request([selected], 0, first, last)
    what = f"Finishing take {selected}" if first is None and last is None else f"Finishing a part of take {selected}"
    yield from _run(studio, visitor, key, selected, what)


@reporting(lambda alert, visitor, key, selected, *fields: Step(alert, key, selected, redraw=False))
def act(studio: Studio, visitor: str, key: str, selected: int, action: object, value: object) -> Iterator[Step]:
    """Run a button of the song's own view: `select`, `keep`, `resume`, `forget` or `hear`."""
    song = ComposedSong.open(studio, key)
    if action in ("select", "keep"):
        take = song.session.take(whole_within("Take", value, 1, 10**6))
        if action == "keep":
            song.session.keep(take)
        yield Step(html.note(f"Take {take.number} is {'kept' if action == 'keep' else 'open'}."), key, take.number)
    elif action == "forget":
        song.session.forget()
        yield Step(html.note("Given up; what is made stays."), key, selected)
    elif action == "resume":
        yield from _run(studio, visitor, key, selected, "Going on")
    elif action == "hear":
        yield from _run(studio, visitor, key, selected, "Decoding", lambda song, report: song.decode())


def _run(
    studio: Studio,
    visitor: str,
    key: str,
    selected: int,
    what: str,
    run: Callable[[ComposedSong, ProgressCallback], None] = ComposedSong.run,
) -> Iterator[Step]:
    """Do what is noted in a song when it is its turn. Its notes are read again then: another page may have changed
    them.
    """

    def work(report: ProgressCallback) -> bool:
        run(ComposedSong.open(studio, key), report)
        return True

    def show(state: WorkState, first: bool) -> Step:
        return Step(html.bar(state, what), key, selected, redraw=first, working=True)

    try:
        done = yield from studio.watch(visitor, PAGE, work, show)
        status = html.note("Done." if done else "Stopped; what is made stays, and Go on finishes the rest.")
    except Exception as error:
        status = html.alert(studio.message(error))
    yield Step(status, key, selected)


def opened(studio: Studio, key: object) -> Step:
    """A song as one finds it: with the take that is kept, or the newest."""
    try:
        song = ComposedSong.open(studio, key)
    except Exception as error:
        return Step(html.alert(studio.message(error)), "", 0)
    kept = song.session.kept
    return Step(None, song.record.key, kept.number if kept is not None else max(song.session.takes))


def shown(studio: Studio, step: Step, cut_at: float | None = None) -> tuple[str, str, str]:
    """The tree, the chosen take and its branches, of a step, as HTML."""
    if not step.key:
        return "", "", ""
    try:
        song = ComposedSong.open(studio, step.key)
        return (
            song_view.tree(song, step.selected),
            song_view.chosen(song, step.selected, cut_at, step.working),
            song_view.branches(song, step.selected),
        )
    except Exception as error:
        return "", html.alert(studio.message(error)), ""


def titles(studio: Studio, keys: object) -> list[tuple[str, str]]:
    """Titles and keys of the songs that a browser knows of, the newest first; others are left out."""
    found = []
    for key in keys if isinstance(keys, list) else []:
        try:
            found.append(read_record(studio, key))
        except ValueError:
            continue
    return [(record.title, record.key) for record in sorted(found, key=lambda each: -each.created)]
