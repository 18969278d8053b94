import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.generation.levels import LevelCodes, seam_positions
from fast_jukebox.generation.windows import Layout, Window

CPU = torch.device("cpu")


def fill(window, value, songs=2):
    return torch.full((songs, window.length), value)


def test_sequential_windows_are_done_one_by_one():
    codes = LevelCodes(2, None, Layout(0, 12, 8, 4), CPU)
    assert codes.ahead(None) == [Window(0, 0, 0, 8), Window(0, 4, 4, 8)]
    codes.place(Window(0, 0, 0, 8), fill(Window(0, 0, 0, 8), 1), slice(0, 2))
    assert (codes.done, codes.final, codes.seams) == ([1, 1], 8, [[], []])
    (window,) = codes.ahead(1)
    assert window == Window(0, 4, 4, 8)
    codes.place(window, fill(window, 2, 1), slice(0, 1))
    assert (codes.done, codes.final) == ([2, 1], 8)  # not yet for every song
    codes.place(window, fill(window, 3, 1), slice(1, 2))
    assert (codes.done, codes.final, codes.seams) == ([2, 2], 12, [[8], [8]])
    assert codes.ahead(None) == []
    assert codes.codes.tolist() == [[1] * 8 + [2] * 4, [1] * 8 + [3] * 4]


def starts(windows):
    return [window.start for window in windows]


def test_the_next_windows_go_as_far_as_a_position_needs():
    codes = LevelCodes(1, None, Layout(0, 44, 16, 12, parallel=True), CPU)
    assert starts(codes.until(0)) == []
    assert [window.final for window in codes.ahead(4)] == [13, 25, 37, 44]
    assert starts(codes.until(13)) == [0]
    assert starts(codes.until(14)) == [0, 12]
    assert starts(codes.until(44)) == [0, 12, 24, 28]
    codes.final = 13
    assert starts(codes.until(13)) == []


def test_of_parallel_windows_those_over_known_codes_are_taken_with_them():
    codes = LevelCodes(1, None, Layout(0, 44, 16, 12, parallel=True), CPU)
    assert starts(codes.until(1, known=16)) == [0]
    assert starts(codes.until(1, known=30)) == [0, 12]
    assert starts(codes.until(1, known=44)) == [0, 12, 24, 28]
    assert starts(LevelCodes(1, None, Layout(0, 44, 16, 12), CPU).until(1, known=44)) == [0]


def test_parallel_windows_join_where_they_agree():
    codes = LevelCodes(1, None, Layout(0, 44, 16, 8, parallel=True), CPU)
    first, second = codes.ahead(2)
    assert (second.seam_end, second.seam_length, first.final) == (14, 4, 10)
    one, other = torch.arange(16)[None], torch.arange(8, 24)[None].clone()
    other[0, [0, 1, 2, 4, 6, 7]] = 99  # they agree at 11 and 13
    codes.place(first, one, slice(0, 1))
    assert codes.final == 10
    codes.place(second, other, slice(0, 1))
    assert codes.seams == [[11]]
    assert codes.read(0, 24).tolist() == [[*range(11), *other[0, 3:].tolist()]]
    assert codes.final == 18


def test_given_codes_are_kept():
    given = torch.arange(20)[None]
    codes = LevelCodes(2, given, Layout(0, 44, 16, 12, given=20, parallel=True), CPU)
    assert codes.final == 20
    for window in codes.ahead(None):
        sampled = fill(window, 50)
        sampled[:, : window.prompt_length] = given[0, window.start : window.new_start]
        codes.place(window, sampled, slice(0, 2))
    assert codes.codes[:, :20].tolist() == 2 * given.tolist()
    assert codes.final == 44


@pytest.mark.parametrize("parallel", [False, True])
def test_what_is_forgotten_frees_memory_and_positions_stay(parallel):
    codes = LevelCodes(1, None, Layout(0, None, 16, 12, parallel=parallel), CPU)
    whole, widest = [], 0
    for number in range(50):
        (window,) = codes.ahead(1)
        codes.place(window, (window.start + torch.arange(16))[None], slice(0, 1))
        keep = codes.ahead(1)[0].start
        whole += codes.read(max(len(whole), codes.offset), codes.final)[0].tolist()
        codes.forget(keep)
        widest = max(widest, codes.codes.shape[1])
        assert codes.done == [number + 1]
    assert whole == list(range(codes.final))
    assert widest <= 48
    assert len(codes.seams[0]) <= 3


def naive(before, after):
    best, seam = 0, None
    for start in range(len(before)):
        length = 0
        while start + length < len(before) and before[start + length] == after[start + length]:
            length += 1
        if length > best:
            best, seam = length, start + length // 2
    return len(before) // 2 if seam is None else seam


@st.composite
def overlaps(draw):
    length = draw(st.integers(1, 20))
    codes = st.lists(st.integers(0, 2), min_size=length, max_size=length)
    rows = draw(st.integers(1, 3))
    return [draw(codes) for _ in range(rows)], [draw(codes) for _ in range(rows)]


@given(overlaps())
def test_the_seam_lies_in_the_middle_of_the_longest_agreement(overlap):
    before, after = overlap
    seams = seam_positions(torch.tensor(before), torch.tensor(after))
    assert seams == [naive(one, other) for one, other in zip(before, after, strict=True)]
    assert all(0 <= seam <= len(before[0]) for seam in seams)


def test_in_numbers():
    before = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    after = torch.tensor([[0, 2, 0, 4, 5, 6], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    assert seam_positions(before, after) == [4, 3, 3]
    assert seam_positions(before[:, :3], after[:, :3]) == [1, 1, 1]
    assert seam_positions(before[:, :0], after[:, :0]) == [0, 0, 0]
