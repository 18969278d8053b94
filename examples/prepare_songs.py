#!/usr/bin/env python
"""Make songs to train on: dance tunes, airs and chorales in the public domain, played by a software synthesiser.

Forty songs of every kind, each by an instrument that suits it:

    python examples/prepare_songs.py --output_dir songs/tunes --songs 40

All of J. S. Bach's chorales in four voices, 4.5 hours of sound:

    python examples/prepare_songs.py --output_dir songs/chorales --collections chorales --voices 4 --songs 400 \
        --instruments piano "church organ" "reed organ" strings choir

The scores come with music21 (`--collections oneill ryan chorales`; docs/train.md states their terms), and are read
once, into `scores.jsonl.gz` beside the songs. A row of metadata.jsonl names the song's kind (`genre`), instrument
(`artist`), key, tempo, split and licences. `--soundfont` plays another soundfont than pretty_midi's. Run the same
command again to resume after an interruption: finished songs are kept.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume="")

from transformers.hf_argparser import HfArg

from fast_jukebox.data.tunes.accompaniment import PARTS
from fast_jukebox.data.tunes.performing import INSTRUMENTS
from fast_jukebox.data.tunes.recipe import SongRecipe, plan_performances, read_scores
from fast_jukebox.data.tunes.rendering import render_songs
from fast_jukebox.data.tunes.scores import GENRES, choose_splits, load_scores, save_scores
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script

_DEFAULT = SongRecipe()


@dataclass
class SongArguments:
    """The songs, and how they are played."""

    output_dir: str = HfArg(help="Folder of the songs and their metadata.jsonl.")
    songs: int | None = HfArg(default=None, help="How many; by default every score once.")
    collections: list[str] = HfArg(default_factory=lambda: ["oneill", "ryan", "chorales"], help="Also: aird.")
    scores: str | None = HfArg(
        default=None, help="File of scores; by default scores.jsonl.gz in the folder, made if missing."
    )
    genres: list[str] = HfArg(
        default_factory=lambda: list(GENRES), help=f"Kinds that are played. Among: {', '.join(GENRES)}."
    )
    instruments: list[str] = HfArg(
        default_factory=lambda: list(_DEFAULT.instruments), help=f"Among: {', '.join(INSTRUMENTS)}."
    )
    soundfont: str | None = HfArg(default=None, help="An .sf2 or .sf3 file; pretty_midi's by default.")
    voices: int | None = HfArg(default=1, help="Play the highest so many voices only.")
    accompaniment: list[str] = HfArg(default_factory=list, help=f"Added to tunes by rule, among: {', '.join(PARTS)}.")
    balance: float = HfArg(default=0.5, help="0 plays each score equally often, 1 each kind.")
    seed: int = HfArg(default=0, help="Of each song's instrument, key, tempo and unevenness.")
    human: float = HfArg(default=_DEFAULT.human, help="0 plays as written, 1 as unevenly as a person.")
    beat_grid: int = HfArg(
        default=_DEFAULT.beat_grid,
        help="Samples of which a beat is a multiple, 0 for any tempo; the embedded model's songs have 12288.",
    )
    from_first_bar: bool = HfArg(
        default=_DEFAULT.from_first_bar, help="Leave out what is before the first whole bar of a tune."
    )
    scales: list[str] = HfArg(
        default_factory=lambda: list(_DEFAULT.scales),
        help="Tonics of the major scales that songs are played in, or `written`: as the score has it.",
    )
    lowest_transposition: int = HfArg(
        default=_DEFAULT.transpositions[0], help="In semitones, beside the move to a scale."
    )
    highest_transposition: int = HfArg(default=_DEFAULT.transpositions[1], help="In semitones.")
    sampling_rate: int = HfArg(default=_DEFAULT.sampling_rate, help="Samples a second.")
    shortest: float = HfArg(default=_DEFAULT.shortest, help="Seconds of a song, at least: tunes are played again.")
    longest: float = HfArg(default=_DEFAULT.longest, help="Seconds of a song, at most.")
    test_fraction: float = HfArg(default=0.08, help="Of the tunes, that are held out.")
    processes: int | None = HfArg(default=None, help="That play; by default one a core.")
    scores_only: bool = HfArg(default=False, help="Read the scores into their file, and play nothing.")


def main(arguments: list[str] | None = None) -> None:
    """Render the songs and print what came of it."""
    (args,) = parse_arguments((SongArguments,), arguments)
    recipe = SongRecipe(
        seed=args.seed,
        genres=tuple(args.genres),
        instruments=tuple(args.instruments),
        voices=args.voices,
        accompaniment=tuple(args.accompaniment),
        scales=() if args.scales == ["written"] else tuple(args.scales),
        transpositions=(args.lowest_transposition, args.highest_transposition),
        human=args.human,
        beat_grid=args.beat_grid,
        from_first_bar=args.from_first_bar,
        sampling_rate=args.sampling_rate,
        shortest=args.shortest,
        longest=args.longest,
    )
    if args.songs is not None and args.songs < 1:
        raise ValueError(f"`songs` must be at least 1, got {args.songs}")
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(args.scores) if args.scores else folder / "scores.jsonl.gz"
    if not path.exists():
        found, skipped = read_scores(args.collections)
        save_scores(path, found)
        for name, reason in skipped.items():
            print(f"Left out {name}: {reason}")
    scores = [score for score in load_scores(path) if score.genre in recipe.genres]
    if not scores:
        raise ValueError(f"{path} holds no score of the kinds {', '.join(recipe.genres)}")
    if args.scores_only:
        print(json.dumps({"scores": len(scores), "genres": Counter(score.genre for score in scores)}, indent=2))
        return
    if args.songs is None:
        plan = [(score, 0) for score in scores]
    else:
        plan = plan_performances(scores, args.songs, seed=args.seed, balance=args.balance)
    report = render_songs(
        folder,
        plan,
        choose_splits(scores, args.test_fraction),
        recipe,
        soundfont=args.soundfont,
        processes=args.processes,
    )
    for name, reason in report.failed.items():
        print(f"FAILED {name}: {reason}")
    summary = {
        "output_dir": args.output_dir,
        "songs": len(report.songs),
        "rendered_now": report.rendered,
        "failed": len(report.failed),
        "seconds": round(report.seconds, 3),
        **{name: Counter(song[name] for song in report.songs) for name in ("split", "genre", "artist", "mode")},
        "fewest_notes_heard": min((song["notes_heard"] for song in report.songs), default=None),
        "largest_jump": max((song["largest_jump"] for song in report.songs), default=None),
        "largest_click": max((song["click"] for song in report.songs), default=None),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    sys.exit(run_script(main, resume=""))
