"""Songs with labels of emotional valence, in MTG-Jamendo's layout or by a column of metadata.jsonl."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from fast_jukebox.audio.io import load_audio
from fast_jukebox.data.scanning import SongLimits, SongScan, check_song, report
from fast_jukebox.data.songs import load_songs
from fast_jukebox.models.valence import QUADRANTS, ValenceFeatureExtractor
from fast_jukebox.models.valence.feature_extraction_valence import fit_frames
from fast_jukebox.utils.files import path_within, read_text
from fast_jukebox.utils.text import printable, shown

TAG_MAP = Path(__file__).parent / "valence_tags.yaml"
"""The package's map from tags to quadrants; its head states its quality."""

SPLITS = ("train", "validation", "test")
_MAX_TABLE_BYTES = 2**28
_MAX_TAG_MAP_BYTES = 2**20
_MAX_SECONDS = 600.0
_LIMITS = SongLimits(complete=False)
_OTHER_LENGTH = (1.0, 0.02)
"""Seconds, and fraction of the length that a table states, by which a file's may differ: encoders add silence."""
_CROP_SCALE = (0.8, 1.0)
_CROP_RATIO = (1.7, 2.3)
_CROP_TRIES = 10


@dataclass(frozen=True)
class ValenceSong:
    """A song with its label of emotional valence.

    Attributes:
        source: a file, or `{"path", "bytes"}`.
        quadrant: index into `QUADRANTS`.
        group: an artist, instruments, or another property by which splits are disjoint.
        split: one of `SPLITS`.
    """

    source: object
    quadrant: int
    group: str
    split: str

    @property
    def labels(self) -> Tensor:
        """Float (4,), 1 at the song's quadrant."""
        return F.one_hot(torch.tensor(self.quadrant), len(QUADRANTS)).float()


def load_tag_map(path: str | os.PathLike[str] | None = None) -> dict[str, int]:
    """Index into `QUADRANTS` of each tag of a YAML file.

    Args:
        path: `{AP: [tags], DP: [...], AU: [...], DU: [...]}`; the package's own by default.

    Raises:
        ValueError: no YAML, other keys, or a tag that stands twice.
    """
    import yaml

    path = Path(path or TAG_MAP)
    try:
        found = yaml.safe_load(read_text(path, _MAX_TAG_MAP_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} must be YAML in UTF-8: {error}") from error
    if not isinstance(found, dict) or set(found) != set(QUADRANTS):
        raise ValueError(f"{path} must have the keys {', '.join(QUADRANTS)}, got {found if not found else list(found)}")
    tags: dict[str, int] = {}
    for index, quadrant in enumerate(QUADRANTS):
        named = found[quadrant] or []
        for tag in named if isinstance(named, list) else [named]:
            if not isinstance(tag, str) or tag in tags:
                got = repr(tag) if isinstance(tag, str) else f"a {type(tag).__name__}"
                raise ValueError(f"{path} must name each tag once, as text, got {got} under {quadrant}")
            tags[tag] = index
    return tags


def load_valence_songs(
    folder: str | os.PathLike[str],
    *,
    tag_map: str | os.PathLike[str] | None = None,
    group_by: str = "artist",
    test_groups: Sequence[str] = (),
    progress: bool = False,
) -> list[ValenceSong]:
    """Songs of a folder with their quadrants.

    In MTG-Jamendo's layout there are `autotagging_moodtheme-train.tsv`, `-validation.tsv` and `-test.tsv` and the files
    that they name (`.low.mp3` is tried too). Otherwise `metadata.jsonl` has a column `valence` of AP, DP, AU or DU and
    the column `group_by`, and the songs of some groups are held out. Songs with a label whose file is missing, cannot
    be used, or has another length than MTG-Jamendo's table states are left out, and a warning names them.

    Args:
        group_by: column of metadata.jsonl by which splits are disjoint, such as `artist` or `instruments`.
        test_groups: groups held out; by default about a fifth, chosen by their names. A tenth of the other songs is for
            validation, chosen by name too.

    Raises:
        ValueError: no songs with labels, a column that is missing, or a group that does not occur.
    """
    root = Path(folder)
    tables = {split: root / f"autotagging_moodtheme-{split}.tsv" for split in SPLITS}
    if tables["train"].is_file():
        listed = [song for split, table in tables.items() for song in _read_jamendo(table, split, tag_map)]
        songs = _usable(root, listed, progress)
    else:
        songs = _read_metadata_songs(root, group_by, test_groups, progress)
    counts = Counter(song.split for song in songs)
    if not all(counts[split] for split in ("train", "test")):
        raise ValueError(f"{folder} must hold songs with a valence to train on and to hold out, got {dict(counts)}")
    return songs


def shared_groups(songs: Sequence[ValenceSong]) -> set[str]:
    """Groups that are both among the held-out songs and among others."""
    held_out = {song.group for song in songs if song.split == "test"}
    return held_out & {song.group for song in songs if song.split != "test"}


@dataclass(frozen=True)
class _Listed:
    """A song of a table of MTG-Jamendo with the file and the seconds that are stated."""

    song: ValenceSong
    file_name: str
    seconds: float
    table: str


def _read_jamendo(table: Path, split: str, tag_map: str | os.PathLike[str] | None) -> list[_Listed]:
    if not table.is_file():
        raise ValueError(f"{table} is missing: MTG-Jamendo's three splits belong together")
    quadrants, root, songs = load_tag_map(tag_map), table.parent, []
    try:
        lines = read_text(table, _MAX_TABLE_BYTES).split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} must be UTF-8 text: {error}") from error
    for number, line in enumerate(lines):
        columns = line.rstrip("\n").split("\t")
        if number == 0 or not line.strip():
            continue
        where = f"{table}, line {number + 1}"
        if len(columns) < 6:
            raise ValueError(f"{where}: must have at least 6 columns, got {len(columns)}")
        tags = {tag.partition("---")[2] for tag in columns[5:]}
        found = {quadrants[tag] for tag in tags if tag in quadrants}
        if len(found) != 1:
            continue
        try:
            path = path_within(root, columns[3])
        except ValueError as error:
            raise ValueError(f"{where}: {columns[3]!r} {error}") from error
        try:
            seconds = float(columns[4])
        except ValueError as error:
            raise ValueError(f"{where}: the fifth column must be seconds, got {columns[4]!r}") from error
        files = [path, path.with_suffix(".low.mp3")]
        there = next((file for file in files if file.is_file()), path)
        songs.append(_Listed(ValenceSong(there, found.pop(), columns[1], split), columns[3], seconds, table.name))
    return songs


