from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.generation.windows import (
    MOST_WINDOWS,
    Layout,
    Window,
    covered_codes,
    even_parts,
    hop_of,
    sampled_codes,
    size_of,
)


def sequential_windows(level, length, n_ctx, hop_fraction, upper_ratio=1, given=0):
    hop = hop_of(hop_fraction, n_ctx, upper_ratio)
    return list(Layout(level, length, n_ctx, hop, given).windows())


def parallel_windows(level, length, size, hop_fraction, upper_ratio=1, given=0):
    hop = hop_of(hop_fraction, size, upper_ratio)
    return list(Layout(level, length, size, hop, given, parallel=True).windows())


@st.composite
def songs(draw):
    ratio = draw(st.sampled_from([1, 2, 4]))
    length = draw(st.integers(1, 60)) * ratio
    return {
        "level": draw(st.integers(0, 3)),
        "length": length,
        "n_ctx": draw(st.integers(1, 24)) * ratio,
        "hop_fraction": draw(st.floats(0.001, 1.0)),
        "upper_ratio": ratio,
        "given": draw(st.integers(0, length)),
    }


@given(songs())
def test_every_position_is_sampled_once_after_its_prompt_is_known(song):
    known = set(range(song["given"]))
    for window in sequential_windows(**song):
        assert window.level == song["level"]
        assert set(range(window.start, window.new_start)) <= known
        new = set(range(window.new_start, window.end))
        assert new
        assert not new & known
        known |= new
    assert known == set(range(song["length"]))


@given(songs())
def test_windows_fit_the_context_the_song_and_the_level_above(song):
    windows = sequential_windows(**song)
    for window in windows:
        assert window.length == min(song["n_ctx"], song["length"])
        assert window.start % song["upper_ratio"] == window.end % song["upper_ratio"] == 0
        assert 0 <= window.start < window.end <= song["length"]
    assert [window.start for window in windows] == sorted({window.start for window in windows})
    if windows:
        assert windows[-1].end == song["length"]
    assert sampled_codes(windows) == covered_codes(windows) == song["length"] - song["given"]


@given(songs())
def test_overlap_is_what_the_hop_leaves(song):
    hop = hop_of(song["hop_fraction"], song["n_ctx"], song["upper_ratio"])
    assert hop % song["upper_ratio"] == 0
    assert song["upper_ratio"] <= hop <= song["n_ctx"]
    windows = sequential_windows(**{**song, "given": 0})
    assert windows[0].prompt_length == 0
    for before, window in zip(windows, windows[1:], strict=False):
        assert window.start - before.start <= hop
        assert window.prompt_length == before.end - window.start
    for before, window in zip(windows, windows[1:-1], strict=False):
        assert window.start - before.start == hop


def test_the_published_schedule_of_the_top_level():
    # 24 s at 44.1 kHz are 8269 top codes; the context is 6144, an eighth of it is 768.
    windows = sequential_windows(2, 8269, 6144, 0.125)
    assert windows == [
        Window(2, 0, 0, 6144),
        Window(2, 768, 5376, 6144),
        Window(2, 1536, 5376, 6144),
        Window(2, 2125, 5555, 6144),
    ]


def test_given_codes_make_windows_vanish_and_lengthen_the_next_prompt():
    assert sequential_windows(0, 20, 8, 0.5, given=10) == [
        Window(0, 4, 6, 8),
        Window(0, 8, 4, 8),
        Window(0, 12, 4, 8),
    ]
    assert sequential_windows(0, 20, 8, 0.5, given=20) == []
    assert sequential_windows(0, 5, 8, 0.5) == [Window(0, 0, 0, 5)]


def test_the_hop_is_rounded_to_whole_upper_codes():
    assert hop_of(0.5, 24, 4) == 12
    assert hop_of(0.3, 24, 4) == 8
    assert hop_of(0.001, 24, 4) == 4
    assert hop_of(1.0, 24, 4) == 24


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_hop_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="hop_fractions"):
        hop_of(fraction, 24)


def test_a_context_of_no_whole_upper_codes_is_refused():
    with pytest.raises(ValueError, match="`n_ctx` must be a multiple of 2 codes.*got 7"):
        hop_of(0.5, 7, 2)


def test_a_window_samples_something():
    with pytest.raises(ValueError, match="prompt_length"):
        Window(level=0, start=0, prompt_length=4, length=4)


