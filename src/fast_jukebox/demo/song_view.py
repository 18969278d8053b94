"""A song on the page Compose: its takes as a tree, the chosen one, and its branches."""

from __future__ import annotations

from fast_jukebox.demo import html
from fast_jukebox.demo.songs import ComposedSong
from fast_jukebox.demo.sounds import Sound
from fast_jukebox.sessions.notes import Take

_ORIGINS = {
    "new": "beginning",
    "recording": "from a recording",
    "codes": "from codes",
    "branch": "branch",
    "extend": "longer",
    "cut": "cut",
}
_CARDS = 8
"""Takes shown side by side, the newest; the tree has all."""


def tree(song: ComposedSong, selected: int) -> str:
    """The takes as a tree of buttons; each sends the action `select` with its number."""
    children: dict[int | None, list[Take]] = {}
    for take in song.session.takes.values():
        children.setdefault(take.parent, []).append(take)
    parts: list[str] = []
    waiting: list[tuple[str, Take | None]] = [("", take) for take in reversed(children.get(None, []))]
    while waiting:  # a chain of takes may be longer than calls can be deep
        closing, found = waiting.pop()
        if found is None:
            parts.append(closing)
            continue
        parts.append(f"<li>{_tree_button(song, found, selected)}")
        own = children.get(found.number, [])
        if not own:
            parts.append("</li>")
            continue
        # A single continuation stays below its take, so that a long song does not run out of the page.
        parts.append("<ul>" if len(own) > 1 else '<ul class="fj-single">')
        waiting.append(("</ul></li>", None))
        waiting += [("", child) for child in reversed(own)]
    title = html.text(song.record.title)
    return f'<nav class="fj-tree" aria-label="Takes of {title}"><h3>{title}</h3><ul>{"".join(parts)}</ul></nav>'


def _tree_button(song: ComposedSong, take: Take, selected: int) -> str:
    here = ' aria-current="true"' if take.number == selected else ""
    star = '<span class="fj-star" title="kept">★</span>' if _is_kept(song, take) else ""
    return (
        f'<button type="button" data-action="select" data-value="{take.number}"{here}>'
        f"<b>{take.number}</b>{star}<span>{html.text(_summary(song, take))}</span></button>"
    )


def _is_kept(song: ComposedSong, take: Take) -> bool:
    return song.session.kept is not None and song.session.kept.number == take.number


def _keep_button(song: ComposedSong, take: Take) -> str:
    kept = _is_kept(song, take)
    return _button("keep", take.number, "★ Kept" if kept else "★ Keep", pressed=kept)


def _summary(song: ComposedSong, take: Take) -> str:
    return f"{_ORIGINS[take.origin]} · {take.samples / song.rate:.1f} s · {quality(song, take)}"


def quality(song: ComposedSong, take: Take) -> str:
    """The finished part of a take, in words."""
    level = song.level(take)
    if level is None:
        return "not made yet"
    if level == 0:
        return "full"
    done = song.session.fractions(take)[0]
    return ("draft" if level == song.model.top else song.model.level_names[level]) + (
        f", {100 * done:.0f} % full" if done else ""
    )


def chosen(song: ComposedSong, selected: int, cut_at: float | None = None, working: bool = False) -> str:
    """The chosen take with its player and actions."""
    take = song.session.take(selected)
    sound = song.sound(take)
    marks = {} if cut_at is None or not 0 < cut_at < take.samples / song.rate else {"cut here": cut_at}
    marks |= _beginning(song, take)
    facts = [
        ("Origin", _ORIGINS[take.origin]),
        ("Duration", f"{take.samples / song.rate:.2f} s"),
        ("Made", quality(song, take)),
        ("Labels", song.labels(take)),
        ("Seed", take.seed),
    ]
    parts = [
        _heard(song, take, sound, marks),
        f'<div class="fj-actions">{_keep_button(song, take)}</div>',
        html.facts(facts),
        *(_part(part, own) for part, own in song.parts(take)),
        "" if sound is None else html.pictures(sound, False) + html.downloads(sound),
    ]
    shown = html.card(f"Take {take.number}", *parts, kind="fj-take")
    return _unfinished(song, working) + shown + _key(song)


def _heard(song: ComposedSong, take: Take, sound: Sound | None, marks: dict[str, float]) -> str:
    if sound is not None:
        hint = '<p class="fj-hint">Click where it shall be cut, or write the seconds.</p>'
        return html.waveform(sound, marks, pick="cut") + hint + html.player(sound, f"Take {take.number}")
    if song.level(take) is None:
        return '<p class="fj-hint">Nothing of it is made yet.</p>'
    return '<p class="fj-hint">Its sound is not at hand.</p>' + _button("hear", take.number, "Make it again")


def _part(part: list[float], sound: Sound) -> str:
    title = f"In full quality from {part[0]:.1f} to {part[1]:.1f} s"
    return f'<h4 class="fj-hint">{title}</h4>' + html.player(sound, title) + html.downloads(sound)


def _beginning(song: ComposedSong, take: Take) -> dict[str, float]:
    """The second at which a take goes on from its parent, by its description."""
    begun = take.kept * song.session.facts.hop_lengths[-1] / song.rate
    there = take.parent is not None and 0 < begun < take.samples / song.rate
    return {f"new from here; before it, take {take.parent}": begun} if there else {}


def branches(song: ComposedSong, selected: int) -> str:
    """The branches of the chosen take, side by side."""
    take = song.session.take(selected)
    children = [each for each in song.session.takes.values() if each.parent == take.number][-_CARDS:]
    if not children:
        return ""
    cards = []
    for child in children:
        sound = song.sound(child)
        heard = '<p class="fj-hint">being made</p>'
        if sound is not None:
            heard = html.waveform(sound, _beginning(song, child)) + html.player(sound, f"Take {child.number}")
        labels = song.labels(child)
        facts = _summary(song, child) + (f" · {labels}" if labels else "")
        buttons = _keep_button(song, child) + _button("select", child.number, "Open")
        parts = heard, f'<p class="fj-hint">{html.text(facts)}</p>', f'<div class="fj-actions">{buttons}</div>'
        cards.append(html.card(f"Take {child.number}", *parts))
    return f'<h3 class="fj-heading">Branches of take {take.number}</h3><div class="fj-cards">{"".join(cards)}</div>'


def _unfinished(song: ComposedSong, working: bool) -> str:
    if working or not song.session.jobs:
        return ""
    count = len({number for job in song.session.jobs for number in job.takes})
    what = "1 take is" if count == 1 else f"{count} takes are"
    return (
        f'<div class="fj-note" role="status">{what} not finished. {_button("resume", 0, "Go on", main=True)} '
        f"{_button('forget', 0, 'Give it up')}</div>"
    )


def _key(song: ComposedSong) -> str:
    return (
        '<details class="fj-picture"><summary>Open it in another browser</summary><p class="fj-hint">The key of this '
        f"song is <code>{html.text(song.record.key)}</code>. Whoever has it can hear and change the song.</p></details>"
    )


def _button(action: str, value: int, label: str, *, pressed: bool = False, main: bool = False) -> str:
    state = ' aria-pressed="true" disabled' if pressed else ""
    kind = "fj-button fj-main" if main else "fj-button"
    return f'<button type="button" class="{kind}" data-action="{action}" data-value="{value}"{state}>{label}</button>'
