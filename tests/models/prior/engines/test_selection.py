import logging
import weakref

import pytest
import torch
from torch.nn import functional as F

from fast_jukebox.models.prior import configuration_prior
from fast_jukebox.models.prior import sampling_prior as programs
from fast_jukebox.models.prior.attention import Attended, Pattern
from fast_jukebox.models.prior.block import PATTERNS
from fast_jukebox.models.prior.engines.cuda_graph import GraphDecoder
from fast_jukebox.models.prior.engines.native import NativeDecoder, weights_of
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library
from fast_jukebox.models.prior.sampling_prior import NATIVE_WIDEST, choose_engine
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import EagerDecoder, open_decoder, sample_window
from fast_jukebox.sampling.weights import release_decoders

PLAIN = SamplingSettings(temperature=0.8)
SETTINGS = [PLAIN, SamplingSettings(top_k=5, top_p=0.7), SamplingSettings(top_p=0.5), SamplingSettings(do_sample=False)]
LYRICS = {"num_artists": 5, "num_genres": 4, "lyric_length": 8, "lyric_vocab_size": 6}
LYRIC_ENCODER = {"lyric_encoder_layers": 1, "lyric_encoder_hidden_size": 16, "lyric_encoder_heads": 1}
LYRIC_KINDS = [
    {**LYRICS, "layer_types": ["row", "lyric_prefix", "previous_row", "column"], "num_hidden_layers": 4},
    {**LYRICS, **LYRIC_ENCODER, "lyric_encoder_num_rows": 2, "layer_types": ["row", "lyric_cross", "column"]},
]


@pytest.fixture(params=["native", "graph"])
def engine(request):
    if request.param == "native":
        try:
            library()
        except NativeUnavailable as error:
            pytest.skip(str(error))
    return request.param


def conditions(make_inputs, config, songs, length):
    inputs = make_inputs(config, songs, length)
    labels = inputs.get("metadata")
    if labels is not None and labels.shape[1] < config.metadata_length:
        lyrics = torch.randint(0, config.lyric_vocab_size, (songs, config.lyric_length))
        inputs["metadata"] = torch.cat([labels, lyrics], dim=1)
    return inputs.pop("codes"), inputs


def window(prior, engine, prompt, told, uniform, settings):
    """Codes, and the logits of the last of them."""
    songs, length = len(prompt), prompt.shape[1] + uniform.shape[1]
    step = open_decoder(prior, prior.condition(songs, length, **told), songs, settings, engine)
    assert step.engine == engine
    return sample_window(step, prompt, uniform), step.logits


def assert_engines_agree(prior, make_inputs, engine, songs, known, length, settings):
    codes, told = conditions(make_inputs, prior.config, songs, length)
    uniform = torch.rand(songs, length - known)
    wanted, wanted_logits = window(prior, "eager", codes[:, :known], told, uniform, settings)
    got, logits = window(prior, engine, codes[:, :known], told, uniform, settings)
    assert torch.equal(got, wanted)
    torch.testing.assert_close(logits, wanted_logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("songs", "known", "length"), [(1, 0, 24), (3, 7, 24), (6, 1, 20), (2, 19, 20)])
def test_every_engine_draws_the_codes_of_the_plain_step(make_prior, make_inputs, kind, engine, songs, known, length):
    assert_engines_agree(make_prior(**kind), make_inputs, engine, songs, known, length, PLAIN)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_engine_draws_by_the_settings(make_prior, make_inputs, engine, settings):
    assert_engines_agree(make_prior(upsampling_strides=[2, 2]), make_inputs, engine, 5, 2, 24, settings)


@pytest.mark.parametrize("fields", LYRIC_KINDS, ids=["prefix", "encoder"])
@pytest.mark.parametrize("known", [0, 5])
def test_every_engine_knows_lyrics(make_prior, make_inputs, engine, fields, known):
    assert_engines_agree(make_prior(**fields), make_inputs, engine, 3, known, 24, PLAIN)


def test_every_engine_steps_one_by_one_too(make_prior, engine):
    prior = make_prior()
    conditioning, prompt, uniform = prior.condition(2, 24), torch.randint(0, 13, (2, 3)), torch.rand(2, 21)
    whole = sample_window(open_decoder(prior, conditioning, 2, PLAIN, engine), prompt, uniform)
    step = open_decoder(prior, conditioning, 2, PLAIN, engine)
    code = step.prefill(prompt, uniform[:, 0])
    for index in range(1, 21):
        assert torch.equal(code, whole[:, 2 + index])
        code = step.decode(code, 3 + index, uniform[:, index : index + 1])[:, 0]
    step.close(finished=True)
    assert torch.equal(code, whole[:, -1])


def test_every_engine_can_be_used_for_one_window_after_another(make_prior, engine):
    prior = make_prior(upsampling_strides=[2, 2])
    decoder = prior.new_decoder(2, PLAIN, engine)
    for seed in range(2):
        torch.manual_seed(seed)
        told, prompt, uniform = torch.randint(0, 13, (2, 6)), torch.randint(0, 13, (2, 9 * seed)), torch.rand(2, 15)
        conditioning = prior.condition(2, 24, told)
        wanted = sample_window(EagerDecoder(prior, conditioning, 2, PLAIN), prompt, uniform)
        assert torch.equal(sample_window(decoder.open(prior, conditioning), prompt, uniform), wanted)


