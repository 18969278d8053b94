import pytest
import torch

from fast_jukebox.models.prior.block import PriorLayerNorm, gate, gate_rows


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [4, 8, 33, 36, 45, 90, 180, 192, 2047, 9999])
def test_a_rows_gate_does_not_depend_on_the_number_of_rows_bit_for_bit(width, threads):
    inner = torch.randn(23, width, generator=torch.Generator().manual_seed(width)) * 4
    alone = torch.cat([gate(inner[row : row + 1], gate_rows(inner[row : row + 1], width)) for row in range(4)])
    for rows in (4, 8, 12, 20, 23):
        together = gate(inner[:rows], gate_rows(inner[:rows], width))
        assert together.shape == (rows, width)
        torch.testing.assert_close(together, inner[:rows] * torch.sigmoid(1.702 * inner[:rows]))
        assert torch.equal(together[:4], alone)


@pytest.mark.parametrize("kind", ["plain", "upsampler"])
def test_autocast_keeps_hidden_states_in_bfloat16_and_learns_alike(make_prior, make_inputs, kind):
    prior = make_prior(**({"upsampling_strides": [2, 2]} if kind == "upsampler" else {})).train()
    inputs = make_inputs(prior.config, 2)
    exact = prior(**inputs, labels=inputs["codes"], output_hidden_states=True)
    exact.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in prior.named_parameters()}
    prior.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = prior(**inputs, labels=inputs["codes"], output_hidden_states=True)
    output.loss.backward()
    assert {state.dtype for state in (*output.hidden_states, *output.attention_residuals)} == {torch.bfloat16}
    torch.testing.assert_close(output.loss.float(), exact.loss, rtol=0.01, atol=0.0)
    for name, parameter in prior.named_parameters():
        assert parameter.grad.dtype == torch.float32
        difference = (parameter.grad - gradients[name]).norm() / gradients[name].norm().clamp(min=1e-6)
        assert difference < 0.1, name


def test_layer_norm_is_torchs_own_without_autocast_and_close_to_it_under_it():
    norm, own = torch.nn.LayerNorm(33), PriorLayerNorm(33)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2), norm.bias.uniform_(-1, 1)
    own.load_state_dict(norm.state_dict())
    hidden = torch.randn(5, 33) * 3 + 1
    assert torch.equal(own(hidden), norm(hidden))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = own(hidden)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), norm(hidden), rtol=0.03, atol=0.03)
    with torch.autocast("cpu", dtype=torch.float16):
        assert own(hidden).dtype == norm(hidden).dtype
