"""The command `fast-jukebox`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

# Whatever is slow to import is imported by the command that needs it, so that `--help` is quick.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Make music as raw audio with Fast Jukebox models.",
)

_SUFFIXES = (".wav", ".flac")
_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


def _clean_errors(command: Callable[..., None]) -> Callable[..., None]:
    """One line on stderr instead of a traceback: exit code 2 for bad input, 1 for what failed, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            _fail("interrupted; nothing was written", _INTERRUPTED)
        except ValueError as error:
            _fail(error, _MISUSED)
        except (OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as error:
            _fail(error, _FAILED)

    return wrapped


def _fail(error: BaseException | str, code: int) -> None:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    typer.echo(f"fast-jukebox: {' '.join(lines) or type(error).__name__}", err=True)
    raise typer.Exit(code)


def _numbers(name: str, text: str | None, kind: type[float] | type[int]) -> Any:
    """`0.98` as a number, `0.99,0.99,0.98` as a list of them, nothing as `None`."""
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError as error:
        wanted = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"`--{name}` must be one of the {wanted} or several with commas, got {text!r}") from error
    return values if len(values) > 1 else values[0]


def _checked_output(output: Path) -> Path:
    """`output` as an absolute path that can be written, or a `ValueError`: found out before the work, not after."""
    output = output.expanduser().absolute()
    if output.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"`--output` must end in {' or '.join(_SUFFIXES)}, got {str(output)!r}")
    if output.is_dir():
        raise ValueError(f"`--output` must be a file, got the folder {str(output)!r}")
    if not output.parent.is_dir():
        raise ValueError(f"`--output` must lie in a folder that exists, got {str(output)!r}")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ValueError(f"`--output` must lie in a folder that can be written to, got {str(output)!r}")
    return output


def _model_name(model: str | None) -> str:
    """`model`, or the folder of the model inside the package."""
    from fast_jukebox.pipelines import default_model_path

    if model is not None:
        looks_like_path = model.startswith((".", "~", os.sep)) or model.count("/") > 1
        folder = Path(model).expanduser()
        if looks_like_path and not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}; a model is a folder or a Hub repository")
        return str(folder) if folder.is_dir() else model
    folder = default_model_path()
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"this installation has no embedded model in {folder}; name one with --model")
    return str(folder)


