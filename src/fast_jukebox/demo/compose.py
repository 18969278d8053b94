"""The page Compose: a song as a tree of takes that are drafted, branched, kept, cut and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fast_jukebox.demo import html, song_view
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import TEMPERATURES, whole_within, within
from fast_jukebox.demo.play import song as asked_song
from fast_jukebox.demo.songs import ComposedSong, read_record, remember_song, songs_of
from fast_jukebox.demo.sounds import is_token, new_token
from fast_jukebox.demo.studio import Studio, reporting
from fast_jukebox.demo.work import WorkState
from fast_jukebox.sampling.progress import ProgressCallback

if TYPE_CHECKING:
    import gradio as gr
    from gradio.components import Component

PAGE = "compose"
_SCRIPT = "fastJukebox.actions(element, trigger);"


Shown = tuple[object, ...]
"""Values of all outputs of the page, `None` where one stays."""


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


Handler = Callable[..., Iterator[Step]]


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


def compose_page(studio: Studio, browser: gr.BrowserState) -> None:
    """Lay the page out in the current Gradio block; under the browser's name the studio keeps the keys of its songs."""
    import gradio as gr

    key, selected = gr.State(""), gr.State(0)
    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            chooser = gr.Dropdown([], label="My songs", elem_id="compose-songs")
            beginning, begin, fields = _new_song(studio)
            with gr.Accordion("Open by its key", open=False):
                given = gr.Textbox(label="Key", max_length=40)
                find = gr.Button("Open", elem_id="compose-open")
            tree = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-tree")
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(html.note("Begin a song, or open one."), elem_id="compose-status")
            with gr.Column(elem_id="compose-tools"):  # shown by the style sheet where a song is
                handlers, cut_at = _tools(studio, fields[1])
            take = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-take")
    branches = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-branches")

    outputs = [status, tree, take, branches, key, selected, beginning, browser, chooser, fields[1]]
    events = _Events(studio)
    on(begin.click, events.steps(draft), [browser, *fields], outputs)
    for button, function, inputs in handlers:
        on(button.click, events.steps(function), [browser, key, selected, *inputs], outputs)
    on(chooser.input, events.open_song, [browser, chooser], outputs)
    on(find.click, events.open_song, [browser, given], outputs)
    for element in (tree, take, branches):
        on(element.click, events.act, [browser, key, selected], [*outputs, cut_at], with_data=True)
    blocks = gr.context.Context.root_block
    assert blocks is not None  # within the page
    on(blocks.load, events.restore, [browser], outputs)


class _Events:
    """Handlers of the page's events."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def steps(self, function: Handler) -> Callable[..., Iterator[Shown]]:
        """A handler of a function of this file."""

        def run(visitor: str, browser: object, *values: object) -> Iterator[Shown]:
            name = _valid(browser)
            for step in function(self._studio, visitor, *values):
                yield self._shown(step, name)

        return run

    def open_song(self, _: str, browser: object, key: object) -> Shown:
        """Open a song by its key; where there is none, only say so."""
        step = opened(self._studio, key)
        return self._shown(step, _valid(browser)) if step.key else _only(step.status)

    def restore(self, _: str, browser: object) -> Shown:
        """Open the song that the browser had open last."""
        name = _valid(browser)
        keys = songs_of(self._studio, name)
        known = [key for _, key in titles(self._studio, keys)]
        last = next((key for key in reversed(keys) if key in known), None)
        return _only(None, name) if last is None else self._shown(opened(self._studio, last), name)

    def act(self, visitor: str, data: dict[str, object], browser: object, key: str, selected: int) -> Iterator[Shown]:
        """Run a button of the song's view; a click on the waveform fills the field of the cut."""
        name = _valid(browser)
        seconds = data.get("seconds")
        if data.get("action") == "cut" and isinstance(seconds, int | float):
            at = round(float(seconds), 2)
            yield (*self._shown(Step(None, key, selected), name, at), at)
            return
        for step in act(self._studio, visitor, key, selected, data.get("action"), data.get("value")):
            yield (*self._shown(step, name), None)

    def _shown(self, step: Step, name: str, cut_at: float | None = None) -> Shown:
        import gradio as gr

        if not step.redraw:
            return _only(step.status)
        if step.key:
            remember_song(self._studio, name, step.key)
        return (
            step.status,
            *shown(self._studio, step, cut_at),
            step.key,
            step.selected,
            gr.Accordion(open=not step.key),
            name,
            gr.Dropdown(titles(self._studio, songs_of(self._studio, name)), value=step.key or None),
            read_record(self._studio, step.key).model if step.key else None,  # whose labels the fields show
        )


def _only(status: str | None, name: str | None = None) -> Shown:
    """A change of the status, and of the browser's name, alone."""
    return (status, *[None] * 6, name, None, None)


def _valid(browser: object) -> str:
    """The name of a browser, a new one where it has none."""
    return browser if isinstance(browser, str) and is_token(browser) else new_token()


def _new_song(studio: Studio) -> tuple[gr.Accordion, gr.Button, list[Component]]:
    """Fields of a new song, in the order of [`draft`], in what can be folded up, and the button."""
    import gradio as gr

    with gr.Accordion("New song", open=True, elem_id="compose-new") as beginning:
        title = gr.Textbox(label="Title", max_length=60, placeholder="may stay empty")
        model = model_field(studio)
        labels = LabelFields(studio, model)
        duration = gr.Slider(1, studio.limits.duration, 12, step=1, label="Seconds of the draft")
        with gr.Row():
            seed = gr.Textbox(label="Seed", info="Empty draws one.", max_length=20, min_width=100)
            temperature = labels.temperature_field()
        begin = gr.Button("Draft", variant="primary", elem_id="compose-begin")
    return beginning, begin, [title, model, labels.genre, labels.artist, labels.lyrics, duration, seed, temperature]


def _tools(studio: Studio, model: gr.Dropdown) -> tuple[list[tuple[gr.Button, Handler, list[Component]]], gr.Number]:
    """Actions on the chosen take: the button, handler and inputs of each; and the field of the cut."""
    import gradio as gr

    with gr.Tabs():
        with gr.Tab("Go on"):
            with gr.Row():
                ways = gr.Slider(
                    1, studio.limits.variants, studio.limits.variants, step=1, label="Branches", min_width=120
                )
                seconds = gr.Slider(1, studio.limits.duration, 6, step=1, label="Seconds to add", min_width=160)
            labels = LabelFields(studio, model, unchanged=True)
            with gr.Accordion("More settings", open=False):
                temperature = labels.temperature_field()
            to_branch = gr.Button("Branch", variant="primary", elem_id="compose-branch")
        with gr.Tab("Cut"):
            at = gr.Number(0, label="Cut at (seconds)", minimum=0, elem_id="compose-cut-at")
            to_cut = gr.Button("Cut", variant="primary", elem_id="compose-cut")
        with gr.Tab("Finish"):
            with gr.Row():
                start = gr.Number(0, label="From (seconds)", minimum=0, min_width=120)
                end = gr.Number(0, label="To (0 is its end)", minimum=0, min_width=120)
            to_finish = gr.Button("Finish in full quality", variant="primary", elem_id="compose-finish")
    stop_button(studio, PAGE)
    handlers: list[tuple[gr.Button, Handler, list[Component]]] = [
        (to_branch, branch, [ways, seconds, labels.genre, labels.artist, labels.lyrics, temperature]),
        (to_cut, cut, [at]),
        (to_finish, finish, [start, end]),
    ]
    return handlers, at