@st.composite
def parallel_songs(draw):
    song = draw(songs())
    song["size"] = song.pop("n_ctx")
    return song


@given(parallel_songs())
def test_parallel_windows_cover_the_song_and_join_within_what_they_share(song):
    windows = parallel_windows(**song)
    known = set(range(song["given"]))
    for window in windows:
        assert window.length == min(song["size"], song["length"])
        assert window.start % song["upper_ratio"] == window.end % song["upper_ratio"] == 0
        assert set(range(window.start, window.new_start)) <= set(range(song["given"]))
        known |= set(range(window.new_start, window.end))
    assert known == set(range(song["length"]))
    for before, window in pairwise(windows):
        first, last = window.seam_end - window.seam_length, window.seam_end
        assert before.start < window.start
        assert window.start <= first <= last <= before.end
        assert before.final <= first
        assert before.end - window.start - last + window.start >= 0
    for seam, later in pairwise(window for window in windows if window.seam_end):
        assert seam.seam_end <= later.seam_end - later.seam_length  # seams follow one another
    assert covered_codes(windows) == song["length"] - song["given"]
    if windows:
        assert (windows[0].seam_end, windows[0].seam_length) == (0, 0)
        assert windows[-1].end == windows[-1].final == song["length"]


@given(parallel_songs(), st.integers(1, 30), st.booleans(), st.sampled_from([None, 1, 5]))
def test_a_longer_song_begins_with_the_same_windows(song, more, parallel, segment):
    ratio, size = song["upper_ratio"], song["size"]
    hop = hop_of(song["hop_fraction"], size, ratio)
    segment = None if parallel else segment
    shared = {"level": 0, "size": size, "hop": hop, "given": song["given"], "parallel": parallel, "segment": segment}
    short = list(Layout(length=song["length"], **shared).windows())
    long = list(Layout(length=song["length"] + more * ratio, **shared).windows())
    endless = list(islice(Layout(length=None, **shared).windows(), len(short)))
    last = short[-1].start if short else 0
    regular = [window for window in short if window.start < last]
    assert regular == long[: len(regular)] == endless[: len(regular)]


def test_parallel_windows_in_numbers():
    # windows of 16 every 12: they share 4, of which the middle 2 may hold the seam
    assert parallel_windows(0, 44, 16, 0.75) == [
        Window(0, 0, 0, 16, 0, 0, 3),
        Window(0, 12, 0, 16, 15, 2, 3),
        Window(0, 24, 0, 16, 27, 2, 3),
        Window(0, 28, 0, 16, 39, 2, 0),  # pulled back to end with the song
    ]
    assert parallel_windows(0, 44, 16, 0.75, given=26) == [
        Window(0, 12, 14, 16, 0, 0, 3),
        Window(0, 24, 2, 16, 27, 2, 3),
        Window(0, 28, 0, 16, 39, 2, 0),
    ]
    assert parallel_windows(0, 10, 16, 0.75) == [Window(0, 0, 0, 10)]
    assert [window.final for window in parallel_windows(0, 32, 16, 1.0)] == [16, 32]


def test_long_windows_are_sampled_in_stretches():
    windows = list(Layout(2, 20, 8, 2, segment=2).windows())
    assert windows[:5] == [
        Window(2, 0, 0, 2),
        Window(2, 0, 2, 4),
        Window(2, 0, 4, 6),
        Window(2, 0, 6, 8),
        Window(2, 2, 6, 8),
    ]
    assert sampled_codes(windows) == 20
    assert next(Layout(2, 20, 8, 2, given=3, segment=2).windows()) == Window(2, 0, 3, 5)


def test_the_size_is_rounded_to_whole_upper_codes():
    assert size_of(0.3, 24, 4) == 8
    assert size_of(1.0, 24, 4) == 24
    with pytest.raises(ValueError, match="window_fractions"):
        size_of(0.0, 24)


def test_more_windows_than_memory_holds_are_refused():
    Layout(0, MOST_WINDOWS, 8, 1)
    with pytest.raises(ValueError, match="`hop_fractions` must be larger: 1000000000 codes of level 0"):
        Layout(0, 10**9, 8, 2, segment=1)


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 60))
def test_even_parts(items, most):
    parts = even_parts(items, most)
    assert [item for part in parts for item in part] == items
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-len(items) // most)
