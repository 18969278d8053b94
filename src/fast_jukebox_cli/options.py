"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fast_jukebox_cli.values import numbers

if TYPE_CHECKING:
    from fast_jukebox.utils.workers import Workers

Songs = Annotated[str, typer.Argument(help="A folder of songs, or the Hub's name of a dataset.")]
Model = Annotated[str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")]
Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="An adapter (LoRA) of a level, as 2=FOLDER or 2=NAME; once for each level."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
WorkerDevice = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; with --ray, cuda gives each worker a GPU.")
]
Dtype = Annotated[
    str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default what suits the device.")
]
FileDtype = Annotated[
    str | None, typer.Option(help="Of the priors: float32, bfloat16 or float16; by default the file's.")
]
Engine = Annotated[str, typer.Option(help="What runs the steps: auto chooses, eager is the plain one.")]
Offload = Annotated[
    str | None,
    typer.Option(help="For a GPU that is too small: cpu or disk, where levels wait while another one plays."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]

Prompt = Annotated[Path | None, typer.Option(help="A recording with which the song begins.")]
PromptDuration = Annotated[float | None, typer.Option(help="Seconds of the recording to keep, by default all.")]
Artist = Annotated[str | None, typer.Option(help="An artist's name, for models that know artists.")]
Genre = Annotated[str | None, typer.Option(help="A genre, for models that know genres.")]
Lyrics = Annotated[str | None, typer.Option(help="The complete song's words, for models that sing.")]
LyricsFile = Annotated[Path | None, typer.Option(help="A text file with them.")]
Unknown = Annotated[
    bool, typer.Option("--unknown", help="Take a name that the model does not know as somebody unknown.")
]

Seed = Annotated[int | None, typer.Option(help="The same seed makes the same song; by default a random one.")]
Temperature = Annotated[
    str | None,
    typer.Option(
        help="Below 1 is safer, above 1 wilder. One number, or one a level, bottom first: 1,1,0.98. By default the "
        "model's, or the session's."
    ),
]
TopK = Annotated[
    str | None,
    typer.Option(help="Choose among so many of the most probable codes only; 0 is all. One, or one a level."),
]
TopP = Annotated[
    str | None,
    typer.Option(help="Choose among the most probable codes of this total probability. One, or one a level."),
]
Schedule = Annotated[
    str | None,
    typer.Option(help="parallel samples the windows of a level at once, sequential one by one. One, or one a level."),
]
WindowFractions = Annotated[
    str | None,
    typer.Option(help="How much of its context a parallel window spans; less is quicker. One, or one a level."),
]

TestFraction = Annotated[float, typer.Option(help="Fraction of the songs held out where none are marked.")]
WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Processes that share the work. Without --ray 1 by default; with it one for each CPU, or GPU, of the "
        "cluster.",
        min=1,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Work on a Ray cluster: at this address, or else the running one, or else one of this machine. Every "
        "machine must reach the same folders.",
    ),
]


class Sampling(TypedDict):
    """The settings of a [`SongRequest`] that choose among codes; `None` for the model's."""

    temperature: float | list[float] | None
    top_k: int | list[int] | None
    top_p: float | list[float] | None


class SongSettings(Sampling):
    """Those with the seconds of a song."""

    duration: float | None


def sampling(temperature: str | None, top_k: str | None, top_p: str | None) -> Sampling:
    """The settings that `--temperature`, `--top-k` and `--top-p` ask for."""
    return {
        "temperature": numbers("temperature", temperature, float),
        "top_k": numbers("top-k", top_k, int),
        "top_p": numbers("top-p", top_p, float),
    }


def chosen_workers(count: int | None, ray: str | None, device: str = "cpu") -> Workers:
    """The workers that options ask for; on Ray each has a GPU where the device is one, as on the calling machine."""
    from fast_jukebox.utils.workers import Workers

    on_gpu = device.startswith("cuda")
    if ray is not None and device == "auto":
        import torch

        on_gpu = torch.cuda.is_available()
    return Workers(1 if count is None and ray is None else count, ray, float(on_gpu and ray is not None))
