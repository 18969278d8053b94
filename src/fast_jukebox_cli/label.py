"""What `fast-jukebox label` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fast_jukebox.labelling import LabelReport, TempoLabeller, label_songs
from fast_jukebox.labelling.dataset import LabelSettings
from fast_jukebox.labelling.labellers import load_labeller
from fast_jukebox.utils.workers import Workers


def label(
    songs: str,
    output: Path,
    *,
    labellers: Sequence[str],
    tempo_centre: float | None,
    clip_seconds: float,
    sampling_rate: int,
    test_share: float,
    workers: Workers,
    quiet: bool,
) -> LabelReport:
    """Cut songs into clips and label them; returns what there is.

    Args:
        songs: a folder, or the Hub's name of a data set.
        output: folder of the clips and their labels.
        labellers: as [`~fast_jukebox.labelling.labellers.load_labeller`] takes them.
        tempo_centre: of `tempo`, in beats a minute.
        clip_seconds, sampling_rate: of the clips.
        test_share: fraction of the songs held out where none are marked.
        workers: processes that work.
        quiet: no progress bars.

    Raises:
        ValueError: anything that cannot be, found out before the first clip.
        ImportError: a labeller's package is not installed.
    """
    if tempo_centre is not None and "tempo" not in labellers:
        raise ValueError(f"`tempo_centre` must go with `--labeller tempo`, got {', '.join(labellers)}")
    chosen = [
        TempoLabeller(tempo_centre) if name == "tempo" and tempo_centre is not None else load_labeller(name)
        for name in labellers
    ]
    settings = LabelSettings(clip_seconds=clip_seconds, sampling_rate=sampling_rate)
    return label_songs(
        songs, output, settings, labellers=chosen, test_share=test_share, workers=workers, progress=not quiet
    )
