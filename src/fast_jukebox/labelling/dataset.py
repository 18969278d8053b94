"""A folder of songs to a labelled dataset of clips, in rows that audiocraft reads and a folder that `load_songs` reads.
Known labels of a song come first, then the measured ones of a clip.

| in the folder | content |
|---|---|
| `clips/SONG-0123456789/000.flac` | the clips of a song |
| `measured/SONG-0123456789-000.json` | what was measured of up to sixteen of them; work resumes with those missing |
| `train.jsonl`, `test.jsonl` | a row a clip, with audiocraft's keys |
| `metadata.jsonl` | the same labels with the song, the clip's place in it and the source of each |
| `labels.json` | how clips were cut and labels measured |
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from anyascii import anyascii
from torch import Tensor
from tqdm.auto import tqdm

from fast_jukebox.audio.io import audio_tags, load_audio, save_audio
from fast_jukebox.audio.resample import check_rate
from fast_jukebox.data.metadata import METADATA_FILE, metadata_lines
from fast_jukebox.data.scanning import SongLimits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.labelling.labellers import LABELLERS, Label, Labeller, load_labeller
from fast_jukebox.sampling.machine import single_threads
from fast_jukebox.utils.files import JsonObject, check_apart, claim_folder, clear_temporary, read_file, write_file
from fast_jukebox.utils.text import printable, shown
from fast_jukebox.utils.workers import Workers, map_shards

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


LABELS = ("key", "artist", "description", "bpm", "genre", "title", "instrument", "moods")
"""Labels of a clip, each of which may be null."""

ROW_KEYS = (
    *("key", "artist", "sample_rate", "file_extension", "description", "duration", "bpm", "genre", "title"),
    *("instrument", "moods", "path"),
)
"""Keys of a row of `train.jsonl`: those of audiocraft's music rows."""

METADATA, FILE_TAGS, COMPOSED = "metadata", "file tags", "composed of the other labels"

_LONGEST = 200
_MOST_MOODS = 16


def tidy_label(name: str, value: object) -> Label | None:
    """A label as rows have it, or `None` where the value cannot be one.

    Args:
        value: anything. Text becomes one printable line of at most 200 characters; lists become text with commas, but
            for moods, of which text becomes a list.
    """
    if name == "bpm":
        try:
            number = float(cast(float, value))
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) and 0 < number <= 1000 and not isinstance(value, bool) else None
    given = value if isinstance(value, list | tuple) else [value]
    texts = [printable(str(word), _LONGEST) for word in given[:_MOST_MOODS] if isinstance(word, str | int | float)]
    words = [word for word in (" ".join(text.split()) for text in texts) if word]
    if not words:
        return None
    return words if name == "moods" else ", ".join(words)[:_LONGEST]


def known_labels(row: Mapping[str, object], tags: Mapping[str, str]) -> dict[str, tuple[Label, str]]:
    """Labels of a song with their source: the metadata beside it, else the file's own tags.

    Args:
        row: of [`~fast_jukebox.data.songs.load_songs`]; a `mode` such as "minor" goes with the `key`.
    """
    found: dict[str, tuple[Label, str]] = {}
    for source, values in (
        (FILE_TAGS, {name: tags.get(name) for name in ("artist", "title", "genre")}),
        (METADATA, row),
    ):
        for name in LABELS:
            label = tidy_label(name, values.get(name))
            if label is not None:
                found[name] = (label, source)
    key, mode = found.get("key"), row.get("mode")
    if key is not None and mode in ("major", "minor") and " " not in str(key[0]):
        found["key"] = (f"{key[0]} {mode}", METADATA)
    return found


def all_labels(
    known: Mapping[str, tuple[Label, str]], measured: Mapping[str, tuple[Label, str]]
) -> tuple[dict[str, Label | None], dict[str, str | None]]:
    """Labels of a clip by name, and the source of each; both `None` where nothing is known."""
    both = {**measured, **known}
    labels: dict[str, Label | None] = {name: both[name][0] if name in both else None for name in LABELS}
    sources = {name: both[name][1] if name in both else None for name in LABELS}
    if labels["description"] is None and (text := describe(labels)):
        labels["description"], sources["description"] = text, COMPOSED
    return labels, sources


