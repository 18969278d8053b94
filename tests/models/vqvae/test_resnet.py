import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.models.vqvae.layers import DecoderStage, EncoderStage, ResidualBlock, ResidualStack


def support(module: torch.nn.Module, channels: int, length: int, position: int) -> list[int]:
    """Input positions on which output `position` depends, by gradient, with weights that cannot cancel."""
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    signal = torch.ones(1, channels, length, requires_grad=True)
    module(signal)[0, :, position].sum().backward()
    return signal.grad[0].abs().sum(0).nonzero().flatten().tolist()


def test_a_residual_block_is_its_formula():
    block = ResidualBlock(3, 5, dilation=2, scale=0.5)
    signal = torch.randn(2, 3, 11)
    inner = torch.nn.functional.conv1d(signal.relu(), block.conv_in.weight, block.conv_in.bias, padding=2, dilation=2)
    branch = torch.nn.functional.conv1d(inner.relu(), block.conv_out.weight, block.conv_out.bias)
    torch.testing.assert_close(block(signal), signal + 0.5 * branch)


@pytest.mark.parametrize(
    ("cycle", "reverse", "dilations"),
    [(None, False, [1, 3, 9, 27]), (2, False, [1, 3, 1, 3]), (None, True, [27, 9, 3, 1])],
)
def test_dilations_grow_by_block_cycle_and_reverse(cycle, reverse, dilations):
    stack = ResidualStack(2, 4, dilation_growth_rate=3, dilation_cycle=cycle, reverse_dilation=reverse)
    assert [block.conv_in.dilation[0] for block in stack.blocks] == dilations
    assert stack.reach == sum(dilations)


def test_scaled_residuals_are_divided_by_the_root_of_the_depth():
    assert all(block.scale == 0.5 for block in ResidualStack(2, 4, scale_residual=True).blocks)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from([2, 4]), st.integers(1, 4))
def test_stages_divide_and_multiply_time_exactly(count, stride, length):
    encoder = EncoderStage(1, 3, [stride] * count, width=2, depth=1)
    decoder = DecoderStage(3, 1, [stride] * count, width=2, depth=1)
    latents = encoder(torch.randn(2, 1, length * stride**count))
    assert latents.shape == (2, 3, length)
    assert decoder(latents).shape == (2, 1, length * stride**count)


@pytest.mark.parametrize(("count", "stride", "depth"), [(1, 2, 1), (3, 2, 2), (2, 4, 2)])
def test_no_stage_hears_further_than_it_says(count, stride, depth):
    encoder = EncoderStage(1, 2, [stride] * count, width=2, depth=depth, dilation_growth_rate=3)
    length = 8 * (encoder.reach // encoder.ratio + 2) * encoder.ratio
    middle = length // encoder.ratio // 2
    heard = support(encoder, 1, length, middle)
    assert middle * encoder.ratio - heard[0] <= encoder.reach
    assert heard[-1] - (middle * encoder.ratio + encoder.ratio - 1) <= encoder.reach

    decoder = DecoderStage(2, 1, [stride] * count, width=2, depth=depth, dilation_growth_rate=3)
    length = 4 * decoder.reach
    middle = length // 2
    heard = support(decoder, 2, length, middle * decoder.ratio)
    assert middle - heard[0] <= decoder.reach
    assert heard[-1] - middle <= decoder.reach