def _show_version(show: bool) -> None:
    if show:
        from fast_jukebox import __version__

        typer.echo(f"fast-jukebox {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make music as raw audio with Fast Jukebox models."""


@app.command()
@_clean_errors
def generate(
    duration: Annotated[
        float | None,
        typer.Option(help="Seconds of the song, the prompt included. By default what the model says, mostly 20."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write: .wav or .flac.")] = Path("song.wav"),
    prompt: Annotated[Path | None, typer.Option(help="A recording with which the song begins.")] = None,
    prompt_duration: Annotated[
        float | None, typer.Option(help="Seconds of the recording to keep, by default all.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder or Hub repository; by default the model inside the package.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same song; by default a fresh one.")] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="Below 1 is safer, above 1 wilder. One number, or one a level, bottom first: 1,1,0.98."),
    ] = None,
    top_k: Annotated[
        str | None,
        typer.Option(help="Choose among so many of the likeliest codes only; 0 is all. One, or one a level."),
    ] = None,
    top_p: Annotated[
        str | None,
        typer.Option(help="Choose among the likeliest codes of this total probability. One, or one a level."),
    ] = None,
    hop_fractions: Annotated[
        str | None,
        typer.Option(
            help="How far each window moves on, as a share of the context. Smaller remembers more. One, or one a level."
        ),
    ] = None,
    stop_level: Annotated[
        int, typer.Option(help="The lowest level to make: 0 is full quality; higher is a quick, rough draft.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Make a song and write it to a file. The last line printed is the file's path."""
    output = _checked_output(output)
    if prompt is not None and not prompt.expanduser().is_file():
        raise ValueError(f"`--prompt` must be a file, got {str(prompt)!r}")
    sampling = {
        "temperature": _numbers("temperature", temperature, float),
        "top_k": _numbers("top-k", top_k, int),
        "top_p": _numbers("top-p", top_p, float),
        "hop_fractions": _numbers("hop-fractions", hop_fractions, float),
    }

    from transformers.utils import logging

    from fast_jukebox.audio import save_audio
    from fast_jukebox.generation import FastJukeboxGenerationConfig
    from fast_jukebox.generation.sampling import check_seed
    from fast_jukebox.models.fast_jukebox import FastJukeboxModel
    from fast_jukebox.pipelines import TASK, FastJukeboxPipeline, check_device

    # What is wrong whatever the model is found before the model is loaded.
    FastJukeboxGenerationConfig(duration=duration, **sampling)
    check_device(device)
    if seed is not None:
        check_seed(seed)
    logging.disable_progress_bar()  # the bars of loading
    loaded = FastJukeboxModel.from_pretrained(_model_name(model), dtype="auto")
    pipe = FastJukeboxPipeline(loaded, task=TASK, device=device)
    song = pipe(
        None if prompt is None else prompt.expanduser(),
        duration=duration,
        prompt_duration=prompt_duration,
        seed=seed,
        stop_level=stop_level,
        progress=False if quiet else None,
        return_details=True,
        **sampling,
    )
    save_audio(output, song["audio"], song["sampling_rate"])
    typer.echo(f"{len(song['audio']) / song['sampling_rate']:g} seconds, seed {song['seed']}", err=True)
    typer.echo(str(output))


@app.command()
@_clean_errors
def info(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A folder or Hub repository; by default the model inside the package."),
    ] = None,
) -> None:
    """Show what a model is: levels, sizes and its card. The weights are not read."""
    from rich.console import Console

    name = _model_name(model)
    console = Console(soft_wrap=False)
    for part in _description(name):
        console.print(part)


def _description(name: str) -> list[Any]:
    """What is known of a model without its weights, as things that rich can print."""
    import torch
    from transformers import AutoConfig, AutoModel

    from fast_jukebox.models.fast_jukebox import FastJukeboxConfig
    from fast_jukebox.models.prior import FastJukeboxPriorConfig
    from fast_jukebox.models.vqvae import FastJukeboxVQVAEConfig

    config = AutoConfig.from_pretrained(name)
    known = (FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig)
    if not isinstance(config, known):
        types = ", ".join(kind.model_type for kind in known)
        raise ValueError(f"`model_type` of {name} must be one of {types}, got {config.model_type!r}")
    with torch.device("meta"):  # counts parameters, holds none
        model = AutoModel.from_config(config)

    vqvae, priors = None, []
    if isinstance(config, FastJukeboxConfig):
        vqvae, priors = model.vqvae, list(model.priors)
    elif isinstance(config, FastJukeboxPriorConfig):
        priors = [model]
    else:
        vqvae = model
    parts: list[Any] = [f"{name}\n{type(model).__name__}, {_parameters(model)} parameters, {_dtype(config)}"]
    if vqvae is not None:
        parts.append(_vqvae_table(vqvae))
    if priors:
        parts.append(_prior_table(priors))
    return parts + _card_summary(name)


def _parameters(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def _dtype(config: Any) -> str:
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _columns_table(title: str, columns: list[str], rows: dict[str, list[str]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for label, values in rows.items():
        table.add_row(label, *values)
    return table


def _vqvae_table(vqvae: Any) -> Any:
    from fast_jukebox.generation.progress import level_name

    config, count = vqvae.config, vqvae.config.num_levels
    rows = {
        "hop length": [f"{hop} samples" for hop in config.hop_lengths],
        "codes a second": [f"{config.sampling_rate / hop:,.1f}" for hop in config.hop_lengths],
        "codebook": [f"{config.codebook_size} x {config.embed_dim}"] * count,
        "parameters": [_parameters(level) for level in vqvae.levels],
    }
    title = f"VQ-VAE: {count} levels at {config.sampling_rate} Hz, {_parameters(vqvae)} parameters"
    return _columns_table(title, [level_name(level, count) for level in range(count)], rows)


def _prior_table(priors: list[Any]) -> Any:
    from fast_jukebox.generation.progress import level_name

    configs = [prior.config for prior in priors]
    names = [
        level_name(config.level, len(configs)) if len(configs) > 1 else f"level {config.level}" for config in configs
    ]
    rows = {
        "layers": [str(config.num_hidden_layers) for config in configs],
        "width": [str(config.hidden_size) for config in configs],
        "heads": [str(config.num_attention_heads) for config in configs],
        "context": [f"{config.n_ctx} codes" for config in configs],
        "": [f"{config.n_ctx * config.hop_length / config.sampling_rate:.2f} s" for config in configs],
        "rows x columns": [f"{config.blocks} x {config.block_ctx}" for config in configs],
        "patterns": ["\n".join(config.attention_patterns) for config in configs],
        "level above": [f"1 for {config.upper_ratio}" if config.has_upper_level else "-" for config in configs],
        "labels": [
            f"{config.num_artists} artists\n{config.num_genres} genres" if config.has_labels else "-"
            for config in configs
        ],
        "parameters": [_parameters(prior) for prior in priors],
    }
    return _columns_table("Priors" if len(priors) > 1 else "Prior", names, rows)


def _card_summary(name: str) -> list[str]:
    """The licence, the data and the first paragraph of a model's card; nothing where there is no card."""
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import EntryNotFoundError

    path = Path(name)
    if path.is_dir() and not (path / "README.md").is_file():
        return ["no model card"]
    try:
        card = ModelCard.load(str(path / "README.md") if path.is_dir() else name, ignore_metadata_errors=True)
    except EntryNotFoundError:
        return ["no model card"]
    facts = [
        f"{key}: {getattr(card.data, key)}"
        for key in ("license", "datasets", "base_model")
        if getattr(card.data, key, None)
    ]
    blocks = [block.strip() for block in card.text.split("\n\n")]
    prose = [" ".join(block.split()) for block in blocks if block and block[0] not in "#<|`!-["]
    return [*facts, *prose[:1]]


def main() -> None:
    """Run the command line."""
    app()


__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
