"""Layout of the page Compose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fast_jukebox.demo import compose, html
from fast_jukebox.demo.compose import PAGE, Step
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.songs import read_record, remember_song, songs_of
from fast_jukebox.demo.sounds import is_token, new_token
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    import gradio as gr
    from gradio.components import Component

Handler = Callable[..., Iterator[Step]]
Shown = tuple[object, ...]
"""Values of all outputs of the page, `None` where one stays."""

_SCRIPT = "fastJukebox.actions(element, trigger);"


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
    on(begin.click, events.steps(compose.draft), [browser, *fields], outputs)
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
        """A handler of a function of [`fast_jukebox.demo.compose`]."""

        def run(visitor: str, browser: object, *values: object) -> Iterator[Shown]:
            name = _valid(browser)
            for step in function(self._studio, visitor, *values):
                yield self._shown(step, name)

        return run

    def open_song(self, _: str, browser: object, key: object) -> Shown:
        """Open a song by its key; where there is none, only say so."""
        step = compose.opened(self._studio, key)
        return self._shown(step, _valid(browser)) if step.key else _only(step.status)

    def restore(self, _: str, browser: object) -> Shown:
        """Open the song that the browser had open last."""
        name = _valid(browser)
        keys = songs_of(self._studio, name)
        known = [key for _, key in compose.titles(self._studio, keys)]
        last = next((key for key in reversed(keys) if key in known), None)
        return _only(None, name) if last is None else self._shown(compose.opened(self._studio, last), name)

    def act(self, visitor: str, data: dict[str, object], browser: object, key: str, selected: int) -> Iterator[Shown]:
        """Run a button of the song's view; a click on the waveform fills the field of the cut."""
        name = _valid(browser)
        seconds = data.get("seconds")
        if data.get("action") == "cut" and isinstance(seconds, int | float):
            at = round(float(seconds), 2)
            yield (*self._shown(Step(None, key, selected), name, at), at)
            return
        for step in compose.act(self._studio, visitor, key, selected, data.get("action"), data.get("value")):
            yield (*self._shown(step, name), None)

    def _shown(self, step: Step, name: str, cut_at: float | None = None) -> Shown:
        import gradio as gr

        if not step.redraw:
            return _only(step.status)
        if step.key:
            remember_song(self._studio, name, step.key)
        return (
            step.status,
            *compose.shown(self._studio, step, cut_at),
            step.key,
            step.selected,
            gr.Accordion(open=not step.key),
            name,
            gr.Dropdown(compose.titles(self._studio, songs_of(self._studio, name)), value=step.key or None),
            read_record(self._studio, step.key).model if step.key else None,  # whose labels the fields show
        )


def _only(status: str | None, name: str | None = None) -> Shown:
    """A change of the status, and of the browser's name, alone."""
    return (status, *[None] * 6, name, None, None)


def _valid(browser: object) -> str:
    """The name of a browser, a new one where it has none."""
    return browser if isinstance(browser, str) and is_token(browser) else new_token()


def _new_song(studio: Studio) -> tuple[gr.Accordion, gr.Button, list[Component]]:
    """Fields of a new song, in the order of [`compose.draft`], in what can be folded up, and the button."""
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
            branch = gr.Button("Branch", variant="primary", elem_id="compose-branch")
        with gr.Tab("Cut"):
            at = gr.Number(0, label="Cut at (seconds)", minimum=0, elem_id="compose-cut-at")
            cut = gr.Button("Cut", variant="primary", elem_id="compose-cut")
        with gr.Tab("Finish"):
            with gr.Row():
                start = gr.Number(0, label="From (seconds)", minimum=0, min_width=120)
                end = gr.Number(0, label="To (0 is its end)", minimum=0, min_width=120)
            upsample = gr.Button("Finish in full quality", variant="primary", elem_id="compose-finish")
    stop_button(studio, PAGE)
    handlers: list[tuple[gr.Button, Handler, list[Component]]] = [
        (branch, compose.branch, [ways, seconds, labels.genre, labels.artist, labels.lyrics, temperature]),
        (cut, compose.cut, [at]),
        (upsample, compose.finish, [start, end]),
    ]
    return handlers, at
