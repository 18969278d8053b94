import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.generation.joining import seam_positions


def naive(before, after, first, last):
    best, seam = 0, None
    for start in range(first, last):
        length = 0
        while start + length < last and before[start + length] == after[start + length]:
            length += 1
        if length > best:
            best, seam = length, start + length // 2
    return first + (last - first) // 2 if seam is None else seam


@st.composite
def overlaps(draw):
    length = draw(st.integers(1, 20))
    codes = st.lists(st.integers(0, 2), min_size=length, max_size=length)
    rows = draw(st.integers(1, 3))
    first = draw(st.integers(0, length - 1))
    return (
        [draw(codes) for _ in range(rows)],
        [draw(codes) for _ in range(rows)],
        first,
        draw(st.integers(first, length)),
    )


@given(overlaps())
def test_the_seam_lies_in_the_middle_of_the_longest_agreement(overlap):
    before, after, first, last = overlap
    seams = seam_positions(torch.tensor(before), torch.tensor(after), first, last)
    assert seams == [naive(one, other, first, last) for one, other in zip(before, after, strict=True)]
    assert all(first <= seam <= last for seam in seams)


def test_in_numbers():
    before = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    after = torch.tensor([[0, 2, 0, 4, 5, 6], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    assert seam_positions(before, after, 0, 6) == [4, 3, 3]
    assert seam_positions(before, after, 0, 3) == [1, 1, 1]
    assert seam_positions(before, after, 2, 2) == [2, 2, 2]
