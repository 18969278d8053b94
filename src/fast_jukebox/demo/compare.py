"""The page Compare: two models or settings on the same seeds, side by side or blind."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fast_jukebox.demo import html
from fast_jukebox.demo.form import LabelFields, model_field, on, stop_button
from fast_jukebox.demo.limits import TEMPERATURES, whole_within, within
from fast_jukebox.demo.listening import SAME, ListeningTest, ListeningTests, Trial, blind_trials
from fast_jukebox.demo.play import Song, song
from fast_jukebox.demo.studio import Studio, reporting, seed_of
from fast_jukebox.demo.work import WorkState
from fast_jukebox.sampling.progress import GenerationProgress, ProgressCallback

if TYPE_CHECKING:
    import gradio as gr
    from gradio.components import Component

PAGE = "compare"
SCHEDULES = ("as the model says", "parallel", "sequential")
"""Order in which windows are sampled."""
QUALITIES = ("full", "draft")
"""All levels, or the top alone."""


@dataclass(frozen=True)
class System:
    """One of the two that are compared, as the page sends it: a model's name, the temperature of its top level, the
    probability of the most probable codes that are kept, one of [`SCHEDULES`] and one of [`QUALITIES`].
    """

    model: object
    temperature: object = None
    top_p: object = 1.0
    schedule: object = SCHEDULES[0]
    quality: object = QUALITIES[0]

    def song(self, studio: Studio, genre: object, artist: object, duration: object, seed: int) -> Song:
        """The song that it makes of a seed."""
        if self.schedule not in SCHEDULES or self.quality not in QUALITIES:
            raise ValueError(
                f"Schedule and quality must be of the lists, got {self.schedule!r:.40}, {self.quality!r:.40}"
            )
        return song(
            studio,
            self.model,
            genre,
            artist,
            duration=duration,
            seed=str(seed),
            temperature=self.temperature,
            top_p=within("Top p", self.top_p, 0.01, 1.0),
            schedule=None if self.schedule == SCHEDULES[0] else self.schedule,
            stop_level=studio.model(self.model).top if self.quality == "draft" else 0,
        )

    def described(self, studio: Studio) -> str:
        """In words, for tallies and titles."""
        chosen = studio.model(self.model)
        temperature = chosen.top_temperature() if self.temperature is None else self.temperature
        words = [chosen.name, f"temperature {temperature}"]
        words += [f"top p {self.top_p}"] if self.top_p != 1 else []
        words += [str(self.schedule)] if self.schedule != SCHEDULES[0] else []
        return ", ".join([*words, *(["draft"] if self.quality == "draft" else [])])


@dataclass(frozen=True)
class CompareView:
    """Parts of the page that change, as HTML; `None` where they stay.

    Attributes:
        status: progress, or what went wrong.
        result: songs side by side, the current pair of a test, or the outcome of a test.
        key: of the test.
        asking: the pair waits for an answer.
    """

    status: str | None = None
    result: str | None = None
    key: str | None = None
    asking: bool | None = None


@reporting(lambda alert, *fields: CompareView(alert))
def side_by_side(
    studio: Studio, visitor: str, systems: tuple[System, System], *fields: object
) -> Iterator[CompareView]:
    """Both systems' songs of one seed, named; `fields` are genre, artist, duration and seed."""
    genre, artist, duration, seed = fields
    number = seed_of(seed)
    songs = [system.song(studio, genre, artist, duration, number) for system in systems]
    names = [system.described(studio) for system in systems]
    made = yield from _made(studio, visitor, [songs], "Making both")
    if made is None:
        yield CompareView(html.note("Stopped."))
        return
    cards = []
    for name, asked, audio in zip(names, songs, made[0], strict=True):
        sound = studio.sounds.add(audio, asked.model.rate, f"{name}-{number}", asked.tags)
        cards.append(html.sound_card(name, sound, asked.facts[:2]))
    yield CompareView(html.note("Done."), f'<div class="fj-cards">{"".join(cards)}</div>', asking=False)


@reporting(lambda alert, *fields: CompareView(alert))
def prepare(studio: Studio, visitor: str, systems: tuple[System, System], *fields: object) -> Iterator[CompareView]:
    """Make the pairs of a blind test; `fields` are those of [`side_by_side`], with the first seed, and their number."""
    genre, artist, duration, seed, pairs = fields
    number, count = seed_of(seed), whole_within("Pairs", pairs, 1, studio.limits.trials)
    drawn = blind_trials([(number + index) % 2**63 for index in range(count)])
    names = (systems[0].described(studio), systems[1].described(studio))
    if names[0] == names[1]:
        raise ValueError("the two systems are the same: choose another model or setting for one of them")
    songs = [[system.song(studio, genre, artist, duration, each) for system in systems] for each, _, _ in drawn]
    made = yield from _made(studio, visitor, songs, f"Making {count} pairs")
    if made is None:
        yield CompareView(html.note("Stopped; a test needs all of its pairs."))
        return
    trials = []
    for (each, first, x), pair, own in zip(drawn, made, songs, strict=True):
        heard = [first, 1 - first, first if x == "A" else 1 - first]  # systems of A, B and X
        a, b, c = (studio.sounds.add(pair[index], own[index].model.rate, "listening-test") for index in heard)
        trials.append(Trial(each, first, x, (a.token, b.token, c.token)))
    yield shown(studio, ListeningTests(studio.tests_folder).create(names, trials))


