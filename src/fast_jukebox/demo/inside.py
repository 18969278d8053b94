"""The page Inside: a model's sizes and card, time and memory of a song, and which word is sung when."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from fast_jukebox.demo import html
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import whole_within
from fast_jukebox.demo.models import StudioModel
from fast_jukebox.demo.play import Song, song
from fast_jukebox.demo.sounds import Sound
from fast_jukebox.demo.studio import Shown, Studio, reporting, status_only
from fast_jukebox.evaluation.alignment import AlignedText, LyricsAlignment, lyrics_alignment
from fast_jukebox.evaluation.pictures import plot_alignment
from fast_jukebox.generation.estimate import GenerationEstimate
from fast_jukebox.hub.cards import load_card
from fast_jukebox.models.description import card_path, describe_model
from fast_jukebox.sampling.progress import ProgressCallback

PAGE = "inside"
_LONGEST_CARD = 200_000
"""Characters of a card that are shown."""
_PICTURE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")
_MOST_SONGS = 1000
"""Songs that are estimated."""


def information(studio: Studio, model: object) -> str:
    """A model's sizes, labels and licence, as HTML tables."""
    try:
        own = studio.model(model)
        found = describe_model(own.source, own.model.config)
    except Exception as error:
        return html.alert(studio.message(error))
    tables = [_table(table.title, table.columns, table.rows.items()) for table in found.tables]
    lines = "".join(f"<li>{html.text(line)}</li>" for line in found.lines)
    return html.card(own.name, f"<p>{html.text(found.summary)}</p>", *tables, f'<ul class="fj-lines">{lines}</ul>')


def card(studio: Studio, model: object) -> str:
    """A model's card as Markdown, without its metadata block. Of pictures there is the description: the page loads
    nothing from elsewhere.
    """
    try:
        path = card_path(studio.model(model).source)
        if path is None:
            return "This model has no card."
        text = str(load_card(path, strict=False).text)[:_LONGEST_CARD]
        return _PICTURE.sub(r"*Picture: \1*", text)
    except Exception as error:
        return f"The card cannot be read: {studio.message(error)}".replace("<", "&lt;")


