"""Layout of the page Compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fast_jukebox.demo import compare, html
from fast_jukebox.demo.compare import PAGE, QUALITIES, SCHEDULES, CompareView, System
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import TEMPERATURES
from fast_jukebox.demo.listening import SAME
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    import gradio as gr
    from gradio.components import Component


def compare_page(studio: Studio, mine: gr.BrowserState) -> None:
    """Lay the page out in the current Gradio block; the browser keeps the key of its last listening test."""
    import gradio as gr

    with gr.Row():
        first = _system(studio, "First", 0)
        second = _system(studio, "Second", 1)
    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            labels = LabelFields(studio, first[0], with_lyrics=False)
            duration = gr.Slider(1, studio.limits.duration, 8, step=1, label="Duration (seconds)")
            with gr.Row():
                seed = gr.Textbox(label="Seed", info="Empty draws one.", max_length=20, min_width=120)
                pairs = gr.Slider(
                    1, studio.limits.trials, 8, step=1, label="Pairs", info="Of the blind test.", min_width=120
                )
            with gr.Row():
                beside = gr.Button("Side by side", elem_id="compare-beside")
                blind = gr.Button("Blind test", variant="primary", elem_id="compare-blind")
            stop_button(studio, PAGE)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(
                html.note("Choose two models or settings, and hear them side by side or blind."),
                elem_id="compare-status",
            )
            result = gr.HTML("", elem_id="compare-result")
            with gr.Column(elem_id="compare-answer"):  # shown by the style sheet where a pair is
                x = gr.Radio([("X is A", "A"), ("X is B", "B")], label="What is X?")
                preferred = gr.Radio([("A", "A"), ("B", "B"), ("neither", SAME)], label="Which do you like better?")
                give = gr.Button("Answer", variant="primary", elem_id="compare-give")
    outputs = [status, result, mine, x, preferred]

    def begin(make: Callable[..., Iterator[CompareView]]) -> Callable[..., Iterator[tuple[object, ...]]]:
        def views(visitor: str, *values: object) -> Iterator[tuple[object, ...]]:
            for view in make(studio, visitor, (System(*values[:5]), System(*values[5:10])), *values[10:]):
                yield _shown(view)

        return views

    def take_answer(_: str, *values: object) -> tuple[object, ...]:
        return _shown(compare.answer(studio, *values))

    root = gr.context.Context.root_block
    fields = [*first, *second, labels.genre, labels.artist, duration, seed]
    on(beside.click, begin(compare.side_by_side), fields, outputs)
    on(blind.click, begin(compare.prepare), [*fields, pairs], outputs)
    on(give.click, take_answer, [mine, x, preferred], outputs)
    on(root.load, lambda _, key: _shown(compare.reopened(studio, key)), [mine], outputs)


def _shown(view: CompareView) -> tuple[object, ...]:
    """Values of the outputs; where another pair comes, or none, nothing is chosen yet."""
    import gradio as gr

    chosen = [None] * 2 if view.asking is None else [gr.Radio(value=None)] * 2
    return (view.status, view.result, view.key, *chosen)


def _system(studio: Studio, name: str, index: int) -> list[Component]:
    """Fields of one of the two."""
    import gradio as gr

    own = list(studio.models.values())[min(index, len(studio.models) - 1)]
    with gr.Column(min_width=300), gr.Group():
        gr.HTML(f'<h3 class="fj-heading fj-inset">{name}</h3>')
        model = model_field(studio, "Model", index)
        temperature = gr.Slider(*TEMPERATURES, own.top_temperature(), step=0.01, label="Temperature of the top level")
        top_p = gr.Slider(0.05, 1.0, 1.0, step=0.01, label="Top p")
        with gr.Row():
            schedule = gr.Dropdown(list(SCHEDULES), value=SCHEDULES[0], label="Windows", min_width=120)
            quality = gr.Dropdown(list(QUALITIES), value=QUALITIES[0], label="Quality", min_width=100)
    on(model.change, lambda _, chosen: studio.model(chosen).top_temperature(), model, temperature)
    return [model, temperature, top_p, schedule, quality]
