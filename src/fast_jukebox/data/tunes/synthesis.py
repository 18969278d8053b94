"""Sounding notes to sound: a soundfont played by tinysoundfont."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fast_jukebox.data.tunes.performing import SoundingNote
from fast_jukebox.data.tunes.scores import DRUM_VOICE, require

_SETTLING = 4096
_FONT_LICENSES = {"timgm6mb": "GPL-2.0-only", "fluidr3": "MIT", "musescore_general": "MIT"}


def soundfont_path(soundfont: str | os.PathLike[str] | None = None) -> Path:
    """Where the soundfont lies: the one named, which must be there (`ValueError`), else pretty_midi's TimGM6mb."""
    if soundfont is None:
        return Path(str(require("pretty_midi").__file__)).parent / "TimGM6mb.sf2"
    if not Path(soundfont).is_file():
        raise ValueError(f"`soundfont` must be an .sf2 or .sf3 file, and there is none at {str(soundfont)!r}")
    return Path(soundfont)


def soundfont_license(path: Path) -> str:
    """Licence of a soundfont that is known by its file's name, as its Debian package states it."""
    name = path.name.lower()
    return next((terms for known, terms in _FONT_LICENSES.items() if name.startswith(known)), "unknown")


class Player:
    """A synthesiser with its soundfont loaded, which takes longer than to play a song.

    Raises:
        ImportError: says how to install what is missing.
        ValueError: there is no such soundfont, or it cannot be read.
    """

    def __init__(self, soundfont: str | os.PathLike[str] | None = None, sampling_rate: int = 44100) -> None:
        tinysoundfont = require("tinysoundfont")
        self.path, self.sampling_rate = soundfont_path(soundfont), sampling_rate
        self._synthesiser = tinysoundfont.Synth(gain=-12.0, samplerate=sampling_rate)
        try:
            self._font = self._synthesiser.sfload(str(self.path))
        except RuntimeError as error:
            raise ValueError(f"`soundfont` {self.path} cannot be read: {error}") from error

    def play(
        self,
        notes: Sequence[SoundingNote],
        programs: Mapping[int, int],
        tail: float = 1.0,
        longest: float = 600.0,
        grid: int = 1,
    ) -> np.ndarray:
        """Play notes: float32 (samples,), mono, of the synthesiser's own loudness.

        Args:
            programs: General MIDI program of each channel that the notes use; channel 9 is the drum kit.
            tail: seconds after the last note, of which the second half fades to zero.
            longest: seconds after which the recording ends.
            grid: notes begin and end at multiples of so many samples.
        """
        synthesiser = self._synthesiser
        for channel in range(16):
            synthesiser.sounds_off(channel)
        synthesiser.generate_simple(_SETTLING)  # what was cut off is heard for some milliseconds
        for channel, program in programs.items():
            drums = channel == DRUM_VOICE
            synthesiser.program_select(channel, self._font, 128 if drums else 0, 0 if drums else program)
        # At equal times a note ends before another of the same pitch begins.
        events = [(note.end, 0, note) for note in notes] + [(note.start, 1, note) for note in notes]
        events.sort(key=lambda event: (event[0], event[1], event[2].channel, event[2].pitch))
        last = min(max((time for time, _, _ in events), default=0.0) + tail, longest)
        total = round(last * self.sampling_rate)
        audio = np.zeros(max(total, 1), np.float32)
        position = 0
        for time, begins, note in [*events, (last, 2, None)]:
            step = grid if note is not None else 1
            place = min(round(time * self.sampling_rate / step) * step, total)
            if place > position:
                stereo = np.frombuffer(synthesiser.generate_simple(place - position), np.float32)
                np.add(stereo[::2], stereo[1::2], out=audio[position:place])
                position = place
            if note is None or position >= total:
                break
            if begins:
                synthesiser.noteon(note.channel, note.pitch, note.velocity)
            else:
                synthesiser.noteoff(note.channel, note.pitch)
        audio *= 0.5  # the mean of left and right
        fade = min(round(tail / 2 * self.sampling_rate), total)
        if fade:
            audio[total - fade : total] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade, dtype=np.float32))
        return audio
