import pytest
import torch
from torch import nn

from fast_jukebox.conversion.state_dict import convert_state_dict, strip_prefix

KEY_MAP = {"weight": "there.w", "bias": "there.b"}


def checkpoint():
    return {"there.w": torch.randn(2, 3), "there.b": torch.randn(3)}


def test_tensors_are_copied_and_transposed():
    model, tensors = nn.Linear(2, 3), checkpoint()
    convert_state_dict(tensors, model, KEY_MAP, {"weight"})
    assert torch.equal(model.weight, tensors["there.w"].T)
    assert torch.equal(model.bias, tensors["there.b"])
    assert model.weight.requires_grad


def test_the_models_dtype_stays():
    model = nn.Linear(2, 3)
    convert_state_dict({name: value.half() for name, value in checkpoint().items()}, model, KEY_MAP, {"weight"})
    assert model.weight.dtype == torch.float32


def test_buffers_can_be_filled_but_need_not():
    model, tensors = nn.BatchNorm1d(3), {"w": torch.ones(3), "b": torch.ones(3), "mean": torch.full((3,), 2.0)}
    convert_state_dict(tensors, model, {"weight": "w", "bias": "b", "running_mean": "mean"})
    assert torch.equal(model.running_mean, tensors["mean"])


def test_prefixes_of_distributed_training_are_taken_off():
    tensors = checkpoint()
    assert strip_prefix({f"module.{name}": value for name, value in tensors.items()}).keys() == tensors.keys()
    with pytest.raises(ValueError, match=r"there.w.*twice"):
        strip_prefix({"there.w": tensors["there.w"], "module.there.w": tensors["there.w"]})


def test_all_problems_are_named_and_nothing_is_changed():
    model = nn.Linear(2, 3)
    before = model.bias.clone()
    tensors = {"there.b": torch.zeros(4), "extra.one": torch.zeros(1), "extra.two": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 missing: there\.w.*2 left over: extra\.one, extra\.two.*there\.b \(4,\)"):
        convert_state_dict(tensors, model, KEY_MAP, {"weight"})
    assert torch.equal(model.bias, before)


def test_a_matrix_that_was_not_listed_is_not_transposed():
    with pytest.raises(ValueError, match=r"there\.w \(2, 3\), wanted \(3, 2\)"):
        convert_state_dict(checkpoint(), nn.Linear(2, 3), KEY_MAP)


def test_a_tensor_used_twice_is_refused():
    with pytest.raises(ValueError, match=r"1 asked for twice: there\.b"):
        convert_state_dict({"there.b": torch.zeros(3)}, nn.LayerNorm(3), {"weight": "there.b", "bias": "there.b"})


def test_a_parameter_without_a_source_is_refused():
    with pytest.raises(ValueError, match="1 of the model without a source: bias"):
        convert_state_dict({"there.w": torch.zeros(3, 2)}, nn.Linear(2, 3), {"weight": "there.w"})


def test_a_name_that_the_model_lacks_is_refused():
    with pytest.raises(ValueError, match="1 not in the model: scale"):
        convert_state_dict(
            {**checkpoint(), "s": torch.zeros(1)}, nn.Linear(2, 3), {**KEY_MAP, "scale": "s"}, {"weight"}
        )
