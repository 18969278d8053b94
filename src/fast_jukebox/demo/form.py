"""Fields that several pages have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fast_jukebox.demo.limits import TEMPERATURES
from fast_jukebox.demo.models import ANY, StudioModel
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    import gradio as gr
    from gradio.components import Component

    Components: TypeAlias = Component | Sequence[Component] | None


class Listener(Protocol):
    """A component's event, such as `button.click`."""

    def __call__(self, fn: Callable[..., object], inputs: object, outputs: object, **options: object) -> object: ...


def browser_state(name: str) -> gr.BrowserState:
    """A text that a browser remembers, so that it finds its songs and tests again after it, or the server, has died.

    To be made outside of tabs, which begin to live when they are opened first.
    """
    import gradio as gr

    return gr.BrowserState("", storage_key=f"fast-jukebox-{name}", secret="fast-jukebox")


def model_field(studio: Studio, label: str = "Model", index: int = 0) -> gr.Dropdown:
    """Choice of a model; hidden where there is only one."""
    import gradio as gr

    names = list(studio.models)
    return gr.Dropdown(names, value=names[min(index, len(names) - 1)], label=label, visible=len(names) > 1)


def stop_button(studio: Studio, page: str) -> gr.Button:
    """A button that ends what the visitor has begun on a page."""
    import gradio as gr

    button = gr.Button("Stop", variant="stop", elem_id=f"{page}-stop")
    on(button.click, lambda visitor: studio.stop(visitor, page))
    return button


class LabelFields:
    """Genre, artist and lyrics of the chosen model, shown where it knows them.

    Args:
        studio: whose models.
        model: the field that chooses one.
        unchanged: nothing asked for means what was there before, as where a song is continued.
        with_lyrics: show lyrics too.
    """

    def __init__(self, studio: Studio, model: gr.Dropdown, unchanged: bool = False, with_lyrics: bool = True) -> None:
        import gradio as gr

        self._with_lyrics = with_lyrics
        self._whatever = "as before" if unchanged else "any"
        first = next(iter(studio.models.values()))
        with gr.Row():
            self.genre = gr.Dropdown(**self._names(first, "genres"), label="Genre", min_width=120)
            self.artist = gr.Dropdown(**self._names(first, "artists"), label="Artist or instrument", min_width=120)
        self.lyrics = gr.Textbox(
            label="Lyrics",
            info="Of the complete song; they are spread over its length.",
            lines=4,
            visible=_seen(first.sings and with_lyrics),
            max_length=studio.limits.lyrics,
        )
        self._first, self._model, self._studio = first, model, studio
        if len(studio.models) > 1:
            on(model.change, self._fit, model, [self.genre, self.artist, self.lyrics])

    def temperature_field(self) -> gr.Slider:
        """Temperature of the top level, which decides the notes."""
        import gradio as gr

        field = gr.Slider(
            *TEMPERATURES,
            self._first.top_temperature(),
            step=0.01,
            label="Temperature",
            info="Of the top level, which decides the notes: below 1 is safer, above 1 wilder.",
        )
        on(self._model.change, lambda _, name: self._studio.model(name).top_temperature(), self._model, field)
        return field

    def _fit(self, _: str, name: str) -> tuple[object, ...]:
        import gradio as gr

        own = self._studio.model(name)
        return (
            gr.Dropdown(**self._names(own, "genres")),
            gr.Dropdown(**self._names(own, "artists")),
            gr.Textbox(visible=_seen(own.sings and self._with_lyrics)),
        )

    def _names(self, model: StudioModel, kind: str) -> dict[str, object]:
        names = model.names(kind)
        choices = [(self._whatever, ANY), *((name, name) for name in names)]
        return {"choices": choices, "value": ANY, "visible": _seen(bool(names))}


def _seen(there: bool) -> bool | str:
    """Gradio's `visible` of a field that may be seen later: one that is not there at all would not come."""
    return there or "hidden"


def on(
    listen: Listener,
    function: Callable[..., object],
    inputs: Components = None,
    outputs: Components = None,
    *,
    with_data: bool = False,
) -> None:
    """Connect an event as all of the studio's are: outside the public API, not bounded by Gradio's own queue, as the
    studio has one, and with nothing drawn over the outputs.

    Args:
        function: called with the visitor's name and the inputs' values; returns a value for each output, or is a
            generator of such. `None` leaves an output as it is.
        with_data: the event is of a `gr.HTML` whose script sends data: `function` receives it as a dictionary after the
            visitor's name.
    """
    import gradio as gr

    streams = inspect.isgeneratorfunction(function)

    def view(request: gr.Request, *values: object) -> object:
        return _shown(function(str(request.session_hash), *values), outputs)

    def views(request: gr.Request, *values: object) -> Iterator[object]:
        made = function(str(request.session_hash), *values)
        for each in made if streams else [made]:  # type: ignore[union-attr, attr-defined]  # a generator streams
            yield _shown(each, outputs)

    def views_of_data(request: gr.Request, event: gr.EventData, *values: object) -> Iterator[object]:
        yield from views(request, event._data if isinstance(event._data, dict) else {}, *values)

    called = views_of_data if with_data else views if streams else view
    # Gradio cannot evaluate what is imported in a function.
    called.__annotations__ = {"request": gr.Request, **({"event": gr.EventData} if with_data else {})}
    options = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    listen(called, inputs, outputs, **options)


def _shown(made: object, outputs: Components) -> object:
    """The values of a handler for Gradio, which takes `None` for a value."""
    import gradio as gr

    if outputs is None:
        return None
    if isinstance(made, tuple):
        return tuple(gr.skip() if part is None else part for part in made)
    return gr.skip() if made is None else made
