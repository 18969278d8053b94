import os

import pytest

from fast_jukebox.hub import HubError
from fast_jukebox.processing.files import find_file, published_lists, read_json, write_json


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"zoë": 1})
    assert read_json(str(tmp_path / "a.json")) == {"zoë": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100000])
def test_damage_is_told(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json` .*save it again, or fetch it again"):
        read_json(str(tmp_path / "a.json"))


def test_files_are_found_in_folders(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.json").write_text("{}")
    assert find_file(tmp_path, "a.json") is None
    assert find_file(tmp_path, "a.json", subfolder="part") == str(tmp_path / "part" / "a.json")


def test_published_lists_are_found(tmp_path):
    assert published_lists(tmp_path) == ([], [])
    for name in ("artists.json", "v2_artist_ids.txt", "v3_artist_ids.txt", "v3_genre_ids.txt"):
        (tmp_path / name).write_text("")
    artists, genres = published_lists(tmp_path)
    assert [path.rsplit("/", 1)[1] for path in artists] == ["artists.json", "v2_artist_ids.txt", "v3_artist_ids.txt"]
    assert [path.rsplit("/", 1)[1] for path in genres] == ["v3_genre_ids.txt"]


def test_files_are_found_in_repositories(hub, words_model, tmp_path, monkeypatch):
    from fast_jukebox import FastJukeboxModel

    own = words_model.processor
    words_model.push_to_hub("ann/singer", license="mit")
    assert vars(FastJukeboxModel.from_pretrained("ann/singer").processor) == vars(own)
    words_model.processor = None
    words_model.push_to_hub("ann/silent", license="mit")
    assert FastJukeboxModel.from_pretrained("ann/silent").processor is None
    assert find_file("ann/silent", "vocabulary.json") is None
    with pytest.raises(HubError):
        find_file("ann/nobody", "vocabulary.json")
    for name, processor in (("ann/singer", own), ("ann/silent", None)):  # from the cache alone
        loaded = FastJukeboxModel.from_pretrained(name, local_files_only=True).processor
        assert loaded is None if processor is None else vars(loaded) == vars(processor)


@pytest.mark.skipif(os.name != "posix", reason="there are no such files")
def test_a_file_that_has_no_end_or_is_far_too_large_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="no regular file"):
        read_json(tmp_path / "a.json")
    with (tmp_path / "b.json").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ValueError, match="b.json.*more than 268435456 bytes"):
        read_json(tmp_path / "b.json")
