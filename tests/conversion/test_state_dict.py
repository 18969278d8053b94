import pytest
import torch
from torch import nn

from fast_jukebox.conversion.state_dict import check_tensors, strip_prefix, taken

KEY_MAP = {"weight": "there.w", "bias": "there.b"}


def converted(source, model, key_map, transposed=()):
    """The model's tensors out of a checkpoint's."""
    known = model.state_dict()
    check_tensors(source, {ours: tuple(known[ours].shape) for ours in key_map}, key_map, transposed)
    return {ours: taken(source, theirs, ours in transposed) for ours, theirs in key_map.items()}


def checkpoint():
    return {"there.w": torch.randn(2, 3), "there.b": torch.randn(3)}


def test_tensors_are_copied_and_transposed():
    model, tensors = nn.Linear(2, 3), checkpoint()
    found = converted(tensors, model, KEY_MAP, {"weight"})
    assert torch.equal(found["weight"], tensors["there.w"].T)
    assert torch.equal(found["bias"], tensors["there.b"])


def test_several_matrices_become_one():
    tensors = {"q": torch.randn(2, 3), "kv": torch.randn(2, 6)}
    found = converted(tensors, nn.Linear(2, 9, bias=False), {"weight": (("q", 1), ("kv", 2))}, {"weight"})
    assert torch.equal(found["weight"], torch.cat([tensors["q"].T, tensors["kv"].T]))
    with pytest.raises(ValueError, match=r"kv \(2, 6\), wanted \(2, 4\)"):
        converted(tensors, nn.Linear(2, 6, bias=False), {"weight": (("q", 1), ("kv", 2))}, {"weight"})


def test_buffers_can_be_filled_but_need_not():
    model, tensors = nn.BatchNorm1d(3), {"w": torch.ones(3), "b": torch.ones(3), "mean": torch.full((3,), 2.0)}
    found = converted(tensors, model, {"weight": "w", "bias": "b", "running_mean": "mean"})
    assert torch.equal(found["running_mean"], tensors["mean"])


def test_prefixes_of_distributed_training_are_taken_off():
    tensors = checkpoint()
    assert strip_prefix({f"module.{name}": value for name, value in tensors.items()}).keys() == tensors.keys()
    with pytest.raises(ValueError, match=r"there.w.*twice"):
        strip_prefix({"there.w": tensors["there.w"], "module.there.w": tensors["there.w"]})


def test_all_problems_are_named():
    model = nn.Linear(2, 3)
    tensors = {"there.b": torch.zeros(4), "extra.one": torch.zeros(1), "extra.two": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 missing: there\.w.*2 left over: extra\.one, extra\.two.*there\.b \(4,\)"):
        converted(tensors, model, KEY_MAP, {"weight"})


def test_a_matrix_that_was_not_listed_is_not_transposed():
    with pytest.raises(ValueError, match=r"there\.w \(2, 3\), wanted \(3, 2\)"):
        converted(checkpoint(), nn.Linear(2, 3), KEY_MAP)


def test_a_tensor_used_twice_is_refused():
    with pytest.raises(ValueError, match=r"1 asked for twice: there\.b"):
        converted({"there.b": torch.zeros(3)}, nn.LayerNorm(3), {"weight": "there.b", "bias": "there.b"})
