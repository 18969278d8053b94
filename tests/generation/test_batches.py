"""Windows in batches: every one once, in their order, and no more at once than threads and memory are for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.generation.levels import ROWS_AT_ONCE, level_batches
from fast_jukebox.generation.windows import Layout


def layout(parallel, length=200):
    return list(Layout(0, length, 16, 12, given=5, parallel=parallel).windows())


@given(st.booleans(), st.integers(1, 30), st.integers(0, 5), st.booleans(), st.integers(1, 40))
def test_batches_hold_every_window_of_every_song_once(parallel, songs, threads, follows, most):
    windows = layout(parallel)
    batches = [
        part for batch in level_batches(windows, songs, parallel, threads, follows) for part in batch.parts(most)
    ]
    done = [0] * songs
    for batch in batches:
        assert batch.rows <= most
        assert len({(window.prompt_length, window.length) for window in batch.windows}) == 1
        for song in range(batch.songs.start, batch.songs.stop):
            assert batch.number == done[song]
            assert windows[done[song] : done[song] + len(batch.windows)] == batch.windows
            done[song] += len(batch.windows)
    assert done == [len(windows)] * songs
    if threads:
        assert max(batch.rows for batch in batches) <= ROWS_AT_ONCE
    if not parallel:
        assert max(len(batch.windows) for batch in batches) == 1


def sizes(batches):
    return [batch.rows for batch in batches]


def test_batches_in_numbers():
    windows = layout(True, 500)[1:41]  # of one shape
    assert sizes(level_batches(windows, 1, True)) == [40]
    assert sizes(level_batches(windows, 1, True, threads=2, follows=True)) == [1, 1, 2, 4, 8, 8, 8, 8]
    assert sizes(level_batches(windows, 1, True, threads=2)) == [6, 7, 7, 6, 7, 7]  # as many for each thread
    assert sizes(level_batches(windows[:2], 1, True, threads=2)) == [1, 1]
    assert sizes(level_batches(windows[:4], 3, True, threads=2, follows=True)) == [3, 3, 6]
    alone = layout(False)[:1]
    assert sizes(level_batches(alone, 20, False)) == [20]
    assert sizes(level_batches(alone, 20, False, threads=2)) == [6, 7, 7]
    assert sizes(level_batches(alone, 8, False, threads=2)) == [4, 4]
    assert sizes(level_batches(alone, 3, False, threads=2)) == [3]


def test_a_window_that_may_pause_is_whole_and_windows_of_two_kinds_are_apart():
    windows = layout(True, 500)[1:7]
    batches = level_batches(windows, 1, True, kind=lambda window: window.start > windows[2].start)
    assert [(batch.kind, batch.rows, batch.number) for batch in batches] == [(False, 3, 0), (True, 3, 3)]
    (batch,) = level_batches(
        layout(False)[:1], 20, False, threads=2, until=9, is_whole=lambda batch: batch.until is not None
    )
    assert (batch.rows, batch.until) == (20, 9)


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_parts_differ_by_one_row_of_windows_or_songs_at_most(most):
    (batch,) = level_batches(layout(True, 500)[1:8], 1, True)
    parts = sizes(batch.parts(most))
    assert sum(parts) == 7 and max(parts) <= most and max(parts) - min(parts) <= 1
