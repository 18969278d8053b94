import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox.conversion.musicnn import CHECKPOINTS, convert_musicnn, convert_wheel, read_checkpoint
from fast_jukebox.evaluation.musicnn import Musicnn


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: dict[str, bytes]) -> bytes:
    """A block of a string table, keys sharing their beginnings, no compression."""
    out, last = b"", b""
    for key, value in sorted((key.encode(), value) for key, value in entries.items()):
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + struct.pack("<II", 0, 1)


def checkpoint(tensors: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    """Index and data as TensorFlow writes them, as far as they are read."""
    data, entries = b"", {"": field(1, 1)}
    for name, tensor in tensors.items():
        shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
        place = field(4, len(data)) if data else b""
        raw = tensor.contiguous().numpy().tobytes()
        entries[name] = field(1, 1) + field(2, shape) + place + field(5, len(raw)) + b"\x35crc4"
        data += raw
    table = block(entries)
    index = table + b"\0crc4"
    handle = varint(0) + varint(len(table))
    outer = block({"~": handle})
    footer = varint(0) + varint(0) + varint(len(index)) + varint(len(outer))
    index += outer + b"\0crc4" + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    return index, data


def published() -> dict[str, torch.Tensor]:
    """Random tensors with the names and shapes of the published checkpoint."""
    widths = {0: 1, 1: 204, 2: 204, 3: 51, 4: 51, 5: 51, 6: 64, 7: 64, 8: 64, 9: 1506, 10: 200}
    shapes = {}
    for number, width in widths.items():
        layer = f"batch_normalization_{number}" if number else "batch_normalization"
        shapes.update({f"{layer}/{part}": (width,) for part in ("beta", "gamma", "moving_mean", "moving_variance")})
    kernels = [
        (7, 38, 204),
        (7, 67, 204),
        (128, 1, 51),
        (64, 1, 51),
        (32, 1, 51),
        (7, 561, 64),
        (7, 64, 64),
        (7, 64, 64),
    ]
    for number, (time, bands, out) in enumerate(kernels):
        layer = f"conv2d_{number}" if number else "conv2d"
        shapes |= {f"{layer}/kernel": (time, bands, 1, out), f"{layer}/bias": (out,)}
    shapes |= {"dense/kernel": (1506, 200), "dense/bias": (200,), "dense_1/kernel": (200, 50), "dense_1/bias": (50,)}
    shapes |= {"beta1_power": (), "dense/bias/Adam": (200,)}
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def test_a_checkpoint_is_read_as_it_was_written():
    tensors = {"a/kernel": torch.randn(2, 3), "a/bias": torch.randn(3), "b": torch.tensor(2.5)}
    found = read_checkpoint(*checkpoint(tensors))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_every_tensor_finds_its_place():
    tensors = published()
    state = convert_musicnn(tensors)
    network = Musicnn()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    # TensorFlow's kernels are (time, bands, in, out).
    assert network.timbral[1].convolution.weight[5, 0, 2, 60] == tensors["conv2d_1/kernel"][2, 60, 0, 5]
    assert network.dense[0].convolution.weight[5, 560, 2] == tensors["conv2d_5/kernel"][2, 560, 0, 5]
    assert network.penultimate.weight[7, 1505] == tensors["dense/kernel"][1505, 7]


def test_what_is_missing_or_left_over_is_named():
    tensors = published()
    with pytest.raises(ValueError, match="other are left over"):
        convert_musicnn({**tensors, "other": torch.zeros(1)})
    del tensors["dense/bias"]
    with pytest.raises(ValueError, match="must hold 'dense/bias'"):
        convert_musicnn(tensors)


def test_a_broken_checkpoint_is_refused():
    index, data = checkpoint({"a": torch.zeros(4)})
    with pytest.raises(ValueError, match="no TensorFlow checkpoint"):
        read_checkpoint(index[:-1] + b"x", data)
    with pytest.raises(ValueError, match="must lie within the data"):
        read_checkpoint(index, data[:-1])


def test_a_wheel_becomes_two_files_with_kernels_in_half_precision(tmp_path):
    tensors = published()
    index, data = checkpoint(tensors)
    with zipfile.ZipFile(tmp_path / "musicnn.whl", "w") as wheel:
        for folder in CHECKPOINTS.values():
            wheel.writestr(f"musicnn/{folder}/.index", index)
            wheel.writestr(f"musicnn/{folder}/.data-00000-of-00001", data)
    paths = convert_wheel(tmp_path / "musicnn.whl", tmp_path / "out")
    assert [path.name for path in paths] == ["musicnn_mtt.safetensors", "musicnn_msd.safetensors"]
    state = load_file(paths[0])
    assert state["output.weight"].dtype == torch.float16
    assert torch.equal(state["output.bias"], tensors["dense_1/bias"])
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(KeyError, match="MTT_musicnn"):
        convert_wheel(tmp_path / "empty.whl", tmp_path / "out")
