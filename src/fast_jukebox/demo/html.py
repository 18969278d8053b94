"""Pieces of the studio's pages as HTML. Whatever comes from people or models is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping

from fast_jukebox.demo.sounds import Sound
from fast_jukebox.demo.work import WorkState

ADDRESS = "studio"
"""Prefix of the studio's routes."""
_PICTURE_TITLES = {"notes": "Notes heard, as a piano roll", "spectrogram": "Spectrogram"}


def text(value: object) -> str:
    """Anything as text that is safe inside an element and an attribute."""
    return html.escape(str(value), quote=True)


def seconds(value: float) -> str:
    """A time such as `12 s` or `3 min 5 s`."""
    minutes, rest = divmod(max(math.ceil(value - 1e-9), 0), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def alert(message: object) -> str:
    """An error, announced at once by screen readers."""
    return f'<div class="fj-alert" role="alert">{text(message)}</div>'


def note(message: object) -> str:
    """A message, announced when the reader has a moment."""
    return f'<div class="fj-note" role="status">{text(message)}</div>'


def bar(state: WorkState, what: str) -> str:
    """The progress of a work: its place in the queue, or a bar with the time left."""
    if state.ahead:
        before = "1 before you" if state.ahead == 1 else f"{state.ahead} before you"
        return (
            f'<div class="fj-status" role="status"><span class="fj-dot"></span>In the queue: {before}, '
            f"{state.waiting} in all</div>"
        )
    left = "" if state.seconds_left is None else f"about {seconds(state.seconds_left)} left"
    others = "" if state.waiting < 2 else f" · {state.waiting - 1} waiting behind you"
    percent = None if state.fraction is None else round(100 * state.fraction)
    now = "" if percent is None else f' aria-valuenow="{percent}" aria-valuetext="{percent} %, {left}"'
    width = 4 if percent is None else max(percent, 4)
    return (
        f'<div class="fj-status"><div class="fj-line"><span>{text(what)}{others}</span><span>{left}</span></div>'
        f'<div class="fj-bar" role="progressbar" aria-label="{text(what)}" aria-valuemin="0" aria-valuemax="100"{now}>'
        f'<i style="width:{width}%"></i></div></div>'
    )


def live_player(token: str, rate: int) -> str:
    """The player of sound in the making, which the browser's script drives."""
    return (
        f'<div class="fj-live" data-stream="{ADDRESS}/live/{text(token)}" data-rate="{rate}">'
        '<button type="button" class="fj-button" data-live="pause" aria-pressed="false">Pause</button>'
        '<span class="fj-live-time" aria-live="off">waiting for the first sound</span></div>'
    )


def player(sound: Sound, label: str, part: tuple[float, float] | None = None, words: str = "") -> str:
    """The browser's own audio player.

    Args:
        sound: to play.
        label: for screen readers.
        part: from where to where, in seconds; by default all of it.
        words: id of the element whose words light up as they are sung.
    """
    fragment = "" if part is None else f"#t={part[0]:.3f},{part[1]:.3f}"
    lit = f' data-words="{text(words)}"' if words else ""
    return (
        f'<audio controls preload="metadata" aria-label="{text(label)}"{lit} '
        f'src="{ADDRESS}/sound/{sound.token}/wav{fragment}"></audio>'
    )


def downloads(sound: Sound) -> str:
    """Links to the sound's files."""
    links = "".join(
        f'<a class="fj-chip" href="{ADDRESS}/sound/{sound.token}/{kind}" download="{text(sound.title)}.{kind}">'
        f"{kind.upper()}</a>"
        for kind in sound.formats
    )
    return f'<div class="fj-downloads"><span>Download</span>{links}</div>'


def pictures(sound: Sound, opened: bool = True) -> str:
    """Pictures, drawn when they are first looked at."""
    kinds = ["notes", "spectrogram"] if sound.has_notes else ["spectrogram"]
    return "".join(
        f'<details class="fj-picture fj-{kind}"{" open" if opened and not index else ""}>'
        f"<summary>{_PICTURE_TITLES[kind]}</summary>"
        f'<img loading="lazy" alt="{_PICTURE_TITLES[kind]} of {text(sound.title)}" '
        f'src="{ADDRESS}/sound/{sound.token}/{kind}.png"></details>'
        for index, kind in enumerate(kinds)
    )


def waveform(sound: Sound, marks: Mapping[str, float] | None = None, pick: str = "") -> str:
    """The waveform as a picture that takes the colour of the text.

    Args:
        sound: whose.
        marks: seconds at which a line stands, by what it is called.
        pick: what a click on it picks, for the page's script; nothing by default.
    """
    count = len(sound.low)
    if not count:
        return ""
    peak = max(max(map(abs, (*sound.low, *sound.high))), 1e-3)
    upper = [f"{index},{50 - 46 * high / peak:.1f}" for index, high in enumerate(sound.high)]
    lower = [f"{index},{50 - 46 * low / peak:.1f}" for index, low in reversed(list(enumerate(sound.low)))]
    lines = "".join(
        f'<line class="fj-mark" x1="{count * at / sound.duration:.1f}" x2="{count * at / sound.duration:.1f}" y1="0" '
        f'y2="100"><title>{text(name)}</title></line>'
        for name, at in (marks or {}).items()
    )
    picks = f' data-pick="{text(pick)}" data-duration="{sound.duration:.4f}"' if pick else ""
    return (
        f'<svg class="fj-wave" viewBox="0 0 {count} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Waveform, {sound.duration:.1f} seconds"{picks}><polygon points="{" ".join(upper + lower)}"/>'
        f"{lines}</svg>"
    )


def facts(entries: Iterable[tuple[str, object]]) -> str:
    """Names and values in a row; entries without a value are left out."""
    shown = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in entries if value not in (None, "")
    )
    return f'<dl class="fj-facts">{shown}</dl>'


def card(title: str, *parts: str, kind: str = "") -> str:
    """A frame around parts."""
    return f'<section class="fj-card {kind}"><h3>{text(title)}</h3>{"".join(parts)}</section>'


def sound_card(title: str, sound: Sound, entries: Iterable[tuple[str, object]]) -> str:
    """A sound with its player, facts, pictures and downloads."""
    return card(title, player(sound, title), facts(entries), pictures(sound), downloads(sound))
