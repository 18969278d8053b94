"""Convert the published musicnn taggers, TensorFlow checkpoints, to safetensors, without TensorFlow.

    python -m fast_jukebox.conversion.musicnn musicnn-0.1.0-py3-none-any.whl OUTPUT_DIR

The wheel is what `pip download --no-deps musicnn==0.1.0` fetches (ISC licence). It writes `musicnn_mtt.safetensors` and
`musicnn_msd.safetensors`, kernels in float16.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fast_jukebox.utils.files import write_file

CHECKPOINTS = {"musicnn_mtt": "MTT_musicnn", "musicnn_msd": "MSD_musicnn"}
"""Folder in the wheel of each network."""

_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
_FLOAT32 = 1
_MAX_BYTES = 2**28

# Layers in the order in which the published graph numbers them.
_CONVOLUTIONS = [
    *("timbral.0.convolution", "timbral.1.convolution"),
    *("temporal.0.convolution", "temporal.1.convolution", "temporal.2.convolution"),
    *("dense.0.convolution", "dense.1.convolution", "dense.2.convolution"),
]
_NORMS = [
    "input_norm",
    *(name.replace("convolution", "norm") for name in _CONVOLUTIONS),
    *("pool_norm", "penultimate_norm"),
]
_LINEARS = ["penultimate", "output"]
_NORM_PARTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def read_checkpoint(index: bytes, data: bytes) -> dict[str, Tensor]:
    """Float32 tensors by name of a TensorFlow checkpoint of one shard.

    The index is a sorted string table (LevelDB's format, not compressed) of protocol buffers that say where in the data
    each tensor lies.

    Raises:
        ValueError: it is no such checkpoint, or a tensor lies outside the data.
    """
    if len(index) < 48 or index[-8:] != _TABLE_MAGIC:
        raise ValueError("the index must end with the mark of a string table: this is no TensorFlow checkpoint")
    footer, at = index[-48:], 0
    handles = []
    for _ in range(4):  # offset and size of the meta index and of the index
        value, at = _varint(footer, at)
        handles.append(value)
    tensors = {}
    for _, handle in _block(index, handles[2], handles[3]):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        for key, message in _block(index, offset, size):
            entry = dict(_fields(message))
            if not key or entry.get(1) != _FLOAT32:
                continue
            shape = [int(dict(_fields(_bytes(part)))[1]) for _, part in _fields(_bytes(entry.get(2, b"")))]
            start, length = int(entry.get(4, 0)), int(entry[5])
            name = key.decode()
            if not 0 <= start <= start + length <= len(data) or int(np.prod(shape)) * 4 != length:
                raise ValueError(f"{name} {shape} must lie within the data, got bytes {start} to {start + length}")
            values = np.frombuffer(data, "<f4", length // 4, start).reshape(shape)
            tensors[name] = torch.from_numpy(values.copy())
    return tensors


def convert_musicnn(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of [`~fast_jukebox.evaluation.musicnn.Musicnn`] from a checkpoint's tensors, without the optimizer's.

    A `ValueError` names a tensor that is missing or left over.
    """
    rest = {name: value for name, value in tensors.items() if "Adam" not in name and not name.endswith("_power")}

    def take(name: str) -> Tensor:
        if name not in rest:
            raise ValueError(f"the checkpoint must hold {name!r}: it is not one of musicnn")
        return rest.pop(name)

    state = {}
    for number, target in enumerate(_CONVOLUTIONS):
        layer = f"conv2d_{number}" if number else "conv2d"
        kernel = take(f"{layer}/kernel").permute(3, 2, 0, 1)  # (time, bands, in, out) -> (out, in, time, bands)
        # The dense layers see all bands at once: a convolution over time alone.
        state[f"{target}.weight"] = kernel[:, 0].transpose(1, 2) if target.startswith("dense") else kernel
        state[f"{target}.bias"] = take(f"{layer}/bias")
    for number, target in enumerate(_NORMS):
        layer = f"batch_normalization_{number}" if number else "batch_normalization"
        state.update({f"{target}.{ours}": take(f"{layer}/{theirs}") for theirs, ours in _NORM_PARTS.items()})
    for number, target in enumerate(_LINEARS):
        layer = f"dense_{number}" if number else "dense"
        state[f"{target}.weight"] = take(f"{layer}/kernel").T
        state[f"{target}.bias"] = take(f"{layer}/bias")
    if rest:
        raise ValueError(f"every tensor must be used once, but {', '.join(sorted(rest))} are left over")
    return {name: value.contiguous() for name, value in state.items()}


def convert_wheel(wheel: Path, output_dir: Path) -> list[Path]:
    """Write both networks of the wheel, kernels in float16; returns the files.

    Raises:
        ValueError: a file in the wheel is larger than 256 MiB, or holds no such checkpoint.
        KeyError: the wheel has no such file.
    """
    written = []
    with zipfile.ZipFile(wheel) as archive:
        for name, folder in CHECKPOINTS.items():
            parts = [f"musicnn/{folder}/{part}" for part in (".index", ".data-00000-of-00001")]
            for part in parts:
                if archive.getinfo(part).file_size > _MAX_BYTES:
                    raise ValueError(f"{part} must hold at most {_MAX_BYTES} bytes")
            state = convert_musicnn(read_checkpoint(*(archive.read(part) for part in parts)))
            # Norms and biases stay in float32: in float16 they alone would move tags by 3e-3.
            encoded = save({key: value.half() if value.dim() > 1 else value for key, value in state.items()})
            path = output_dir / f"{name}.safetensors"
            output_dir.mkdir(parents=True, exist_ok=True)
            write_file(path, encoded)
            written.append(path)
    return written


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Number of 7 bits a byte, lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; each key says how many bytes it shares with the one before."""
    block, kind = table[offset : offset + size], table[offset + size]
    if kind != 0:
        raise ValueError(f"blocks of the index must not be compressed, got compression {kind}")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            value = message[at : at + length]
            at += length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value = message[at : at + width]
            at += width
        else:
            raise ValueError(f"wire type {kind} of a protocol buffer is not known")
        yield tag >> 3, value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"a message was expected, got the number {value}")
    return value


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m fast_jukebox.conversion.musicnn WHEEL OUTPUT_DIR")
    for path in convert_wheel(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)