def describe(labels: Mapping[str, Label | None]) -> str:
    """A description of a clip by its labels; empty where they state nothing of the sound.

    >>> describe({"genre": "folk", "instrument": "flute, harp", "moods": ["happy"], "key": "D major", "bpm": 96.0})
    'happy folk music with flute, harp, in D major, at 96 beats a minute'
    """
    moods, genre, bpm = labels.get("moods"), labels.get("genre"), labels.get("bpm")
    kind = [" and ".join(moods) if isinstance(moods, list) else "", str(genre or ""), "music"]
    parts = [" ".join(word for word in kind if word)]
    if labels.get("instrument"):
        parts[0] += f" with {labels['instrument']}"
    if labels.get("key"):
        parts.append(f"in {labels['key']}")
    if isinstance(bpm, float):
        parts.append(f"at {bpm:g} beats a minute")
    return ", ".join(parts) if parts != ["music"] else ""


logger = logging.getLogger(__name__)

SETTINGS = "labels.json"
_CLIPS, _MEASURED, _UNUSED = "clips", "measured", ".unused"
_CLIP_FILE = "{:03d}.flac"
_CLIPS_IN_A_SHARD = 16
_LARGEST_FILE = 2**22
_LONGEST_STEM = 40


@dataclass(frozen=True)
class LabelSettings:
    """Settings of the clips.

    Attributes:
        clip_seconds: length of a clip. The rest at a song's end is one too if it has half the length; a song that is
            shorter is one clip.
        sampling_rate: of the clips, which are mono.
        silence: a clip whose loudest sample stays below this, of a full scale of 1, is left out.
    """

    clip_seconds: float = 30.0
    sampling_rate: int = 44100
    silence: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse what no clip can have, naming the field."""
        if not 1 <= self.clip_seconds <= 3600:
            raise ValueError(f"`clip_seconds` must be from 1 to 3600, got {shown(self.clip_seconds)}")
        check_rate("sampling_rate", self.sampling_rate)
        if not 8000 <= self.sampling_rate <= 192_000:
            raise ValueError(f"`sampling_rate` must be from 8000 to 192000, got {shown(self.sampling_rate)}")
        if not 0 <= self.silence < 1:
            raise ValueError(f"`silence` must be in [0, 1), got {shown(self.silence)}")


@dataclass
class LabelReport:
    """Counts of the clips of [`label_songs`]."""

    clips: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    labelled: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        total = max(self.clips.total(), 1)
        clips = ", ".join(f"{count} of {split}" for split, count in self.clips.items())
        labelled = ", ".join(f"{name} {self.labelled[name] / total:.0%}" for name in LABELS)
        return f"clips: {clips}; {self.seconds / 3600:.3g} hours; labelled: {labelled}"


@dataclass(frozen=True)
class _Song:
    """A song's split and row, its folder below `clips`, and the spans (start, duration) of its clips in seconds."""

    split: str
    row: int
    folder: str
    spans: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Shard:
    """Neighbouring clips of a song, from the number `first` on, and the song's sound, which only workers receive."""

    song: _Song
    first: int
    sound: Mapping[str, object] | None = None

    @property
    def file(self) -> str:
        return f"{self.song.folder}-{self.first:03d}.json"

    @property
    def numbers(self) -> range:
        return range(self.first, min(self.first + _CLIPS_IN_A_SHARD, len(self.song.spans)))


