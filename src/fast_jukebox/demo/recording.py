"""The page Continue: a recording, trimmed, and songs that begin with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fast_jukebox.audio.io import load_audio
from fast_jukebox.demo import html
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import whole_within, within
from fast_jukebox.demo.models import StudioModel, described
from fast_jukebox.demo.play import Song, song
from fast_jukebox.demo.sounds import Sound
from fast_jukebox.demo.studio import Shown, Studio, reporting, status_only
from fast_jukebox.sampling.progress import ProgressCallback

PAGE = "continue"
_LEAST = 0.05
"""Seconds of a recording that are kept at least."""
_CONTEXT_SECONDS = 1.0
"""Seconds of a recording that are read beyond the kept ones, for the context of the last codes."""


def uploaded(studio: Studio, path: object) -> Path:
    """The path of an upload, as the browser sent it; a `ValueError` where it lies elsewhere, or is too large."""
    if not isinstance(path, str) or not path:
        raise ValueError("Recording is missing: upload a file or record one first")
    try:
        found = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        found = None
    if found is None or not found.is_relative_to(studio.uploads_folder.resolve()) or not found.is_file():
        raise ValueError("Recording is gone: upload it again")
    if found.stat().st_size > studio.limits.upload_bytes:
        raise ValueError(f"Recording must have at most {studio.limits.upload_bytes:,} bytes")
    return found


def read_recording(studio: Studio, model: StudioModel, path: object) -> Tensor:
    """A recording, float32 (T,) at the model's rate, no longer than the studio's bound; a `ValueError` for no sound."""
    place = uploaded(studio, path)
    try:
        audio = load_audio(place, sampling_rate=model.rate, duration=studio.limits.recording)
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace(str(place), place.name)) from error
    if len(audio) < _LEAST * model.rate:
        raise ValueError(f"Recording must have at least {_LEAST:g} s, got {len(audio) / model.rate:.3f}")
    return audio


def trimmed(audio: Tensor, rate: int, start: object, end: object) -> tuple[float, float]:
    """Start and end of a trimmed recording in seconds; nothing as an end stands for its end."""
    duration = len(audio) / rate
    first = within("From", start or 0.0, 0.0, duration - _LEAST, " s")
    last = duration if end in (None, "", 0) else min(within("To", end, 0.0, duration + 0.01, " s"), duration)
    if last - first < _LEAST:
        raise ValueError(f"To must be at least {_LEAST:g} s after From, got {first:g} to {last:g} s")
    return first, last


def see(studio: Studio, model: object, path: object, start: object, end: object) -> str:
    """A recording with where it is trimmed, as HTML; a click on its waveform picks the end."""
    if not path:
        return ""
    try:
        chosen = studio.model(model)
        audio = read_recording(studio, chosen, path)
        first, last = trimmed(audio, chosen.rate, start, end)
        sound = _shown(studio, chosen, str(path), audio)
    except Exception as error:
        return html.alert(studio.message(error))
    entries = [("Length", f"{sound.duration:.2f} s"), ("Kept", f"{first:.2f} to {last:.2f} s")]
    return html.card(
        "Recording",
        html.waveform(sound, {"from": first, "to": last}, pick="end"),
        '<p class="fj-hint">Click where it shall end, or write the seconds.</p>',
        html.player(sound, "What is kept of the recording", (first, last)),
        html.facts(entries),
        html.pictures(sound),
    )


def _shown(studio: Studio, model: StudioModel, path: str, audio: Tensor) -> Sound:
    """The recording among the studio's sounds, once however often it is trimmed."""
    seen = studio.sounds.get(studio.recordings.get((path, model.rate)))
    if seen is None:
        seen = studio.sounds.add(audio, model.rate, "recording")
        studio.recordings[path, model.rate] = seen.token
        while len(studio.recordings) > studio.limits.sounds:
            studio.recordings.pop(next(iter(studio.recordings)), None)
    return seen


