"""A folder of songs becomes a dataset; whatever cannot be used is named, and nothing outside the folder is read."""

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, DatasetDict, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.io import load_audio, save_audio
from fast_jukebox.data.scanning import SongLimits, scan_songs
from fast_jukebox.data.songs import load_songs, save_songs
from fast_jukebox.data.splits import assign_splits, name_key

RATE = 8000


def write_song(path, seconds=1.5, level=0.5, pitch=300):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)
    soundfile.write(path, tone, RATE, subtype="FLOAT" if path.suffix == ".wav" else None)


def write_metadata(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Twelve good songs at several depths, in three containers."""
    for number in range(12):
        suffix = ("wav", "flac", "ogg")[number % 3]
        write_song(
            tmp_path / "songs" / ("" if number < 6 else "deeper/still") / f"{number:02d}.{suffix}", pitch=200 + number
        )
    return tmp_path / "songs"


def all_rows(songs):
    return [row for split in songs.values() for row in split]


def test_a_folder_at_any_depth_becomes_two_splits_with_undecoded_sound(folder):
    songs = load_songs(folder, test_fraction=0.25)
    assert list(songs) == ["train", "test"]
    assert sum(len(split) for split in songs.values()) == 12
    row = songs["train"][0]
    assert set(row) == {"audio", "file_name", "duration", "sampling_rate"}
    assert row["audio"]["bytes"] is None
    assert songs["train"].features["audio"] == Audio(decode=False)
    assert row["duration"] == pytest.approx(1.5)
    assert row["sampling_rate"] == RATE
    assert len(load_audio(row["audio"], RATE)) == 12000


def test_songs_that_a_disk_has_no_room_for_leave_nothing_and_name_the_folder(folder, tmp_path):
    resource = pytest.importorskip("resource")
    songs = load_songs(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
            save_songs(songs, tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "saved" / "data") in str(caught.value)
    assert list((tmp_path / "saved").iterdir()) == []


def test_the_split_depends_on_the_names_alone(folder, tmp_path):
    first = load_songs(folder, test_fraction=0.25)
    again = load_songs(folder, test_fraction=0.25)
    assert first["test"]["file_name"] == again["test"]["file_name"]
    write_song(folder / "new.wav")
    more = load_songs(folder, test_fraction=0.25)
    old = [name for name in more["test"]["file_name"] if name != "new.wav"]
    assert old == list(first["test"]["file_name"])


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=30, unique_by=name_key),
    share=st.floats(0.001, 0.99),
)
def test_both_splits_have_a_song_wherever_there_are_two(names, share):
    assert set(assign_splits(names, [None] * len(names), share)) == {"train", "test"}


def test_one_split_for_all_holds_nothing_out_so_the_names_decide():
    names = [f"song {number}" for number in range(20)]
    by_name = assign_splits(names, [None] * 20, 0.2)
    assert assign_splits(names, ["train"] * 20, 0.2) == by_name
    assert assign_splits(names, ["train"] * 20, 0) == ["train"] * 20
    assert assign_splits(names, ["train"] * 19 + ["test"], 0.2) == ["train"] * 19 + ["test"]


def test_the_share_held_out_is_the_share_asked_for():
    names = [f"song {number}" for number in range(4000)]
    chosen = assign_splits(names, [None] * 4000, 0.1)
    assert 0.085 < chosen.count("test") / 4000 < 0.115
    assert set(assign_splits(names, [None] * 4000, 0)) == {"train"}


def test_metadata_becomes_columns_and_its_split_goes_first(folder):
    write_metadata(
        folder,
        {"file_name": "00.wav", "title": "One", "split": "test", "duration": 99, "audio": "elsewhere"},
        {"file_name": "deeper/still/07.flac", "title": "Two", "split": "validation", "bpm": 80},
    )
    songs = load_songs(folder, test_fraction=0)
    assert list(songs) == ["train", "validation", "test"]
    assert songs["test"]["file_name"][:] == ["00.wav"]
    assert songs["test"][0]["title"] == "One"
    assert songs["test"][0]["duration"] == pytest.approx(1.5)
    assert songs["validation"][0]["bpm"] == 80
    assert songs["train"][0]["title"] is None


def test_a_fact_that_a_whole_split_lacks_has_the_type_of_the_others(folder, tmp_path):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    write_metadata(
        folder,
        {"file_name": names[0], "split": "test", "bpm": 72},
        *({"file_name": n, "split": "train"} for n in names[1:]),
    )
    songs = load_songs(folder)
    assert songs["train"].features == songs["test"].features
    save_songs(songs, tmp_path / "parquet")
    again = load_songs(tmp_path / "parquet")
    assert again["test"]["bpm"][:] == [72]
    assert again["train"]["bpm"][:] == [None] * 11


def test_what_cannot_be_used_is_named_with_its_reason_and_skipped(folder, caplog):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "noise.mp3").write_bytes(b"these are words" * 100)
    (folder / "cover.jpg").write_bytes(b"no song, and not looked at")
    (folder / ".hidden.wav").write_bytes(b"nor this")
    write_song(folder / "silent.flac", level=0)
    write_song(folder / "short.flac", seconds=0.5)
    write_song(folder / "long.flac", seconds=5)
    write_song(folder / "whole.flac", seconds=2.5)
    soundfile.write(folder / "nan.wav", np.full(RATE * 2, np.nan), RATE, subtype="FLOAT")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE * 2)
    soundfile.write(folder / "cut.flac", noise, RATE)
    data = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(data[: len(data) // 2])
    write_metadata(folder, {"file_name": "gone.wav"}, {"file_name": "whole.flac"})
    limits = SongLimits(max_duration=4.0)
    scan = scan_songs(folder, limits=limits)
    reasons = {
        "empty.wav": "empty",
        "noise.mp3": "no sound",
        "silent.flac": "silent",
        "short.flac": "min_duration",
        "long.flac": "max_duration",
        "nan.wav": "infinite or NaN samples: export it again",
        "cut.flac": "cut off|broken",
        "gone.wav": "not there",
    }
    assert set(scan.skipped) == set(reasons)
    for name, reason in reasons.items():
        assert any(word in scan.skipped[name] for word in reason.split("|")), scan.skipped[name]
    with caplog.at_level(logging.WARNING):
        songs = load_songs(folder, limits=limits)
    assert len(all_rows(songs)) == 13
    for name in reasons:
        assert name in caplog.text


def test_a_file_larger_than_the_limit_is_not_opened(folder):
    scan = scan_songs(folder, limits=SongLimits(max_bytes=100))
    assert not scan.songs
    assert all("max_bytes" in reason for reason in scan.skipped.values())


def test_without_the_whole_check_files_are_read_until_they_sound(folder):
    scan = scan_songs(folder, limits=SongLimits(complete=False))
    assert len(scan.songs) == 12
    assert all(row["duration"] == pytest.approx(1.5, abs=0.01) for row in scan.songs)


def test_nothing_outside_the_folder_is_read(folder, tmp_path):
    write_song(tmp_path / "secret.wav")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    write_metadata(folder, {"file_name": "../secret.wav"}, {"file_name": str(tmp_path / "secret.wav")})
    scan = scan_songs(folder)
    outside = {"../secret.wav", (tmp_path / "secret.wav").as_posix(), "link.wav"}
    assert set(scan.skipped) == outside
    assert all("out of the folder" in scan.skipped[name] for name in outside)


def test_an_error_where_no_song_is_left(tmp_path):
    with pytest.raises(ValueError, match="no song"):
        load_songs(tmp_path)
    write_song(tmp_path / "a.wav", seconds=0.1)
    with pytest.raises(ValueError, match=r"a\.wav.*min_duration"):
        load_songs(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_songs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: must be one object of JSON, correct it"),
        ("[1]", "line 2.*file_name"),
        ('{"title": "x"}', "line 2.*file_name"),
        ('{"file_name": "00.wav"}', "twice"),
        ('{"file_name": "x.wav", "split": "a/b"}', "split"),
        ('{"file_name": "x.wav", "split": 3}', "split"),
    ],
)
def test_a_bad_line_of_metadata_is_named(folder, line, reason):
    (folder / "metadata.jsonl").write_text('{"file_name": "00.wav"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        load_songs(folder)


def test_a_name_that_no_file_can_have_is_skipped(folder):
    write_metadata(folder, {"file_name": "00.wav"}, {"file_name": "a" * 300})
    assert scan_songs(folder).skipped["a" * 300] == "is named in the metadata but is not there"


def test_a_file_that_may_not_be_looked_at_is_not_called_missing(folder, monkeypatch):
    def refuse(path, is_file=Path.is_file):
        if path.name == "00.wav":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    write_metadata(folder, {"file_name": "00.wav"})
    monkeypatch.setattr(Path, "is_file", refuse)
    assert "Permission denied" in scan_songs(folder).skipped["00.wav"]


def test_metadata_that_is_no_text_or_of_mixed_types_is_named(folder):
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"metadata\.jsonl"):
        load_songs(folder)
    write_metadata(folder, {"file_name": "00.wav", "bpm": 80}, {"file_name": "01.flac", "bpm": "fast"})
    with pytest.raises(ValueError, match=r"metadata of .* `bpm` whose values are of several types.*; write it as one"):
        load_songs(folder, test_fraction=0)
    write_metadata(folder, {"file_name": "00.wav", "bpm": None}, {"file_name": "01.flac", "bpm": 10**30})
    with pytest.raises(ValueError, match="`bpm` whose values are of several types, or too large"):
        load_songs(folder, test_fraction=0)


@pytest.mark.parametrize("share", [-0.1, 1.0, "half", True, float("nan")])
def test_a_bad_share_is_refused(folder, share):
    with pytest.raises(ValueError, match="test_fraction"):
        load_songs(folder, test_fraction=share)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("min_duration", {"min_duration": -1}),
        ("min_duration", {"min_duration": 10, "max_duration": 5}),
        ("max_duration", {"max_duration": float("inf")}),
        ("max_bytes", {"max_bytes": 0}),
        ("silence", {"silence": 1.0}),
    ],
)
def test_limits_that_nothing_meets_are_refused(field, values):
    with pytest.raises(ValueError, match=f"`{field}`"):
        SongLimits(**values)


def test_saved_songs_contain_their_sound_and_load_again(folder, tmp_path):
    songs = load_songs(folder, test_fraction=0.25)
    before = {row["file_name"]: load_audio(row["audio"], RATE) for row in all_rows(songs)}
    written = save_songs(songs, tmp_path / "hub", shard_bytes=40_000)
    assert len(written) > 3
    assert all(path.parent == tmp_path / "hub" / "data" for path in written)
    for path in folder.rglob("*.*"):
        path.unlink()
    again = load_songs(tmp_path / "hub")
    assert {name: list(split["file_name"]) for name, split in again.items()} == {
        name: list(split["file_name"]) for name, split in songs.items()
    }
    for row in all_rows(again):
        assert "/" not in row["audio"]["path"]
        assert torch.equal(load_audio(row["audio"], RATE), before[row["file_name"]])
    with pytest.raises(ValueError, match="folder"):
        save_songs(songs, tmp_path / "hub")


def test_saved_songs_are_a_data_set_of_the_hub(folder, tmp_path):
    songs = load_songs(folder)
    save_songs(songs, tmp_path / "hub")
    loaded = load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {name: len(split) for name, split in songs.items()}
    assert isinstance(loaded["train"].features["audio"], Audio)
    row = loaded["train"].cast_column("audio", Audio(decode=False))[0]
    assert len(row["audio"]["bytes"]) > 1000


def test_a_dataset_is_checked_and_split_as_a_folder_is(folder, caplog):
    rows = all_rows(load_songs(folder, test_fraction=0.25))
    save_audio(folder / "silent.wav", torch.zeros(RATE * 2), RATE)
    sounds = [{"path": None, "bytes": (folder / row["file_name"]).read_bytes()} for row in rows]
    sounds += [{"path": "silent.wav", "bytes": (folder / "silent.wav").read_bytes()}, None]
    table = {"audio": sounds, "file_name": [row["file_name"] for row in rows] + ["silent.wav", "none"]}
    dataset = Dataset.from_dict(table).cast_column("audio", Audio(decode=False))
    with caplog.at_level(logging.WARNING):
        songs = load_songs(dataset, test_fraction=0.25)
    (folder / "silent.wav").unlink()
    expected = load_songs(folder, test_fraction=0.25)
    assert {name: sorted(split["file_name"]) for name, split in songs.items()} == {
        name: sorted(split["file_name"]) for name, split in expected.items()
    }
    assert "silent.wav" in caplog.text
    assert "no sound" in caplog.text
    split = load_songs(DatasetDict({"train": dataset.select([0]), "test": dataset.select([1, 2])}))
    assert {name: len(rows) for name, rows in split.items()} == {"train": 1, "test": 2}
    only = DatasetDict({"train": dataset.select(range(4))})
    assert set(load_songs(only)) == {"train", "test"}
    assert set(load_songs(only, test_fraction=0)) == {"train"}


def test_a_dataset_without_sound_is_refused():
    with pytest.raises(ValueError, match="audio"):
        load_songs(Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match="source"):
        load_songs(5)
    nothing = Dataset.from_dict({"audio": [{"path": None, "bytes": b"x"}]}).cast_column("audio", Audio(decode=False))
    with pytest.raises(ValueError, match="source"):
        load_songs(nothing)


@pytest.mark.parametrize("name", ["https://example.com/a//b.wav", "file:///a.wav", "data:audio/wav;base64,UklG"])
def test_an_address_in_the_metadata_is_no_file(folder, name):
    write_metadata(folder, {"file_name": name}, {"file_name": "00.wav"})
    assert scan_songs(folder).skipped == {
        name: "is an address in the metadata, where the name of a file must stand: download it"
    }


def test_a_name_in_other_letters_is_the_same_song_where_the_disk_takes_it_for_one(folder, monkeypatch):
    """As on the disks of Windows and macOS."""
    write_metadata(
        folder, {"file_name": "DEEPER/Still/06.WAV", "title": "Six"}, {"file_name": "00.wav", "title": "Zero"}
    )
    assert "DEEPER/Still/06.WAV" in scan_songs(folder).skipped
    is_file = Path.is_file

    def as_listed(path):
        return next((each for each in folder.rglob("*") if str(each).casefold() == str(path).casefold()), path)

    monkeypatch.setattr(Path, "is_file", lambda path: is_file(as_listed(path)))
    monkeypatch.setattr(Path, "samefile", lambda path, other: as_listed(path) == as_listed(other))
    found = scan_songs(folder)
    assert not found.skipped and len(found.songs) == 12
    assert {song["file_name"]: song["title"] for song in found.songs}["deeper/still/06.wav"] == "Six"
