"""The commands that make, label and encode songs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, adapters, choices, existing_file, numbers, path_text, printable, song_files


def generate(
    *,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds of the song, the prompt included. By default what the model says, mostly 20; with --stream, "
            "without end."
        ),
    ] = None,
    extend: Annotated[
        float | None, typer.Option(help="Seconds to make beyond the prompt, in place of --duration.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write: .wav, .flac, .mp3 or .ogg; or - for standard output, to a player. By default "
            "song.wav, or song-2.wav and so on where that exists."
        ),
    ] = None,
    force: options.Force = False,
    num_samples: Annotated[
        int, typer.Option(help="Songs to make; the files of several are numbered.", min=1, max=10_000)
    ] = 1,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write the song while it is made; Ctrl-C leaves what there is.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="On standard output, 16-bit samples and no WAV header.")] = False,
    prompt: options.Prompt = None,
    prompt_duration: options.PromptDuration = None,
    words: options.Words,
    offset: Annotated[
        float | None, typer.Option(help="Seconds of the complete song that come before this part.")
    ] = None,
    machine: options.Machine,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub repository.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Access token of the Hub; by default that of `hf auth login`.", envvar="HF_TOKEN")
    ] = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    sampling: options.Sampling,
    schedule: options.Schedule = None,
    window_fractions: options.WindowFractions = None,
    hop_fractions: Annotated[
        str | None,
        typer.Option(
            help="How far each window moves on, as a fraction of its length. Smaller remembers more. One, or one a "
            "level."
        ),
    ] = None,
    stop_level: Annotated[
        int, typer.Option(help="The lowest level to make: 0 is full quality; higher is a quick, rough draft.")
    ] = 0,
) -> None:
    """Make a song, or several, and write them to files. The last lines printed are the files' paths."""
    targets = song_files(output, raw, stream, num_samples, force, (prompt, words.lyrics_file))
    recording = existing_file("prompt", prompt)
    if extend is not None and (duration is not None or prompt is None):
        raise ValueError("`--extend` must go with `--prompt` and without `--duration`")
    windows = numbers("window-fractions", window_fractions, float)
    hops = numbers("hop-fractions", hop_fractions, float)

    with Waiting("loading torch", machine.quiet):
        from fast_jukebox.generation.request import SongRequest
        from fast_jukebox_cli.generate import generate as run
        from fast_jukebox_cli.model import ModelSource
        from fast_jukebox_cli.words import song_words

    made = run(
        SongRequest(
            duration=duration,
            num_samples=num_samples,
            stop_level=stop_level,
            seed=seed,
            schedule=choices(schedule),
            window_fractions=windows,
            hop_fractions=hops,
            engine=machine.engine,
            **sampling.settings(),
        ),
        song_words(words, offset),
        outputs=targets,
        stream=stream,
        raw=raw,
        prompt=recording,
        prompt_duration=prompt_duration,
        extend=extend,
        model=ModelSource(machine.model, revision, token, dtype, adapters(machine.adapter)),
        machine=machine,
    )
    typer.echo(printable(made), err=True)
    for target in targets or ():
        typer.echo(path_text(target))


