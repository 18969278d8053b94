import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior
from fast_jukebox.models.prior.attention import LayerCache
from fast_jukebox.models.prior.block import PATTERNS

BLOCKS, BLOCK_CTX, HEADS, HEAD_DIM = 3, 4, 2, 3
N_CTX = BLOCKS * BLOCK_CTX
WORDS = ["dense", "row", "column", "previous_row"]


def new_cache(word, songs=2):
    pattern = PATTERNS[word](N_CTX, BLOCK_CTX)
    return LayerCache(pattern, songs, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))


@pytest.fixture(params=WORDS)
def word(request):
    return request.param


def test_a_step_reads_what_its_position_may_see(word):
    cache, pattern = new_cache(word), PATTERNS[word](N_CTX, BLOCK_CTX)
    key_values = torch.randn(N_CTX, 2, 2, HEADS, HEAD_DIM)
    for position in range(N_CTX):
        seen, read = sorted(pattern.support(position)), cache.update(key_values[position], position)
        if not seen:
            assert read is None
        else:
            assert torch.equal(read, key_values[seen].permute(1, 2, 3, 0, 4))


@pytest.mark.parametrize("length", range(1, N_CTX + 1))
def test_filling_at_once_equals_writing_one_by_one(word, length):
    key, value = (torch.randn(2, N_CTX, HEADS, HEAD_DIM) for _ in range(2))
    whole, single = new_cache(word), new_cache(word)
    whole.fill(key[:, :length], value[:, :length])
    for position in range(length):
        single.update(torch.stack([key[:, position], value[:, position]], 1), position)
    for position in range(length, N_CTX):
        entry = torch.stack([key[:, position], value[:, position]], 1)
        read, wanted = (cache.update(entry, position) for cache in (whole, single))
        assert (read is None) == (wanted is None)
        assert read is None or torch.equal(read, wanted)


def test_storage_never_moves_or_grows(word):
    cache = new_cache(word)
    address, size = cache.storage.data_ptr(), cache.storage.nbytes
    for position in range(N_CTX):
        cache.update(torch.ones(2, 2, HEADS, HEAD_DIM), position)
    cache.reset()
    assert not cache.storage.any()
    assert (cache.storage.data_ptr(), cache.storage.nbytes) == (address, size)


def test_what_a_step_reads_is_contiguous_for_each_head(word):
    cache = new_cache(word)
    read = cache.update(torch.ones(2, 2, HEADS, HEAD_DIM), N_CTX - 1)
    assert read[0, 0, 0].is_contiguous()


@pytest.mark.parametrize(("word", "positions"), [("row", 4), ("previous_row", 8), ("column", 12), ("dense", 12)])
def test_bounded_sizes(word, positions):
    assert new_cache(word, songs=1).storage.numel() == positions * 2 * HEADS * HEAD_DIM


@pytest.mark.parametrize("position", [N_CTX, N_CTX + 5, -1])
def test_a_write_beyond_capacity_is_refused(word, position):
    with pytest.raises(ValueError, match=rf"position.*\[0, {N_CTX}\).*{position}"):
        new_cache(word).update(torch.ones(2, 2, HEADS, HEAD_DIM), position)


def test_filling_beyond_capacity_is_refused(word):
    entries = torch.ones(2, N_CTX + 1, HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match=f"position.*{N_CTX}"):
        new_cache(word).fill(entries, entries)


def test_songs_share_storage(word):
    cache = new_cache(word, songs=3)
    cache.songs(1, 1).update(torch.ones(1, 2, HEADS, HEAD_DIM), 0)
    assert not cache.storage[0].any()
    assert not cache.storage[2].any()
    assert cache.storage[1].sum() == 2 * HEADS * HEAD_DIM


def test_prior_cache_resets_and_counts(make_prior, make_inputs):
    prior = make_prior()
    cache = prior.new_cache(2)
    codes = make_inputs(prior.config)["codes"]
    assert cache.length == 0
    conditioning = prior.condition(2, 24)
    first = prior.prefill(codes[:, :9], conditioning, cache)
    assert cache.length == 10
    assert cache.nbytes == sum(layer.storage.nbytes for layer in cache.layers)
    assert cache.layers[0].storage.device == torch.device("cpu")
    cache.reset()
    assert cache.length == 0
    assert not any(layer.storage.any() for layer in cache.layers)
    assert torch.equal(prior.prefill(codes[:, :9], conditioning, cache), first)


def test_published_bottom_level_stays_under_100_mb_a_song():
    config = FastJukeboxConfig.preset("fastjukebox-18").prior_configs[0]
    assert (config.n_ctx, config.hidden_size, config.num_hidden_layers) == (8192, 1920, 18)
    with torch.device("meta"):
        prior = FastJukeboxPrior(config).to(torch.bfloat16)
        cache = prior.new_cache(1)
    assert cache.layers[0].storage.device.type == "meta"
    assert cache.nbytes < 100e6
    assert prior.cache_nbytes(3) == 3 * cache.nbytes
    # What every layer would hold if it kept every position.
    assert 2 * config.n_ctx * config.attention_size * 2 * 18 > 280e6


@pytest.mark.parametrize("positions", [range(N_CTX), [5, 2, 9]])
def test_positions_on_the_device_are_found_as_numbers_are(word, positions):
    cache, twin = new_cache(word), new_cache(word)
    key_values = torch.randn(N_CTX, 2, 2, HEADS, HEAD_DIM)
    for position in positions:
        slots = twin.device_slots(torch.tensor([position]))
        read = cache.update(key_values[position], position)
        entries = twin.update_on_device(key_values[position], slots)
        assert torch.equal(twin.storage, cache.storage)
        assert entries.shape[3] == cache.pattern.max_visible == len(slots.present)
        if read is None:
            assert not slots.present.any()
        else:
            assert torch.equal(entries[:, :, :, slots.present], read)


@settings(max_examples=50)
@given(st.sampled_from([*WORDS, "lyric_prefix"]), st.integers(1, 5), st.integers(1, 5))
def test_slots_are_whole_number_functions_of_the_position(word, rows, row_length):
    length = rows * row_length
    pattern = PATTERNS[word](length, row_length)
    tables = pattern.tables(length, torch.int32)
    for position in range(length):
        slot, first, count = pattern.slots(position)
        read = [pattern.slots(seen)[0] for seen in sorted(pattern.support(position))]
        assert read == list(range(first, first + count))
        assert count <= pattern.max_visible <= pattern.capacity
        assert [int(table[position]) for table in tables] == [slot, first, count]
        on_device = pattern.slots(torch.tensor([position]))
        assert [int(number) for number in on_device] == [slot, first, count]
        assert pattern.sees_nothing or count


@settings(max_examples=50)
@given(st.sampled_from([*WORDS, "lyric_prefix"]), st.integers(1, 5), st.integers(1, 5), st.data())
def test_pairs_are_what_positions_see(word, rows, row_length, data):
    pattern = PATTERNS[word](rows * row_length, row_length)
    length = data.draw(st.integers(1, rows * row_length))
    assert pattern.pair_count(length) == sum(len(pattern.support(position)) for position in range(length))
