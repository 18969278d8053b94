"""Sound read from any common file as mono at one rate, in bounded memory, and written to files.

Sound inside the package is a float32 tensor (samples,), mono, nominally in [-1, 1]. Files are read and written by
soundfile (WAV, FLAC, OGG, MP3 and what else libsndfile knows).
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from torch import Tensor

from fast_jukebox.audio.readers import AudioInfo, Reader, open_reader
from fast_jukebox.audio.resample import check_rate, resample_blocks
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import printable, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEFAULT_SAMPLING_RATE = 44100
"""Samples a second of the published models and of the presets."""

MAX_DURATION = 2 * 3600.0
"""Seconds of sound that `load_audio` reads into memory at most by default."""

_CONTAINERS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}
_SUBTYPES = {
    "WAV": ("PCM_16", "PCM_24", "FLOAT"),
    "FLAC": ("PCM_16", "PCM_24"),
    "MP3": ("MPEG_LAYER_III",),
    "OGG": ("VORBIS",),
}
"""Encodings of each container, the default one first."""
_VORBIS_RATES = (4000, 200_000)
"""Lowest and highest rate of OGG Vorbis: below it libvorbis never ends, above it the process crashes."""
_TAGS = ("title", "artist", "genre", "comment", "software", "date", "album", "copyright", "license")
_BLOCK_VALUES = 2**18


def audio_info(source: object, *, source_rate: int | None = None) -> AudioInfo:
    """Format and length of a sound; arguments and errors are those of `load_audio`.

    The length is what can be read: counted in the file where its header states no length or a wrong one.
    """
    with open_reader(source, source_rate) as reader:
        return reader.info


def audio_tags(source: object) -> dict[str, str]:
    """Texts in the tags of a file, a path or `{"path", "bytes"}` as datasets makes it.

    Returns:
        A printable line of up to 200 characters by `"title"`, `"artist"`, `"genre"` and what else libsndfile reads
        (ID3, Vorbis comments, INFO chunks); empty where the file has none or is no sound.
    """
    if isinstance(source, Mapping):
        source = source["path"] if source.get("bytes") is None else io.BytesIO(source["bytes"])
    try:
        with soundfile.SoundFile(source) as file:
            found = file.copy_metadata()
    except (soundfile.SoundFileError, OSError, UnicodeError, TypeError):
        return {}
    texts = {name: " ".join(printable(text, 200).split()) for name, text in found.items()}
    return {name: text for name, text in texts.items() if text}


def load_audio(
    source: object,
    sampling_rate: int = DEFAULT_SAMPLING_RATE,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    source_rate: int | None = None,
    max_duration: float = MAX_DURATION,
) -> Tensor:
    """Read sound as mono at `sampling_rate`. Channels are averaged; nothing is normalised or clipped.

    Args:
        source: a path; the bytes of a file; an open binary file that can seek; a dictionary as datasets makes it,
            `{"path", "bytes"}` or `{"array", "sampling_rate"}`; a torchcodec `AudioDecoder`; or an array or tensor
            (samples,) or (channels, samples), float or signed integer (8 to 32 bits) over its full range, with
            `source_rate`.
        offset: seconds to skip, at least 0.
        duration: seconds to read at most; None reads to the end.
        source_rate: samples a second of an array; files know their own.
        max_duration: seconds that may be read; a longer sound is refused before it is read.

    Returns:
        float32 (samples,), `ceil(seconds * sampling_rate)` of them. Files that were joined into one, as radio recorders
        leave them, are read to the end. A `UserWarning` says what a file lacks that its header states, and what of it
        is not read.

    Raises:
        ValueError: naming the file that is no sound, or the argument that is wrong.
        OSError: when the file cannot be opened.
    """
    blocks = list(
        stream_audio(
            source, sampling_rate, offset=offset, duration=duration, source_rate=source_rate, max_duration=max_duration
        )
    )
    return torch.cat(blocks) if blocks else torch.zeros(0)


def stream_audio(
    source: object,
    sampling_rate: int = DEFAULT_SAMPLING_RATE,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    source_rate: int | None = None,
    max_duration: float = 24 * 3600.0,
) -> Iterator[Tensor]:
    """Read sound as `load_audio` does, block by block, in memory that does not grow with the length.

    The blocks, concatenated, are what `load_audio` returns. Arguments and errors are those of `load_audio`; those that
    can be known from the header are raised by the call, others (a broken file, samples that are not finite) on the way.
    """
    check_rate("sampling_rate", sampling_rate)
    _check_seconds("offset", offset, "at least")
    if duration is not None:
        _check_seconds("duration", duration, "over")
    _check_seconds("max_duration", max_duration, "over")
    reader = open_reader(source, source_rate)
    try:
        info = reader.info
        for what in filter(None, (info.missing, info.left_out)):
            warnings.warn(f"{reader.name} is not read completely: {what}", stacklevel=3)
        start = round(offset * info.sampling_rate)
        wanted = None if duration is None else max(1, round(duration * info.sampling_rate))
        if info.frames is not None:
            if start and start >= info.frames:
                raise ValueError(
                    f"`offset` must be less than the {info.duration:g} s of {reader.name}, got {shown(offset)}"
                )
            left = info.frames - start
            wanted = left if wanted is None else min(left, wanted)
        limit = int(max_duration * info.sampling_rate)
        if wanted is not None and wanted > limit:
            raise ValueError(
                f"{reader.name} has {wanted / info.sampling_rate:g} s to read, more than `max_duration` "
                f"({max_duration:g} s); raise the limit, or set `duration`"
            )
        reader.seek(start)
    except BaseException:
        reader.close()
        raise
    return resample_blocks(_mono_blocks(reader, wanted, limit), info.sampling_rate, sampling_rate)


def save_audio(
    path: str | os.PathLike[str],
    audio: Tensor | ArrayLike,
    sampling_rate: int,
    *,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Write mono sound to a WAV, FLAC, MP3 or OGG Vorbis file (by the suffix), all of it or nothing.

    The sound goes to a temporary file in the same folder, which is then renamed, so a full disk or Ctrl-C
    leaves the file that was there before. Samples beyond [-1, 1] are clipped, with a warning, unless the subtype is
    `"FLOAT"`, which keeps them.

    Args:
        path: ends in `.wav`, `.flac`, `.mp3` or `.ogg`; its folder must exist.
        audio: float array or tensor (samples,) or (1, samples), finite, nominally in [-1, 1].
        sampling_rate: samples a second, an integer of at least 1 that the format has.
        subtype: `"PCM_16"` (default), `"PCM_24"`, or for WAV `"FLOAT"` (32 bit); by default that of the format.
        tags: text by `"title"`, `"artist"`, `"genre"`, `"comment"`, `"software"`, `"date"`, `"album"`, `"copyright"`
            or `"license"`; none by default.

    Raises:
        ValueError: naming the argument that is wrong.
        OSError: when the file cannot be written.
    """
    path = Path(path)
    container, subtype = _format_of(path, subtype)
    unknown = set(tags or ()) - set(_TAGS)
    if unknown:
        raise ValueError(f"`tags` must be among {', '.join(_TAGS)}, got {', '.join(sorted(unknown))}")
    check_rate("sampling_rate", sampling_rate)
    samples = _checked_samples(audio, keep_range=subtype == "FLOAT")
    write_file(path, _encoded(container, subtype, samples, sampling_rate, tags or {}))
    return path


