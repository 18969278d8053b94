import pytest
import torch

from fast_jukebox.models.prior.block import BlockStep, PriorBlock, rows_for


def naive(block, hidden, scale):
    """The block written out with plain operations."""

    def norm(x, module):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * module.weight + module.bias

    attended, _ = block.attention(norm(hidden, block.attention_norm))
    inner = norm(hidden + attended, block.mlp_norm) @ block.mlp.expand.weight.T + block.mlp.expand.bias
    branch = (inner / (1 + torch.exp(-1.702 * inner))) @ block.mlp.contract.weight.T + block.mlp.contract.bias
    return hidden + scale * (attended + branch), hidden + attended


@pytest.mark.parametrize("residual_scale", [False, True])
def test_forward_equals_plain_operations(tiny_config, residual_scale):
    block = PriorBlock(tiny_config(residual_scale=residual_scale), 1)
    hidden = torch.randn(2, 24, 32)
    output, residual = naive(block, hidden, 1 / 3 if residual_scale else 1.0)
    result = block(hidden, True)
    torch.testing.assert_close(result.hidden_states, output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.attention_residual, residual, atol=1e-5, rtol=1e-5)
    assert result.attentions.shape == (2 * 6, 2, 4, 4)


@pytest.mark.parametrize("residual_scale", [False, True])
@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("songs", [1, 4, 5])
@pytest.mark.parametrize("on_device", [False, True])
def test_steps_equal_forward(tiny_config, residual_scale, layer, songs, on_device):
    words = ["row", "column", "previous_row", "dense"]
    block = PriorBlock(tiny_config(residual_scale=residual_scale, attention_patterns=words, num_hidden_layers=4), layer)
    attention = block.attention
    cache = attention.pattern.new_cache(songs, 2, attention.head_dim, torch.float32, torch.device("cpu"))
    step = BlockStep(block, cache)
    hidden = torch.randn(songs, 24, 32)
    with torch.no_grad():
        whole = block(hidden).hidden_states
        for position in range(24):
            given = torch.zeros(step.rows, 32)
            given[:songs] = hidden[:, position]
            at = cache.place(torch.tensor([position])) if on_device else position
            torch.testing.assert_close(step(given, at)[:songs], whole[:, position], atol=1e-5, rtol=1e-5)


def test_rows_are_filled_up_on_a_cpu_only():
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert [rows_for(songs, cpu) for songs in (1, 3, 4, 5, 8, 41)] == [4, 4, 4, 8, 8, 44]
    assert [rows_for(songs, other) for songs in (1, 5)] == [1, 5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_norm_computes_in_float32(tiny_config, dtype):
    norm = PriorBlock(tiny_config(), 0).attention_norm.to(dtype)
    # A mean far above the spread: in half precision the variance would be lost.
    hidden = (torch.randn(64, 32) + 30).to(dtype)
    torch.testing.assert_close(norm(hidden), norm.float()(hidden.float()).to(dtype), rtol=0, atol=1e-2)
