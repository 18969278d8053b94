"""A folder of songs becomes clips with labels: split by song, the same from any workers, and after any interruption."""

import json
import os
import random

import numpy as np
import pytest
import soundfile

from fast_jukebox.audio.io import audio_tags, load_audio
from fast_jukebox.data.songs import load_songs, save_songs
from fast_jukebox.labelling import label_songs
from fast_jukebox.labelling.dataset import ROW_KEYS, LabelSettings
from fast_jukebox.utils.workers import Workers

RATE = 8000
SETTINGS = LabelSettings(clip_seconds=2.0, sampling_rate=RATE)


class Loudness:
    """Says how loud a clip is, and in a file that it was asked; stops where a file says so."""

    name = "loudness"

    def __init__(self, log):
        self.log = str(log)

    def __call__(self, audio, sampling_rate):
        with open(self.log, "a+") as file:
            file.write("heard\n")
            file.seek(0)
            times = len(file.readlines())
        if os.path.exists(f"{self.log}.stop") and times > 3:
            raise KeyboardInterrupt
        peak = float(audio.abs().max())
        return {"moods": "loud" if peak > 0.4 else "quiet", "bpm": 100 * peak, "genre": "noise" if peak > 2 else None}


def tone(seconds, peak=0.5, pitch=220.0):
    return (peak * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    sounds = {
        "loud one.flac": tone(5.2),  # two clips of 2 s and one of 1.2 s
        "quiet.wav": tone(4.5, 0.2, 330),  # two; the rest is less than half a clip
        "short.ogg": tone(1.4, 0.5, 440),  # one
        "halves.flac": np.concatenate(
            [tone(2, 0.5, 277), np.zeros(2 * RATE, np.float32), tone(2, 0.45, 277)]
        ),  # three, one silent
    }
    for name, sound in sounds.items():
        with soundfile.SoundFile(folder / name, "w", RATE, 1) as file:
            if name == "loud one.flac":
                file.title, file.artist, file.genre = "A \x1b[31mred\x1b[0m title", "Ann", "Folk"
            file.write(sound)
    return folder


@pytest.fixture
def label(songs, tmp_path):
    def call(output="out", **options):
        options = {"labellers": [Loudness(tmp_path / "log")], "test_fraction": 0.3, "progress": False, **options}
        return label_songs(
            options.pop("source", songs), tmp_path / output, options.pop("settings", SETTINGS), **options
        )

    return call


def rows_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_are_audiocrafts_and_say_in_the_metadata_where_each_label_is_from(label, tmp_path):
    report = label()
    train, test = (rows_of(tmp_path / "out", f"{split}.jsonl") for split in ("train", "test"))
    assert report.clips == {"train": len(train), "test": len(test)} and len(train) + len(test) == 8
    assert all(tuple(row) == ROW_KEYS for row in train + test)
    by_song = {}
    for row in rows_of(tmp_path / "out", "metadata.jsonl"):
        by_song.setdefault(row["song"], []).append(row)
    assert {song: [row["start"] for row in rows] for song, rows in by_song.items()} == {
        "loud one.flac": [0, 2, 4], "quiet.wav": [0, 2], "short.ogg": [0], "halves.flac": [0, 4],
    }  # fmt: skip
    assert all(len({row["split"] for row in rows}) == 1 for rows in by_song.values())
    first = by_song["loud one.flac"][0]
    assert first["artist"] == "Ann" and first["title"] == "A \\x1b[31mred\\x1b[0m title" and first["moods"] == ["loud"]
    assert first["bpm"] == pytest.approx(50, rel=0.01) and first["key"] is None
    assert first["label_sources"] == {
        "key": None, "artist": "file tags", "description": "composed of the other labels", "bpm": "measured: loudness",
        "genre": "file tags", "title": "file tags", "instrument": None, "moods": "measured: loudness",
    }  # fmt: skip
    assert first["description"] == f"loud Folk music, at {first['bpm']:g} beats a minute"
    assert by_song["quiet.wav"][0]["artist"] is None
    assert report.labelled["moods"] == 8 and report.labelled["artist"] == 3 and "key" not in report.labelled
    assert "moods 100%" in str(report) and "artist 38%" in str(report)


def test_clips_are_the_song_and_are_read_as_songs(label, songs, tmp_path):
    label()
    clips = load_songs(tmp_path / "out")
    assert {split: len(rows) for split, rows in clips.items()} == {
        split: len(rows_of(tmp_path / "out", f"{split}.jsonl")) for split in ("train", "test")
    }
    row = next(row for rows in clips.values() for row in rows if row["song"] == "loud one.flac" and row["start"] == 4)
    assert row["duration"] == pytest.approx(1.2) and row["sampling_rate"] == RATE and row["genre"] == "Folk"
    whole = load_audio(songs / "loud one.flac", RATE)
    assert np.allclose(load_audio(row["audio"], RATE), whole[4 * RATE :], atol=2e-4)


def test_splits_that_are_one_file_on_other_disks_are_refused(label, songs, tmp_path):
    rows = [("loud one.flac", "train"), ("quiet.wav", "Train"), ("halves.flac", "test")]
    lines = [json.dumps({"file_name": name, "split": split}) for name, split in rows]
    (songs / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match="splits of `source` must have names that differ, got 'Train' beside 'train'"):
        label()
    assert not list((tmp_path / "out").glob("*rain.jsonl"))


@pytest.mark.usefixtures("fresh_workers")
def test_workers_make_the_same_files(label, tmp_path):
    label("one")
    label("two", workers=Workers(2))
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_an_interrupted_run_resumes_with_what_is_missing(label, tmp_path):
    label("whole")
    (tmp_path / "log").unlink()
    (tmp_path / "log.stop").touch()
    with pytest.raises(KeyboardInterrupt):
        label()
    assert not (tmp_path / "out" / "train.jsonl").exists()
    done = len(list((tmp_path / "out" / "measured").iterdir()))
    assert 0 < done < 4
    (tmp_path / "log.stop").unlink()
    label()
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
    heard = (tmp_path / "log").read_text().count("heard")
    assert heard < 8 + 4  # the songs that were done were not heard again
    label()
    assert (tmp_path / "log").read_text().count("heard") == heard
    damaged = sorted((tmp_path / "out" / "measured").iterdir())[0]
    damaged.write_text("{")
    next((tmp_path / "out" / "clips").rglob("*.flac")).unlink()
    label()
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


def test_metadata_that_is_added_later_is_taken_up_without_measuring(label, songs, tmp_path):
    label()
    heard = (tmp_path / "log").read_text()
    lines = [{"file_name": "quiet.wav", "artist": "Bob", "key": "E", "mode": "minor", "genre": ["folk", "slow"]}]
    (songs / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    label()
    assert (tmp_path / "log").read_text() == heard
    row = next(row for row in rows_of(tmp_path / "out", "metadata.jsonl") if row["song"] == "quiet.wav")
    assert (row["artist"], row["key"], row["genre"]) == ("Bob", "E minor", "folk, slow")
    assert row["label_sources"]["key"] == "metadata"


def test_songs_that_are_gone_leave_the_dataset_and_not_the_disk(label, songs, tmp_path, caplog):
    label()
    (songs / "quiet.wav").unlink()
    label()
    assert "moved the clips of 1 songs that are no longer there" in caplog.text
    assert "quiet.wav" not in {row["song"] for row in rows_of(tmp_path / "out", "metadata.jsonl")}
    assert len(list((tmp_path / "out" / ".unused" / "clips").glob("quiet-*/*.flac"))) == 2
    clips = load_songs(tmp_path / "out")
    assert sum(len(rows) for rows in clips.values()) == 6


@pytest.mark.usefixtures("fresh_workers")
def test_long_songs_are_several_shards(label, tmp_path):
    soundfile.write(tmp_path / "songs" / "long.flac", tone(2.0 * 20), RATE)
    label(workers=Workers(2))
    shards = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "out" / "measured").glob("long-*"))
    assert shards == ["000.json", "016.json"]
    assert sum(row["song"] == "long.flac" for row in rows_of(tmp_path / "out", "metadata.jsonl")) == 20


