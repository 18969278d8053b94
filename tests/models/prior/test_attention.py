import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.models.prior.attention import ColumnPattern, DensePattern, LayerCache, PreviousRowPattern, RowPattern
from fast_jukebox.models.prior.block import PATTERNS, FactoredAttention, attend_from_one, attend_step

BLOCKS, BLOCK_CTX = 3, 4
N_CTX = BLOCKS * BLOCK_CTX
HEADS, HEAD_DIM = 2, 3
# Patterns in which a window attends to itself.
OWN_POSITIONS = [word for word in PATTERNS if word != "lyric_cross"]


def naive(pattern, query, key, value):
    """Position by position over the declared support; a row of zeros where it is empty."""
    output = torch.zeros_like(query)
    for position in range(query.shape[1]):
        seen = sorted(pattern.support(position))
        if not seen:
            continue
        scores = torch.einsum("nhd,nshd->nhs", query[:, position], key[:, seen]) / math.sqrt(query.shape[-1])
        output[:, position] = torch.einsum("nhs,nshd->nhd", scores.softmax(-1), value[:, seen])
    return output


def random_qkv(length, songs=2):
    return (torch.randn(songs, length, HEADS, HEAD_DIM) for _ in range(3))


def test_supports_of_the_drawn_grid():
    assert DensePattern(N_CTX, BLOCK_CTX).support(6) == {0, 1, 2, 3, 4, 5, 6}
    assert RowPattern(N_CTX, BLOCK_CTX).support(6) == {4, 5, 6}
    assert ColumnPattern(N_CTX, BLOCK_CTX).support(6) == {2, 6}
    assert PreviousRowPattern(N_CTX, BLOCK_CTX).support(6) == {0, 1, 2, 3}
    assert PreviousRowPattern(N_CTX, BLOCK_CTX).support(11) == {4, 5, 6, 7}
    assert PreviousRowPattern(N_CTX, BLOCK_CTX).support(3) == set()


@pytest.mark.parametrize("word", OWN_POSITIONS)
@settings(deadline=None, max_examples=20)
@given(length=st.integers(1, N_CTX), need_weights=st.booleans())
def test_whole_equals_the_naive_sum(word, length, need_weights):
    pattern = PATTERNS[word](N_CTX, BLOCK_CTX)
    query, key, value = random_qkv(length)
    output, weights = pattern.whole(query, key, value, need_weights=need_weights)
    torch.testing.assert_close(output, naive(pattern, query, key, value), atol=1e-6, rtol=1e-5)
    assert (weights is not None) == need_weights


@pytest.mark.parametrize("word", OWN_POSITIONS)
@pytest.mark.parametrize("position", [0, 3, 4, 6, 8, 11])
def test_gradients_reach_exactly_the_support(word, position):
    pattern = PATTERNS[word](N_CTX, BLOCK_CTX)
    query, key, value = random_qkv(N_CTX, songs=1)
    key.requires_grad_()
    value.requires_grad_()
    pattern.whole(query, key, value).output[:, position].square().sum().backward()
    reached = {int(index) for index in value.grad.abs().sum((0, 2, 3)).nonzero()}
    assert reached == pattern.support(position)
    reached = {int(index) for index in key.grad.abs().sum((0, 2, 3)).nonzero()}
    assert reached <= pattern.support(position)


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("dense", (2, HEADS, N_CTX, N_CTX)),
        ("row", (2 * BLOCKS, HEADS, BLOCK_CTX, BLOCK_CTX)),
        ("column", (2 * BLOCK_CTX, HEADS, BLOCKS, BLOCKS)),
        ("previous_row", (2 * BLOCKS, HEADS, BLOCK_CTX, BLOCK_CTX)),
    ],
)
def test_weights_have_the_patterns_own_layout(word, shape):
    weights = PATTERNS[word](N_CTX, BLOCK_CTX).whole(*random_qkv(N_CTX), need_weights=True).weights
    assert weights.shape == shape
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))
    if word != "previous_row":
        assert not weights.triu(1).any()


def test_first_row_of_previous_row_attends_uniformly_to_zeros():
    output, weights = PreviousRowPattern(N_CTX, BLOCK_CTX).whole(*random_qkv(N_CTX), need_weights=True)
    assert not output[:, :BLOCK_CTX].any()
    assert torch.equal(weights.unflatten(0, (2, BLOCKS))[:, 0], torch.full((2, HEADS, 4, 4), 1 / BLOCK_CTX))
    assert not PreviousRowPattern(N_CTX, BLOCK_CTX).whole(*random_qkv(N_CTX)).output[:, :BLOCK_CTX].any()


@pytest.mark.parametrize("word", ["row", "column", "previous_row"])
def test_factored_patterns_make_no_square_matrix(word):
    pattern = PATTERNS[word](4096, 64)
    query, key, value = (torch.randn(1, 4096, 1, 2) for _ in range(3))
    largest = pattern.whole(query, key, value, need_weights=True).weights.numel()
    assert largest == 4096 * 64


@pytest.mark.parametrize("word", OWN_POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_equal_whole(word, dtype):
    pattern = PATTERNS[word](N_CTX, BLOCK_CTX)
    query, key, value = (x.to(dtype) for x in random_qkv(N_CTX))
    cache = LayerCache(pattern, 2, HEADS, HEAD_DIM, dtype, torch.device("cpu"))
    whole = pattern.whole(query, key, value).output
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    for position in range(N_CTX):
        out = torch.full((2, HEADS, HEAD_DIM), float("nan"), dtype=dtype)
        attend_step(query[:, position], torch.stack([key[:, position], value[:, position]], 1), cache, position, out)
        torch.testing.assert_close(out, whole[:, position], atol=tolerance, rtol=tolerance)


@settings(deadline=None, max_examples=20)
@given(keys=st.integers(1, 40), songs=st.integers(1, 9), heads=st.integers(1, 3), head_dim=st.integers(1, 50))
def test_attend_from_one_of_a_song_does_not_depend_on_the_batch(keys, songs, heads, head_dim):
    query = torch.randn(songs, heads, head_dim)
    key, value = torch.randn(songs, heads, keys, head_dim), torch.randn(songs, heads, keys, head_dim)
    scale = torch.tensor(head_dim**-0.5)
    together, alone = torch.empty_like(query), torch.empty_like(query)
    attend_from_one(query, key, value, scale, together)
    for song in range(songs):
        one = slice(song, song + 1)
        attend_from_one(query[one].clone(), key[one].clone(), value[one].clone(), scale, alone[one])
    assert torch.equal(together, alone)
    fused = torch.nn.functional.scaled_dot_product_attention(query.unsqueeze(2), key, value).squeeze(2)
    torch.testing.assert_close(together, fused, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 5, 24])
def test_weights_and_eager_give_the_same_output(tiny_config, length):
    config = tiny_config(layer_types=["row", "column", "previous_row", "dense"], num_hidden_layers=4)
    hidden = torch.randn(2, length, config.hidden_size)
    for layer in range(4):
        attention = FactoredAttention(config, layer)
        config._attn_implementation = "sdpa"
        fused, none = attention(hidden)
        explicit, weights = attention(hidden, need_weights=True)
        config._attn_implementation = "eager"
        eager, _ = attention(hidden)
        assert none is None
        assert weights is not None
        torch.testing.assert_close(fused, explicit, atol=1e-6, rtol=1e-5)
        assert torch.equal(explicit, eager)
