"""Layers that cannot be compiled are left as they are."""

import pytest
import torch

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.training.compilation import compile_blocks, random_batch


@pytest.fixture
def prior(tiny_config):
    torch.manual_seed(0)
    return FastJukeboxPrior(tiny_config.prior_configs[2]).train()


@pytest.fixture
def batch(prior):
    return random_batch(prior, 2)


def test_a_failing_compiler_leaves_eager_layers(prior, batch, monkeypatch):
    before = prior(**batch).loss

    def broken(self, *args, **kwargs):
        def call(*inputs, **named):
            raise RuntimeError("no compiler")

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    assert compile_blocks(prior, 2) is False
    assert prior.training
    assert torch.equal(prior(**batch).loss, before)
    assert all(parameter.grad is None for parameter in prior.parameters())


@pytest.mark.slow
def test_compiled_layers_give_the_same_loss_and_gradients(prior, batch):
    prior(**batch).loss.backward()
    before = {
        name: parameter.grad.clone() for name, parameter in prior.named_parameters() if parameter.grad is not None
    }
    prior.zero_grad()
    if not compile_blocks(prior, 2, window_parts=(1, 2)):
        pytest.skip("this machine has no compiler")
    assert all(parameter.grad is None for parameter in prior.parameters())
    with torch.compiler.set_stance("fail_on_recompile"):
        prior(**random_batch(prior, 4, prior.config.n_ctx // 2)).loss.backward()
        prior.zero_grad()
        prior(**batch).loss.backward()
    for name, parameter in prior.named_parameters():
        if name in before:
            assert torch.allclose(parameter.grad, before[name], atol=1e-5), name
    assert "blocks.0.mlp.expand.weight" in prior.state_dict()