def test_names_from_a_dataset_lead_nowhere(label, songs, tmp_path):
    whole = load_songs(songs, test_fraction=0.0)
    names = ["../../up.flac", "/etc/x.flac", "\x1b[2J.flac", "a\u202eb/" + "c" * 300 + ".flac"]
    hostile = whole.map(lambda _, index: {"file_name": names[index]}, with_indices=True)
    save_songs(hostile, tmp_path / "parquet")
    label(source=tmp_path / "parquet")
    folders = [path.name for path in (tmp_path / "out" / "clips").iterdir()]
    assert len(folders) == 4 and all(len(name) < 60 and name.replace("-", "").isalnum() for name in folders)
    assert not (tmp_path / "up.flac").exists()


def test_another_way_to_cut_or_measure_is_refused(label, tmp_path):
    label()
    with pytest.raises(ValueError, match="clips made with clip_seconds 2.0, not 3.0. .* name another folder"):
        label(settings=LabelSettings(clip_seconds=3.0, sampling_rate=RATE))
    with pytest.raises(ValueError, match=r"labellers \['loudness'\], not \[\]"):
        label(labellers=[])
    (tmp_path / "out" / "labels.json").write_text("[]")
    with pytest.raises(ValueError, match=r"labels.json is damaged .*: name another folder"):
        label()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").touch()
    with pytest.raises(ValueError, match="`output` must be a new or empty folder"):
        label("mine")


def test_clips_are_not_written_among_the_songs(label, songs):
    for output in ("songs", "songs/labelled"):
        with pytest.raises(ValueError, match="`output` must lie outside the songs' folder"):
            label(output)
    assert sorted(path.suffix for path in songs.iterdir()) == [".flac", ".flac", ".ogg", ".wav"]


class Odd:
    name = "odd"

    def __call__(self, audio, sampling_rate):
        return {"colour": "blue"}


def test_a_plug_may_only_give_labels(label):
    with pytest.raises(ValueError, match="`labels` of odd must be among key, artist"):
        label(labellers=[Odd()])


def test_nothing_that_sounds_is_an_error(label):
    with pytest.raises(ValueError, match="no clip that sounds"):
        label(settings=LabelSettings(clip_seconds=2.0, sampling_rate=RATE, silence=0.9))


@pytest.mark.parametrize(
    "fields", [{"clip_seconds": 0.5}, {"sampling_rate": 4000}, {"silence": 1.0}, {"clip_seconds": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        LabelSettings(**fields)


def test_tags_of_any_file_are_short_and_printable(songs, tmp_path):
    assert audio_tags(songs / "loud one.flac")["artist"] == "Ann"
    sound = {"path": None, "bytes": (songs / "loud one.flac").read_bytes()}
    assert audio_tags(sound)["title"] == "A \\x1b[31mred\\x1b[0m title"
    noise = bytes(random.Random(0).randrange(256) for _ in range(500))
    assert audio_tags({"path": None, "bytes": noise}) == audio_tags(tmp_path / "none.flac") == {}
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 1) as file:
        file.title = "x" * 5000
        file.write(tone(1))
    assert len(audio_tags(tmp_path / "long.flac")["title"]) <= 203