def _made(
    studio: Studio, visitor: str, pairs: Sequence[Sequence[Song]], what: str
) -> Generator[CompareView, None, list[list[Tensor]] | None]:
    """The songs of all pairs, `None` where they were stopped; yields how far they are."""

    def show(state: WorkState, first: bool) -> CompareView:
        return CompareView(html.bar(state, what), "" if first else None, asking=False)

    return (yield from studio.watch(visitor, PAGE, lambda report: _make(pairs, report), show))


def answer(studio: Studio, key: object, x: object, preferred: object) -> CompareView:
    """Take an answer to the current pair, and show the next one."""
    try:
        tests = ListeningTests(studio.tests_folder)
        test = tests.read(key).answered(str(x or ""), str(preferred or ""))
        tests.write(test)
    except Exception as error:
        return CompareView(html.alert(studio.message(error)))
    return shown(studio, test)


def reopened(studio: Studio, key: object) -> CompareView:
    """A test as it was left; nothing where there is none."""
    try:
        return shown(studio, ListeningTests(studio.tests_folder).read(key))
    except ValueError:
        return CompareView()


def shown(studio: Studio, test: ListeningTest) -> CompareView:
    """The current pair of a test, or its outcome."""
    if test.current is None:
        return CompareView(html.note("All pairs are answered."), _outcome(test), test.key, False)
    trial, cards = test.trials[test.current], []
    for name, token in zip("ABX", trial.sounds, strict=True):
        sound = studio.sounds.get(token)
        heard = html.player(sound, f"Sound {name}") if sound else html.alert("the sound is gone; make a new test")
        cards.append(html.card(name, heard))
    status = f"Pair {test.current + 1} of {len(test.trials)}: X is the same song as A or as B."
    return CompareView(html.note(status), f'<div class="fj-cards fj-three">{"".join(cards)}</div>', test.key, True)


def _outcome(test: ListeningTest) -> str:
    tally = test.tally()
    ties = tally.answered - sum(tally.liked)
    chance = f"by guessing that or more with probability {tally.p_value:.3f}"
    rows = [
        ("X recognised", f"{tally.right} of {tally.answered}, {chance}"),
        *((f"Preferred: {name}", count) for name, count in zip(test.systems, tally.liked, strict=True)),
        ("No preference", ties),
        ("Sign test of the preference", f"p = {tally.preference_p_value:.3f}"),
    ]
    place = f"{html.ADDRESS}/test/{test.key}"
    links = "".join(
        f'<a class="fj-chip" href="{place}/tally.{kind}" download="tally.{kind}">{kind.upper()}</a>'
        for kind in ("csv", "json")
    )
    return html.card("Outcome", html.facts(rows), f'<div class="fj-downloads"><span>Save the tally</span>{links}</div>')


def _make(pairs: Sequence[Sequence[Song]], report: ProgressCallback) -> list[list[Tensor]]:
    """Songs of all pairs, each float32 (T,); both of a pair as loud as the softer one: louder is liked better."""
    made: list[list[Tensor]] = []
    total, begun = sum(map(len, pairs)), time.monotonic()
    for pair in pairs:
        own: list[Tensor] = []
        for asked in pair:
            done = sum(map(len, made)) + len(own)

            def overall(progress: GenerationProgress, done: int = done) -> bool | None:
                fraction = (done + (progress.fraction or 0.0)) / total
                spent = time.monotonic() - begun
                left = spent * (1 - fraction) / fraction if fraction > 0.02 else None
                return report(replace(progress, fraction=fraction, seconds_left=left))

            output = asked.model.model.generate(**{**asked.request.arguments(), "progress": overall})
            own.append(torch.as_tensor(output.audio)[0].float().cpu().clamp(-1, 1))
        made.append(own)
    return [equally_loud(pair) for pair in made]


def equally_loud(sounds: Sequence[Tensor]) -> list[Tensor]:
    """Sounds (T,) brought to the root mean square of the softest that is not silent."""
    levels = [float(sound.square().mean().sqrt()) for sound in sounds]
    softest = min((level for level in levels if level > 1e-6), default=0.0)
    return [sound * (softest / level) if level > 1e-6 else sound for sound, level in zip(sounds, levels, strict=True)]


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
                yield _values(view)

        return views

    def take_answer(_: str, *values: object) -> tuple[object, ...]:
        return _values(answer(studio, *values))

    root = gr.context.Context.root_block
    fields = [*first, *second, labels.genre, labels.artist, duration, seed]
    on(beside.click, begin(side_by_side), fields, outputs)
    on(blind.click, begin(prepare), [*fields, pairs], outputs)
    on(give.click, take_answer, [mine, x, preferred], outputs)
    on(root.load, lambda _, key: _values(reopened(studio, key)), [mine], outputs)


def _values(view: CompareView) -> tuple[object, ...]:
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