def continuation(studio: Studio, *fields: object) -> Song:
    """Songs to make that begin with a recording; `fields` are those of the page, as they stand in its layout."""
    model, path, start, end, seconds, ways, genre, artist, lyrics, seed, temperature = fields
    chosen = studio.model(model)
    count = whole_within("Ways", ways, 1, studio.limits.variants)
    added = studio.duration(seconds, "Seconds to add")
    audio = read_recording(studio, chosen, path)
    first, last = trimmed(audio, chosen.rate, start, end)
    prompt = audio[round(first * chosen.rate) : round((last + _CONTEXT_SECONDS) * chosen.rate)]
    continued = {"num_samples": count, "prompt": prompt, "prompt_duration": last - first}
    asked = song(studio, model, genre, artist, lyrics, added, seed, temperature, **continued)
    request = asked.request
    total = (request.duration or 0.0) + last - first
    return replace(asked, request=replace(request, duration=total))


@reporting(status_only)
def continue_recording(studio: Studio, visitor: str, *fields: object) -> Iterator[Shown]:
    """Make songs that begin with a recording; `fields` are arguments of [`continuation`]."""
    asked = continuation(studio, *fields)
    made = yield from studio.watch(
        visitor,
        PAGE,
        lambda report: _make(studio, asked, report),
        lambda state, first: (html.bar(state, "Continuing the recording"), None),
    )
    if made is None:
        yield html.note("Stopped; nothing was made."), None
        return
    words = asked.request.metadata
    labels = [described(each) for each in words] if isinstance(words, list) else [asked.labels] * len(made)
    facts = [("Seed", asked.request.seed), ("Left out of the lyrics", asked.dropped)]
    cards = [
        html.sound_card(f"Way {number}", sound, [("Labels", label), *facts])
        for number, (sound, label) in enumerate(zip(made, labels, strict=True), 1)
    ]
    yield html.note("Done."), f'<div class="fj-cards">{"".join(cards)}</div>'


def _make(studio: Studio, asked: Song, report: ProgressCallback) -> list[Sound]:
    made = asked.model.model.generate(**{**asked.request.arguments(), "progress": report})
    audio = torch.as_tensor(made.audio).cpu()
    return [
        studio.sounds.add(each, asked.model.rate, f"continued-{asked.request.seed}-{index + 1}", asked.tags)
        for index, each in enumerate(audio)
    ]


def recording_page(studio: Studio) -> None:
    """Lay the page out in the current Gradio block."""
    import gradio as gr

    with gr.Row(elem_classes="fj-page"):
        with gr.Column(scale=2, min_width=300):
            model = model_field(studio)
            upload = gr.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                label="Recording: a file or the microphone",
                elem_id="continue-upload",
                buttons=[],
            )
            with gr.Row():
                start = gr.Number(0, label="From (seconds)", minimum=0, min_width=120)
                end = gr.Number(0, label="To (0 is its end)", minimum=0, min_width=120)
            with gr.Row():
                seconds = gr.Slider(1, studio.limits.duration, 10, step=1, label="Seconds to add", min_width=160)
                ways = gr.Slider(1, studio.limits.variants, 2, step=1, label="Ways", min_width=120)
            labels = LabelFields(studio, model)
            with gr.Accordion("More settings", open=False):
                seed = gr.Textbox(label="Seed", info="Empty draws one.", max_length=20)
                temperature = labels.temperature_field()
            with gr.Row():
                begin = gr.Button("Continue it", variant="primary", elem_id="continue-begin")
                stop_button(studio, PAGE)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(html.note("Upload a recording, or record one."), elem_id="continue-status")
            seen = gr.HTML("", js_on_load="fastJukebox.actions(element, trigger);", elem_id="continue-seen")
            result = gr.HTML("", elem_id="continue-result")

    def pick(_: str, data: dict[str, object]) -> float | None:
        seconds = data.get("seconds")
        return round(float(seconds), 2) if data.get("action") == "end" and isinstance(seconds, int | float) else None

    trim = [model, upload, start, end]
    for listen in (upload.change, start.change, end.change, model.change):
        on(listen, lambda _, *fields: see(studio, *fields), trim, seen)
    on(seen.click, pick, None, end, with_data=True)
    fields = [*trim, seconds, ways, labels.genre, labels.artist, labels.lyrics, seed, temperature]
    on(begin.click, partial(continue_recording, studio), fields, [status, result])