def check_output(path: str | os.PathLike[str], sampling_rate: int, *, subtype: str | None = None) -> None:
    """Raise the `ValueError` that `save_audio` would raise for a file of this name and rate; writes nothing."""
    container, subtype = _format_of(Path(path), subtype)
    check_rate("sampling_rate", sampling_rate)
    _encoded(container, subtype, np.zeros(1, np.float32), sampling_rate, {})


def _format_of(path: Path, subtype: str | None) -> tuple[str, str]:
    """Container and encoding of a file to write."""
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise ValueError(f"`path` must end in {' or '.join(_CONTAINERS)}, got {str(path)!r}")
    subtype = subtype or _SUBTYPES[container][0]
    if subtype not in _SUBTYPES[container]:
        raise ValueError(f"`subtype` must be one of {_SUBTYPES[container]} for {container}, got {shown(subtype)}")
    return container, subtype


def _encoded(
    container: str, subtype: str, samples: np.ndarray, sampling_rate: int, tags: Mapping[str, str]
) -> memoryview:
    """The bytes of a file of mono sound."""
    lowest, highest = _VORBIS_RATES
    if container == "OGG" and not lowest <= sampling_rate <= highest:
        raise ValueError(f"`sampling_rate` must be from {lowest} to {highest} in OGG, got {sampling_rate}")
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sampling_rate, 1, subtype, format=container) as file:
            for name, text in tags.items():
                # What no tag can hold is written otherwise: an end of text, and bytes of a name that is no UTF-8.
                text = text.replace("\0", " ").encode("utf-8", "backslashreplace").decode()
                if text:
                    setattr(file, name, text)
            for start in range(0, len(samples), _BLOCK_VALUES):  # of millions at once, libsndfile's Vorbis crashes
                file.write(samples[start : start + _BLOCK_VALUES])
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"`sampling_rate` must be one that {container} has, got {sampling_rate}: {error.error_string}"
        ) from error
    return encoded.getbuffer()


def _checked_samples(audio: object, keep_range: bool) -> np.ndarray:
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


def _mono_blocks(reader: Reader, wanted: int | None, limit: int) -> Iterator[Tensor]:
    """Blocks (samples,) of the reader's frames, channels averaged: as many as wanted, or all up to the limit."""
    block = max(1, _BLOCK_VALUES // reader.info.channels)
    done = 0
    with reader:
        while wanted is None or done < wanted:
            frames = reader.read(block if wanted is None else min(block, wanted - done))
            if len(frames) == 0:
                _tell_end(reader, done, wanted)
                return
            done += len(frames)
            if done > limit:
                raise ValueError(
                    f"{reader.name} goes on beyond `max_duration` ({limit / reader.info.sampling_rate:g} s)"
                )
            mono = frames.mean(axis=1, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise ValueError(f"{reader.name} holds infinite or NaN samples: export it again")
            yield torch.from_numpy(mono)


def _tell_end(reader: Reader, done: int, wanted: int | None) -> None:
    """Warn of a sound that ends before the end that was found for it."""
    rate = reader.info.sampling_rate
    if wanted is not None and wanted - done > rate / 10:
        message = f"{reader.name} is not read completely: of {wanted / rate:.6g} s, {done / rate:.6g} s can be read"
        warnings.warn(message, stacklevel=2)


def _check_seconds(name: str, value: object, limit: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (limit == "over" and value == 0):  # type: ignore[operator]
        raise ValueError(f"`{name}` must be {limit} 0 seconds, got {shown(value)}")
