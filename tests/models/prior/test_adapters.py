"""Adapters of peft are heard: forward, step, every engine and the merged prior agree."""

import copy

import pytest
import torch

from fast_jukebox.sampling.weights import (
    adapter_settings,
    base_parameters,
    check_adapters,
    effective_weights,
    release_decoders,
)
from fast_jukebox.sessions.fingerprint import fingerprint

peft = pytest.importorskip("peft")

# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

TARGETS = ["qkv", "projection", "expand", "contract"]


def strengthen(model):
    """Adapters of a size at which they are heard; fresh ones add nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def adapted(prior, targets=TARGETS, **fields):
    return strengthen(peft.get_peft_model(prior, peft.LoraConfig(r=4, target_modules=targets, **fields)))


def stepwise(prior, inputs, prompt=3):
    """Logits (N, L - prompt, K) by a pass over the prompt and steps."""
    codes = inputs["codes"]
    conditions = {name: value for name, value in inputs.items() if name != "codes"}
    conditioning, cache = prior.condition(*codes.shape, **conditions), prior.new_cache(len(codes))
    logits = [prior.prefill(codes[:, :prompt], conditioning, cache)]
    for position in range(prompt + 1, codes.shape[1]):
        logits.append(prior.step(codes[:, position - 1], position, conditioning, cache))
    return torch.stack(logits, dim=1)[..., : prior.config.codebook_size]


def drawn(prior, inputs, engine, **arguments):
    conditions = {name: value for name, value in inputs.items() if name != "codes"}
    return prior.generate(2, seed=1, prompt=inputs["codes"][:, :3], engine=engine, **conditions, **arguments)


def assert_everything_agrees(prior, inputs, model):
    """Of a prior whose modules have adapters, and `model`, which wraps it."""
    whole = model(**inputs).logits.detach()
    steps = stepwise(prior, inputs)
    torch.testing.assert_close(steps, whole[:, 3:], atol=1e-3, rtol=1e-4)
    codes = {engine: drawn(prior, inputs, engine) for engine in ("eager", "graph", "native")}
    with torch.no_grad(), model.disable_adapter():
        assert not torch.allclose(model(**inputs).logits, whole, atol=1e-2)
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, whole, atol=1e-3, rtol=1e-4)
    wanted = drawn(merged, inputs, "eager")
    for engine, own in codes.items():
        assert torch.equal(own, wanted[:, : own.shape[1]]), engine


@pytest.mark.parametrize("fields", [{}, {"use_dora": True}, {"use_rslora": True, "lora_bias": True}], ids=str)
def test_forward_steps_engines_and_merged_agree(make_prior, make_inputs, kind, fields):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config)
    assert_everything_agrees(prior, inputs, adapted(prior, **fields))


@pytest.mark.parametrize("targets", [TARGETS, "all-linear"])
def test_of_priors_with_lyrics_too(make_prior, make_inputs, lyric_kind, targets):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    assert_everything_agrees(prior, inputs, adapted(prior, targets))


@pytest.mark.parametrize("wide", [False, True])
def test_of_any_batch_the_codes_are_the_same(make_prior, make_inputs, wide):
    prior = make_prior(hidden_size=90, num_attention_heads=1) if wide else make_prior()
    adapted(prior)
    prompt = make_inputs(prior.config, songs=5)["codes"][:, :3]
    for engine in ("eager", "native"):
        together = prior.generate(5, seed=1, prompt=prompt, engine=engine)
        assert torch.equal(prior.generate(1, seed=1, prompt=prompt[:1], engine=engine), together[:1])


def test_every_adapter_learns(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    model = adapted(prior, "all-linear").train()
    inputs = make_inputs(prior.config, songs=8)
    model(**inputs, labels=inputs["codes"]).loss.backward()
    trained = [(name, own) for name, own in model.named_parameters() if own.requires_grad]
    assert len(trained) >= 2 * 4 * len(prior.blocks)
    assert [name for name, own in trained if own.grad is None or not own.grad.any()] == []


@pytest.mark.parametrize("engine", ["eager", "graph", "native"])
def test_what_engines_keep_follows_the_adapters(make_prior, make_inputs, engine, monkeypatch):
    prior = make_prior()
    inputs = make_inputs(prior.config)
    if engine == "graph":  # as a recorded one is on a GPU
        monkeypatch.setattr("fast_jukebox.models.prior.engines.cuda_graph.GraphDecoder.costly", True)
    release_decoders()
    base = drawn(prior, inputs, engine)
    model = adapted(prior)
    first = drawn(prior, inputs, engine)
    assert not torch.equal(first, base)
    with model.disable_adapter():
        assert torch.equal(drawn(prior, inputs, engine), base)
    assert torch.equal(drawn(prior, inputs, engine), first)
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["expand"]))
    model.set_adapter("second")
    strengthen(model)
    assert not torch.equal(drawn(prior, inputs, engine), first)
    model.set_adapter("default")
    assert torch.equal(drawn(prior, inputs, engine), first)
    model.merge_adapter()
    assert torch.equal(drawn(prior, inputs, engine), first)
    model.unmerge_adapter()
    assert torch.equal(drawn(prior, inputs, engine), first)
    layer = prior.blocks[0].mlp.expand
    layer.scaling["default"] *= 3
    assert not torch.equal(scaled := drawn(prior, inputs, engine), first)
    layer.lora_B["default"].weight.data.neg_()  # counts no version
    assert not torch.equal(drawn(prior, inputs, engine), scaled)


def test_complete_copies_of_layers_are_heard(make_prior, make_inputs):
    prior = make_prior()
    inputs = make_inputs(prior.config)
    copies = ["code_embedding", "attention_norm"]
    assert_everything_agrees(prior, inputs, adapted(prior, modules_to_save=copies))


def test_adapters_on_adapters_are_all_merged():
    linear = torch.nn.Linear(4, 4)
    one = peft.tuners.lora.Linear(linear, "one", peft.LoraConfig(r=2), r=2)
    two = peft.tuners.lora.Linear(one, "two", peft.LoraConfig(r=2), r=2)
    for layer, name in ((one, "one"), (two, "two")):
        torch.nn.init.normal_(layer.lora_B[name].weight)
    weight, bias = effective_weights(two)
    wanted = linear.weight + one.get_delta_weight("one") + two.get_delta_weight("two")
    torch.testing.assert_close(weight, wanted)
    assert torch.equal(bias, linear.bias) and not one.merged and not two.merged


def test_in_inference_mode_and_half_precision(make_prior):
    prior = make_prior().to(torch.bfloat16)
    model = adapted(prior)  # whose adapters peft keeps in float32
    assert {own.dtype for own in base_parameters(prior)} == {torch.bfloat16}
    assert next(own for name, own in model.named_parameters() if "lora_A" in name).dtype == torch.float32
    with torch.inference_mode():
        weight, _ = effective_weights(prior.blocks[0].mlp.expand)
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, copy.deepcopy(model).merge_and_unload().blocks[0].mlp.expand.weight)
    assert prior.generate(1, length=8, seed=0).shape == (1, 8)


def test_what_cannot_be_merged_is_refused(make_prior):
    prior = make_prior()
    peft.get_peft_model(prior, peft.LoraConfig(r=2, target_modules=["expand"], alora_invocation_tokens=[1]))
    with pytest.raises(ValueError, match="lora.layer.Linear must be mergeable .* aLoRA does not support"):
        check_adapters([prior])
    with pytest.raises(ValueError, match="disable_adapter_layers"):
        prior.generate(1, length=8, seed=0)


def test_adapters_on_a_tied_embedding_are_refused(make_prior):
    prior = make_prior()
    adapted(prior, [*TARGETS, "code_embedding"])
    for sample in (lambda: check_adapters([prior]), lambda: prior.generate(1, length=8, seed=0)):
        with pytest.raises(ValueError, match="not be on `code_embedding` of a prior with `tie_word_embeddings`"):
            sample()
    untied = make_prior(tie_word_embeddings=False)
    adapted(untied, [*TARGETS, "code_embedding", "output"])
    check_adapters([untied])


def test_a_session_knows_the_adapters_of_its_model(make_prior):
    prior = make_prior()
    assert adapter_settings(prior) == ()
    plain = fingerprint(prior)
    model = adapted(prior)
    with_adapters = fingerprint(prior)
    with model.disable_adapter():
        disabled = fingerprint(prior)
    assert len({plain, with_adapters, disabled}) == 3 and fingerprint(prior) == with_adapters
