import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.models.prior.engines import native
from fast_jukebox.models.prior.engines.native import (
    CHUNK,
    LANES,
    NativeDecoder,
    NativeWeights,
    chunks,
    packed,
    unsupported,
    weights_of,
)
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes, uniform_noise
from fast_jukebox.sampling.engine import sample_window

SETTINGS = SamplingSettings(temperature=0.9)


@pytest.fixture
def built():
    try:
        return library()
    except NativeUnavailable as error:
        pytest.skip(str(error))


def sampled(prior, upper_codes, uniform, threads=1, prompt=0):
    songs = len(uniform)
    conditioning = prior.condition(songs, prompt + uniform.shape[1], upper_codes)
    step = NativeDecoder(prior, songs, SETTINGS, threads).open(prior, conditioning)
    codes = sample_window(step, torch.zeros(songs, prompt, dtype=torch.int64), uniform)
    return codes, step.logits


@pytest.mark.parametrize("fields", [{"hidden_size": 180, "num_attention_heads": 1}, {"hidden_size": 40}])
def test_a_song_is_the_same_in_any_batch_and_on_any_threads(built, make_prior, fields):
    prior = make_prior(upsampling_strides=[2, 2], num_hidden_layers=4, **fields)
    songs = 2 * CHUNK + 5
    upper, uniform = torch.randint(0, 13, (songs, 6)), torch.rand(songs, 24)
    codes, logits = sampled(prior, upper, uniform)
    for fewer in (1, 2, 3, 4, 5, 6, 7, 13, CHUNK, CHUNK + 1):
        for threads in (1, 2, 3):
            some, some_logits = sampled(prior, upper[:fewer], uniform[:fewer], threads)
            assert torch.equal(some, codes[:fewer])
            assert torch.equal(some_logits, logits[:fewer])
    assert torch.equal(sampled(prior, upper, uniform, threads=2)[1], logits)


@pytest.mark.parametrize("songs", [1, 2, 3, 5, 8, 30])
@pytest.mark.parametrize("fields", [{"hidden_size": 180, "num_attention_heads": 1}, {"hidden_size": 40}])
def test_weights_that_float16_holds_are_read_in_it_and_nothing_changes(built, make_prior, monkeypatch, songs, fields):
    prior = make_prior(num_hidden_layers=4, **fields)
    with torch.no_grad():
        for weight in prior.parameters():
            weight.copy_(weight.half())
        prior.blocks[0].attention.qkv.weight[0, :3] = torch.tensor([2.0**-24, -(2.0**-20), -0.0])  # denormal ones
    uniform = torch.rand(songs, 24)
    assert weights_of(prior).half == bool(built.reads_half())
    codes, logits = sampled(prior, None, uniform)
    monkeypatch.setattr(native, "weights_of", lambda prior: NativeWeights(prior, False))
    wanted, wanted_logits = sampled(prior, None, uniform)
    assert torch.equal(codes, wanted)
    assert torch.equal(logits, wanted_logits)


@pytest.mark.parametrize("weight", [1.0 + 2.0**-12, 65536.0, math.nan])
def test_one_weight_that_float16_does_not_hold_keeps_all_in_float32(built, make_prior, weight):
    prior = make_prior()
    with torch.no_grad():
        for each in prior.parameters():
            each.copy_(each.half())
        prior.blocks[-1].mlp.contract.weight[-1, -1] = weight
    assert not weights_of(prior).half


def test_a_window_cut_into_calls_of_any_length_is_the_same(built, make_prior):
    prior = make_prior()
    conditioning, uniform = prior.condition(2, 24), torch.rand(2, 24)
    whole = NativeDecoder(prior, 2, SETTINGS)
    first = draw_codes(
        prior.prefill(torch.zeros(2, 0, dtype=torch.int64), conditioning, whole.cache), uniform[:, 0], SETTINGS
    )
    whole.load(conditioning)
    wanted = whole.decode(first, 1, uniform[:, 1:])
    for pieces in ([1] * 23, [5, 1, 17], [22, 1]):
        decoder = NativeDecoder(prior, 2, SETTINGS)
        prior.prefill(torch.zeros(2, 0, dtype=torch.int64), conditioning, decoder.cache)
        decoder.load(conditioning)
        code, position, drawn = first, 1, []
        for count in pieces:
            drawn.append(decoder.decode(code, position, uniform[:, position : position + count]))
            code, position = drawn[-1][:, -1], position + count
        assert torch.equal(torch.cat(drawn, 1), wanted)
        assert decoder.cache.length == 24


def test_sigmoids_and_norms_of_large_numbers_are_right(built, make_prior):
    prior = make_prior(num_hidden_layers=1)
    with torch.no_grad():
        prior.blocks[0].mlp.expand.weight.mul_(300.0)  # gates far beyond what exp can hold
        prior.position_embedding.add_(50.0)
        prior.code_embedding.weight[3] = -1e4  # a logit far below all others
    decoder = NativeDecoder(prior, 3, SETTINGS)
    conditioning, cache = prior.condition(3, 24), prior.new_cache(3)
    prompt, code = torch.zeros(3, 0, dtype=torch.int64), torch.tensor([1, 2, 4])
    for own in (cache, decoder.cache):
        prior.prefill(prompt, conditioning, own)
    decoder.load(conditioning)
    decoder.decode(code, 1, torch.rand(3, 1))
    torch.testing.assert_close(decoder.logits, prior.step(code, 1, conditioning, cache), rtol=1e-4, atol=1e-3)


