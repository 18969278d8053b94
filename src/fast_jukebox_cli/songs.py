"""The commands that make, label and encode songs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from fast_jukebox_cli import options
from fast_jukebox_cli.values import Waiting, adapters, choices, existing_file, numbers, path_text, printable, song_files

_MOST_SONGS = 10**6
_SONG_FILE = "song-{:05d}.flac"


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
    given = existing_file("requests", requests)
    if not 1 <= batch_size <= 4096:
        raise ValueError(f"`batch_size` must be from 1 to 4096, got {batch_size}")
    if (num_samples is None) == (given is None) or (given is not None and (artist or genre)):
        raise ValueError(
            "one of `num_samples` and `requests` must be given, the latter without `--artist` and `--genre`"
        )

    with Waiting("loading torch", quiet):
        import torch
        from tqdm.auto import tqdm

        from fast_jukebox.data.metadata import METADATA_FILE, metadata_lines
        from fast_jukebox.evaluation.systems import FACTS, claim_songs, sample_songs
        from fast_jukebox.generation.metadata import complete_metadata, draw_metadata, encode_metadata
        from fast_jukebox.generation.request import SongRequest
        from fast_jukebox.utils.files import clear_temporary, write_file
        from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name
        from fast_jukebox_cli.words import read_requests, song_words, words_for

    folder, workers = output.expanduser(), sharing.chosen(device)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FACTS).is_file():
        raise ValueError(
            f"`output` must be a new or empty folder, or one to resume, got {str(folder)!r}, which holds something else"
        )
    words = song_words(options.Words(artist, genre))
    rows = None if given is None else read_requests(given)
    count = num_samples if rows is None else len(rows)
    if count is None or not 1 <= count <= _MOST_SONGS:
        raise ValueError(f"`num_samples` must be from 1 to {_MOST_SONGS}, got {count}")
    if (folder / _SONG_FILE.format(count)).exists():
        raise ValueError(
            f"`num_samples` must be at least the number of songs that {str(folder)!r} holds, which have a line each in "
            f"its {METADATA_FILE}, got {count}"
        )
    settings: options.SongSettings = {"duration": duration, **sampling.settings()}
    request = SongRequest(**settings, seed=seed)
    source, where = ModelSource(model, dtype=dtype), chosen_device(device)
    loaded = load_model(source, where if workers.in_process else torch.device("cpu"))
    metadata = words_for(loaded, words) if rows is None else rows
    seeds, numbered = [seed] * count, range(count)
    drawn = (
        draw_metadata(loaded, seeds, numbered)
        if metadata is None
        else complete_metadata(loaded, metadata, seeds, numbered)  # of the songs of their numbers, as they are sampled
    )
    metadata = drawn or metadata
    if metadata is not None:
        encode_metadata(loaded, metadata)  # says what is wrong with them, before the first song
    digest = sha256(json.dumps(words if rows is None else rows, sort_keys=True).encode()).hexdigest()
    claim_songs(folder, loaded, {**settings, "seed": seed, "metadata": digest})
    clear_temporary(folder)
    paths = [folder / _SONG_FILE.format(number) for number in range(count)]
    name = model_name(model)
    elsewhere = replace(source, name=str(Path(name).absolute()) if Path(name).is_dir() else name)
    with tqdm(total=count, desc="sampling", unit="song", disable=quiet) as bar:
        sample_songs(
            (lambda: loaded) if workers.in_process else partial(load_model, elsewhere, where),
            paths,
            replace(request, metadata=metadata),
            batch_size=batch_size,
            after=lambda done: bar.update(done - bar.n),
            workers=workers,
        )
        bar.update(count - bar.n)
    each = metadata if isinstance(metadata, list) else [metadata or {}] * count
    kept = ("artist", "genre", "lyrics")
    lines = (
        {"file_name": path.name, "song": number, "seed": seed, **{name: own.get(name) for name in kept}}
        for number, (path, own) in enumerate(zip(paths, each, strict=True))
    )
    write_file(folder / METADATA_FILE, metadata_lines(lines))
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