def label_songs(
    source: str | os.PathLike[str] | DatasetDict,
    output: str | os.PathLike[str],
    settings: LabelSettings | None = None,
    *,
    labellers: Sequence[Labeller] | None = None,
    test_fraction: float = DEFAULT_TEST_FRACTION,
    limits: SongLimits | None = None,
    workers: Workers | None = None,
    progress: bool = True,
) -> LabelReport:
    """Cut songs into clips and label them: by the metadata beside them, by their files' tags, and by what is measured.

    Labels that none of these gives are null. Interrupted and called again, it resumes with the clips that are missing;
    labels added to the metadata since are taken without measuring again. Clips of songs that are no longer there are
    moved to `.unused` in the folder.

    Args:
        source: as for [`~fast_jukebox.data.songs.load_songs`]. Clips of a song go to the same split, by its rule.
        output: folder, made where it is missing; `load_songs` reads it, and `train.jsonl` and `test.jsonl` in it have
            the twelve keys of audiocraft's rows, `path` relative to the folder.
        labellers: of two that give the same label the first counts. By default key, tempo and tags.
        workers: processes that cut and measure; the calling one by default.

    Raises:
        ValueError: what `load_songs` refuses, or the folder holds clips that were cut or measured otherwise.
        ImportError: a default labeller's package is not installed.
        OSError: the folder cannot be written.
    """
    output, settings = Path(output), settings or LabelSettings()
    labellers = [load_labeller(name) for name in LABELLERS] if labellers is None else list(labellers)
    if isinstance(source, str | os.PathLike) and output.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"`output` must lie outside the songs' folder, or its clips were songs, got {str(output)!r}")
    _claim_folder(output, settings, labellers)
    songs = load_songs(source, test_fraction, limits=limits, progress=progress)
    check_apart(songs, "splits of `source`")
    cut = [
        _cut(split, row, song, settings) for split, rows in songs.items() for row, song in enumerate(_metadata(rows))
    ]
    _set_aside(output, {song.folder for song in cut})
    shards = [_Shard(song, first) for song in cut for first in range(0, len(song.spans), _CLIPS_IN_A_SHARD)]
    missing = [shard for shard in shards if _measured(output, shard) is None]
    todo = (replace(shard, sound=songs[shard.song.split][shard.song.row]["audio"]) for shard in missing)
    setup = partial(_ClipLabeller, output.absolute(), settings, labellers)
    total, left = (sum(len(shard.numbers) for shard in each) for each in (shards, missing))
    with tqdm(total=total, initial=total - left, desc="labelling", unit="clip", disable=not progress) as bar:
        for shard, _ in map_shards(setup, todo, workers or Workers()):
            bar.update(len(shard.numbers))
    return _write_rows(output, songs, shards, settings)


def _claim_folder(output: Path, settings: LabelSettings, labellers: Sequence[Labeller]) -> None:
    """Make the folders, of one way to cut and measure, or find that they are."""
    is_used = output.is_dir() and any(not each.name.startswith(".") for each in output.iterdir())
    if is_used and not (output / SETTINGS).exists():
        raise ValueError(f"`output` must be a new or empty folder, or one that was labelled, got {str(output)!r}")
    claim = {**asdict(settings), "labellers": [labeller.name for labeller in labellers]}
    claim_folder(output / SETTINGS, claim, "clips made")
    for name in (_CLIPS, _MEASURED):
        (output / name).mkdir(exist_ok=True)


def _metadata(rows: Dataset) -> Iterator[JsonObject]:
    """Metadata of each song; of its sound only the size of the file that it is in."""
    bare = rows.remove_columns(["audio"])
    for row, sound in zip(bare, rows.select_columns(["audio"]), strict=True):
        size = None if sound["audio"].get("bytes") is not None else Path(sound["audio"]["path"]).stat().st_size
        yield {**row, "file_size": size}


def _cut(split: str, row: int, song: JsonObject, settings: LabelSettings) -> _Song:
    """The clips of a song, and a safe name for their folder, which depends on the song alone."""
    seconds, length = song["duration"], settings.clip_seconds
    count = int(seconds // length)
    spans = [(index * length, length) for index in range(count)]
    if seconds - count * length >= (length / 2 if count else 0):
        spans.append((count * length, seconds - count * length))
    name = Path(song["file_name"]).stem
    stem = re.sub(r"[^A-Za-z0-9]+", "-", anyascii(name.encode(errors="replace").decode())).strip("-")[:_LONGEST_STEM]
    key = [song["file_name"], round(seconds, 3), song["sampling_rate"], song["file_size"]]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]
    return _Song(split, row, f"{stem or 'song'}-{digest}", tuple(spans))


def _set_aside(output: Path, folders: set[str]) -> None:
    """Move clips of songs that are not among these out of the way, and what was measured of them."""
    for folder in (_CLIPS, _MEASURED):
        clear_temporary(output / folder)
        old = [path for path in (output / folder).iterdir() if not path.name.startswith(".")]
        old = [path for path in old if (path.name if path.is_dir() else path.name.rpartition("-")[0]) not in folders]
        for path in old:
            target = output / _UNUSED / folder / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            path.rename(target)
        if old and folder == _CLIPS:
            names = ", ".join(printable(path.name) for path in old[:3])
            logger.warning("moved the clips of %d songs that are no longer there to %s: %s", len(old), _UNUSED, names)


