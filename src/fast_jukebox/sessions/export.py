"""The sound of a stretch of a take, and a file of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from fast_jukebox.generation.decoding import decode_piece, decoder_reach, pieces
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sessions.store import SessionError
from fast_jukebox.utils.files import clear_temporary, replacing


def decode_stretch(
    vqvae: Any, read: Callable[[int, int], Tensor | None], level: int, first: int, last: int, length: int
) -> Iterator[Tensor] | None:
    """Sound of a song from one audio sample to another, piece by piece; from the beginning on the same samples as the
    whole song's.

    Args:
        vqvae: has `config`, `decode` and `levels`.
        read: codes int64 (last - first,) from one position to another, or `None` where they are not made.
        level: that is decoded.
        first: the first sample.
        last: the one after the last.
        length: codes of the whole song.

    Returns:
        float32 (samples,) after (samples,), or `None` where codes are not made.
    """
    hop, reach = vqvae.config.hop_lengths[level], decoder_reach(vqvae, level)
    begin, end = first // hop, -(-last // hop)
    low, high = max(begin - reach, 0), min(end + reach, length)
    codes = read(low, high)
    return None if codes is None else _pieces(vqvae, codes, level, (begin, end), low, (first, last))


def _pieces(
    vqvae: Any, codes: Tensor, level: int, span: tuple[int, int], low: int, samples: tuple[int, int]
) -> Iterator[Tensor]:
    hop, reach = vqvae.config.hop_lengths[level], decoder_reach(vqvae, level)
    for start, stop in pieces(hop, span[1] - span[0]):
        start, stop = start + span[0], stop + span[0]
        around = max(start - reach, low), min(stop + reach, low + len(codes))
        with sampling_mode(vqvae):  # not while the caller has the turn
            own = codes[around[0] - low : around[1] - low].unsqueeze(0)
            sound = decode_piece(vqvae, own, level, around[0], start, stop)[0]
        yield sound[max(samples[0] - start * hop, 0) : samples[1] - start * hop].clone().cpu()


def write_stretch(path: Path, sound: Iterator[Tensor], sampling_rate: int) -> Path:
    """Write pieces of sound to a `.wav` or `.flac` file: beside its place, then renamed. What killed processes left of
    such files in the folder is deleted.

    Raises:
        ValueError: another suffix.
        SessionError: the file cannot be written; what stood there before stands.
    """
    from fast_jukebox.audio.writer import FORMATS, AudioWriter

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)} or .safetensors, got {str(path)!r}")
    clear_temporary(path.parent)
    try:
        with replacing(path) as temporary, AudioWriter(temporary, sampling_rate) as writer:
            for piece in sound:
                writer.write(piece)
    except OSError as error:
        raise SessionError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path
