"""Songs and codes go to the Hub and come back as they were; what is not all there is not used."""

import io
import json
import logging
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, DatasetDict, load_dataset
from huggingface_hub import DatasetCard, HfApi

from fast_jukebox import FastJukeboxPriorConfig, FastJukeboxVQVAE
from fast_jukebox.audio.io import load_audio
from fast_jukebox.data import codes as codes_module
from fast_jukebox.data.codes import CodeWindows, encode_songs, load_codes
from fast_jukebox.data.manifest import read_manifest
from fast_jukebox.data.push import push_codes, push_songs
from fast_jukebox.data.scanning import find_dataset, scan_songs
from fast_jukebox.data.songs import load_songs, save_songs
from fast_jukebox.hub import HubError

RATE = 1600


def sound(index, container="WAV"):
    file = io.BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * (110 + 20 * index) * np.arange(1700) / RATE)
    soundfile.write(file, tone.astype(np.float32), RATE, format=container)
    return file.getvalue()


@pytest.fixture
def songs(tmp_path):
    """Five songs at two depths, with facts, one of them in Icelandic, and a split."""
    folder = tmp_path / "songs"
    (folder / "deeper").mkdir(parents=True)
    rows = []
    for index in range(5):
        name = f"{'deeper/' if index > 2 else ''}{index}.{'flac' if index % 2 else 'wav'}"
        (folder / name).write_bytes(sound(index, "FLAC" if index % 2 else "WAV"))
        title = f"Lag {index}: þögn" if index else None
        rows.append({"file_name": name, "title": title, "split": "test" if index == 4 else "train"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_songs(folder)


@pytest.fixture
def vqvae(tiny_config):
    return FastJukeboxVQVAE(tiny_config.vqvae_config).eval()


@pytest.fixture
def codes(songs, vqvae, tmp_path, monkeypatch):
    """A folder of codes, in three shards."""
    monkeypatch.setattr(codes_module, "_SONGS_IN_A_SHARD", 2)
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    return tmp_path / "codes"


def facts(songs):
    return {
        split: [{key: value for key, value in row.items() if key != "audio"} for row in rows]
        for split, rows in songs.items()
    }


def samples(songs):
    return [load_audio(row["audio"], RATE) for split in sorted(songs) for row in songs[split]]


@pytest.mark.parametrize("layout", ["audiofolder", "parquet"])
def test_songs_come_back_as_they_were(hub, songs, layout):
    address = push_songs(songs, "ann/songs", license="cc-by-4.0", description="My band.", layout=layout, tags=("rock",))
    assert address.startswith(f"{hub.url}/datasets/ann/songs/commit/")
    again = load_songs("ann/songs")
    assert facts(again) == facts(songs)
    assert again["train"].features["audio"] == Audio(decode=False)
    assert all(torch.equal(first, second) for first, second in zip(samples(again), samples(songs), strict=True))
    card = DatasetCard(hub.files("ann/songs", kind="dataset")["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and "rock" in card.data.tags
    assert "My band." in card.text and "| songs | train: 4, test: 1 |" in card.text
    namespace = {}
    exec(card.text.split("```python\n")[1].split("```")[0], namespace)
    assert facts(namespace["songs"]) == facts(songs)


def test_the_files_are_those_of_an_audio_folder(hub, songs):
    push_songs(songs, "ann/songs", license="cc-by-4.0", layout="audiofolder")
    files = hub.files("ann/songs", kind="dataset")
    assert sorted(files) == [
        ".gitattributes", "README.md", "test/deeper/4.wav", "test/metadata.jsonl", "train/0.wav", "train/1.flac",
        "train/2.wav", "train/deeper/3.flac", "train/metadata.jsonl",
    ]  # fmt: skip
    assert files["train/1.flac"] == sound(1, "FLAC")
    row = json.loads(files["train/metadata.jsonl"].decode().splitlines()[1])
    assert (row["file_name"], row["title"]) == ("1.flac", "Lag 1: þögn")


def test_songs_are_encoded_from_the_hub_as_from_the_disk(hub, songs, vqvae, codes, tmp_path):
    push_songs(songs, "ann/songs", license="cc-by-4.0")
    encoded = encode_songs(load_songs("ann/songs"), vqvae, tmp_path / "again", progress=False)
    for split, rows in load_codes(codes).items():
        assert encoded[split].to_list() == rows.to_list()


def test_parquet_is_read_by_datasets_alone(hub, songs, codes):
    push_songs(songs, "ann/songs", license="cc-by-4.0")
    read = load_dataset("ann/songs")  # torchcodec is not needed, and not asked for
    assert {split: len(rows) for split, rows in read.items()} == {"train": 4, "test": 1}
    assert read["train"].features["audio"] == Audio(decode=False)
    assert read["train"][1]["audio"] == {"bytes": sound(1, "FLAC"), "path": "1.flac"}
    assert facts(load_songs(read)) == facts(songs)
    assert read["test"].cast_column("audio", Audio()).features["audio"].decode
    push_codes(codes, "ann/codes", license="cc-by-4.0")
    assert load_dataset("ann/codes")["test"].to_list() == load_codes(codes)["test"].to_list()


def test_codes_come_back_as_they_were(hub, codes, vqvae):
    push_codes(codes, "ann/codes", license="cc-by-4.0", vqvae="ann/vqvae", description="My band.")
    files = hub.files("ann/codes", kind="dataset")
    assert sorted(files) == [
        ".gitattributes", "README.md", "codes.json", "test-00000.parquet", "train-00000.parquet", "train-00001.parquet",
    ]  # fmt: skip
    again = load_codes("ann/codes")
    expected = load_codes(codes)
    assert again["train"].features == expected["train"].features
    assert {split: rows.to_list() for split, rows in again.items()} == {
        split: rows.to_list() for split, rows in expected.items()
    }
    config = FastJukeboxPriorConfig(
        level=2, hop_length=16, n_ctx=24, num_rows=4, codebook_size=16, num_hidden_layers=3, hidden_size=16
    )
    theirs, ours = CodeWindows(again["train"], config, seed=1), CodeWindows(expected["train"], config, seed=1)
    assert all(torch.equal(theirs[index]["codes"], ours[index]["codes"]) for index in range(len(ours)))
    text = files["README.md"].decode()
    manifest = json.loads((codes / "codes.json").read_text())
    assert "codes of `ann/vqvae`" in text and manifest["vqvae"] in text and "one for every 4, 8, 16 samples" in text


def test_what_an_earlier_push_left_is_replaced(hub, songs, codes):
    hub.put("ann/songs", {"train/old.ogg": b"old", "data/train-0-of-1.parquet": b"", "notes.txt": b""}, kind="dataset")
    push_songs(DatasetDict(train=songs["train"].select([0])), "ann/songs", license="mit", layout="audiofolder")
    assert sorted(hub.files("ann/songs", kind="dataset")) == [
        ".gitattributes", "README.md", "notes.txt", "train/0.wav", "train/metadata.jsonl",
    ]  # fmt: skip
    push_songs(DatasetDict(train=songs["train"].select([0])), "ann/songs", license="mit")
    assert sorted(hub.files("ann/songs", kind="dataset")) == [
        ".gitattributes", "README.md", "data/train-00000-of-00001.parquet", "notes.txt",
    ]  # fmt: skip
    hub.put("ann/codes", {"train-00007.parquet": b"old", "extra.parquet": b""}, kind="dataset")
    push_codes(codes, "ann/codes", license="mit")
    found = hub.files("ann/codes", kind="dataset")
    assert "train-00007.parquet" not in found and "extra.parquet" in found
    load_codes("ann/codes")


def test_nothing_is_pushed_without_a_licence(hub, songs, codes):
    for push, what in ((push_songs, songs), (push_codes, codes)):
        with pytest.raises(ValueError, match="`license`"):
            push(what, "ann/data", license="")
    with pytest.raises(ValueError, match="`layout` must be 'audiofolder' or 'parquet', got 'zip'"):
        push_songs(songs, "ann/data", license="mit", layout="zip")
    assert not hub.requests


def test_codes_that_are_not_all_there_are_not_pushed_and_not_used(hub, codes):
    push_codes(codes, "ann/codes", license="mit")
    HfApi().delete_file("train-00001.parquet", "ann/codes", repo_type="dataset")
    with pytest.raises(ValueError, match="holds the codes of 2 songs of train, and its codes.json states 4"):
        load_codes("ann/codes")
    (codes / "test-00000.parquet").unlink()
    with pytest.raises(
        ValueError, match="codes of 0 songs of test, and its codes.json states 1: let `encode_songs` fin"
    ):
        push_codes(codes, "ann/codes", license="mit")
    (codes / "codes.json").unlink()
    with pytest.raises(ValueError, match="holds no codes.json"):
        read_manifest(codes)


def test_revisions_private_data_and_offline(hub, songs, codes, monkeypatch):
    push_songs(songs, "band/songs", license="mit", private=True)
    first = HfApi().repo_info("band/songs", repo_type="dataset").sha
    push_songs(DatasetDict(train=songs["train"]), "band/songs", license="mit", revision="short")
    push_codes(codes, "band/codes", license="mit", private=True)
    for revision, count in ((None, 5), (first, 5), ("short", 4)):
        assert sum(map(len, load_songs("band/songs", revision=revision).values())) == count
    with pytest.raises(HubError, match="the dataset `band/songs`: it has no revision 'v9'"):
        load_songs("band/songs", revision="v9")
    load_codes("band/codes")
    monkeypatch.setenv("HF_TOKEN", "token-of-bob")
    for load, name in ((load_songs, "band/songs"), (load_codes, "band/codes")):
        with pytest.raises(HubError, match=f"the dataset `{name}`: .*no such dataset .*`token=`"):
            load(name, revision="main2")
        load(name, token="token-of-ann")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert facts(load_songs("band/songs")) == facts(songs)
    assert len(load_codes("band/codes", local_files_only=True)["train"]) == 4
    for load in (load_songs, load_codes):
        with pytest.raises(HubError, match="the dataset `ann/other`: it is not, or not completely, in the cache"):
            load("ann/other")
    assert not hub.requests


@pytest.mark.parametrize("kind", ["songs", "codes"])
def test_a_download_that_breaks_leaves_nothing_half_loaded(hub, songs, codes, kind, monkeypatch):
    push, load, what = {"songs": (push_songs, load_songs, songs), "codes": (push_codes, load_codes, codes)}[kind]
    push(what, "ann/data", license="mit")
    hub.fail("GET", "/store/", times=1, break_after=100)
    hub.fail("GET", "/store/", times=99, break_after=0)
    with pytest.raises(HubError, match="Cannot load the dataset `ann/data`: the connection .* failed"):
        load("ann/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="the dataset `ann/data`: it is not, or not completely, in the cache"):
        load("ann/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.faults.clear()
    assert {split: len(rows) for split, rows in load("ann/data").items()} == {"train": 4, "test": 1}


def test_folders_are_themselves_and_other_names_are_refused(tmp_path):
    assert find_dataset(tmp_path) == tmp_path
    for name in ("songs", "a/b/c", str(tmp_path / "songs"), tmp_path / "songs"):
        for load in (load_songs, load_codes):
            with pytest.raises(FileNotFoundError, match="there is no folder"):
                load(name)


def test_a_dataset_of_no_songs_and_no_codes_is_refused(hub):
    hub.put("ann/text", {"README.md": b"# Text", "a.txt": b"text"}, kind="dataset")
    with pytest.raises(ValueError, match="ann/text holds no song that can be used"):
        load_songs("ann/text")
    with pytest.raises(ValueError, match="ann/text holds no codes: expected shards such as train-00000.parquet"):
        load_codes("ann/text")


def test_other_peoples_audio_folders_are_read(hub, caplog):
    rows = [{"file_name": "a.wav", "title": "A"}, {"file_name": "../../../blobs/x.wav"}, {"file_name": "lost.wav"}]
    metadata = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {"metadata.jsonl": metadata, "a.wav": sound(1), "b/c.flac": sound(2, "FLAC"), "d.wav": b""}
    hub.put("ann/songs", files, kind="dataset")
    with caplog.at_level(logging.WARNING):
        songs = load_songs("ann/songs", test_fraction=0)
    assert [(row["file_name"], row["title"]) for row in songs["train"]] == [("a.wav", "A"), ("b/c.flac", None)]
    for reason in ("lost.wav: is named in the metadata", "x.wav: leads out of the folder", "d.wav: is empty"):
        assert reason in caplog.text


def test_a_local_folder_of_splits_is_read_and_links_out_of_it_are_not_followed(songs, tmp_path):
    root = tmp_path / "splits"
    for split, rows in songs.items():
        (root / split).mkdir(parents=True)
        lines = []
        for index, row in enumerate(rows):
            (root / split / f"{index}.wav").write_bytes(sound(index + len(rows)))
            lines.append(json.dumps({"file_name": f"{index}.wav", "title": row["title"]}))
        (root / split / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    again = load_songs(root)
    assert {split: rows["title"] for split, rows in again.items()} == {
        split: rows["title"] for split, rows in songs.items()
    }
    (tmp_path / "secret.wav").write_bytes(sound(9))
    (root / "train" / "link.wav").symlink_to(tmp_path / "secret.wav")
    assert scan_songs(root).skipped == {"train/link.wav": "leads out of the folder"}
    (root / "metadata.jsonl").write_text("", encoding="utf-8")
    described = scan_songs(root).songs  # one compilation with facts of its own: names are relative to its folder
    assert {song["file_name"]: song["split"] for song in described} == {
        f"{split}/{index}.wav": split for split, rows in songs.items() for index in range(len(rows))
    }


def test_songs_without_proper_names_get_some(hub):
    rows = [
        {"audio": {"bytes": sound(0), "path": None}, "file_name": name, "duration": 1.0}
        for name in (None, "../up.wav", "/abs.wav", "no suffix", ".hidden/a.wav", "good/a.wav")
    ]
    push_songs(DatasetDict(train=Dataset.from_list(rows)), "ann/songs", license="mit", layout="audiofolder")
    names = [
        json.loads(line)["file_name"]
        for line in hub.files("ann/songs", kind="dataset")["train/metadata.jsonl"].splitlines()
    ]
    assert names == ["00000.wav", "00001.wav", "00002.wav", "no suffix.wav", "00004.wav", "good/a.wav"]
    with pytest.raises(
        ValueError, match="`songs` of train must have names that differ, got 'good/a.wav' twice: rename one"
    ):
        push_songs(
            DatasetDict(train=Dataset.from_list([rows[-1]] * 2)), "ann/songs", license="mit", layout="audiofolder"
        )


def test_songs_and_splits_that_are_one_on_other_disks_are_not_written(hub, songs, codes, vqvae, tmp_path):
    """Where capital letters and small ones are the same, as on those of Windows and macOS."""
    rows = [{"audio": {"bytes": sound(0), "path": None}, "file_name": name, "duration": 1.0} for name in ("A.wav", "a")]
    twins = DatasetDict(train=Dataset.from_list(rows))
    with pytest.raises(ValueError, match=r"`songs` of train must have names that differ, got 'a\.wav' beside 'A\.wav'"):
        push_songs(twins, "ann/songs", license="mit", layout="audiofolder")
    assert not hub.repositories
    splits = DatasetDict(test=songs["test"], Test=songs["train"])
    before = {path.name for path in codes.iterdir()}
    for write in (
        lambda: push_songs(splits, "ann/songs", license="mit", layout="audiofolder"),
        lambda: save_songs(splits, tmp_path / "saved"),
        lambda: encode_songs(splits, vqvae, codes, progress=False),
    ):
        with pytest.raises(ValueError, match="splits of `songs` must have names that differ, got 'Test' beside 'test'"):
            write()
    assert not hub.repositories and not (tmp_path / "saved").exists()
    assert {path.name for path in codes.iterdir()} == before


@pytest.mark.parametrize("layout", ["audiofolder", "parquet"])
def test_lyrics_and_names_of_every_kind_come_back(hub, tmp_path, layout):
    names = ["a\u0301.wav", "\u00e9.wav", "b c/d#1.wav", "e'\"f.wav"]
    rows = []
    for index, name in enumerate(names):
        (tmp_path / "songs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "songs" / name).write_bytes(sound(index))
        rows.append(
            {"file_name": name, "lyrics": "one\u2028two\u2029three\x85four\nfive\ttab", "artist": "Beyonce\u0301"}
        )
    lines = "\r\n".join(json.dumps(row, ensure_ascii=index % 2 == 0) for index, row in enumerate(rows))
    (tmp_path / "songs" / "metadata.jsonl").write_bytes(lines.encode("utf-8-sig"))
    songs = load_songs(tmp_path / "songs", test_fraction=0.3)
    assert {row["file_name"] for split in songs.values() for row in split} == set(names)
    assert {row["lyrics"] for split in songs.values() for row in split} == {rows[0]["lyrics"]}
    push_songs(songs, "ann/songs", license="mit", layout=layout)
    again = load_songs("ann/songs")
    if layout == "audiofolder":
        assert again["train"]["split"][:] == ["train"] * len(again["train"])
        again = again.remove_columns("split")
    assert facts(again) == facts(songs)


def test_a_missing_or_damaged_file_of_a_data_set_is_named(songs, tmp_path):
    for damage in ("lost", "empty", "cut"):
        folder = tmp_path / damage
        first, second, *_ = save_songs(songs, folder, shard_bytes=3000)
        assert len(load_songs(folder)["train"]) == 4
        if damage == "lost":
            second.unlink()
        else:
            second.write_bytes(b"" if damage == "empty" else second.read_bytes()[:500])
        wanted = f"lacks 1 of .*{second.name}" if damage == "lost" else f"{second.name} is damaged"
        with pytest.raises(ValueError, match=wanted):
            load_songs(folder)
        assert first.exists()
    folder = tmp_path / "two"
    save_songs(songs, folder, shard_bytes=3000)
    (folder / "data" / ".train-00000-of-00002.7-0123abcd-1.tmp.parquet").write_bytes(b"PAR1")
    first = sorted((folder / "data").glob("train-*"))[0]
    shutil.copy(first, folder / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="files of two counts"):
        load_songs(folder)


def test_files_that_a_data_set_names_are_not_read(songs, tmp_path, caplog):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(sound(1))
    (tmp_path / "data").mkdir()
    rows = Dataset.from_list(
        [{"audio": {"bytes": None, "path": str(secret)}}, {"audio": {"bytes": sound(2), "path": "a"}}]
    )
    rows.to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    loaded = load_songs(tmp_path, test_fraction=0)
    assert len(loaded["train"]) == 1
    assert "names a file in place of its sound" in caplog.text


def test_codes_that_are_damaged_are_named_and_made_again(songs, vqvae, codes):
    wanted = load_codes(codes).copy()
    wanted = {split: rows.to_list() for split, rows in wanted.items()}
    shard = codes / "train-00001.parquet"
    for content in (b"", shard.read_bytes()[:200], b"PAR1" * 50):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=r"train-00001\.parquet is damaged"):
            load_codes(codes)
        encode_songs(songs, vqvae, codes, progress=False)
        assert {split: rows.to_list() for split, rows in load_codes(codes).items()} == wanted
    (codes / ".train-00001.7-0123abcd-1.tmp.parquet").write_bytes(b"PAR1")  # as of a process that is killed
    assert {split: rows.to_list() for split, rows in load_codes(codes).items()} == wanted
    (codes / "train-00000.parquet").unlink()
    with pytest.raises(ValueError, match=r"lacks train-00000\.parquet"):
        load_codes(codes)
    encode_songs(songs, vqvae, codes, progress=False)
    for content in ("", "[]", '{"vqvae": 5}', '{"splits": {"train": "x"}}', "[" * 9999):
        (codes / "codes.json").write_text(content)
        with pytest.raises(ValueError, match=r"codes\.json is damaged .*: fetch the codes again"):
            load_codes(codes)
        with pytest.raises(ValueError, match=r"codes\.json is damaged .*: name another|codes made with vqvae"):
            encode_songs(songs, vqvae, codes, progress=False)


def damage_body(shard, column):
    """Damage the content of a column's first pages; the file's end, which states its rows, stays sound."""
    chunks = pyarrow.parquet.read_metadata(shard).row_group(0)
    chunk = next(each for each in map(chunks.column, range(chunks.num_columns)) if column in each.path_in_schema)
    content = bytearray(shard.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    shard.write_bytes(content)


@pytest.mark.parametrize("column", ["codes_0", "title"])
def test_codes_whose_body_is_damaged_are_named_and_made_again(songs, vqvae, codes, column):
    wanted = {split: rows.to_list() for split, rows in load_codes(codes).items()}
    damage_body(codes / "train-00001.parquet", column)
    with pytest.raises(ValueError, match=r"train-00001\.parquet is damaged"):
        load_codes(codes)
    encode_songs(songs, vqvae, codes, progress=False)
    assert {split: rows.to_list() for split, rows in load_codes(codes).items()} == wanted


def test_songs_whose_body_is_damaged_are_named(songs, tmp_path):
    _, second, *_ = save_songs(songs, tmp_path / "saved", shard_bytes=3000)
    damage_body(second, "title")
    with pytest.raises(ValueError, match=f"{second.name} is damaged .*: fetch it again"):
        load_songs(tmp_path / "saved")


def test_codes_of_another_type_are_refused(tmp_path):
    Dataset.from_dict({"codes_0": [["a"]]}).to_parquet(str(tmp_path / "train-00000.parquet"))
    with pytest.raises(ValueError, match="lists of whole numbers in `codes_0`"):
        load_codes(tmp_path)