def _table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{html.text(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{html.text(name)}</th>'
        + "".join(f"<td>{html.text(cell).replace(chr(10), '<br>')}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    return (
        f'<div class="fj-table" tabindex="0" role="region" aria-label="{html.text(title)}"><table><caption>'
        f"{html.text(title)}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


@reporting(status_only)
def estimate(
    studio: Studio, visitor: str, model: object, duration: object, songs: object, quality: object
) -> Iterator[Shown]:
    """Time and memory of songs on the server, measured on it."""
    own = studio.model(model)
    seconds = float(whole_within("Duration", duration, 1, 3600))
    count = whole_within("Songs", songs, 1, _MOST_SONGS)
    lowest = own.top if quality == "draft" else 0
    made = yield from studio.watch(
        visitor,
        PAGE,
        lambda report: own.model.estimate(seconds, num_samples=count, stop_level=lowest),
        lambda state, first: (html.bar(state, "Measuring a few steps, some ten seconds"), "" if first else None),
    )
    yield (html.note("Stopped."), None) if made is None else (html.note("Measured."), _estimated(own, made))


def _estimated(model: StudioModel, made: GenerationEstimate) -> str:
    rows = [
        (each.name, [f"{each.codes:,}", f"{each.steps:,}", html.seconds(each.seconds), _size(each.memory)])
        for each in reversed(made.levels)
    ]
    rows.append(("decoding", ["", "", html.seconds(made.decode_seconds), ""]))
    speed = made.duration * made.num_samples / made.seconds if made.seconds else math.inf
    songs = f"{made.num_samples} songs of " if made.num_samples > 1 else ""
    entries = [
        ("Time", html.seconds(made.seconds)),
        ("Music a second", f"{speed:.2f} s"),
        ("Main memory", _size(made.ram)),
        ("Memory of the GPU", _size(made.device_memory) if made.device_memory else ""),
        ("Disk for WAV", _size(made.disk)),
    ]
    return html.card(
        f"{songs}{made.duration:g} s by {model.name} on {made.device}",
        html.facts(entries),
        _table("Levels", ["codes", "steps", "time", "memory"], rows),
    )


def _size(count: int) -> str:
    """Bytes in a unit that fits."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


@reporting(status_only)
def sing(studio: Studio, visitor: str, *fields: object) -> Iterator[Shown]:
    """Make a draft with lyrics and show which word is sung when; `fields` are arguments of [`song`]."""
    chosen = studio.model(fields[0])
    if not chosen.sings:
        raise ValueError(f"the model {chosen.name!r} takes no lyrics")
    asked = song(studio, *fields, stop_level=chosen.top)  # type: ignore[misc]  # at most six fields
    metadata = asked.request.metadata
    words = metadata[0] if isinstance(metadata, list) else metadata
    if not isinstance(words, dict) or not words.get("lyrics"):
        raise ValueError("Lyrics are missing: write some words to sing")
    made = yield from studio.watch(
        visitor,
        PAGE,
        lambda report: _sung(studio, asked, words, report),
        lambda state, first: (html.bar(state, "Singing"), "" if first else None),
    )
    if made is None:
        yield html.note("Stopped."), None
        return
    sound, alignment, picture = made
    yield html.note("Done."), _aligned(asked, sound, alignment, picture)


def _sung(
    studio: Studio, asked: Song, words: dict[str, object], report: ProgressCallback
) -> tuple[Sound, LyricsAlignment, Path]:
    model, top = asked.model.model, asked.model.top
    made = model.generate(**{**asked.request.arguments(), "progress": report})
    codes = (made.codes or [])[top]
    alignment = lyrics_alignment(model, torch.as_tensor(codes), words)
    audio = torch.as_tensor(made.audio)[0]
    sound = studio.sounds.add(audio, asked.model.rate, f"{asked.labels}-{asked.request.seed}", asked.tags)
    picture = plot_alignment(studio.sounds.folder / sound.token / "alignment.png", alignment)
    return sound, alignment, picture


def _aligned(asked: Song, sound: Sound, alignment: LyricsAlignment, picture: Path) -> str:
    rows = alignment.rows("word")
    lit = f"fj-words-{sound.token}"
    text = f'<p class="fj-words" id="{lit}">{" ".join(map(_word, rows))}</p>'
    cells = [(row.text, [_time(row.start), _time(row.end), f"{row.attention:.2f}"]) for row in rows]
    image = f"{html.ADDRESS}/sound/{sound.token}/{picture.name}"
    return html.card(
        asked.labels.capitalize() or "The song",
        html.player(sound, "The song, whose words light up as they are sung", words=lit),
        text,
        html.facts(asked.facts),
        f'<details class="fj-picture"><summary>Attention</summary><img loading="lazy" src="{image}" '
        'alt="Which character each moment attends to"></details>',
        '<details class="fj-picture"><summary>Times</summary>'
        + _table("Words", ["from", "to", "attention"], cells)
        + "</details>",
        html.downloads(sound),
    )


def _word(row: AlignedText) -> str:
    if math.isnan(row.start):
        return f"<span>{html.text(row.text)}</span>"
    return f'<span data-start="{row.start:.3f}" data-end="{row.end:.3f}">{html.text(row.text)}</span>'


def _time(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} s"


def inside_page(studio: Studio) -> None:
    """Lay the page out in the current Gradio block."""
    import gradio as gr

    first = next(iter(studio.models))
    model = model_field(studio)
    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=3, min_width=320):
            info = gr.HTML(information(studio, first), elem_id="inside-info")
            with gr.Accordion("The model's card", open=False, elem_id="inside-card"):
                text = gr.Markdown(card(studio, first), sanitize_html=True)
        with gr.Column(scale=2, min_width=300):
            with gr.Group():
                gr.HTML('<h3 class="fj-heading fj-inset">What will a song take here?</h3>')
                duration = gr.Slider(1, 600, 60, step=1, label="Duration (seconds)")
                with gr.Row():
                    songs = gr.Slider(1, 64, 1, step=1, label="Songs", min_width=120)
                    quality = gr.Dropdown(["full", "draft"], value="full", label="Quality", min_width=120)
            begin = gr.Button("Estimate", variant="primary", elem_id="inside-estimate")
            status = gr.HTML("", elem_id="inside-status")
            result = gr.HTML("", elem_id="inside-result")
    on(model.change, lambda _, name: (information(studio, name), card(studio, name)), model, [info, text])
    on(begin.click, partial(estimate, studio), [model, duration, songs, quality], [status, result])
    if any(own.sings for own in studio.models.values()):
        _singing(studio)


def _singing(studio: Studio) -> None:
    """The part of the page for models with lyrics."""
    import gradio as gr

    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            gr.HTML('<h3 class="fj-heading">Which word is sung when</h3>')
            model = model_field(studio)
            labels = LabelFields(studio, model)
            duration = gr.Slider(1, studio.limits.duration, 12, step=1, label="Duration (seconds)")
            seed = gr.Textbox(label="Seed", info="Empty draws one.", max_length=20)
            with gr.Row():
                begin = gr.Button("Sing", variant="primary", elem_id="inside-sing")
                stop_button(studio, PAGE)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML("", elem_id="sing-status")
            result = gr.HTML("", elem_id="sing-result")

    fields = [model, labels.genre, labels.artist, labels.lyrics, duration, seed]
    on(begin.click, partial(sing, studio), fields, [status, result])
