"""Sound of takes, and files of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fast_jukebox.generation.decoding import KeptRecording, chunk_spans, decode_chunk, decoder_reach
from fast_jukebox.generation.request import VQVAE
from fast_jukebox.sampling.checks import check_count, level_name
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.notes import Take
from fast_jukebox.sessions.store import naming
from fast_jukebox.utils.files import clear_temporary, replacing


def take_sound(
    vqvae: VQVAE, codes: TakeCodes, take: Take, level: int | None, first: int, last: int
) -> Iterator[Tensor]:
    """Sound of a take from one audio sample to another, chunk by chunk; from the beginning on the same samples as the
    complete song's. A take that continues a recording begins with the recording's samples.

    Args:
        vqvae: has `config`, `decode` and `levels`.
        codes: of the takes of the session.
        take: which one.
        level: that is decoded; by default the lowest that is made there.
        first: the first sample.
        last: the one after the last.

    Returns:
        float32 (samples,) after (samples,).

    Raises:
        ValueError: the level is not made there.
    """
    count = len(take.layouts)
    for own in range(count) if level is None else [level]:
        check_count("level", own, 0, count - 1)
        hop, reach = vqvae.hop_lengths[own], decoder_reach(vqvae, own)
        begin, end = first // hop, -(-last // hop)
        low, high = max(begin - reach, 0), min(end + reach, take.length(own))
        found = codes.span(take, own, low, high)
        if found is not None:
            samples = codes.recording(take)
            recording = None
            if samples is not None:
                recording = KeptRecording.of(torch.from_numpy(samples)[None], codes.facts.sampling_rate)
            spans = ((begin + start, begin + stop) for start, stop in chunk_spans(hop, end - begin))
            return _chunks(vqvae, torch.from_numpy(found)[None], own, low, spans, recording, first, last)
    what = "any level" if level is None else f"the {level_name(level, count)} level"
    raise ValueError(f"take {take.number} has no sound of {what} there yet; `run` or `upsample` makes it")


def _chunks(
    vqvae: VQVAE,
    codes: Tensor,
    level: int,
    low: int,
    spans: Iterable[tuple[int, int]],
    recording: KeptRecording | None,
    first: int,
    last: int,
) -> Iterator[Tensor]:
    """Samples from `first` to `last`, of the codes (1, L) from `low` on, in chunks of codes."""
    hop, reach = vqvae.hop_lengths[level], decoder_reach(vqvae, level)
    for start, stop in spans:
        left, right = max(start - reach, low), min(stop + reach, low + codes.shape[1])
        with sampling_mode(vqvae):  # not while the caller has the turn
            sound = decode_chunk(vqvae, codes[:, left - low : right - low], level, left, start, stop)
        sound = sound if recording is None else recording.join(sound, start * hop)
        yield sound[0, max(first - start * hop, 0) : last - start * hop].clone().cpu()


def write_sound(path: Path, sound: Iterator[Tensor], sampling_rate: int) -> Path:
    """Write chunks of sound to a `.wav`, `.flac` or `.mp3` file, completely or not at all. Temporary files of killed
    processes in the folder are deleted.

    Raises:
        ValueError: another suffix.
        SessionError: the file cannot be written; what stood there before stands.
    """
    from fast_jukebox.audio.writer import FORMATS, AudioWriter

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)} or .safetensors, got {str(path)!r}")
    clear_temporary(path.parent)
    with naming("write", path), replacing(path) as temporary, AudioWriter(temporary, sampling_rate) as writer:
        for chunk in sound:
            writer.write(chunk)
    return path
