import math

import pytest
import torch

from fast_jukebox.models.prior.attention import LayerCache
from fast_jukebox.models.prior.block import PATTERNS, FactoredAttention, LyricCrossAttention, PriorBlock, attend_step
from fast_jukebox.models.prior.lyric_attention import LyricCrossPattern, LyricPrefixPattern

N_CTX, BLOCK_CTX, KEYS = 12, 4, 5
HEADS, HEAD_DIM = 2, 3


def random_qkv(length, keys=None):
    return [torch.randn(2, count, HEADS, HEAD_DIM) for count in (length, keys or length, keys or length)]


def naive(query, key, value, seen):
    output = torch.zeros_like(query)
    for position in range(query.shape[1]):
        own = list(seen(position))
        scores = torch.einsum("nhd,nshd->nhs", query[:, position], key[:, own]) / math.sqrt(HEAD_DIM)
        output[:, position] = torch.einsum("nhs,nshd->nhd", scores.softmax(-1), value[:, own])
    return output


def test_both_patterns_are_registered():
    assert PATTERNS["lyric_prefix"] is LyricPrefixPattern
    assert PATTERNS["lyric_cross"] is LyricCrossPattern


def test_supports_of_the_drawn_grid():
    pattern = LyricPrefixPattern(N_CTX, BLOCK_CTX)
    assert pattern.support(6) == {0, 1, 2, 3}
    assert pattern.support(1) == {0, 1}
    assert LyricPrefixPattern(N_CTX, BLOCK_CTX, KEYS).support(11) == {0, 1, 2, 3, 4}
    assert LyricCrossPattern(N_CTX, BLOCK_CTX, KEYS).support(6) == set()


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("length", range(1, N_CTX + 1))
def test_whole_of_the_prefix_equals_the_naive_sum(length, need_weights):
    pattern = LyricPrefixPattern(N_CTX, BLOCK_CTX, KEYS)
    query, key, value = random_qkv(length)
    output, weights = pattern.whole(query, key, value, need_weights=need_weights)
    torch.testing.assert_close(output, naive(query, key, value, pattern.support), atol=1e-6, rtol=1e-5)
    if need_weights:
        assert weights.shape == (2, HEADS, length, min(length, KEYS))
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, length))
        assert not weights.triu(1).any()
    else:
        assert weights is None


@pytest.mark.parametrize("need_weights", [False, True])
def test_whole_of_the_cross_equals_the_naive_sum(need_weights):
    pattern = LyricCrossPattern(N_CTX, BLOCK_CTX, KEYS)
    query, key, value = random_qkv(7, KEYS)
    output, weights = pattern.whole(query, key, value, need_weights=need_weights)
    torch.testing.assert_close(output, naive(query, key, value, lambda _: range(KEYS)), atol=1e-6, rtol=1e-5)
    assert (weights.shape == (2, HEADS, 7, KEYS)) if need_weights else weights is None


@pytest.mark.parametrize("on_device", [False, True])
def test_slots_are_the_same_for_numbers_and_tensors(on_device):
    prefix, cross = LyricPrefixPattern(N_CTX, BLOCK_CTX, KEYS), LyricCrossPattern(N_CTX, BLOCK_CTX, KEYS)
    assert prefix.max_visible == cross.max_visible == KEYS
    for position in range(N_CTX):
        at = torch.tensor([position]) if on_device else position
        assert tuple(map(int, prefix.slots(at))) == (min(position, KEYS), 0, min(position + 1, KEYS))
        assert tuple(map(int, cross.slots(at))) == (KEYS, 0, KEYS)


def test_steps_after_the_whole_read_what_it_left():
    prefix = LyricPrefixPattern(N_CTX, BLOCK_CTX, KEYS)
    for start in range(1, N_CTX):
        query, key, value = random_qkv(N_CTX)
        cache = LayerCache(prefix, 2, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))
        cache.fill(key[:, :start], value[:, :start])
        whole = prefix.whole(query, key, value).output
        for position in range(start, N_CTX):
            out = torch.full((2, HEADS, HEAD_DIM), float("nan"))
            own = torch.stack([key[:, position], value[:, position]], 1)
            attend_step(query[:, position], own, cache, position, out)
            torch.testing.assert_close(out, whole[:, position], atol=1e-6, rtol=1e-5)


def test_cross_steps_see_the_lyrics_and_nothing_of_the_window():
    cross = LyricCrossPattern(N_CTX, BLOCK_CTX, KEYS)
    query, key, value = random_qkv(N_CTX, KEYS)
    cache = LayerCache(cross, 2, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))
    cache.fill(key, value)
    whole = cross.whole(query, key, value).output
    for position in range(N_CTX):
        out = torch.empty(2, HEADS, HEAD_DIM)
        attend_step(query[:, position], torch.randn(2, 2, HEADS, HEAD_DIM), cache, position, out)
        torch.testing.assert_close(out, whole[:, position], atol=1e-6, rtol=1e-5)


def test_cross_attention_takes_queries_of_the_window_and_the_rest_of_the_lyrics(tiny_config, lyric_kind):
    config = tiny_config(**lyric_kind)
    kinds = [type(PriorBlock(config, layer).attention) for layer in range(config.num_hidden_layers)]
    if config.lyric_prefix_length:
        assert set(kinds) == {FactoredAttention}
        return
    assert [kind is LyricCrossAttention for kind in kinds] == [word == "lyric_cross" for word in config.layer_types]
    attention = PriorBlock(config, 1).attention
    hidden, states = torch.randn(2, 7, 32), torch.randn(2, 8, 32)
    output, weights = attention(hidden, True, None, states)
    of_window, of_lyrics = attention.qkv(hidden), attention.qkv(states)
    query = of_window[..., :8].unflatten(-1, (2, 4)).transpose(1, 2)
    key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in of_lyrics[..., 8:].split(8, dim=-1))
    wanted = (query @ key.transpose(-1, -2) / 2).softmax(-1)
    torch.testing.assert_close(weights, wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output, attention.projection((wanted @ value).transpose(1, 2).flatten(2)))
    fused, none = attention(hidden, False, None, states)
    assert none is None
    torch.testing.assert_close(fused, output, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"lyric_states.*None"):
        attention(hidden)