def test_the_largest_and_smallest_noise_stay_in_the_codebook(built, make_prior):
    prior = make_prior()
    uniform = torch.tensor([[0.0], [1.0 - 2.0**-24]]).expand(2, 24)
    codes, _ = sampled(prior, None, uniform)
    assert codes.min() >= 0
    assert codes.max() < 13


def test_codes_of_the_smallest_probabilities_are_drawn_as_the_plain_draw_does(built, make_prior):
    prior = make_prior(tie_word_embeddings=False)
    conditioning, none, code = prior.condition(1, 24), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([1])

    def drawn(settings):
        decoder = NativeDecoder(prior, 1, settings)
        prior.prefill(none, conditioning, decoder.cache)
        decoder.load(conditioning)
        return decoder.decode(code, 1, torch.zeros(1, 1)).item(), decoder.logits

    logits = drawn(SETTINGS)[1][0]
    with torch.no_grad():  # the first code becomes the least likely, without a change to what stands before it
        prior.output.weight[0] = -3.0 * prior.output.weight[logits.argmax()]
    logits = drawn(SETTINGS)[1][0]
    for below in (80.0, 87.2, 95.0, 101.0, 110.0):  # exp(-87.2) is near the smallest normal number, exp(-110) is zero
        settings = SamplingSettings(temperature=(logits.max() - logits[0]).item() / below)
        got, logits_now = drawn(settings)
        assert got == draw_codes(logits_now, torch.zeros(1), settings).item()
        assert (got == 0) == (below < 104.0)


@pytest.mark.parametrize(
    ("code", "uniform", "message"),
    [
        (torch.tensor([0, 13]), torch.rand(2, 1), "`code` must be int64"),
        (torch.tensor([0, -1]), torch.rand(2, 1), "`code` must be int64"),
        (torch.tensor([0.0, 1.0]), torch.rand(2, 1), "`code` must be int64"),
        (torch.tensor([0]), torch.rand(2, 1), "`code` must be int64"),
        (torch.tensor([0, 1]), torch.rand(1, 1), "`noise` must be float32"),
        (torch.tensor([0, 1]), torch.rand(2, 1).double(), "`noise` must be float32"),
    ],
)
def test_what_would_touch_foreign_memory_is_refused(built, make_prior, code, uniform, message):
    prior = make_prior()
    decoder = NativeDecoder(prior, 2, SETTINGS)
    decoder.load(prior.condition(2, 24))
    with pytest.raises(ValueError, match=message):
        decoder.decode(code, 1, uniform)


def test_conditioning_of_another_batch_is_refused(built, make_prior):
    prior = make_prior(upsampling_strides=[2, 2])
    decoder = NativeDecoder(prior, 2, SETTINGS)
    with pytest.raises(ValueError, match=r"`conditioning` must be float32 \(2, 24, 32\), got.*\(3, 24, 32\)"):
        decoder.load(prior.condition(3, 24, torch.zeros(3, 6, dtype=torch.int64)))


def test_priors_that_it_cannot_step_are_named(make_prior):
    assert unsupported(make_prior()) is None
    prior = make_prior().to(torch.bfloat16)
    assert "torch.bfloat16" in unsupported(prior)
    with pytest.raises(ValueError, match="`engine` 'native'.*bfloat16"):
        NativeDecoder(prior, 1, SETTINGS)


@given(st.integers(1, 300), st.integers(1, 9))
def test_chunks_cover_all_songs_once_and_evenly(songs, threads):
    made = chunks(songs, threads)
    assert [song for first, count in made for song in range(first, first + count)] == list(range(songs))
    sizes = [count for _, count in made]
    assert max(sizes) <= CHUNK
    assert max(sizes) - min(sizes) <= 1
    if songs >= CHUNK * threads:
        assert len(made) % threads == 0


@given(st.integers(1, 70), st.integers(1, 20), st.booleans())
def test_packing_puts_outputs_side_by_side(outputs, inputs, half):
    weight = torch.randn(outputs, inputs).half().float()
    panels = packed(weight, half)
    assert panels.dtype == (torch.float16 if half else torch.float32)
    assert panels.shape == (-(-outputs // LANES), inputs, LANES)
    assert torch.equal(panels.transpose(1, 2).flatten(0, 1)[:outputs], weight)
    assert not panels.transpose(1, 2).flatten(0, 1)[outputs:].any()


@pytest.mark.slow
def test_a_long_window_of_a_real_size_draws_the_codes_of_the_plain_step(built):
    from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior
    from fast_jukebox.sampling.engine import EagerDecoder

    prior = FastJukeboxPrior(FastJukeboxConfig.preset("fastjukebox-mini-9").prior_configs[2]).eval()
    songs, length = 4, prior.config.n_ctx
    uniform = uniform_noise(5, range(songs), 2, 0, length)
    conditioning, prompt = prior.condition(songs, length), torch.zeros(songs, 0, dtype=torch.int64)
    wanted = sample_window(EagerDecoder(prior, conditioning, songs, SETTINGS), prompt, uniform)
    codes, _ = sampled(prior, None, uniform)
    assert torch.equal(codes, wanted)