def generate_many(
    *,
    output: Annotated[
        Path, typer.Option(help="A new folder for the songs, or one to resume or add songs to.", show_default=False)
    ],
    num_samples: Annotated[int | None, typer.Option(help="Songs to make.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help='A JSON Lines file with a song a line, such as {"artist": "...", "genre": "...", "lyrics": "..."}; in '
            "place of --num-samples."
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of each song. By default what the model says, mostly 20.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all songs; each depends on it and its number alone.")] = 0,
    artist: options.Artist = None,
    genre: options.Genre = None,
    sampling: options.Sampling,
    batch_size: Annotated[int, typer.Option(help="Songs sampled at once by each worker.")] = 4,
    model: options.Model = None,
    dtype: options.Dtype = None,
    device: options.WorkerDevice = "auto",
    sharing: options.Sharing,
    quiet: options.Quiet = False,
) -> None:
    """Make many songs with their metadata, a folder as training reads it. The last line printed is its path."""
    listed = existing_file("requests", requests)

    with Waiting("loading torch", quiet):
        from fast_jukebox_cli.generate_many import generate_many as run
        from fast_jukebox_cli.model import ModelSource
        from fast_jukebox_cli.words import song_words

    folder = output.expanduser()
    count = run(
        folder,
        num_samples=num_samples,
        requests=listed,
        words=song_words(options.Words(artist, genre)),
        settings={"duration": duration, **sampling.settings()},
        seed=seed,
        batch_size=batch_size,
        model=ModelSource(model, dtype=dtype),
        device=device,
        workers=sharing.chosen(device),
        quiet=quiet,
    )
    typer.echo(f"{count} songs, seed {seed}", err=True)
    typer.echo(path_text(folder))


def label(
    songs: options.Songs,
    *,
    output: Annotated[
        Path, typer.Option(help="A new folder of clips and labels, or one to resume.", show_default=False)
    ],
    clip_seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 30.0,
    sampling_rate: Annotated[int, typer.Option(help="Of the clips, which are mono.")] = 44100,
    labeller: Annotated[
        list[str] | None,
        typer.Option(
            help="What measures, again for several: key, tempo, tags (instruments, genre and moods), all by default; "
            "or MODULE:NAME of your own."
        ),
    ] = None,
    tempo_centre: Annotated[
        float | None,
        typer.Option(help="Tempi are doubled or halved to come nearest to this, in beats a minute; 100 by default."),
    ] = None,
    test_fraction: options.TestFraction = 0.1,
    sharing: options.Sharing,
    quiet: options.Quiet = False,
) -> None:
    """Cut songs into clips and label them: a dataset to train on. The last line printed is its folder."""
    with Waiting("loading torch", quiet):
        from fast_jukebox.labelling import TempoLabeller, dataset
        from fast_jukebox.labelling.labellers import load_labeller

    names = labeller or ["key", "tempo", "tags"]
    if tempo_centre is not None and "tempo" not in names:
        raise ValueError(f"`tempo_centre` must go with `--labeller tempo`, got {', '.join(names)}")
    report = dataset.label_songs(
        songs,
        output.expanduser(),
        dataset.LabelSettings(clip_seconds=clip_seconds, sampling_rate=sampling_rate),
        labellers=[
            TempoLabeller(tempo_centre) if name == "tempo" and tempo_centre is not None else load_labeller(name)
            for name in names
        ],
        test_fraction=test_fraction,
        workers=sharing.chosen(),
        progress=not quiet,
    )
    typer.echo(str(report), err=True)
    typer.echo(path_text(output.expanduser()))


def encode(
    songs: options.Songs,
    *,
    output: Annotated[Path, typer.Option(help="A new folder for the codes, or one to resume.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="A VQ-VAE or a complete model, by folder or Hub name; by default the one in the package."),
    ] = None,
    test_fraction: options.TestFraction = 0.1,
    device: options.WorkerDevice = "auto",
    sharing: options.Sharing,
    quiet: options.Quiet = False,
) -> None:
    """Encode songs, which priors are trained on. The last line printed is the folder of codes."""
    with Waiting("loading torch", quiet):
        from transformers.utils import logging

        from fast_jukebox.data import codes
        from fast_jukebox.data.songs import load_songs
        from fast_jukebox.data.splits import describe_splits
        from fast_jukebox.models.vqvae import FastJukeboxVQVAE
        from fast_jukebox_cli.model import chosen_device, model_name

    folder = output.expanduser()
    logging.disable_progress_bar()
    where = chosen_device(device)
    vqvae = FastJukeboxVQVAE.from_pretrained(model_name(model)).eval().to(where)
    found = load_songs(songs, test_fraction, progress=not quiet)
    encoded = codes.encode_songs(found, vqvae, folder, workers=sharing.chosen(device), progress=not quiet)
    typer.echo(describe_splits(encoded), err=True)
    typer.echo(path_text(folder))
