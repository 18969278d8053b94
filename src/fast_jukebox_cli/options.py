"""The options that several commands share, and the groups of them that commands take as one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, get_type_hints

import typer

from fast_jukebox_cli.values import adapters, numbers

if TYPE_CHECKING:
    from fast_jukebox.utils.workers import Workers

_MOST_WORKERS = 10_000  # that of fast_jukebox.utils.workers, which the help is not to wait for

Songs = Annotated[str, typer.Argument(help="A folder of songs, or the Hub's name of a dataset.")]
Model = Annotated[str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")]
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
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output where it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Artist = Annotated[str | None, typer.Option(help="An artist's name, for models that know artists.")]
Genre = Annotated[str | None, typer.Option(help="A genre, for models that know genres.")]
Unknown = Annotated[
    bool, typer.Option("--unknown", help="Take a name that the model does not know as somebody unknown.")
]
Prompt = Annotated[Path | None, typer.Option(help="A recording with which the song begins.")]
PromptDuration = Annotated[float | None, typer.Option(help="Seconds of the recording to keep, by default all.")]
Seed = Annotated[int | None, typer.Option(help="The same seed makes the same song; by default a random one.")]
Schedule = Annotated[
    str | None,
    typer.Option(help="parallel samples the windows of a level at once, sequential one by one. One, or one a level."),
]
WindowFractions = Annotated[
    str | None,
    typer.Option(help="How much of its context a parallel window spans; less is quicker. One, or one a level."),
]
TestFraction = Annotated[float, typer.Option(help="Fraction of the songs held out where none are marked.")]


class SamplingSettings(TypedDict):
    """The settings of a [`SongRequest`] that choose among codes; `None` for the model's."""

    temperature: float | list[float] | None
    top_k: int | list[int] | None
    top_p: float | list[float] | None


class SongSettings(SamplingSettings):
    """Those with the seconds of a song."""

    duration: float | None


@dataclass(frozen=True)
class Sampling:
    """How codes are chosen; a session's settings are the default there. A text is a number or a list of them."""

    temperature: Annotated[
        str | None,
        typer.Option(
            help="Below 1 is safer, above 1 wilder. One number, or one a level, bottom first: 1,1,0.98. By default the "
            "model's, or the session's."
        ),
    ] = None
    top_k: Annotated[
        str | None,
        typer.Option(help="Choose among so many of the most probable codes only; 0 is all. One, or one a level."),
    ] = None
    top_p: Annotated[
        str | None,
        typer.Option(help="Choose among the most probable codes of this total probability. One, or one a level."),
    ] = None

    def __post_init__(self) -> None:
        self.settings()  # what is wrong is found before torch is loaded

    def settings(self) -> SamplingSettings:
        """The settings that are asked for."""
        return {
            "temperature": numbers("temperature", self.temperature, float),
            "top_k": numbers("top-k", self.top_k, int),
            "top_p": numbers("top-p", self.top_p, float),
        }


@dataclass(frozen=True)
class Words:
    """What a song is about."""

    artist: Artist = None
    genre: Genre = None
    lyrics: Annotated[str | None, typer.Option(help="The complete song's words, for models that sing.")] = None
    lyrics_file: Annotated[Path | None, typer.Option(help="A text file with them.")] = None
    total_duration: Annotated[
        float | None,
        typer.Option(help="Seconds of the complete song, by which its words are spread; by default what is made."),
    ] = None
    unknown: Unknown = False


@dataclass(frozen=True)
class Machine:
    """The model that makes a song, and what it runs on. What is no adapter is refused (`ValueError`)."""

    model: Annotated[
        str | None,
        typer.Option(
            help="A folder or Hub repository; by default the model inside the package, or the one that the session was "
            "made with."
        ),
    ] = None
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="An adapter (LoRA) of a level, as 2=FOLDER or 2=NAME; once for each level. Of a session, by default "
            "those that it was made with."
        ),
    ] = None
    device: Device = "auto"
    engine: Engine = "auto"
    offload: Offload = None
    quiet: Quiet = False

    def __post_init__(self) -> None:
        adapters(self.adapter)


@dataclass(frozen=True)
class Sharing:
    """The processes that share the work."""

    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share the work. Without --ray 1 by default; with it one for each CPU, or GPU, of the "
            "cluster.",
            min=1,
            max=_MOST_WORKERS,
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Work on a Ray cluster: at this address, or else the running one, or else one of this machine. Every "
            "machine must reach the same folders.",
        ),
    ] = None

    def chosen(self, device: str = "cpu") -> Workers:
        """The workers; on Ray each has a GPU where the device is one, as on the calling machine."""
        from fast_jukebox.utils.workers import Workers

        on_gpu = device.startswith("cuda")
        if self.ray is not None and device == "auto":
            import torch

            on_gpu = torch.cuda.is_available()
        count = 1 if self.workers is None and self.ray is None else self.workers
        return Workers(count, self.ray, float(on_gpu and self.ray is not None))


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which each field of a group of options, which is a dataclass, is a parameter by itself."""
    groups: dict[str, tuple[Callable[..., object], list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group, own = parameter.annotation, {name: parameter}
        if isinstance(group, type) and is_dataclass(group):
            hints = get_type_hints(group, include_extras=True)
            own = {
                field.name: parameter.replace(name=field.name, default=field.default, annotation=hints[field.name])
                for field in fields(group)
            }
            groups[name] = group, list(own)
        parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.values()]

    @functools.wraps(command)
    def wrapped(**given: object) -> None:
        made = {name: make(**{field: given.pop(field) for field in names}) for name, (make, names) in groups.items()}
        command(**given, **made)

    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)  # which typer reads
    return wrapped
