"""A deeper prior computes what the one it is made from computes, and all of it can learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.distillation import initialize_student, student_config
from fast_jukebox.training.growth import deep_layer, deepen


def tiny_prior(layers: int = 3, **settings) -> FastJukeboxPrior:
    torch.manual_seed(0)
    config = FastJukeboxPriorConfig(
        codebook_size=16,
        n_ctx=16,
        num_rows=4,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        **settings,
    )
    prior = FastJukeboxPrior(config)
    for weight in prior.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return prior.eval()


def test_deeper_computes_the_same():
    prior = tiny_prior()
    deep = deepen(prior, 12).eval()
    codes = torch.randint(0, 16, (2, 16))
    assert deep.config.num_hidden_layers == len(deep.blocks) == 12
    torch.testing.assert_close(deep(codes).logits, prior(codes).logits, rtol=0, atol=1e-6)


def test_every_layer_learns():
    deep = deepen(tiny_prior(), 9).train()
    codes = torch.randint(0, 16, (2, 16))
    for _ in range(2):  # what stands before a branch's zero end gets its gradient once the end has moved
        deep(codes, labels=codes).loss.backward()
        with torch.no_grad():
            for weight in deep.parameters():
                weight -= 0.01 * weight.grad
    assert all(block.mlp.expand.weight.grad.abs().sum() > 0 for block in deep.blocks)


def test_a_student_of_the_same_depth_gets_its_layers_back():
    prior = tiny_prior(6)
    deep = deepen(prior, 18)
    student = initialize_student(FastJukeboxPrior(student_config(deep.config, 6)), deep).eval()
    codes = torch.randint(0, 16, (1, 16))
    assert torch.equal(student(codes).logits, prior(codes).logits)


@given(st.integers(1, 5), st.integers(0, 7), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_places_are_in_order_and_keep_the_pattern(groups, more, cycle):
    depth, deep = groups * cycle, (groups + more) * cycle
    places = [deep_layer(layer, depth, deep, cycle) for layer in range(depth)]
    assert places == sorted(set(places))
    assert [place % cycle for place in places] == [layer % cycle for layer in range(depth)]
    assert places[-1] == deep - 1


@pytest.mark.parametrize("layers", [2, 4, 0])
def test_refuses_depths(layers):
    with pytest.raises(ValueError, match="num_hidden_layers"):
        deepen(tiny_prior(), layers)


def test_refuses_scaled_branches():
    with pytest.raises(ValueError, match="residual_scale"):
        deepen(tiny_prior(residual_scale=True), 6)
