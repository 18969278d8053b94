"""What `fast-jukebox generate` does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from fast_jukebox.audio import io as audio
from fast_jukebox.audio.writer import AudioWriter
from fast_jukebox.generation import FastJukeboxGenerationConfig
from fast_jukebox.generation.configuration import check_duration
from fast_jukebox.sampling.engine import check_engine
from fast_jukebox.sampling.filtering import check_seed, fresh_seed
from fast_jukebox.sampling.progress import ProgressBars
from fast_jukebox_cli.model import chosen_device, load_model
from fast_jukebox_cli.words import dropped_note, words_for

_CONTEXT_SECONDS = 1.0
"""What is read of a prompt beyond what is kept of it, so that its last codes know how it goes on."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a stream was written; its text says what stands in the file."""


def generate(
    *,
    output: Path | None,
    kind: str,
    prompt: Path | None,
    prompt_duration: float | None,
    model: str | None,
    device: str,
    offload: str | None,
    quiet: bool,
    stream: bool,
    settings: dict[str, Any],
    arguments: dict[str, Any],
) -> str:
    """Make a song and write it.

    Args:
        output: the file; `None` for standard output, which is streamed.
        kind: `"wav"` or `"raw"`, for standard output.
        prompt: a recording with which the song begins.
        prompt_duration: seconds of it to keep.
        model: a folder or repository; `None` for the embedded one.
        device: see [`chosen_device`].
        offload: where levels live that do not sample, see [`load_model`].
        quiet: no progress bars.
        stream: write the song while it is made.
        settings: of [`FastJukeboxGenerationConfig`].
        arguments: others of `model.generate`.

    Returns:
        What to say of it.

    Raises:
        ValueError: an argument that cannot be, found before the model is loaded where that is possible.
        Interrupted: Ctrl-C while streaming; what was made so far stands in the file.
    """
    FastJukeboxGenerationConfig(**settings)
    where = chosen_device(device)
    check_engine(arguments["engine"])
    seed = fresh_seed() if arguments["seed"] is None else check_seed(arguments["seed"])
    if prompt_duration is not None:
        check_duration("prompt_duration", prompt_duration)
    loaded = load_model(model, where, offload)
    rate = loaded.vqvae.config.sampling_rate
    request = {**settings, **arguments, "seed": seed, "metadata": words_for(loaded, arguments["metadata"])}
    if prompt is not None:
        wanted = None if prompt_duration is None else prompt_duration + _CONTEXT_SECONDS
        request["prompt"] = audio.load_audio(prompt, sampling_rate=rate, duration=wanted)
        request["prompt_duration"] = prompt_duration
    dropped = ""
    with ProgressBars(False if quiet else None) as bars:
        if stream or output is None:
            seconds = _stream(loaded, output, kind, rate, {**request, "progress": bars})
        else:
            made: Any = loaded.generate(**request, progress=bars)
            dropped = "".join(made.dropped_lyrics or [])
            audio.save_audio(output, made.audio[0], rate)
            seconds = made.audio.shape[1] / rate
    told = f"{seconds:g} seconds, seed {seed}"
    return f"{told}; {dropped_note(dropped)}" if dropped else told


def _stream(loaded: Any, output: Path | None, kind: str, rate: int, request: dict[str, Any]) -> float:
    """Write a stream until it ends, nobody listens any more or Ctrl-C; seconds written."""
    chunks = loaded.stream(**request)
    first = next(chunks)  # what stood in the file before is kept until there is something to hear
    with AudioWriter(sys.stdout.buffer if output is None else output, rate, kind) as writer:
        try:
            writer.write(first[0])
            for chunk in chunks:
                writer.write(chunk[0])
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {writer.samples / rate:g} seconds were written, seed {request['seed']}"
            ) from None
        except BrokenPipeError:
            # The player was closed. Python would complain once more when it empties the pipe at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return writer.samples / rate
