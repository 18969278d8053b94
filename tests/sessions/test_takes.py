import json
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fast_jukebox.generation.levels import LevelCodes
from fast_jukebox.generation.windows import Layout
from fast_jukebox.sessions.takes import (
    Segment,
    Take,
    checked_settings,
    derived_seed,
    made_from_start,
    metadata_argument,
    metadata_record,
    part_layouts,
    part_of,
    read_span,
    seconds_to_codes,
    updated_metadata,
    window_key,
    window_numbers,
)

layouts = st.builds(
    lambda length, size, hop, given, parallel: Layout(
        0, length, size, min(hop, size), min(given, length), parallel=parallel
    ),
    st.integers(1, 80),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 30),
    st.booleans(),
)


def sampled(layout, seed):
    """Codes of each window, as a level that has no level above might have them, and the given ones."""
    chance = torch.Generator().manual_seed(seed)
    pieces = {
        number: torch.randint(3, (window.new_length,), generator=chance)
        for number, window in enumerate(layout.windows())
    }
    return torch.randint(3, (layout.given,), generator=chance), pieces


def replayed(layout, given, pieces):
    own = LevelCodes(1, given.unsqueeze(0), layout, torch.device("cpu"))
    for number, window in enumerate(layout.windows()):
        prompt = own.read(window.start, window.new_start)
        own.place(window, torch.cat([prompt, pieces[number].unsqueeze(0)], dim=1), slice(0, 1))
    return own


@given(layouts, st.integers(0, 79), st.integers(1, 80), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_a_part_of_the_windows_gives_the_codes_of_all(layout, first, last, seed):
    first, last = min(first, layout.length - 1), min(last, layout.length)
    assume(first < last)
    given, pieces = sampled(layout, seed)
    whole = replayed(layout, given, pieces)
    numbers = window_numbers(layout)
    needed = {numbers[window_key(window)] for window in part_of(layout, first, last).windows()}
    part = {number: pieces[number] for number in needed}
    assert torch.equal(read_span(layout, given, part, first, last), whole.codes[0, first:last])
    if needed:
        del part[max(needed)]
        assert read_span(layout, given, part, first, last) is None


@given(layouts, st.integers(0, 20), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_what_is_made_from_the_start_does_not_change(layout, done, seed):
    given, pieces = sampled(layout, seed)
    some = {number: codes for number, codes in pieces.items() if number < done}
    made = made_from_start(layout, some)
    assert made >= layout.given
    assert torch.equal(read_span(layout, given, some, 0, made), replayed(layout, given, pieces).codes[0, :made])
    assert made_from_start(layout, pieces) == layout.length


def test_upper_levels_are_made_under_whole_windows():
    layouts = [Layout(0, 80, 16, 12, parallel=True), Layout(1, 20, 8, 6, parallel=True), Layout(2, 5, 4, 1)]
    bottom, middle, top = part_layouts(layouts, 0, 40, 42)
    starts = [window.start for window in bottom.windows()]
    assert starts == [36] or starts == [24, 36]
    assert middle.first <= starts[0] // 4 and middle.last >= 52 // 4
    assert top.last == 5
    assert part_layouts(layouts, 1, 0, 4)[0] is None


def a_take(number, parent=None, **changes):
    facts = {
        "number": number,
        "parent": parent,
        "origin": "new",
        "kept": 0,
        "samples": 160,
        "seed": 5,
        "song": 0,
        "settings": {"top_k": [1, 2]},
        "segments": (Segment(0, None), Segment(4, {"words": {"artist": "A"}})),
        "given": None,
        "known": (0, 0),
        "layouts": (Layout(0, 20, 8, 6, parallel=True), Layout(1, 10, 8, 1, stretch=1)),
    }
    return Take(**{**facts, **changes})


def test_a_take_survives_json():
    take = a_take(3, 1)
    assert Take.from_record(json.loads(json.dumps(take.record()))) == take
    assert take.metadata == {"words": {"artist": "A"}}
    assert take.length(1) == 10
    assert take.config().top_k == [1, 2]
    with pytest.raises(ValueError, match="fields"):
        Take.from_record({"number": 1})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"given": "../../somewhere"}, "a take is not"),
        ({"layouts": (Layout(0, 20, 8, 0, parallel=True), Layout(1, 10, 8, 1))}, "hop"),
        ({"layouts": (Layout(0, 20, 8, 6, stretch=0), Layout(1, 10, 8, 1))}, "stretch"),
        ({"layouts": (Layout(0, None, 8, 6), Layout(1, 10, 8, 1))}, "length"),
        ({"layouts": (Layout(0, 20, 8, 6), Layout(1, 10, 8, 1, given=3))}, "given"),
        ({"segments": (Segment(0, None), Segment(-1, None))}, "start"),
        ({"segments": (Segment(0, {"labels": [True]}),)}, "labels"),
        ({"number": 1, "parent": 1}, "parent"),
        ({"samples": 0}, "samples"),
        ({"settings": {"top_k": -1}}, "top_k"),
    ],
)
def test_a_take_that_cannot_be_is_refused(changes, named):
    """What would be looked for elsewhere, or laid out without end."""
    with pytest.raises(ValueError, match=named):
        Take.from_record(json.loads(json.dumps(replace(a_take(3), **changes).record())))


def test_seeds_of_children():
    seeds = {derived_seed(seed, parent, index) for seed in range(3) for parent in range(3) for index in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**53 for seed in seeds)
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)


def test_what_a_song_is_told_survives_json():
    labels = torch.tensor([[0, 0, 0, 4], [0, 0, 0, 5]])
    for metadata, song, expected in (
        (None, 0, None),
        (labels, 1, labels[1:]),
        (labels[:1], 1, labels[:1]),
        ([None, labels], 0, [None, labels[:1]]),
        ({"artist": "A", "genre": ("G", "H")}, 0, {"artist": "A", "genre": ["G", "H"]}),
        ([{"artist": "A"}, {"artist": "B"}], 1, {"artist": "B"}),
    ):
        found = metadata_argument(json.loads(json.dumps(metadata_record(metadata, song))))
        assert str(found) == str(expected)
    for wrong in (3, [], ["A"], {"artist": object()}):
        with pytest.raises(ValueError, match="metadata"):
            metadata_record(wrong, 0)


def test_words_that_are_not_said_again():
    assert updated_metadata({"words": {"a": 1, "b": 2}}, {"words": {"b": 3}}) == {"words": {"a": 1, "b": 3}}
    assert updated_metadata({"labels": [1]}, {"words": {"b": 3}}) == {"words": {"b": 3}}
    assert updated_metadata(None, {"labels": [2]}) == {"labels": [2]}


def test_settings_are_checked():
    assert checked_settings({"top_k": (1, 2)}) == {"top_k": [1, 2]}
    with pytest.raises(ValueError, match="tempo"):
        checked_settings({"tempo": 1})
    with pytest.raises(ValueError, match="temperature"):
        checked_settings({"temperature": 0})


def test_seconds_become_whole_codes():
    assert seconds_to_codes("seconds", 1.0, 8, 100) == 12
    assert seconds_to_codes("seconds", 0.001, 8, 100) == 1
    with pytest.raises(ValueError, match="seconds"):
        seconds_to_codes("seconds", 0, 8, 100)
