import json

import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox.conversion.convert import parse_size, plan_shards, size_in, write_shards


@pytest.mark.parametrize(("size", "wanted"), [("1GB", 10**9), ("2 MiB", 2**21), ("1.5kb", 1500), (7, 7)])
def test_sizes(size, wanted):
    assert parse_size(size) == wanted


@pytest.mark.parametrize("size", ["", "1", "GB", "-1GB", "0MB", 0, -5, 1.5, True, None])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValueError, match="max_shard_size"):
        parse_size(size)


def test_shards_are_filled_in_order_and_never_beyond_the_limit():
    sizes = {"a": 3, "b": 4, "c": 9, "d": 1, "e": 2, "f": 1}
    shards = plan_shards(sizes, 7)
    assert shards == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert plan_shards({"a": 100}, 7) == [["a"]]
    assert plan_shards({}, 7) == []


def sized(tensors, dtypes):
    return {name: size_in(t.shape, dtypes[name]) for name, t in tensors.items()}


def test_one_shard_has_the_plain_name(tmp_path):
    tensors = {"a": torch.randn(3, 4).t(), "exact": torch.randn(2), "flag": torch.tensor(True)}
    dtypes = {"a": torch.float16, "exact": torch.float32, "flag": torch.bool}
    told = []
    write_shards(tmp_path, sized(tensors, dtypes), tensors.items(), dtypes, 10**6, told.append)
    read = load_file(tmp_path / "model.safetensors")
    assert torch.equal(read["a"], tensors["a"].half())
    assert torch.equal(read["exact"], tensors["exact"])
    assert bool(read["flag"])
    assert told == [33]
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_several_shards_have_an_index(tmp_path):
    tensors = {f"t{i}": torch.randn(10) for i in range(5)}
    dtypes = dict.fromkeys(tensors, torch.float32)
    write_shards(tmp_path, sized(tensors, dtypes), tensors.items(), dtypes, 80)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 200}
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], tensors[name])


@pytest.mark.parametrize(
    ("tensor", "dtype", "message"),
    [
        (torch.tensor([1.0, float("nan")]), torch.float32, "`t` holds numbers that are not finite: fetch"),
        (torch.tensor([2.0, float("nan"), 1.0]).half(), torch.float16, "`t` holds numbers that are not finite"),
        (torch.tensor([2.0, -float("inf"), 1.0]), torch.bfloat16, "`t` holds numbers that are not finite"),
        (
            torch.tensor([1e6]),
            torch.float16,
            "`t` holds numbers .* beyond the range of torch.float16: name another `dtype`",
        ),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tmp_path, tensor, dtype, message):
    with pytest.raises(ValueError, match=message):
        write_shards(tmp_path, {"t": 8}, [("t", tensor)], {"t": dtype}, 100)


def test_too_few_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="before b"):
        write_shards(tmp_path, {"a": 4, "b": 4}, [("a", torch.zeros(1))], {"a": torch.float32}, 100)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"model\.safetensors"):
        write_shards(tmp_path / "not there", {"a": 4}, [("a", torch.zeros(1))], {"a": torch.float32}, 100)
