"""The page Play: a song that is heard while it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.demo import html
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import TEMPERATURES, within
from fast_jukebox.demo.models import StudioModel, described
from fast_jukebox.demo.sounds import Live, Sound
from fast_jukebox.demo.studio import Studio, reporting, seed_of
from fast_jukebox.demo.work import WorkState
from fast_jukebox.generation.metadata import complete_metadata, draw_metadata, encode_metadata
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.sampling.progress import GenerationCancelled, ProgressCallback

PAGE = "play"


@dataclass(frozen=True)
class PlayView:
    """Parts of the page that change, as HTML; `None` where they stay.

    Attributes:
        live: the player of what is being made.
        status: progress, or what went wrong.
        result: the song when it is done.
    """

    live: str | None = None
    status: str | None = None
    result: str | None = None


@dataclass(frozen=True)
class Song:
    """A song to make.

    Attributes:
        model: what makes it.
        request: `generate`'s arguments, the seed and the labels included.
        dropped: characters of the lyrics that the model cannot spell.
    """

    model: StudioModel
    request: SongRequest
    dropped: str

    @property
    def labels(self) -> str:
        """In words; nothing for none."""
        words = self.request.metadata
        return described(words[0] if isinstance(words, list) else words)  # type: ignore[arg-type]  # made by `song`

    @property
    def facts(self) -> list[tuple[str, object]]:
        """For the page."""
        return [
            ("Seed", self.request.seed),
            ("Labels", self.labels),
            ("Model", self.model.name),
            ("Left out of the lyrics", self.dropped),
        ]

    @property
    def tags(self) -> dict[str, str]:
        """For the files."""
        return {"title": self.labels or "song", "comment": f"seed {self.request.seed}", "software": "fast-jukebox"}


def song(
    studio: Studio,
    model: object,
    genre: object = None,
    artist: object = None,
    lyrics: object = None,
    duration: object = 20.0,
    seed: object = None,
    temperature: object = None,
    **arguments: Any,
) -> Song:
    """A song to make, from what a page sends; what cannot be is a `ValueError` before anything is sampled.

    Args:
        studio: whose bounds hold.
        model: name of it.
        genre, artist, lyrics: names and text, or nothing.
        duration: seconds.
        seed: a number, or nothing for a random one.
        temperature: of the top level; nothing for the model's own.
        arguments: further fields of a [`SongRequest`].
    """
    chosen, number = studio.model(model), seed_of(seed)
    own = None if temperature is None else within("Temperature", temperature, *TEMPERATURES)
    words: Any = chosen.metadata(artist, genre, studio.lyrics(lyrics))
    dropped, songs = "", range(arguments.get("num_samples", 1))
    if words is None:
        words = draw_metadata(chosen.model, [number] * len(songs), songs)
    elif words:
        words = complete_metadata(chosen.model, words, [number] * len(songs), songs) or words
        dropped = "".join(dict.fromkeys("".join(encode_metadata(chosen.model, words, quiet=True)[1] or [])))
    request = SongRequest(
        duration=studio.duration(duration),
        metadata=words,
        seed=number,
        temperature=chosen.temperatures(own),
        **arguments,
    )
    return Song(chosen, request, dropped)


@reporting(lambda alert, *fields: PlayView(status=alert, live=""))
def play(studio: Studio, visitor: str, *fields: object) -> Iterator[PlayView]:
    """Make a song and play it meanwhile; `fields` are arguments of [`song`]."""
    asked = song(studio, *fields)
    token, live = studio.sounds.new_live(asked.model.rate)
    what = f"Playing {asked.labels or 'a song'}, seed {asked.request.seed}"
    begun = False

    def show(state: WorkState, first: bool) -> PlayView:
        nonlocal begun
        starts, begun = not begun and not state.ahead, begun or not state.ahead
        player = html.live_player(token, asked.model.rate) if starts else "" if first else None
        return PlayView(player, html.bar(state, what), "" if first else None)

    made = yield from studio.watch(visitor, PAGE, lambda report: _stream(studio, asked, live, report), show)
    if made is None:
        yield PlayView(live="", status=html.note("Stopped before the first sound."))
        return
    wanted = float(asked.request.duration or 0.0) - 2 / asked.model.rate  # seconds, less rounding
    yield PlayView(
        status=html.note("Stopped; this is what there is." if made.duration < wanted else "Done."),
        result=html.sound_card(
            asked.labels.capitalize() or "The song", made, [("Duration", f"{made.duration:.2f} s"), *asked.facts]
        ),
    )


def _stream(studio: Studio, asked: Song, live: Live, report: ProgressCallback) -> Sound | None:
    """Sample the song chunk by chunk; what there is of it when it is done or stopped."""
    chunks: list[Tensor] = []
    try:
        for chunk in asked.model.model.stream(**{**asked.request.arguments(), "progress": report}):
            live.write(chunk[0])
            chunks.append(chunk[0].float().cpu())
    except GenerationCancelled:
        pass
    finally:
        live.end()
    if not sum(map(len, chunks)):
        return None
    title = f"{asked.labels or 'song'}-{asked.request.seed}"
    return studio.sounds.add(torch.cat(chunks), asked.model.rate, title, asked.tags)


def play_page(studio: Studio) -> None:
    """Lay the page out in the current Gradio block."""
    import gradio as gr

    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            model = model_field(studio)
            labels = LabelFields(studio, model)
            duration = gr.Slider(1, studio.limits.duration, 20, step=1, label="Duration (seconds)")
            with gr.Accordion("More settings", open=False):
                seed = gr.Textbox(
                    label="Seed", info="Empty draws one. The same seed makes the same song.", max_length=20
                )
                temperature = labels.temperature_field()
            with gr.Row():
                begin = gr.Button("Play", variant="primary", elem_id="play-begin")
                stop = stop_button(studio, PAGE)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(html.note("Choose something or nothing, and press Play."), elem_id="play-status")
            live = gr.HTML("", js_on_load="watch('value', () => fastJukebox.listen(element));", elem_id="play-live")
            result = gr.HTML("", elem_id="play-result")

    def begin_play(visitor: str, *fields: object) -> Iterator[tuple[str | None, ...]]:
        for view in play(studio, visitor, *fields):
            yield view.live, view.status, view.result

    fields = [model, labels.genre, labels.artist, labels.lyrics, duration, seed, temperature]
    on(begin.click, begin_play, fields, [live, status, result])
    stop.click(None, js="() => fastJukebox.silence()", api_visibility="private")
