"""The fused kernels, run by Triton's interpreter on the CPU, against the plain step."""

import dataclasses
import importlib.util

import pytest
import torch

from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.prior.engines.fused import FusedDecoder, unsupported
from fast_jukebox.models.prior.engines.fused_tuning import tuning_for
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.engine import EagerDecoder, sample_window

pytestmark = pytest.mark.usefixtures("interpreted")

PLAIN = SamplingSettings(temperature=0.9)
PATTERNS = ["row", "column", "previous_row", "dense"]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.1, torch.float16: 0.02}


def slow(value):
    """A parameter that the fast tests leave out."""
    return pytest.param(value, marks=pytest.mark.slow)


def assert_a_step_agrees(prior, make_inputs, songs, position, settings=PLAIN, **choices):
    """Logits of `position` and what the caches keep of it, after a prompt of the codes before it."""
    dtype = prior.position_embedding.dtype
    inputs = make_inputs(prior.config, songs)
    codes = inputs.pop("codes")
    conditioning, cache = prior.condition(songs, prior.config.n_ctx, **inputs), prior.new_cache(songs)
    decoder = FusedDecoder(prior, songs, settings, dataclasses.replace(tuning_for(songs), **choices))
    for own in (cache, decoder.cache):
        prior.prefill(codes[:, : position - 1], conditioning, own)
    wanted = prior.step(codes[:, position - 1], position, conditioning, cache)
    uniform = torch.rand(songs, 1)
    decoder.load(conditioning)
    drawn = decoder.decode(codes[:, position - 1], position, uniform)
    error = (decoder.logits.float() - wanted.float()).abs().max()
    assert error <= TOLERANCE[dtype] * max(1.0, wanted.float().abs().max())
    for layer, other in zip(decoder.cache.layers, cache.layers, strict=True):
        kept = min(layer.pattern.capacity, layer.pattern.max_visible)  # a spare slot keeps what nothing reads
        torch.testing.assert_close(
            layer.storage[:, :, :, :kept].float(),
            other.storage[:, :, :, :kept].float(),
            atol=TOLERANCE[dtype] * 4,
            rtol=TOLERANCE[dtype],
        )
    assert torch.equal(drawn[:, 0], draw_codes(decoder.logits, uniform[:, 0], settings))


@pytest.mark.parametrize("songs", [1, slow(3), 5])
@pytest.mark.parametrize("position", [1, slow(5), 6, slow(7), slow(11), 12, slow(13), slow(22), 23])
def test_a_step_agrees_with_the_plain_one_at_every_edge_of_rows_and_windows(make_prior, make_inputs, songs, position):
    prior = make_prior(layer_types=PATTERNS, num_hidden_layers=4, upsampling_strides=[2, 2])
    assert_a_step_agrees(prior, make_inputs, songs, position)


@pytest.mark.parametrize("songs", [1, 2, 4, 5, slow(16), 17, slow(33), slow(64), slow(65), 70])
def test_a_step_agrees_for_any_number_of_rows(make_prior, make_inputs, songs):
    prior = make_prior(num_hidden_layers=1, hidden_size=16, codebook_size=13)
    assert_a_step_agrees(prior, make_inputs, songs, 9)


