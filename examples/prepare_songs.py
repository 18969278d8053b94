# /// script
# dependencies = ["fast-jukebox[songs]"]
# ///
"""Make a compilation of songs to train on: J. S. Bach's chorales, played by a software synthesiser.

The scores are in the public domain and come with music21, the sounds with pretty_midi. The synthesiser is installed
without its dependencies, because its optional player needs portaudio to build:

    pip install "fast-jukebox[songs]"
    pip install --no-deps tinysoundfont

All 400 chorales, 4.8 hours of sound (680 MB), made in 8 minutes on one core:

    python examples/prepare_songs.py --output_dir songs

Eight of them, by the church organ, in their own keys:

    python examples/prepare_songs.py --output_dir songs-organ --limit 8 --instruments "church organ" \
        --lowest_transposition 0 --highest_transposition 0

Run again, it keeps what is finished and goes on.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from transformers import HfArgumentParser

from fast_jukebox.data.chorales import GENERAL_MIDI_PROGRAMS, ChoraleRecipe, render_chorales

_DEFAULT = ChoraleRecipe()


@dataclass
class SongArguments:
    """What to render, and how."""

    output_dir: str = field(metadata={"help": "Folder for the FLAC files and metadata.jsonl; made where missing."})
    limit: int | None = field(default=None, metadata={"help": "Render the first so many scores only."})
    seed: int = field(default=_DEFAULT.seed, metadata={"help": "Of each song's instrument, key and tempo."})
    instruments: list[str] = field(
        default_factory=lambda: list(_DEFAULT.instruments),
        metadata={"help": f"One of them plays each song. Among: {', '.join(GENERAL_MIDI_PROGRAMS)}."},
    )
    voices: int | None = field(
        default=_DEFAULT.voices, metadata={"help": "Play the highest so many voices only; 1 is the melody alone."}
    )
    lowest_transposition: int = field(default=_DEFAULT.transpositions[0], metadata={"help": "In semitones."})
    highest_transposition: int = field(default=_DEFAULT.transpositions[1], metadata={"help": "In semitones."})
    slowest_bpm: int = field(default=_DEFAULT.bpm[0], metadata={"help": "Quarter notes a minute."})
    fastest_bpm: int = field(default=_DEFAULT.bpm[1], metadata={"help": "Quarter notes a minute."})
    sampling_rate: int = field(default=_DEFAULT.sampling_rate, metadata={"help": "Samples a second."})


def main(arguments: list[str] | None = None) -> None:
    """Render the songs and print what came of it."""
    (args,) = HfArgumentParser(SongArguments).parse_args_into_dataclasses(arguments)
    recipe = ChoraleRecipe(
        seed=args.seed,
        instruments=tuple(args.instruments),
        voices=args.voices,
        transpositions=(args.lowest_transposition, args.highest_transposition),
        bpm=(args.slowest_bpm, args.fastest_bpm),
        sampling_rate=args.sampling_rate,
    )
    report = render_chorales(args.output_dir, recipe, limit=args.limit)
    for word, reasons in (("Skipped", report.skipped), ("FAILED", report.failed)):
        for name, reason in reasons.items():
            print(f"{word} {name}: {reason}")
    summary = {
        "output_dir": args.output_dir,
        "songs": len(report.songs),
        "rendered_now": report.rendered,
        "skipped": len(report.skipped),
        "failed": len(report.failed),
        "seconds": round(report.seconds, 3),
        "split": Counter(song["split"] for song in report.songs),
        "instruments": Counter(song["instruments"][0] for song in report.songs),
        "mode": Counter(song["mode"] for song in report.songs),
        "fewest_notes_heard": min((song["notes_heard"] for song in report.songs), default=None),
        "largest_jump": max((song["largest_jump"] for song in report.songs), default=None),
        "largest_click": max((song["click"] for song in report.songs), default=None),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