def _measured(output: Path, shard: _Shard) -> list[JsonObject] | None:
    """Clips of a shard, with their labels; `None` where they are not all there."""
    try:
        clips = json.loads(read_file(output / _MEASURED / shard.file, _LARGEST_FILE))
        names = [f"{shard.song.folder}/{clip['file']}" for clip in clips]
        known = {_CLIP_FILE.format(number) for number in shard.numbers}
        there = all(clip["file"] in known and isinstance(clip["labels"], dict) for clip in clips)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return clips if there and all((output / _CLIPS / name).is_file() for name in names) else None


class _ClipLabeller:
    """The work of one process: cuts the clips of a shard, measures them, and writes both to an absolute folder."""

    def __init__(self, output: Path, settings: LabelSettings, labellers: Sequence[Labeller]) -> None:
        self.output, self.settings, self.labellers = output, settings, labellers

    def __call__(self, shard: _Shard) -> None:
        rate, clips = self.settings.sampling_rate, []
        folder = self.output / _CLIPS / shard.song.folder
        folder.mkdir(exist_ok=True)
        clear_temporary(folder)
        with single_threads(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `load_songs` has reported what is not read
            for number in shard.numbers:
                start, seconds = shard.song.spans[number]
                audio = load_audio(shard.sound, rate, offset=start, duration=seconds).clamp(-1, 1)
                if not len(audio) or float(audio.abs().max()) < self.settings.silence:
                    continue
                save_audio(folder / _CLIP_FILE.format(number), audio, rate)
                clips.append({
                    "file": _CLIP_FILE.format(number), "start": start, "duration": len(audio) / rate,
                    "labels": self._labels(audio),
                })  # fmt: skip
        write_file(self.output / _MEASURED / shard.file, json.dumps(clips))

    def _labels(self, audio: Tensor) -> dict[str, tuple[Label, str]]:
        found: dict[str, tuple[Label, str]] = {}
        for labeller in self.labellers:
            for name, value in labeller(audio, self.settings.sampling_rate).items():
                if name not in LABELS:
                    raise ValueError(
                        f"`labels` of {labeller.name} must be among {', '.join(LABELS)}, got {shown(name)}"
                    )
                label = tidy_label(name, value)
                if label is not None:
                    found.setdefault(name, (label, f"measured: {labeller.name}"))
        return found


def _write_rows(output: Path, songs: DatasetDict, shards: Sequence[_Shard], settings: LabelSettings) -> LabelReport:
    """Write the rows of all clips, and count them."""
    report = LabelReport()
    lines: dict[str, list[JsonObject]] = {split: [] for split in songs}
    metadata = []
    known: dict[str, tuple[Label, str]] = {}
    for shard in shards:
        split, row = shard.song.split, songs[shard.song.split][shard.song.row]
        if shard.first == 0:
            known = known_labels(row, audio_tags(row["audio"]))
        for clip in _measured(output, shard) or ():
            labels, sources = all_labels(known, {name: tuple(pair) for name, pair in clip["labels"].items()})
            path = f"{_CLIPS}/{shard.song.folder}/{clip['file']}"
            measures = {"sample_rate": settings.sampling_rate, "file_extension": "flac", "duration": clip["duration"]}
            both = {**labels, **measures, "path": path}
            lines[split].append({key: both[key] for key in ROW_KEYS})
            place = {"file_name": path, "split": split, "song": row["file_name"], "start": clip["start"]}
            metadata.append({**place, **labels, "label_sources": sources})
            report.clips[split] += 1
            report.seconds += clip["duration"]
            report.labelled.update(name for name, label in labels.items() if label is not None)
    if not metadata:
        raise ValueError("`source` holds no clip that sounds")
    for split in {"train", "validation", "test"} - set(lines):  # of an earlier division
        (output / f"{split}.jsonl").unlink(missing_ok=True)
    for split, rows in lines.items():
        write_file(output / f"{split}.jsonl", metadata_lines(rows))
    write_file(output / METADATA_FILE, metadata_lines(metadata))
    return report