def _usable(root: Path, listed: Sequence[_Listed], progress: bool) -> list[ValenceSong]:
    """The songs whose file is what its table states; a warning names the others."""
    songs, scan = [], SongScan()
    for row in tqdm(listed, desc="checking songs", unit="song", disable=not progress):
        path = Path(str(row.song.source))
        try:
            if not path.is_file():
                raise ValueError(f"is named in {row.table} but is not there")
            seconds, _, _ = check_song(path, _LIMITS)
            if abs(seconds - row.seconds) > max(_OTHER_LENGTH[0], _OTHER_LENGTH[1] * row.seconds):
                raise ValueError(f"lasts {seconds:.4g} s, where {row.table} states {row.seconds:.4g} s: fetch it again")
        except (ValueError, OSError) as error:
            scan.skipped[row.file_name] = str(error).removeprefix(f"{printable(path)} ")
            continue
        songs.append(row.song)
        scan.songs.append({"file_name": row.file_name})
    if listed:
        report(str(root), scan)
    return songs


def _read_metadata_songs(root: Path, group_by: str, test_groups: Sequence[str], progress: bool) -> list[ValenceSong]:
    songs: list[tuple[str, ValenceSong]] = []
    for split in load_songs(root, limits=_LIMITS, progress=progress).values():
        for column in ("valence", group_by):
            if column not in split.column_names:
                raise ValueError(f"metadata.jsonl of {root} must have the column `{column}`, got {split.column_names}")
        for row in split:
            if row["valence"] is None:
                continue
            if row["valence"] not in QUADRANTS:
                raise ValueError(f"`valence` must be one of {', '.join(QUADRANTS)}, got {shown(row['valence'])}")
            group = row[group_by]
            name = ", ".join(map(str, group)) if isinstance(group, list) else str(group)
            audio = row["audio"]
            source = audio["path"] if audio.get("bytes") is None else audio
            songs.append((row["file_name"], ValenceSong(source, QUADRANTS.index(row["valence"]), name, "train")))
    groups = sorted({song.group for _, song in songs}, key=_hash)
    unknown = set(test_groups) - set(groups)
    if unknown:
        raise ValueError(f"`test_groups` must be among {', '.join(sorted(groups))}, got {', '.join(sorted(unknown))}")
    held_out = set(test_groups) or set(groups[: max(1, round(len(groups) / 5))])
    by_name = [song for _, song in sorted(songs, key=lambda named: _hash(named[0]))]
    others = [song for song in by_name if song.group not in held_out]
    return [
        *(replace(song, split="test") for song in by_name if song.group in held_out),
        *(replace(song, split="train" if number % 10 else "validation") for number, song in enumerate(others)),
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class ValenceClips(Dataset):
    """Clips of songs as `{"input_features": (bands, frames), "labels": (4,)}`, for training or evaluation.

    For training, each epoch takes another part of each song, enlarges crops of some slices (`crop_slices`) and hides
    some of it (SpecAugment, in half of the clips). For evaluation the middle is taken and nothing is changed.

    Args:
        seed: of the parts, crops and masks of training; `None` for evaluation.
        cache_bytes: of frames kept in memory; the rest is computed again.
        crop_probability: of a slice to be cropped, in [0, 1].
        slice_frames: frames of a slice, at least 1, as of the classifier.

    Raises:
        ValueError: no songs, or a number out of its range.
    """

    def __init__(
        self,
        songs: Sequence[ValenceSong],
        extractor: ValenceFeatureExtractor,
        seed: int | None = None,
        cache_bytes: int = 2**31,
        crop_probability: float = 0.33,
        slice_frames: int = 256,
    ) -> None:
        if not songs:
            raise ValueError("`songs` must hold at least one song, got none")
        if not 0 <= crop_probability <= 1:
            raise ValueError(f"`crop_probability` must be in [0, 1], got {shown(crop_probability)}")
        if slice_frames < 1:
            raise ValueError(f"`slice_frames` must be at least 1, got {slice_frames}")
        self.crop_probability, self.slice_frames = crop_probability, slice_frames
        self.songs, self.extractor, self.seed, self.epoch = list(songs), extractor, seed, 0
        self._cache: dict[int, Tensor] = {}
        self._left = cache_bytes

    def __len__(self) -> int:
        return len(self.songs)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader."""
        self.epoch = epoch

    def frames(self, index: int) -> Tensor:
        """All frames (bands, frames) of a song, float16, of its first 10 minutes."""
        if index in self._cache:
            return self._cache[index]
        audio = load_audio(self.songs[index].source, self.extractor.sampling_rate, duration=_MAX_SECONDS)
        frames = self.extractor.frames(audio).half()
        if frames.nbytes <= self._left:
            self._left -= frames.nbytes
            self._cache[index] = frames
        return frames

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        frames, count = self.frames(index), self.extractor.num_frames
        if self.seed is None:
            clip = fit_frames(frames, count).float()
        else:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + index)
            room = max(frames.shape[1] - count, 0)
            start = int(torch.randint(room + 1, (), generator=generator))
            clip = fit_frames(frames, count, start).float()
            clip = hide(crop_slices(clip, self.slice_frames, self.crop_probability, generator), generator)
        return {"input_features": clip, "labels": self.songs[index].labels}


def hide(clip: Tensor, generator: torch.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019), in half of the clips: up to two masks of 15 % of the bands and 20 % of the time,
    in which each cell has the clip's mean.
    """
    if float(torch.rand((), generator=generator)) < 0.5:
        return clip
    clip, mean = clip.clone(), clip.mean()
    for _ in range(int(torch.randint(1, 3, (), generator=generator))):
        for axis, fraction in ((0, 0.15), (1, 0.2)):
            size = int(torch.randint(max(1, int(clip.shape[axis] * fraction)) + 1, (), generator=generator))
            start = int(torch.randint(clip.shape[axis] - size + 1, (), generator=generator))
            clip.narrow(axis, start, size).fill_(mean)
    return clip


def crop_slices(clip: Tensor, slice_frames: int, probability: float, generator: torch.Generator) -> Tensor:
    """Random resized crops (Szegedy et al. 2015) of a clip's slices, as in the recipe of Sukhavasi and Adapa (2019).

    A crop covers 80 to 100 % of a slice and is 1.7 to 2.3 times as wide (frames) as it is high (bands). It is enlarged
    to the slice, bilinearly. Where ten draws do not fit, it is the largest in the middle whose ratio is allowed.

    Args:
        clip: (bands, frames).
        probability: of each slice to be cropped; at 0 nothing is drawn and the clip is returned.

    Returns:
        Float (bands, frames), with no value outside the clip's range.
    """
    if probability <= 0:
        return clip
    return torch.cat([_cropped(part, probability, generator) for part in clip.split(slice_frames, dim=1)], dim=1)


def _cropped(part: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    if float(torch.rand((), generator=generator)) >= probability:
        return part
    top, left, height, width = _crop_box(part.shape[0], part.shape[1], generator)
    crop = part[top : top + height, left : left + width]
    return F.interpolate(crop[None, None], size=part.shape, mode="bilinear", align_corners=False)[0, 0]


def _crop_box(bands: int, frames: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop."""
    low, high = _CROP_RATIO
    for _ in range(_CROP_TRIES):
        scale, ratio, top, left = torch.rand(4, generator=generator).tolist()
        area = bands * frames * (_CROP_SCALE[0] + (_CROP_SCALE[1] - _CROP_SCALE[0]) * scale)
        aspect = low * (high / low) ** ratio  # uniform in its logarithm
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= bands and 0 < width <= frames:
            return int(top * (bands - height + 1)), int(left * (frames - width + 1)), height, width
    height = min(bands, max(1, round(frames / low)))
    width = min(frames, max(1, round(bands * high)))
    return (bands - height) // 2, (frames - width) // 2, height, width
