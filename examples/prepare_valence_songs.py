# /// script
# dependencies = ["fast-jukebox[songs]"]
# ///
"""Make clips that are labelled with an emotional valence by how they are played; no listener is asked.

Each chorale's melody and voices are played in four manners, by each instrument: activated (fast, detached, loud) or
deactivated (slow, held, soft), pleasant (major) or unpleasant (minor, the same notes with other degrees). These are
cues that performers use and listeners mostly agree on (Juslin 2001; Bresin and Friberg 2011); a classifier of them is
one of this recipe.

    pip install "fast-jukebox[songs]"
    pip install --no-deps tinysoundfont
    python examples/prepare_valence_songs.py --output_dir songs/valence --scores 24

Run again, it keeps what is finished and goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    from fast_jukebox.training.scripts import loading

    loading(resume="")

import numpy as np
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg

from fast_jukebox.audio import save_audio
from fast_jukebox.data.tunes.chorales import chorale_paths, read_chorale
from fast_jukebox.data.tunes.performing import INSTRUMENTS, Performance, beat_quarters, perform
from fast_jukebox.data.tunes.scores import Score, ScoreError, ScoreNote
from fast_jukebox.data.tunes.synthesis import Player
from fast_jukebox.models.valence import QUADRANTS
from fast_jukebox.training.arguments import parse_arguments
from fast_jukebox.training.scripts import run_script
from fast_jukebox.utils.files import write_file

# Quarter notes a minute, and how much of a note's length sounds.
ACTIVATED, DEACTIVATED = (140, 0.5), (58, 1.0)
LOUD_DECIBELS, SOFT_DECIBELS = -3.0, -15.0
# Semitones above the tonic: degrees that differ between major and (harmonic) minor.
TO_MINOR, TO_MAJOR = {4: 3, 9: 8}, {3: 4, 8: 9, 10: 11}


@dataclass
class ClipArguments:
    """The songs to play, and their number."""

    output_dir: str = HfArg(help="Folder for the FLAC files and metadata.jsonl; made where missing.")
    scores: int = HfArg(default=24, help="Chorales, from the first of the corpus on.")
    instruments: list[str] = HfArg(
        default_factory=lambda: ["piano", "church organ", "reed organ", "strings", "choir"],
        help=f"Each plays every score. Among: {', '.join(INSTRUMENTS)}.",
    )
    seconds: float = HfArg(default=17.0, help="Of each clip, at most.")
    sampling_rate: int = HfArg(default=16000, help="Samples a second.")


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    """Play the clips; returns their rows of metadata.jsonl."""
    (args,) = parse_arguments((ClipArguments,), arguments)
    unknown = set(args.instruments) - set(INSTRUMENTS)
    if unknown or args.scores < 1 or not args.seconds > 1:
        raise ValueError(
            f"`--instruments` must be known, `--scores` at least 1 and `--seconds` over 1, got {sorted(unknown)}, "
            f"{args.scores} and {args.seconds}"
        )
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    player = Player(None, args.sampling_rate)
    rows: list[dict[str, object]] = []
    total = args.scores * len(args.instruments) * len(QUADRANTS)
    with tqdm(total=total, desc="clips", unit="clip") as bar:
        for chorale in chorales(args.scores):
            for instrument in args.instruments:
                for quadrant in QUADRANTS:
                    name = f"{chorale.name}-{instrument.replace(' ', '-')}-{quadrant}.flac"
                    path = folder / name
                    if not path.is_file():
                        clip = play(chorale, instrument, quadrant, args.seconds, player)
                        save_audio(path, clip, args.sampling_rate)
                    facts = {"score": chorale.name, "license": "composition: public domain"}
                    rows.append({"file_name": name, "valence": quadrant, "instruments": [instrument], **facts})
                    bar.update()
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_file(folder / "metadata.jsonl", text)
    return rows


def chorales(count: int) -> list[Score]:
    """The first so many scores of the corpus that are chorales in major or minor."""
    found: list[Score] = []
    for path in chorale_paths():
        if len(found) == count:
            break
        try:
            found.append(read_chorale(path))
        except ScoreError:
            continue
    return found


def in_manner(chorale: Score, quadrant: str, seconds: float) -> tuple[Score, Performance]:
    """A chorale's first seconds with the notes and lengths of a quadrant, and its tempo."""
    bpm, sounding = ACTIVATED if quadrant[0] == "A" else DEACTIVATED
    wanted = "major" if quadrant[1] == "P" else "minor"
    degrees = {} if chorale.mode == wanted else TO_MAJOR if wanted == "major" else TO_MINOR
    last = seconds * bpm / 60

    def played(note: ScoreNote) -> ScoreNote:
        degree = (note.pitch - chorale.tonic) % 12
        return replace(note, pitch=note.pitch + degrees.get(degree, degree) - degree, duration=note.duration * sounding)

    notes = tuple(played(note) for note in chorale.notes if note.onset < last)
    changed = replace(chorale, notes=notes, mode=wanted)
    return changed, Performance("piano", 0, bpm / beat_quarters(changed), human=0.0)


def play(chorale: Score, instrument: str, quadrant: str, seconds: float, player: Player) -> np.ndarray:
    """A clip, float32 (samples,)."""
    notes = perform(*in_manner(chorale, quadrant, seconds))
    programs = dict.fromkeys({note.channel for note in notes}, INSTRUMENTS[instrument].program)
    audio = player.play(notes, programs, tail=1.5, longest=seconds)
    decibels = LOUD_DECIBELS if quadrant[0] == "A" else SOFT_DECIBELS
    peak = float(np.abs(audio).max())
    if not peak > 1e-4:
        raise ValueError(f"{chorale.name} by {instrument} is silent")
    return audio * np.float32(10 ** (decibels / 20) / peak)


if __name__ == "__main__":
    sys.exit(run_script(main, resume=""))
