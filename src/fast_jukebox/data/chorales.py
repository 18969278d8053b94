"""A song compilation that anyone can make: J. S. Bach's chorales, played by a software synthesiser.

The scores (public domain) come with music21, which writes them as MIDI; tinysoundfont plays the MIDI with the
soundfont that pretty_midi carries. The order of a song's way is
`read_chorale` -> `choose_performance` -> `write_midi` -> `play_midi`, and `render_chorales` walks it for all of them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm.auto import tqdm

from fast_jukebox.audio.io import save_audio
from fast_jukebox.data.scanning import check_notes, check_sound
from fast_jukebox.data.scores import Chorale, NoChoraleError, chorale_paths, natural_order, read_chorale, require
from fast_jukebox.utils.files import write_file

GENERAL_MIDI_PROGRAMS = {
    "piano": 0,
    "harpsichord": 6,
    "church organ": 19,
    "reed organ": 20,
    "strings": 48,
    "slow strings": 49,
    "choir": 52,
    "voice": 53,
}
"""Instruments that a recipe may name, with their General MIDI program numbers (counted from 0)."""

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
METADATA_FILE = "metadata.jsonl"
_VELOCITIES = (92, 80, 80, 86)
_RECIPE_VERSION = 1


@dataclass(frozen=True)
class Performance:
    """How one chorale is played: instrument, semitones up (transposition) and quarter notes a minute."""

    instrument: str
    transposition: int
    bpm: int


@dataclass(frozen=True)
class ChoraleRecipe:
    """All that decides how the compilation sounds.

    Attributes:
        seed: of each song's instrument, key and tempo, which depend on the seed and the song's name alone.
        instruments: names in `GENERAL_MIDI_PROGRAMS`; each song is played by one of them.
        voices: how many voices are played, from the soprano down; 1 is the melody alone, `None` is all of them.
        transpositions: lowest and highest transposition in semitones.
        bpm: slowest and fastest tempo, in quarter notes a minute.
        sampling_rate: samples a second of the files.
        peak_decibels: the loudest sample of each song, relative to full scale.
        tail: seconds that the last chord rings on; it fades to zero over their second half.
    """

    seed: int = 0
    instruments: tuple[str, ...] = ("piano", "church organ", "reed organ", "strings", "choir")
    voices: int | None = None
    transpositions: tuple[int, int] = (-3, 3)
    bpm: tuple[int, int] = (66, 96)
    sampling_rate: int = 44100
    peak_decibels: float = -3.0
    tail: float = 1.5

    def __post_init__(self) -> None:
        """Refuse values that cannot be played, naming the field."""
        if not self.instruments or not set(self.instruments) <= set(GENERAL_MIDI_PROGRAMS):
            raise ValueError(f"`instruments` must be among {list(GENERAL_MIDI_PROGRAMS)}, got {self.instruments!r}")
        if self.voices is not None and not 1 <= self.voices <= 4:
            raise ValueError(f"`voices` must be from 1 to 4, or None for all, got {self.voices!r}")
        if not -12 <= self.transpositions[0] <= self.transpositions[1] <= 12:
            raise ValueError(f"`transpositions` must be lowest and highest in [-12, 12], got {self.transpositions!r}")
        if not 20 <= self.bpm[0] <= self.bpm[1] <= 300:
            raise ValueError(f"`bpm` must be slowest and fastest in [20, 300], got {self.bpm!r}")
        if not 8000 <= self.sampling_rate <= 192_000:
            raise ValueError(f"`sampling_rate` must be from 8000 to 192000, got {self.sampling_rate!r}")
        if not -60 <= self.peak_decibels <= 0:
            raise ValueError(f"`peak_decibels` must be in [-60, 0], got {self.peak_decibels!r}")
        if not 0 <= self.tail <= 30:
            raise ValueError(f"`tail` must be in [0, 30] seconds, got {self.tail!r}")

    def played(self, chorale: Chorale) -> Chorale:
        """The chorale with those of its voices that the recipe plays."""
        if self.voices is None:
            return chorale
        return replace(chorale, notes=tuple(note for note in chorale.notes if note.voice < self.voices))

    def fingerprint(self) -> str:
        """A short hash of the recipe and of this module's way of following it."""
        text = json.dumps({"version": _RECIPE_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class RenderReport:
    """What `render_chorales` did: `songs`, the rows of metadata.jsonl; `skipped` and `failed`, the reasons by name."""

    songs: list[dict[str, Any]] = field(default_factory=list)
    rendered: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of all songs together."""
        return sum(song["duration"] for song in self.songs)


def soundfont_path() -> Path:
    """Where pretty_midi's soundfont lies.

    Raises:
        ImportError: saying how to install what is missing.
    """
    return Path(require("pretty_midi").__file__).parent / "TimGM6mb.sf2"


def choose_performance(name: str, recipe: ChoraleRecipe) -> Performance:
    """The instrument, key and tempo of the song called `name`: a function of the recipe and the name alone."""
    digest = hashlib.sha256(f"{recipe.seed}/{name}".encode()).digest()
    draw = random.Random(int.from_bytes(digest, "big"))
    return Performance(draw.choice(recipe.instruments), draw.randint(*recipe.transpositions), draw.randint(*recipe.bpm))


def choose_split(name: str, test_share: float = 0.08) -> str:
    """`"test"` for about `test_share` of the songs, else `"train"`: a function of the name alone."""
    digest = hashlib.sha256(f"split/{name}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < test_share * 2**64 else "train"


def write_midi(chorale: Chorale, performance: Performance) -> bytes:
    """The chorale in the performance's key and tempo as a Standard MIDI File, a channel a voice, written by music21."""
    music21 = require("music21")
    translate = importlib.import_module("music21.midi.translate")
    score = music21.stream.Score()
    program = GENERAL_MIDI_PROGRAMS[performance.instrument]
    for voice in sorted({note.voice for note in chorale.notes}):
        part = music21.stream.Part()
        instrument = music21.instrument.Instrument()
        instrument.midiProgram = program
        part.insert(0, instrument)
        if voice == 0:
            part.insert(0, music21.tempo.MetronomeMark(number=performance.bpm))
        for note in chorale.notes:
            if note.voice == voice:
                sounding = music21.note.Note(note.pitch + performance.transposition, quarterLength=note.duration)
                sounding.volume.velocity = _VELOCITIES[min(voice, len(_VELOCITIES) - 1)]
                part.insert(note.onset, sounding)
        score.insert(0, part)
    file = translate.streamToMidiFile(score)
    # music21 shares one channel among equal instruments, where a note of one voice would stop another's.
    for index, track in enumerate(track for track in file.tracks if track.hasNotes()):
        for event in track.events:
            if event.channel is not None:
                event.channel = index + 1
    return file.writestr()


def play_midi(midi: bytes, sampling_rate: int = 44100, tail: float = 1.5) -> np.ndarray:
    """Play a Standard MIDI File with the soundfont: float32 (samples,), mono, of the synthesiser's own loudness.

    Args:
        midi: the file's bytes.
        sampling_rate: samples a second.
        tail: seconds after the last event, of which the second half fades to zero.

    Raises:
        ImportError: saying how to install what is missing.
        ValueError: when the bytes are no MIDI file.
    """
    tinysoundfont = require("tinysoundfont")
    midi_events = importlib.import_module("tinysoundfont.midi")
    synthesiser = tinysoundfont.Synth(gain=-12.0, samplerate=sampling_rate)
    sequencer = tinysoundfont.Sequencer(synthesiser)
    synthesiser.sfload(str(soundfont_path()))
    # At equal times a note ends before another of the same pitch begins, and programs are chosen before both.
    order = {midi_events.NoteOff: 1, midi_events.NoteOn: 2}
    try:
        events = midi_events.load_memory(midi)
    except RuntimeError as error:
        raise ValueError(f"`midi` is no MIDI file with notes: {error}") from error
    events.sort(key=lambda event: (event.t, order.get(type(event.action), 0)))
    pieces, position = [], 0
    for event in [*events, None]:
        time = events[-1].t + tail if event is None else event.t
        frames = round(time * sampling_rate) - position
        if frames > 0:
            stereo = np.frombuffer(synthesiser.generate_simple(frames), dtype=np.float32).reshape(frames, 2)
            pieces.append(stereo.mean(axis=1))
            position += frames
        if event is not None:
            sequencer.send(event)
    audio = np.concatenate(pieces) if pieces else np.zeros(1, np.float32)
    fade = min(round(tail / 2 * sampling_rate), len(audio))
    if fade:
        audio[-fade:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade, dtype=np.float32))
    return audio


def render_chorale(chorale: Chorale, recipe: ChoraleRecipe) -> tuple[np.ndarray, dict[str, Any]]:
    """Play one chorale and listen to the result.

    Returns:
        The audio, float32 (samples,), and its row of metadata without `file_name`.

    Raises:
        ValueError: when what was rendered is silent, has jumps, or does not contain the score's notes.
    """
    performance = choose_performance(chorale.name, recipe)
    audio = play_midi(write_midi(chorale, performance), recipe.sampling_rate, recipe.tail)
    peak = float(np.abs(audio).max())
    if not peak > 1e-4:
        raise ValueError(f"{chorale.name} is silent: its peak is {peak:g}")
    audio = audio * np.float32(10 ** (recipe.peak_decibels / 20) / peak)
    sound = check_sound(audio)
    notes = check_notes(audio, recipe.sampling_rate, sounding_notes(chorale, performance))
    if sound.largest_jump > 0.5 or sound.click > 12:
        raise ValueError(f"{chorale.name} jumps: {sound}")
    if notes.heard < 0.5 or notes.heard < notes.heard_elsewhere + 0.4:
        raise ValueError(f"{chorale.name} does not sound as written: {notes}")
    key = TONICS[(chorale.tonic + performance.transposition) % 12]
    return audio, {
        "title": chorale.title,
        "composer": "Johann Sebastian Bach",
        "catalogue": chorale.catalogue,
        "key": key,
        "mode": chorale.mode,
        "bpm": performance.bpm,
        "instruments": [performance.instrument],
        "transposition": performance.transposition,
        "duration": round(len(audio) / recipe.sampling_rate, 6),
        "sampling_rate": recipe.sampling_rate,
        "split": choose_split(chorale.name),
        "license": "composition: public domain; recording: CC0-1.0",
        "rms": round(sound.rms, 4),
        "largest_jump": round(sound.largest_jump, 4),
        "click": round(sound.click, 2),
        "notes_heard": round(notes.heard, 4),
        "notes_heard_elsewhere": round(notes.heard_elsewhere, 4),
        "score": chorale.fingerprint(),
        "recipe": recipe.fingerprint(),
    }


def sounding_notes(chorale: Chorale, performance: Performance) -> list[tuple[float, float, int]]:
    """The notes as (start, end, MIDI pitch), in seconds of the recording."""
    quarter = 60 / performance.bpm
    return [
        (note.onset * quarter, (note.onset + note.duration) * quarter, note.pitch + performance.transposition)
        for note in chorale.notes
    ]


def render_chorales(
    output_dir: str | Path,
    recipe: ChoraleRecipe | None = None,
    *,
    limit: int | None = None,
    paths: Iterable[Path] | None = None,
    progress: bool = True,
) -> RenderReport:
    """Make the compilation: a FLAC file a song and `metadata.jsonl`, in the layout of datasets' AudioFolder.

    Each file is written whole or not at all, and the metadata after each song; called again, what is finished by the
    same recipe is kept. A song that fails is reported and left out, and so is one whose notes, as far as they are
    played, were rendered already under another number (the corpus has some chorales twice, and more melodies).

    Args:
        output_dir: made where it is missing.
        recipe: `ChoraleRecipe()` by default.
        limit: render the first so many scores only.
        paths: scores; by default `chorale_paths()`.
        progress: show a bar.

    Raises:
        ImportError: saying how to install what is missing.
        OSError: when the files cannot be written.
    """
    recipe = recipe or ChoraleRecipe()
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, got {limit!r}")
    music21 = require("music21")
    for module in ("pretty_midi", "tinysoundfont"):
        require(module)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row["file_name"]: row for row in _finished_rows(folder, recipe)}
    names = {row["score"]: file_name for file_name, row in rows.items()}
    report = RenderReport()
    scores = list(chorale_paths() if paths is None else paths)[:limit]
    for path in tqdm(scores, desc="chorales", unit="song", disable=not progress):
        file_name = f"{path.stem}.flac"
        if file_name in rows:
            continue
        try:
            chorale = recipe.played(read_chorale(path))
            if chorale.fingerprint() in names:
                report.skipped[path.stem] = f"has the notes of {names[chorale.fingerprint()]}"
                continue
            audio, row = render_chorale(chorale, recipe)
        except NoChoraleError as error:
            report.skipped[path.stem] = str(error)
            continue
        except (ValueError, ArithmeticError, LookupError, music21.exceptions21.Music21Exception) as error:
            report.failed[path.stem] = f"{type(error).__name__}: {error}"
            continue
        save_audio(folder / file_name, audio, recipe.sampling_rate)
        rows[file_name] = {"file_name": file_name, **row}
        names[row["score"]] = file_name
        report.rendered += 1
        _write_rows(folder, rows)
    _write_rows(folder, rows)
    report.songs = [rows[name] for name in sorted(rows, key=natural_order)]
    return report


def _finished_rows(folder: Path, recipe: ChoraleRecipe) -> list[dict[str, Any]]:
    """Rows of the folder's metadata whose file is there, as long as it should be and made by this recipe."""
    path = folder / METADATA_FILE
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    finished = []
    for row in rows:
        file = folder / row["file_name"]
        if row.get("recipe") == recipe.fingerprint() and file.exists():
            info = soundfile.info(str(file))
            if info.frames == round(row["duration"] * recipe.sampling_rate):
                finished.append(row)
    return finished


def _write_rows(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    lines = [json.dumps(rows[name], ensure_ascii=False) + "\n" for name in sorted(rows, key=natural_order)]
    write_file(folder / METADATA_FILE, "".join(lines))
