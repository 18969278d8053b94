"""The one door for sound: read any common file as mono at one rate, in bounded memory, and write it safely."""

from __future__ import annotations

import io
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

DEFAULT_SAMPLING_RATE = 44100
"""Samples a second of every model of this package, unless its configuration says otherwise."""

MAX_DURATION = 4 * 3600.0
"""Seconds of sound that one call reads into memory at most, unless told otherwise."""

_CONTAINERS = {".wav": "WAV", ".flac": "FLAC"}
_SUBTYPES = {"WAV": ("PCM_16", "PCM_24", "FLOAT"), "FLAC": ("PCM_16", "PCM_24")}


def save_audio(path: str | os.PathLike[str], audio: Any, sampling_rate: int, *, subtype: str = "PCM_16") -> Path:
    """Write mono sound to a WAV or FLAC file (by the suffix), whole or not at all.

    The sound goes to a temporary file in the same folder that is checked and then renamed, so a full disk or Ctrl-C
    leaves the file that was there before. Samples beyond [-1, 1] are clipped, with a warning, unless the subtype is
    `"FLOAT"`, which keeps them.

    Args:
        path: ends in `.wav` or `.flac`; its folder must exist.
        audio: float array or tensor (samples,) or (1, samples), finite, nominally in [-1, 1].
        sampling_rate: samples a second, an integer of at least 1.
        subtype: `"PCM_16"` (default), `"PCM_24"`, or for WAV `"FLOAT"` (32 bit).

    Returns:
        The path written.

    Raises:
        ValueError: naming the argument that is wrong.
        OSError: when the file cannot be written.
    """
    path = Path(path)
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise ValueError(f"`path` must end in {' or '.join(_CONTAINERS)}, got {str(path)!r}")
    if subtype not in _SUBTYPES[container]:
        raise ValueError(f"`subtype` must be one of {_SUBTYPES[container]} for {container}, got {subtype!r}")
    _check_rate("sampling_rate", sampling_rate)
    samples = _checked_samples(audio, keep_range=subtype == "FLOAT")

    def write(file: BinaryIO) -> None:
        soundfile.write(file, samples, sampling_rate, format=container, subtype=subtype)
        file.seek(0)
        if soundfile.info(file).frames != len(samples):
            raise OSError(f"{path}: the file is shorter than the sound after writing; is the disk full?")

    write_atomically(path, write)
    return path


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], None]) -> None:
    """Call `write` with a temporary binary file (readable too) beside `path`, then rename it to `path`.

    Whatever `write` raises, Ctrl-C included, removes the temporary file and leaves what stood at `path`.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _checked_samples(audio: Any, keep_range: bool) -> np.ndarray:
    """`audio` as a finite float32 array (samples,), clipped to [-1, 1] unless `keep_range`."""
    if isinstance(audio, Tensor):
        audio = audio.detach().to(device="cpu", dtype=torch.float32).numpy()
    samples = np.asarray(audio)
    if samples.dtype.kind != "f":
        raise ValueError(f"`audio` must hold floating-point samples, got {samples.dtype}")
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"`audio` must have the shape (samples,) or (1, samples), not empty, got {samples.shape}")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise ValueError(f"`audio` must be finite, got {int((~np.isfinite(samples)).sum())} infinite or NaN samples")
    peak = float(np.abs(samples).max())
    if peak > 1.0 and not keep_range:
        warnings.warn(f"`audio` reaches {peak:.3f}; samples beyond [-1, 1] are clipped", stacklevel=3)
        samples = samples.clip(-1.0, 1.0)
    return samples


def _check_rate(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 768_000:
        raise ValueError(f"`{name}` must be an integer from 1 to 768000 samples a second, got {value!r}")