@pytest.mark.parametrize(("position", "count"), [(0, 1), (19, 2), (-1, 1)])
def test_positions_beyond_the_window_are_refused(make_prior, engine, position, count):
    prior = make_prior()
    step = open_decoder(prior, prior.condition(1, 20), 1, PLAIN, engine)
    code = step.prefill(torch.zeros(1, 0, dtype=torch.int64), torch.rand(1))
    with pytest.raises(ValueError, match=f"`position`.*window of 20; got {position} and {count} codes"):
        step.decode(code, position, torch.rand(1, count))


def test_numbers_that_are_none_are_an_error(make_prior, engine):
    prior = make_prior()
    with torch.no_grad():
        prior.blocks[0].mlp.expand.weight[0, 0] = float("nan")
    step = open_decoder(prior, prior.condition(1, 24), 1, PLAIN, engine)
    with pytest.raises(FloatingPointError, match="level 2"):
        sample_window(step, torch.zeros(1, 0, dtype=torch.int64), torch.rand(1, 24))


def test_the_weights_are_followed(make_prior, engine):
    prior = make_prior()
    prompt, uniform = torch.zeros(1, 0, dtype=torch.int64), torch.rand(1, 24)
    before, _ = window(prior, engine, prompt, {}, uniform, PLAIN)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(-1.5)
    after, _ = window(prior, engine, prompt, {}, uniform, PLAIN)
    assert not torch.equal(before, after)
    assert torch.equal(after, window(prior, "eager", prompt, {}, uniform, PLAIN)[0])


def test_auto_goes_by_the_prior_and_the_machine(make_prior):
    narrow, wide = make_prior(), make_prior(hidden_size=NATIVE_WIDEST + 8, num_hidden_layers=1)
    assert choose_engine(wide) == choose_engine(make_prior().to(torch.bfloat16)) == "eager"
    assert wide.new_decoder(1, PLAIN) is None
    assert choose_engine(narrow) in ("native", "eager")
    for engine, kind in (("native", NativeDecoder), ("graph", GraphDecoder)):
        if engine == "graph" or choose_engine(narrow) == "native":
            assert isinstance(narrow.new_decoder(2, PLAIN, engine), kind)


def test_without_a_compiler_auto_says_so_once_and_goes_on(make_prior, monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(programs, "_warned", set())
    library.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert [choose_engine(make_prior()) for _ in range(2)] == ["eager"] * 2
        assert len(caplog.records) == 1
        assert "no-such-compiler" in caplog.text
        with pytest.raises(NativeUnavailable, match="no-such-compiler"):
            make_prior().new_decoder(1, PLAIN, "native")
    finally:
        library.cache_clear()


class ParityPattern(Pattern):
    """Each position sees itself and those before it at an even distance: a pattern that no engine was written for."""

    def support(self, position):
        return set(range(position % 2, position + 1, 2))

    def whole(self, query, key, value, need_weights=False):
        distance = torch.arange(query.shape[1])[:, None] - torch.arange(query.shape[1])
        seen = (distance >= 0) & (distance % 2 == 0)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return Attended(F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2), None)

    def pair_count(self, length):
        return sum(position // 2 + 1 for position in range(length))

    @property
    def capacity(self):
        return 2 * self.max_visible

    @property
    def max_visible(self):
        return -(-self.n_ctx // 2)

    def slots(self, position):
        first = position % 2 * self.max_visible
        return first + position // 2, first, position // 2 + 1


def test_a_new_pattern_needs_no_engine_of_its_own(make_prior, make_inputs, engine, monkeypatch):
    monkeypatch.setitem(PATTERNS, "parity", ParityPattern)
    monkeypatch.setattr(configuration_prior, "PATTERN_NAMES", (*configuration_prior.PATTERN_NAMES, "parity"))
    prior = make_prior(layer_types=["parity", "row"], num_hidden_layers=4)
    for known in (0, 7):
        assert_engines_agree(prior, make_inputs, engine, 3, known, 24, PLAIN)


def test_slots_that_lie_outside_the_cache_are_refused(make_prior, monkeypatch):
    class Wrong(ParityPattern):
        def slots(self, position):
            return position + 20, position % 2 * self.max_visible, position // 2 + 1

    monkeypatch.setitem(PATTERNS, "wrong", Wrong)
    monkeypatch.setattr(configuration_prior, "PATTERN_NAMES", ("wrong",))
    with pytest.raises(ValueError, match=r"must lie in the 24 slots of the cache.*at position 4 they are 24, 0 and 3"):
        NativeDecoder(make_prior(layer_types=["wrong"]), 1, PLAIN)


def test_weights_are_packed_once_and_again_when_they_change(make_prior):
    prior = make_prior()
    first = weights_of(prior)
    assert weights_of(prior) is first
    with torch.no_grad():
        prior.blocks[0].mlp.expand.weight.mul_(2.0)
    second = weights_of(prior)
    assert second is not first
    prior.blocks[0].mlp.expand.weight.data.mul_(2.0)  # which counts no version
    third = weights_of(prior)
    assert third is not second
    prior.blocks[0].mlp.expand.weight.data = prior.blocks[0].mlp.expand.weight.data.clone()
    assert weights_of(prior) is not third
    kept = weakref.ref(weights_of(prior))
    release_decoders()
    assert kept() is None
