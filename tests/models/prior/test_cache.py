import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior
from fast_jukebox.models.prior.attention import PATTERNS

BLOCKS, BLOCK_CTX, HEADS, HEAD_DIM = 3, 4, 2, 3
N_CTX = BLOCKS * BLOCK_CTX
WORDS = ["dense", "row", "column", "previous_row"]


def new_cache(word, songs=2):
    return PATTERNS[word](N_CTX, BLOCK_CTX).new_cache(songs, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))


@pytest.fixture(params=WORDS)
def word(request):
    return request.param


def test_a_step_reads_what_its_position_may_see(word):
    cache, pattern = new_cache(word), PATTERNS[word](N_CTX, BLOCK_CTX)
    key_values = torch.randn(N_CTX, 2, 2, HEADS, HEAD_DIM)
    for position in range(N_CTX):
        cache.write(key_values[position], position)
        seen, read = sorted(pattern.support(position)), cache.read(position)
        if not seen:
            assert read is None
        else:
            assert torch.equal(read, key_values[seen].permute(1, 2, 3, 0, 4))


@pytest.mark.parametrize("length", range(1, N_CTX + 1))
def test_filling_at_once_equals_writing_one_by_one(word, length):
    key, value = (torch.randn(2, N_CTX, HEADS, HEAD_DIM) for _ in range(2))
    whole, single = new_cache(word), new_cache(word)
    whole.write_whole(key[:, :length], value[:, :length])
    for position in range(length):
        single.write(torch.stack([key[:, position], value[:, position]], 1), position)
    for position in range(length, N_CTX):
        for cache in (whole, single):
            cache.write(torch.stack([key[:, position], value[:, position]], 1), position)
        read, wanted = whole.read(position), single.read(position)
        assert (read is None) == (wanted is None)
        assert read is None or torch.equal(read, wanted)


def test_storage_never_moves_or_grows(word):
    cache = new_cache(word)
    address, size = cache.storage.data_ptr(), cache.storage.nbytes
    for position in range(N_CTX):
        cache.write(torch.ones(2, 2, HEADS, HEAD_DIM), position)
    cache.reset()
    assert not cache.storage.any()
    assert (cache.storage.data_ptr(), cache.storage.nbytes) == (address, size)


def test_what_a_step_reads_is_contiguous_for_each_head(word):
    cache = new_cache(word)
    cache.write(torch.ones(2, 2, HEADS, HEAD_DIM), N_CTX - 1)
    read = cache.read(N_CTX - 1)
    assert read[0, 0, 0].is_contiguous()


@pytest.mark.parametrize(("word", "positions"), [("row", 4), ("previous_row", 8), ("column", 12), ("dense", 12)])
def test_bounded_sizes(word, positions):
    assert new_cache(word, songs=1).storage.numel() == positions * 2 * HEADS * HEAD_DIM


@pytest.mark.parametrize("position", [N_CTX, N_CTX + 5, -1])
def test_a_write_beyond_capacity_is_refused(word, position):
    with pytest.raises(ValueError, match=rf"position.*\[0, {N_CTX}\).*{position}"):
        new_cache(word).write(torch.ones(2, 2, HEADS, HEAD_DIM), position)


def test_filling_beyond_capacity_is_refused(word):
    entries = torch.ones(2, N_CTX + 1, HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match=f"position.*{N_CTX}"):
        new_cache(word).write_whole(entries, entries)


def test_songs_share_storage(word):
    cache = new_cache(word, songs=3)
    cache.songs(1, 1).write(torch.ones(1, 2, HEADS, HEAD_DIM), 0)
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
    assert cache.device == torch.device("cpu")
    cache.reset()
    assert cache.length == 0
    assert not any(layer.storage.any() for layer in cache.layers)
    assert torch.equal(prior.prefill(codes[:, :9], conditioning, cache), first)


def test_published_bottom_level_stays_under_100_mb_a_song():
    config = FastJukeboxConfig.preset("fastjukebox-18").prior_configs[0]
    assert (config.n_ctx, config.hidden_size, config.num_hidden_layers) == (8192, 1920, 18)
    with torch.device("meta"):
        cache = FastJukeboxPrior(config).to(torch.bfloat16).new_cache(1)
    assert cache.device.type == "meta"
    assert cache.nbytes < 100e6
    # What every layer would hold if it kept every position.
    assert 2 * config.n_ctx * config.attention_size * 2 * 18 > 280e6


@pytest.mark.parametrize("positions", [range(N_CTX), [5, 2, 9]])
def test_positions_on_the_device_are_found_as_numbers_are(word, positions):
    cache, twin = new_cache(word), new_cache(word)
    key_values = torch.randn(N_CTX, 2, 2, HEADS, HEAD_DIM)
    for position in positions:
        place = twin.place(torch.tensor([position]))
        cache.write(key_values[position], position)
        twin.write_at(key_values[position], place)
        assert torch.equal(twin.storage, cache.storage)
        entries, read = twin.read_at(place), cache.read(position)
        assert entries.shape[3] == cache.reach == len(place.present)
        if read is None:
            assert not place.present.any()
        else:
            assert torch.equal(entries[:, :, :, place.present], read)


@settings(max_examples=50)
@given(st.sampled_from(WORDS), st.integers(1, 5), st.integers(1, 5), st.data())
def test_slots_are_whole_number_functions_of_the_position(word, blocks, row_length, data):
    pattern = PATTERNS[word](blocks * row_length, row_length)
    cache = pattern.new_cache(1, 1, 1, torch.float32, torch.device("cpu"))
    position = data.draw(st.integers(0, blocks * row_length - 1))
    start, count = cache.seen(position)
    slots = [cache.slot(seen) for seen in sorted(pattern.support(position))]
    assert slots == list(range(start, start + count))
    assert count <= cache.reach <= cache.slots.shape[3]
    on_device = cache.seen(torch.tensor([position]))
    assert [int(number) for number in on_device] == [start, count]