@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.bfloat16), slow(torch.float16)])
@pytest.mark.parametrize("songs", [2, slow(6)])
def test_a_step_agrees_for_every_kind_of_prior(make_prior, make_inputs, kind, dtype, songs):
    assert_a_step_agrees(make_prior(**kind).to(dtype), make_inputs, songs, 13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("songs", [2, 6])
def test_a_step_agrees_in_half_precision(make_prior, make_inputs, dtype, songs):
    assert_a_step_agrees(make_prior(upsampling_strides=[2, 2]).to(dtype), make_inputs, songs, 13)


@pytest.mark.parametrize(
    "choices",
    [
        *({"splits": splits} for splits in (0, 2, 8)),
        {"kernel": "few"},
        {"kernel": "many", "block": (32, 32, 32, 3, 4), "splits": 0},
        {"kernel": "many", "block": (16, 16, 16, 3, 4), "parts": 3, "splits": 0},
        {"kernel": "many", "block": (64, 16, 64, 3, 4), "parts": 2, "lanes": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("songs", [1, slow(5)])
def test_choices_change_no_number(make_prior, make_inputs, choices, songs):
    prior = make_prior(layer_types=["column", "previous_row"], num_hidden_layers=2)
    assert_a_step_agrees(prior, make_inputs, songs, 14, **choices)
    assert_a_step_agrees(prior, make_inputs, songs, 1, **choices)


FOLDED = {"kernel": "many", "folded": True}


@pytest.mark.parametrize("songs", [1, 5, slow(17), slow(70)])
@pytest.mark.parametrize("position", [1, slow(6), 12, slow(23)])
def test_a_layernorm_folded_into_products_changes_no_number(make_prior, make_inputs, songs, position):
    fields = {"hidden_size": 45, "attention_ratio": 0.2, "num_attention_heads": 3, "mlp_ratio": 0.7}
    prior = make_prior(layer_types=PATTERNS, num_hidden_layers=4, upsampling_strides=[2, 2], **fields)
    shaken(prior)
    assert_a_step_agrees(prior, make_inputs, songs, position, **FOLDED)
    assert_a_step_agrees(prior, make_inputs, songs, position, block=(16, 16, 16, 3, 4), parts=3, **FOLDED)


@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.bfloat16), slow(torch.float16)])
def test_a_layernorm_is_folded_in_every_kind_of_prior(make_prior, make_inputs, kind, dtype):
    prior = make_prior(**kind)
    shaken(prior)
    assert_a_step_agrees(prior.to(dtype), make_inputs, 6, 13, **FOLDED)


def test_a_folded_layernorm_follows_training(make_prior):
    prior = make_prior(num_hidden_layers=2, hidden_size=16)
    decoder = FusedDecoder(prior, 2, PLAIN, dataclasses.replace(tuning_for(2), **FOLDED))
    code, noise = torch.tensor([1, 2]), torch.rand(2, 5)
    for _ in range(2):
        conditioning, cache = prior.condition(2, 24), prior.new_cache(2)
        for own in (cache, decoder.cache):
            prior.prefill(torch.zeros(2, 0, dtype=torch.int64), conditioning, own)
        decoder.load(conditioning)
        drawn = decoder.decode(code, 1, noise)
        for position, before in enumerate([code, *drawn.unbind(1)[:-1]], 1):
            wanted = prior.step(before, position, conditioning, cache)
        torch.testing.assert_close(decoder.logits, wanted, atol=2e-5, rtol=1e-5)
        shaken(prior)


def shaken(prior):
    """Weights that differ from those of a new prior, whose norms do nothing."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("songs", [6, slow(33)])
def test_programs_that_share_out_the_inputs_leave_the_counts_as_they_were(make_prior, make_inputs, songs, parts):
    prior = make_prior(
        num_hidden_layers=1, hidden_size=64, codebook_size=13, attention_ratio=0.5, num_attention_heads=1
    )
    choices = {"kernel": "many", "block": (16, 16, 16, 3, 4), "parts": parts, "splits": parts}
    assert_a_step_agrees(prior, make_inputs, songs, 9, **choices)
    decoder = FusedDecoder(prior, songs, PLAIN, dataclasses.replace(tuning_for(songs), **choices))
    decoder.load(prior.condition(songs, 24))
    code, uniform = torch.zeros(songs, dtype=torch.int64), torch.rand(songs, decoder.steps_per_call)
    drawn = decoder.decode(code, 1, uniform)
    assert not decoder._scratch.done.any()
    decoder.cache.reset()
    assert torch.equal(decoder.decode(code, 1, uniform), drawn)


@pytest.mark.parametrize("songs", [1, 5])
@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 45, "attention_ratio": 0.2, "num_attention_heads": 3, "mlp_ratio": 0.7},
        {"hidden_size": 20, "attention_ratio": 0.25, "num_attention_heads": 1, "codebook_size": 33},
        {"hidden_size": 33, "attention_ratio": 1.0, "num_attention_heads": 1, "mlp_ratio": 2.1},
    ],
)
def test_odd_widths(make_prior, make_inputs, songs, fields):
    assert_a_step_agrees(make_prior(**fields), make_inputs, songs, 13)


@pytest.mark.parametrize("position", [slow(1), 10, slow(23)])
@pytest.mark.parametrize("songs", [2, slow(6)])
def test_lyrics(make_prior, make_inputs, lyric_kind, position, songs):
    assert_a_step_agrees(make_prior(**lyric_kind), make_inputs, songs, position)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("songs", [2, slow(6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters(make_prior, make_inputs, lyric_kind, dtype, songs):
    peft = pytest.importorskip("peft")
    prior = make_prior(**lyric_kind).to(dtype)
    model = peft.get_peft_model(prior, peft.LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    assert_a_step_agrees(prior, make_inputs, songs, 13)
    merged = model.merge_and_unload()
    assert_a_step_agrees(merged, make_inputs, songs, 13)


def test_whole_windows_draw_the_codes_of_the_plain_step(make_prior):
    prior = make_prior(
        upsampling_strides=[2, 2], n_ctx=8, hidden_size=16, layer_types=["previous_row", "column"], num_hidden_layers=2
    )
    settings = SamplingSettings(temperature=0.9, top_k=9, top_p=0.9)
    decoder = FusedDecoder(prior, 1, settings)
    for known in (0, 3):  # one decoder, window after window; rows that begin anywhere
        conditioning = prior.condition(1, 8, torch.randint(0, 13, (1, 2)))
        prompt, uniform = torch.randint(0, 13, (1, known)), torch.rand(1, 8 - known)
        plain = EagerDecoder(prior, conditioning, 1, settings)
        wanted = sample_window(plain, prompt, uniform)
        step = decoder.open(prior, conditioning)
        assert torch.equal(sample_window(step, prompt, uniform), wanted)
        torch.testing.assert_close(step.logits, plain.logits, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2048, 1920])
@pytest.mark.parametrize("songs", [1, 6])
def test_one_layer_of_the_published_sizes(make_inputs, monkeypatch, width, songs):
    fields = {"hidden_size": width, "num_attention_heads": 2 if width == 2048 else 1}
    context = {"n_ctx": 6144, "num_rows": 64} if width == 2048 else {"n_ctx": 8192, "num_rows": 128}
    prior = FastJukeboxPrior(
        FastJukeboxPriorConfig(num_hidden_layers=1, layer_types=["column"], codebook_size=64, **fields, **context)
    ).eval()
    assert_a_step_agrees(prior.to(torch.bfloat16), make_inputs, songs, 6001)


def test_what_the_kernels_cannot_step_is_refused(make_prior):
    prior = make_prior()
    assert unsupported(prior) is None
    prior.blocks[0].mlp.expand.weight.data = prior.blocks[0].mlp.expand.weight.data.t().contiguous().t()
    assert "contiguous" in unsupported(prior)
    with pytest.raises(ValueError, match="`engine` must not be 'fused'.*contiguous"):
        FusedDecoder(prior, 1, PLAIN)
    assert "float64" in unsupported(make_prior().to(torch.float64))


def test_without_triton_there_is_no_fused_step(make_prior, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "triton" in unsupported(make_prior())
