"""What `fast-jukebox encode` does."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import describe_splits
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.utils.workers import Workers
from fast_jukebox_cli.model import chosen_device, model_name


def encode(
    songs: str, output: Path, *, model: str | None, test_share: float, device: str, workers: Workers, quiet: bool
) -> str:
    """Encode songs into a folder of codes; returns what it holds, in a line.

    Args:
        songs: a folder, or the Hub's name of a data set.
        output: folder of the codes.
        model: a VQ-VAE or complete model, by folder or Hub name; `None` for the embedded one.
        test_share: fraction of the songs held out where none are marked.
        device: see [`chosen_device`].
        workers: processes that encode.
        quiet: no progress bars.

    Raises:
        ValueError: what `load_songs` and `encode_songs` refuse.
        OSError: there is no such model, or the folder cannot be written.
    """
    logging.disable_progress_bar()
    where = chosen_device(device)
    vqvae = FastJukeboxVQVAE.from_pretrained(model_name(model)).eval().to(where)
    found = load_songs(songs, test_share, progress=not quiet)
    return describe_splits(encode_songs(found, vqvae, output, workers=workers, progress=not quiet))
