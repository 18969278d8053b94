"""What a folder holds is looked at by its bytes, and what cannot be used is told once for many files."""

import logging
import os
import shutil
import unicodedata

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.data import scanning
from fast_jukebox.data.metadata import metadata_lines
from fast_jukebox.data.scanning import AUDIO_SUFFIXES, READ_SUFFIXES, SongLimits, scan_songs
from fast_jukebox.data.songs import load_songs

RATE = 8000
MP4 = b"\x00\x00\x00\x20ftypM4A " + bytes(5000)


def write(path, seconds=1.5, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 300 * time), RATE, **options)


def test_a_folder_of_phone_recordings_is_told_what_to_do(tmp_path):
    for number in range(3):
        (tmp_path / f"voice {number}.m4a").write_bytes(MP4)
    with pytest.raises(ValueError, match=r"\(3 skipped; voice 0\.m4a: is an MP4 file.*ffmpeg"):
        load_songs(tmp_path)


def test_many_files_for_one_reason_are_one_warning(tmp_path, caplog):
    write(tmp_path / "a.wav")
    for number in range(12):
        (tmp_path / f"{number:02d}.mp4").write_bytes(MP4)
    with caplog.at_level(logging.WARNING):
        assert len(load_songs(tmp_path, test_fraction=0)["train"]) == 1
    (line,) = caplog.messages
    assert "skipped 00.mp4, 01.mp4, 02.mp4 and 9 more: is an MP4 file" in line


def test_a_sound_under_another_name_is_read(tmp_path):
    write(tmp_path / "a.m4a", format="WAV")
    write(tmp_path / "b.mp3", format="FLAC")
    write(tmp_path / "c.caf")
    write(tmp_path / "d.au")
    assert [song["file_name"] for song in scan_songs(tmp_path).songs] == ["a.m4a", "b.mp3", "c.caf", "d.au"]
    assert set(READ_SUFFIXES) < set(AUDIO_SUFFIXES)


def test_an_empty_folder_and_one_of_other_files_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="it is empty"):
        load_songs(tmp_path)
    (tmp_path / "a.kar").write_bytes(b"MThd")
    (tmp_path / "b.kar").write_bytes(b"MThd")
    with pytest.raises(ValueError, match=r"it holds other files: 2 of \.kar"):
        load_songs(tmp_path)


def test_what_is_cut_off_is_skipped_and_what_stands_behind_is_noted(tmp_path, caplog):
    write(tmp_path / "cut.wav", 4.0)
    data = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    (tmp_path / "more.wav").write_bytes(data + bytes(9000))
    scan = scan_songs(tmp_path)
    assert scan.skipped == {"cut.wav": "is cut off: its header states 64000 bytes of sound, and 31978 are there"}
    assert [song["duration"] for song in scan.songs] == [4.0]
    assert scan.notes == {"more.wav": "9000 bytes stand behind its stated end"}
    with caplog.at_level(logging.WARNING):
        load_songs(tmp_path, test_fraction=0)
    assert "used, though not read completely: more.wav: 9000 bytes" in caplog.text


def test_a_song_that_sounds_otherwise_from_an_offset_is_skipped(tmp_path, monkeypatch):
    write(tmp_path / "a.wav")
    load = scanning.load_audio
    monkeypatch.setattr(scanning, "load_audio", lambda *args, **kwargs: torch.roll(load(*args, **kwargs), 1))
    assert "read from an offset" in scan_songs(tmp_path).skipped["a.wav"]
    assert scan_songs(tmp_path, limits=SongLimits(complete=False)).songs


def test_metadata_finds_its_song_in_another_form_of_its_name(tmp_path):
    name = unicodedata.normalize("NFD", "söngur é.wav")
    write(tmp_path / name)
    row = {"file_name": unicodedata.normalize("NFC", name), "artist": "Ann"}
    (tmp_path / "metadata.jsonl").write_bytes(metadata_lines([row]))
    scan = scan_songs(tmp_path)
    assert not scan.skipped
    assert [(song["file_name"], song["artist"]) for song in scan.songs] == [(name, "Ann")]


def test_a_song_described_twice_is_an_error(tmp_path):
    write(tmp_path / "train" / "a.wav")
    write(tmp_path / "b.wav")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "train/a.wav", "artist": "Ann"}')
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.wav", "artist": "Bob"}')
    with pytest.raises(ValueError, match="names 'train/a.wav' twice"):
        scan_songs(tmp_path)


def test_a_name_that_is_no_utf8_is_told_in_text_that_can_be_printed(tmp_path, caplog):
    write(tmp_path / "a.wav")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    try:
        shutil.copy(tmp_path / "a.wav", odd)
    except OSError:
        pytest.skip("the file system takes no such name")
    with caplog.at_level(logging.WARNING):
        assert len(load_songs(tmp_path, test_fraction=0)["train"]) == 1
    (line,) = caplog.messages
    assert (
        line.encode("utf-8")
        .decode()
        .endswith(r"skipped caf\udce9.wav: has a name that is no UTF-8 text, which a dataset cannot hold: rename it")
    )


def test_a_folder_within_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", 2.0)
    write(tmp_path / "more" / "b.wav", 2.0)
    walk = os.walk

    def closed(folder, onerror=None):
        for place, folders, files in walk(folder):
            if os.path.basename(place) != "more":
                yield place, folders, files
            elif onerror is not None:
                onerror(PermissionError(13, "Permission denied", place))

    monkeypatch.setattr("fast_jukebox.data.scanning.os.walk", closed)
    scan = scan_songs(tmp_path)
    assert [song["file_name"] for song in scan.songs] == ["a.wav"]
    assert scan.skipped == {"more": "may not be read"}


def test_metadata_finds_its_song_in_a_folder_as_windows_writes_it(tmp_path):
    write(tmp_path / "album" / "a.wav", 2.0)
    rows = [{"file_name": "album\\a.wav", "artist": "Ann"}, {"file_name": "..\\b.wav", "artist": "Bob"}]
    (tmp_path / "metadata.jsonl").write_bytes(metadata_lines(rows))
    scan = scan_songs(tmp_path)
    assert [(song["file_name"], song["artist"]) for song in scan.songs] == [("album/a.wav", "Ann")]
    assert list(scan.skipped) == ["..\\b.wav"]
