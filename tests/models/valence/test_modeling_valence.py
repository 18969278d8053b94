import math

import pytest
import torch
from transformers import MobileNetV2Config, MobileNetV2Model

from fast_jukebox.models.valence import ValenceConfig, ValenceModel
from fast_jukebox.models.valence.modeling_valence import positions


def build():
    config = ValenceConfig(
        num_slices=2, slice_frames=32, num_mel_bins=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    return ValenceModel(config).eval()


@pytest.fixture
def model():
    return build()


@pytest.fixture
def alive():
    """In training mode without dropout: only then do fresh batch norms let anything through."""
    model = build().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def test_probabilities_have_a_row_a_clip_and_do_not_depend_on_the_batch(model):
    clips = torch.randn(3, 32, 64)
    output = model(clips)
    assert output.probabilities.shape == output.slice_probabilities.shape == (3, 4)
    assert ((output.probabilities > 0) & (output.probabilities < 1)).all()
    torch.testing.assert_close(model(clips[1:2]).probabilities[0], output.probabilities[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(model(clips).probabilities, output.probabilities)
    assert output.loss is None


def test_the_loss_is_the_mean_of_both_cross_entropies(model):
    labels = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]])
    output = model(torch.randn(2, 32, 64), labels=labels)
    expected = 0.0
    for found in (output.probabilities, output.slice_probabilities):
        entropy = -(labels * found.log() + (1 - labels) * (1 - found).log())
        expected += float(entropy.mean().detach()) / 2
    assert float(output.loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert model(torch.randn(1, 32, 64), return_dict=False)[0].shape == (1, 4)


def test_the_order_of_slices_matters_and_their_number_may_differ(alive):
    model = alive
    clip = torch.randn(1, 32, 64)
    swapped = torch.cat([clip[..., 32:], clip[..., :32]], dim=2)
    assert not torch.allclose(model(clip).probabilities, model(swapped).probabilities, atol=1e-6)
    torch.testing.assert_close(model(clip).slice_probabilities, model(swapped).slice_probabilities, atol=1e-5, rtol=0)
    assert model(torch.randn(1, 32, 96)).probabilities.shape == (1, 4)


def test_positions_begin_with_zero():
    table = positions(3, 6)
    assert table[0].tolist() == [0.0] * 6
    assert float(table[2, 2]) == pytest.approx(math.sin(2 * 10000 ** (-2 / 6)), abs=1e-6)


def test_it_overfits_eight_clips(alive):
    model = alive
    clips, labels = torch.randn(8, 32, 64), torch.eye(4).repeat(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(150):
        loss = model(clips, labels=labels).loss
        first = float(loss.detach()) if first is None else first
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.5 * first


def test_it_is_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = ValenceModel.from_pretrained(tmp_path).eval()
    clip = torch.randn(1, 32, 64)
    assert torch.equal(again(clip).probabilities, model(clip).probabilities)


def test_a_pretrained_backbone_is_taken_where_it_fits(model, tmp_path):
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1, finegrained_output=False)).save_pretrained(
        tmp_path / "fits"
    )
    before = model.backbone.conv_1x1.convolution.weight.clone()
    model.load_backbone(tmp_path / "fits")
    assert not torch.equal(model.backbone.conv_1x1.convolution.weight, before)
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.2, finegrained_output=False)).save_pretrained(
        tmp_path / "wide"
    )
    with pytest.raises(ValueError, match="`depth_multiplier` must be that of .*0.2, got 0.1"):
        model.load_backbone(tmp_path / "wide")


def test_nothing_is_pushed_without_a_licence_and_the_card_is_of_its_kind(model, hub):
    with pytest.raises(ValueError, match="`license` must name"):
        model.push_to_hub("ann/valence")
    model.push_to_hub("ann/valence", license="apache-2.0")
    from huggingface_hub import ModelCard

    card = ModelCard.load("ann/valence")
    assert card.data.pipeline_tag == "audio-classification"
    assert "ValenceJudge" in card.text


def test_features_of_another_shape_are_refused(model):
    for shape in ((1, 32, 40), (1, 16, 64), (32, 64), (1, 32, 0)):
        with pytest.raises(ValueError, match="`input_features` must have the shape"):
            model(torch.zeros(shape))
