"""One rule of what is held out, by name and content, whichever way the songs are given."""

import logging
import unicodedata

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.data.codes import require_splits
from fast_jukebox.data.scanning import content_keys
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION, assign_splits, describe_splits, held_out_twice

RATE = 8000


def write(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(np.arange(12000) * (0.05 + 0.01 * number)), RATE)


def names_of(songs):
    return {split: sorted(rows["file_name"]) for split, rows in songs.items()}


def assigned(names, **options):
    return dict(zip(names, assign_splits(names, [None] * len(names), 0.3, **options), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(categories=["L"]), min_size=1, max_size=6), min_size=3, max_size=20, unique=True
    ),
    contents=st.lists(st.integers(0, 4), min_size=20, max_size=20),
    marks=st.lists(st.sampled_from([None, None, "train", "test"]), min_size=20, max_size=20),
)
def test_songs_of_the_same_content_are_on_one_side(names, contents, marks):
    contents, marks = contents[: len(names)], marks[: len(names)]
    chosen = assign_splits(names, marks, 0.3, contents)
    dropped = set(held_out_twice(chosen, contents))
    sides = {}
    for index, (content, split) in enumerate(zip(contents, chosen, strict=True)):
        if index not in dropped:
            sides.setdefault(content, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    kept = [mark for index, mark in enumerate(marks) if index not in dropped and mark]
    if len(set(marks)) > 1:
        assert all(split == mark for split, mark in zip(chosen, marks, strict=True) if mark)
        assert "test" not in marks or "test" in kept


def test_the_form_of_a_name_and_its_folders_elsewhere_do_not_count():
    names = [f"sóng {number}.wav" for number in range(40)]
    wanted = list(assigned(names).values())
    for form in ("NFC", "NFD"):
        assert list(assigned([unicodedata.normalize(form, name) for name in names]).values()) == wanted
    for folder in ("/data/songs", "../songs", "C:/songs"):
        assert list(assigned([f"{folder}/{name}" for name in names]).values()) == wanted


def test_scripts_and_the_library_hold_out_the_same_share():
    from examples import run_distill, run_prior, run_vqvae

    for arguments in (run_distill.CodesArguments, run_prior.DataArguments, run_vqvae.DataArguments):
        assert arguments.__dataclass_fields__["test_fraction"].default == DEFAULT_TEST_FRACTION


def test_a_copy_of_a_held_out_song_is_not_trained_on(tmp_path, caplog):
    for number in range(4):
        write(tmp_path / f"{number}.wav", number)
    write(tmp_path / "copy.wav", 2)
    (tmp_path / "metadata.csv").write_text(
        "file_name,split\n0.wav,train\n1.wav,train\n2.wav,test\n3.wav,test\ncopy.wav,train\n"
    )
    with caplog.at_level(logging.WARNING):
        songs = load_songs(tmp_path)
    assert names_of(songs) == {"train": ["0.wav", "1.wav"], "test": ["2.wav", "3.wav"]}
    assert "copy.wav: the same recording is held out" in caplog.text
    rows = [
        {"audio": {"bytes": (tmp_path / f"{name}.wav").read_bytes(), "path": None}, "file_name": name} for name in "013"
    ]
    copy = {"audio": {"bytes": (tmp_path / "copy.wav").read_bytes(), "path": None}, "file_name": "copy"}
    given = DatasetDict(
        train=Dataset.from_list([*rows[:2], copy]).cast_column("audio", Audio(decode=False)),
        test=Dataset.from_list([rows[2], copy | {"file_name": "2"}]).cast_column("audio", Audio(decode=False)),
    )
    assert names_of(load_songs(given)) == {"train": ["0", "1"], "test": ["2", "3"]}


def test_a_song_that_is_listed_in_two_ways_is_one_song(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.wav", number)
    lines = [f'{{"file_name": "{tmp_path}/{number}.wav", "bpm": {number}}}' for number in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    songs = load_songs(tmp_path, test_fraction=0.3)
    assert sorted(name for names in names_of(songs).values() for name in names) == [f"{n}.wav" for n in range(6)]
    assert [row["bpm"] for rows in songs.values() for row in rows] == [
        int(row["file_name"][0]) for rows in songs.values() for row in rows
    ]
    (tmp_path / "metadata.jsonl").unlink()
    assert names_of(load_songs(tmp_path, test_fraction=0.3)) == names_of(songs)


@pytest.mark.parametrize("layout", ["{}", "data/{}", "{}/deeper"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "eval"), ("train", "dev")])
def test_the_folders_of_an_audio_folder_are_its_splits(tmp_path, layout, train, test):
    for number in range(4):
        write(tmp_path / layout.format(train if number < 3 else test) / f"{number}.wav", number)
    songs = load_songs(tmp_path)
    assert {split: len(rows) for split, rows in songs.items()} == {
        "train": 3,
        "validation" if test == "dev" else "test": 1,
    }


def test_one_folder_alone_says_nothing_and_metadata_goes_first(tmp_path):
    for number in range(6):
        write(tmp_path / "train" / f"{number}.wav", number)
    assert {split: len(rows) for split, rows in load_songs(tmp_path, test_fraction=0.3).items()} != {"train": 6}
    write(tmp_path / "test" / "6.wav", 6)
    (tmp_path / "metadata.csv").write_text("file_name,split\ntrain/0.wav,test\n")
    assert "train/0.wav" in load_songs(tmp_path)["test"]["file_name"]


def test_metadata_beside_the_songs_of_each_folder_is_read(tmp_path):
    for number in range(4):
        write(tmp_path / ("train" if number < 3 else "test") / f"{number}.wav", number)
    (tmp_path / "train" / "metadata.csv").write_text("file_name,title\n0.wav,Zero\n")
    songs = load_songs(tmp_path)
    assert songs["train"]["title"][:] == ["Zero", None, None]
    assert len(songs["test"]) == 1


def test_content_keys_tell_bytes_and_files_apart_alike(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"12")
    (tmp_path / "c").write_bytes(b"34")
    (tmp_path / "d").write_bytes(b"345")
    first, second, third, fourth, fifth = content_keys([*(tmp_path / name for name in "abcd"), b"34"])
    assert first == second
    assert third == fifth
    assert len({first, third, fourth}) == 3


def test_splits_are_described_in_a_line(tmp_path, caplog):
    for number in range(6):
        write(tmp_path / f"{number}.wav", number)
    songs = load_songs(tmp_path, 0.3)
    held_out = len(songs["test"])
    assert describe_splits(songs).startswith(f"train: {6 - held_out} songs, 0.00")
    assert f"test: {held_out} song" in describe_splits(songs)
    with caplog.at_level(logging.INFO):
        assert require_splits(songs, "`--songs` here") is songs
    assert f"`--songs` here: {describe_splits(songs)}" in caplog.text
