import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.distillation.losses import (
    LOSSES,
    attention_mse,
    check_weights,
    data_cross_entropy,
    hidden_state_mse,
    kl_divergence,
    prediction_cross_entropy,
)
from fast_jukebox.models.prior.attention import PreviousRowPattern, RowPattern
from fast_jukebox.models.prior.block import PATTERNS
from fast_jukebox.models.prior.lyric_attention import LyricCrossPattern

BLOCK_CTX, ROWS, HEADS = 3, 4, 2


def weights_of(pattern, length, seed):
    """Attention weights in the pattern's layout for 2 windows, garbage in what a short window is filled up with."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, length, HEADS, 5, generator=generator) for _ in range(3))
    weights = PATTERNS[pattern](ROWS * BLOCK_CTX, BLOCK_CTX).whole(query, key, value, need_weights=True).weights
    rows = -(-length // BLOCK_CTX)
    for position in range(length, rows * BLOCK_CTX):
        row, column = divmod(position, BLOCK_CTX)
        if pattern in ("row", "previous_row"):
            weights.view(2, rows, HEADS, BLOCK_CTX, BLOCK_CTX)[:, row, :, column] = 100.0 * seed
        elif pattern == "column":
            weights.view(2, BLOCK_CTX, HEADS, rows, rows)[:, column, :, row] = 100.0 * seed
    return weights


def entry(weights, pattern, length, window, head, query, key):
    """The weight that position `query` gives to position `key`."""
    rows = -(-length // BLOCK_CTX)
    (row, column), (key_row, key_column) = divmod(query, BLOCK_CTX), divmod(key, BLOCK_CTX)
    if pattern in ("dense", "lyric_prefix", "lyric_cross"):
        return weights[window, head, query, key]
    if pattern == "column":
        return weights[window * BLOCK_CTX + column, head, row, key_row]
    return weights[window * rows + row, head, column, key_column]


@settings(deadline=None)
@given(st.sampled_from(sorted(PATTERNS)), st.integers(1, ROWS * BLOCK_CTX), st.integers(0, 99))
def test_attention_is_compared_over_the_pairs_that_the_pattern_lets_meet(pattern, length, seed):
    ours, theirs = weights_of(pattern, length, seed), weights_of(pattern, length, seed + 1)
    made = PATTERNS[pattern](ROWS * BLOCK_CTX, BLOCK_CTX)
    support = made.support
    if pattern == "lyric_cross":  # its keys are characters, here as many as positions, all of which are seen
        made = LyricCrossPattern(ROWS * BLOCK_CTX, BLOCK_CTX, length)
        support = lambda query: set(range(length))  # noqa: E731
    squares = [
        (entry(ours, pattern, length, *place) - entry(theirs, pattern, length, *place)) ** 2
        for window in range(2)
        for head in range(HEADS)
        for query in range(length)
        for key in support(query)
        for place in [(window, head, query, key)]
    ]
    naive = torch.stack(squares).mean() if squares else torch.tensor(0.0)
    torch.testing.assert_close(attention_mse(ours, theirs, made, length), naive)


def test_attention_by_hand():
    # One window of one full row of 2 positions, one head: 3 pairs meet, the masked one is 0 in both.
    ours = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
    theirs = torch.tensor([[[[1.0, 0.0], [0.2, 0.8]]]])
    torch.testing.assert_close(attention_mse(ours, theirs, RowPattern(2, 2), 2), torch.tensor(0.18 / 3))
    # The first row of `previous_row` meets nothing, so a window of a single row has nothing to compare.
    assert attention_mse(torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.5), PreviousRowPattern(2, 2), 2) == 0


def test_hidden_states_by_hand():
    ours, theirs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])
    assert hidden_state_mse(ours, theirs) == (4 + 9) / 4
    assert hidden_state_mse(ours.bfloat16(), theirs.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"teacher's shape \(1, 2, 2\), got \(1, 1, 2\)"):
        hidden_state_mse(ours[:, :1], theirs)


def test_prediction_by_hand():
    # The teacher says 3/4 and 1/4, the student 1/2 and 1/2.
    teacher, student = torch.tensor([[[math.log(3.0), 0.0]]]), torch.tensor([[[5.0, 5.0]]])
    assert prediction_cross_entropy(student, teacher).item() == pytest.approx(math.log(2))
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(student, teacher).item() == pytest.approx(divergence)
    # At temperature 1/2 the teacher says 9/10 and 1/10, and the loss is multiplied by 1/4.
    student = torch.tensor([[[math.log(2.0), 0.0]]])
    expected = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2)) / 4
    assert prediction_cross_entropy(student, teacher, temperature=0.5).item() == pytest.approx(expected, rel=1e-5)


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(0.5, 4.0))
def test_prediction_is_naive_cross_entropy_a_position(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    total = 0.0
    for window in range(2):
        for position in range(3):
            target = torch.softmax(teacher[window, position] / temperature, 0)
            total -= (target * torch.softmax(student[window, position] / temperature, 0).log()).sum().item()
    loss = prediction_cross_entropy(student, teacher, temperature).item()
    assert loss == pytest.approx(total / 6 * temperature**2, rel=1e-4)


def test_prediction_pulls_towards_the_teacher():
    student = torch.randn(2, 3, 5, requires_grad=True)
    teacher = torch.randn(2, 3, 5)
    prediction_cross_entropy(student, teacher, 2.0).backward()
    expected = (torch.softmax(student.detach() / 2, -1) - torch.softmax(teacher / 2, -1)) * 2.0 / 6
    torch.testing.assert_close(student.grad, expected)


def test_data_leaves_out_ignored_labels():
    logits = torch.randn(1, 3, 4)
    labels = torch.tensor([[1, -100, 2]])
    expected = -(logits[0, 0].log_softmax(0)[1] + logits[0, 2].log_softmax(0)[2]) / 2
    torch.testing.assert_close(data_cross_entropy(logits, labels), expected)
    assert data_cross_entropy(logits, torch.full((1, 3), -100)) == 0


def test_only_weights_above_zero_count():
    assert check_weights({"data": 1, "prediction": 0.0}) == {"data": 1.0}
    for weights in LOSSES.values():
        assert check_weights(weights) == weights


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"hidden": 1.0}, "got one of 'hidden'"),
        ({"data": -1.0}, "at least 0, got -1.0 for 'data'"),
        ({"data": "1"}, "at least 0, got '1' for 'data'"),
        ({"data": math.nan}, "at least 0, got nan for 'data'"),
        ({"data": 0.0}, "at least one above 0"),
        ({}, "at least one above 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, match):
    with pytest.raises(ValueError, match=match):
        check_weights(weights)
