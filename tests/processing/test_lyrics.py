import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.processing.vocabulary import join_texts, window_lyrics


def expected(text, count, total, offset, length):
    """A window's characters and the first one's number, song by song, as the published rule reads."""
    if len(text) < count:
        return [0] * (count - len(text)) + text, len(text) - count
    middle = int(len(text) * (offset + length / 2.0) / total)
    middle = min(max(middle, count // 2), len(text) - count // 2)
    return text[middle - count // 2 : middle + count // 2], middle - count // 2


@st.composite
def songs(draw):
    total = draw(st.integers(1, 30_000_000))
    offset = draw(st.integers(0, total - 1))
    text = draw(st.lists(st.integers(1, 79), max_size=draw(st.sampled_from([0, 5, 60, 600]))))
    return text, total, offset, draw(st.integers(0, 2_000_000))


@given(st.lists(songs(), min_size=1, max_size=4), st.integers(1, 20).map(lambda half: 2 * half))
def test_windows_take_the_published_part(drawn, count):
    facts = torch.tensor([[total, offset, length, 7, 3] for _, total, offset, length in drawn])
    labels = torch.cat([facts, join_texts([text for text, *_ in drawn])], dim=1)
    told, starts = window_lyrics(labels, 5, count)
    assert told.shape == (len(drawn), 5 + count)
    assert torch.equal(told[:, :5], facts)
    for row, start, (text, total, offset, length) in zip(told[:, 5:].tolist(), starts.tolist(), drawn, strict=True):
        assert (row, start) == expected(text, count, total, offset, length)


@given(songs(), st.integers(1, 41))
def test_windows_of_any_size_hold_neighbours(song, count):
    text, total, offset, length = song
    labels = torch.cat([torch.tensor([[total, offset, length, 0, 0]]), join_texts([text])], dim=1)
    told, starts = window_lyrics(labels, 5, count)
    start, row = int(starts), told[0, 5:].tolist()
    assert row == [text[index] if 0 <= index < len(text) else 0 for index in range(start, start + count)]
    assert start + count <= max(len(text), 0) or start < 0
    again = window_lyrics(told, 5, count)[0]
    if len(text) >= count:  # a window's own part stays what it is
        assert torch.equal(again, told)


def test_windows_go_through_the_lyrics_with_the_song():
    text = list(range(1, 61))
    facts = torch.tensor([[600, offset, 100, 0, 0] for offset in range(0, 600, 10)])
    _, starts = window_lyrics(torch.cat([facts, join_texts([text] * 60)], dim=1), 5, 10)
    assert starts[0] == 0 and starts[-1] == 50
    assert (starts[1:] >= starts[:-1]).all()


def test_texts_are_joined():
    assert join_texts([[1, 2], [], [3]]).tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert join_texts([[], []]).shape == (2, 0)
