"""How the page Compose is laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fast_jukebox.demo import compose, html
from fast_jukebox.demo.compose import PAGE, Step
from fast_jukebox.demo.form import LabelFields, model_field, on, on_event, stop_button
from fast_jukebox.demo.songs import read_record
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    import gradio as gr

_SCRIPT = "fastJukebox.actions(element, trigger);"
_MOST_SONGS = 200
"""Songs whose keys a browser remembers, the newest."""


def songs_of_browser() -> gr.BrowserState:
    """The keys of a browser's songs, which it remembers, so that it finds them again after it, or the server, has died.

    To be made outside of tabs, which begin to live when they are opened first.
    """
    import gradio as gr

    return gr.BrowserState([], storage_key="fast-jukebox-songs", secret="fast-jukebox")


def compose_page(studio: Studio, mine: gr.BrowserState) -> None:
    """Lay the page out in the current Gradio block.

    Args:
        studio: whose models make the songs.
        mine: see [`songs_of_browser`].
    """
    import gradio as gr

    key, selected = gr.State(""), gr.State(0)
    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                chooser = gr.Dropdown([], label="My songs", min_width=160, elem_id="compose-songs")
            with gr.Accordion("New song", open=True, elem_id="compose-new") as beginning:
                title = gr.Textbox(label="Title", max_length=60, placeholder="may stay empty")
                model = model_field(studio)
                labels = LabelFields(studio, model)
                duration = gr.Slider(1, studio.limits.duration, 12, step=1, label="Seconds of the draft")
                with gr.Row():
                    seed = gr.Textbox(label="Seed", info="Empty draws one.", max_length=20, min_width=100)
                    temperature = labels.temperature_field()
                begin = gr.Button("Draft", variant="primary", elem_id="compose-begin")
            with gr.Accordion("Open by its key", open=False):
                given = gr.Textbox(label="Key", max_length=40)
                find = gr.Button("Open", elem_id="compose-open")
            tree = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-tree")
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(html.note("Begin a song, or open one."), elem_id="compose-status")
            with gr.Column(elem_id="compose-tools"):  # shown by the style sheet where a song is
                fields = _tools(studio, model)
            take = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-take")
    branches = gr.HTML("", js_on_load=_SCRIPT, elem_id="compose-branches")

    outputs = [status, tree, take, branches, key, selected, beginning, mine, chooser, model]

    def update(step: Step, keys: object, cut_at: float | None = None) -> tuple[Any, ...]:
        if not step.redraw:
            return (step.status, *[None] * (len(outputs) - 1))
        known = keys if isinstance(keys, list) else []
        if step.key:
            known = [*[each for each in known if each != step.key][-_MOST_SONGS:], step.key]
        there = bool(step.key)
        return (
            step.status,
            *compose.shown(studio, step, cut_at),
            step.key,
            step.selected,
            gr.Accordion(open=not there),
            known,
            gr.Dropdown(compose.titles(studio, known), value=step.key or None),
            read_record(studio, step.key).model if there else None,  # whose labels the fields show
        )

    def steps(function: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        def run(visitor: str, keys: object, *values: object) -> Iterator[tuple[Any, ...]]:
            for step in function(studio, visitor, *values):
                yield update(step, keys)

        return run

    def open_song(_: str, keys: object, wanted: object) -> tuple[Any, ...]:
        step = compose.opened(studio, wanted)
        return update(step, keys) if step.key else (step.status, *[None] * (len(outputs) - 1))

    def restore(_: str, keys: object) -> tuple[Any, ...]:
        known = compose.titles(studio, keys)
        if not known:
            return tuple([None] * len(outputs))
        there = {each for _, each in known}
        last = next(each for each in reversed(keys if isinstance(keys, list) else []) if each in there)
        return update(compose.opened(studio, last), keys)

    def act(visitor: str, data: dict[str, Any], keys: object, now: str, number: int) -> Iterator[tuple[Any, ...]]:
        if data.get("action") == "cut" and isinstance(data.get("seconds"), int | float):
            at = round(float(data["seconds"]), 2)
            yield (*update(Step(None, now, number), keys, at), at)
            return
        for step in compose.act(studio, visitor, now, number, data.get("action"), data.get("value")):
            yield (*update(step, keys), None)

    on(
        begin.click,
        steps(compose.draft),
        [mine, title, model, labels.genre, labels.artist, labels.lyrics, duration, seed, temperature],
        outputs,
    )
    for button, function, inputs in fields["events"]:
        on(button.click, steps(function), [mine, key, selected, *inputs], outputs)
    on(chooser.input, open_song, [mine, chooser], outputs)
    on(find.click, open_song, [mine, given], outputs)
    for element in (tree, take, branches):
        on_event(element.click, act, [mine, key, selected], [*outputs, fields["cut"]])
    blocks = gr.context.Context.root_block
    assert blocks is not None  # within the page
    on(blocks.load, restore, [mine], outputs)


def _tools(studio: Studio, model: Any) -> dict[str, Any]:
    """What can be done with the chosen take: the events, and the field of the cut."""
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
    events = [
        (branch, compose.branch, [ways, seconds, labels.genre, labels.artist, labels.lyrics, temperature]),
        (cut, compose.cut, [at]),
        (upsample, compose.finish, [start, end]),
    ]
    return {"events": events, "cut": at}
