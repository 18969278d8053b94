"""Songs made and written, as files or as a stream."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor

from fast_jukebox import __version__
from fast_jukebox.audio import io as audio
from fast_jukebox.audio.writer import AudioWriter
from fast_jukebox.generation.metadata import complete_metadata, draw_metadata
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import check_duration
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.sampling.checks import fresh_seed
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox.utils.files import clear_temporary
from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name
from fast_jukebox_cli.options import Machine
from fast_jukebox_cli.values import check_rate
from fast_jukebox_cli.words import dropped_note, words_for

_CONTEXT_SECONDS = 1.0
"""Seconds of a prompt that are read beyond the kept ones, for the context of the last codes."""


class GenerationFailed(RuntimeError):
    """A song could not be sampled or written; its text names the seed that makes it again."""


def generate(
    request: SongRequest,
    words: dict[str, object] | None,
    *,
    outputs: list[Path] | None,
    stream: bool,
    raw: bool,
    prompt: Path | None,
    prompt_duration: float | None,
    extend: float | None,
    model: ModelSource,
    machine: Machine,
) -> str:
    """Make songs and write each to its file of `outputs`, or a stream to standard output where that is `None`; returns
    what to print about it. `words` are the songs' metadata; the other arguments are the command's options.

    Raises:
        ValueError: an argument that cannot be, found before the model is loaded where that is possible.
        KeyboardInterrupt: Ctrl-C while streaming; its text says how much stands in the file.
        GenerationFailed: sampling or writing failed; names the seed, and where a song is kept that was made.
    """
    seed = request.seed if isinstance(request.seed, int) else fresh_seed()
    request = replace(request, seed=seed)
    for name, seconds in (("prompt_duration", prompt_duration), ("extend", extend)):
        if seconds is not None:
            check_duration(name, seconds)
    loaded = load_model(model, chosen_device(machine.device), machine.offload, machine.quiet)
    rate = loaded.vqvae.config.sampling_rate
    for path in (outputs or ())[:1]:
        check_rate(path, rate)
    request = replace(request, metadata=words_for(loaded, words))
    if prompt is not None:
        request = _with_prompt(request, prompt, prompt_duration, extend, rate)
    streamed = stream or outputs is None
    songs = range(1 if streamed else request.num_samples)
    seeds = [seed] * len(songs)
    if request.metadata is None:
        drawn = draw_metadata(loaded, seeds, songs, streamed and request.duration is None)
    else:
        drawn = complete_metadata(loaded, request.metadata, seeds, songs)
    if drawn is not None:
        request = replace(request, metadata=drawn)
    dropped = ""

    try:
        with ProgressBars(False if machine.quiet else None, lines=True) as bars:
            if streamed:
                request = replace(request, num_samples=1, progress=bars)
                seconds = _stream(loaded, None if outputs is None else outputs[0], "raw" if raw else "wav", request)
            else:
                made = loaded.generate(**request.arguments(), progress=bars)
                dropped = "".join(made.dropped_lyrics or [])
                sound = cast(Tensor, made.audio)  # (N, samples), as nothing else is asked for
                seconds = sound.shape[1] / rate
                _write(outputs or [], sound.cpu(), rate, model_name(model.name), seed)
    except (OSError, RuntimeError, ArithmeticError, MemoryError) as error:
        if isinstance(error, GenerationFailed):
            raise
        raise GenerationFailed(f"{error or type(error).__name__}; `--seed {seed}` makes the same song") from error
    several = "" if outputs is None or len(outputs) == 1 else f"{len(outputs)} songs of "
    text = f"{several}{seconds:g} seconds, seed {seed}"
    if drawn is not None:
        text += "; " + ", ".join(f"{song['genre']} by {song['artist']}" for song in drawn)
    return f"{text}; {dropped_note(dropped)}" if dropped else text


def _with_prompt(request: SongRequest, path: Path, kept: float | None, extend: float | None, rate: int) -> SongRequest:
    """A request for a song that begins with a recording, and with `extend` is that much longer."""
    wanted = None if kept is None else kept + _CONTEXT_SECONDS
    recording = audio.load_audio(path, sampling_rate=rate, duration=wanted)
    seconds = min(recording.shape[-1] / rate, kept or math.inf)
    duration = request.duration if extend is None else seconds + extend
    if duration is not None and duration <= seconds:
        raise ValueError(
            f"`duration` must be longer than the prompt, which it includes: got {duration:g} for {seconds:g} s of "
            "the recording. Give a longer one, `--extend` with the seconds to make, or `--prompt-duration` with fewer "
            "seconds of the recording"
        )
    return replace(request, prompt=recording, prompt_duration=kept, duration=duration)


def _write(outputs: list[Path], songs: Tensor, rate: int, model: str, seed: int) -> None:
    """Write songs (N, samples), each to its file; one that cannot be written is kept in a temporary folder."""
    name = "the embedded model" if model == model_name(None) else model
    for folder in {path.parent for path in outputs}:
        clear_temporary(folder)
    for number, (path, song) in enumerate(zip(outputs, songs, strict=True), 1):
        which = f"seed {seed}" + (f", song {number}" if len(outputs) > 1 else "")
        tags = {
            "title": f"Fast Jukebox, {which}",
            "comment": f"generated audio, made by {name}, {which}",
            "software": f"fast_jukebox {__version__}",
        }
        try:
            audio.save_audio(path, song, rate, tags=tags)
        except (OSError, ValueError, UnicodeError) as error:
            kept = _keep(songs[number - 1 :], rate)
            raise GenerationFailed(f"{str(path)!r} cannot be written: {error}. {kept}, seed {seed}") from error


def _keep(songs: Tensor, rate: int) -> str:
    """Write songs where there is room for temporary files; a sentence that says where."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="fast-jukebox-"))
        for number, song in enumerate(songs, 1):
            audio.save_audio(folder / f"song-{number}.wav", song, rate)
    except OSError:
        return "The sound is lost, but the same seed makes it again"
    return f"The sound is kept in {folder}"


def _stream(loaded: FastJukeboxModel, output: Path | None, kind: str, request: SongRequest) -> float:
    """Write a stream until it ends, nobody listens any more or Ctrl-C; seconds written."""
    rate = loaded.vqvae.config.sampling_rate
    chunks = loaded.stream(**request.arguments())
    first = next(chunks)  # what stood in the file before is kept until there is something to hear
    with AudioWriter(sys.stdout.buffer if output is None else output, rate, kind) as writer:
        try:
            writer.write(first.cpu()[0])
            for chunk in chunks:
                writer.write(chunk.cpu()[0])
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {writer.samples / rate:g} seconds were written, seed {request.seed}"
            ) from None
        except BrokenPipeError:
            # The player was closed. Python would complain once more when it empties the pipe at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return writer.samples / rate
