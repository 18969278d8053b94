import doctest
import json
from types import SimpleNamespace

import pytest

from fast_jukebox.processing import published
from fast_jukebox.processing import vocabulary as module
from fast_jukebox.processing.published import NameList, fitting_names, read_names
from fast_jukebox.processing.vocabulary import LabelVocabulary, names_in


@pytest.fixture
def words():
    return LabelVocabulary({"ann_lee": 1, "the_choir": 2}, {"pop": 1, "classic": 2, "folk": 3}, genre_words=True)


@pytest.fixture
def whole():
    return LabelVocabulary({"ann lee": 1, "bob o'neil": 2}, {"classic pop": 1}, characters="abc ")


def test_docstrings_hold():
    assert doctest.testmod(module).failed == 0


def test_names_become_ids(words, whole):
    assert (words.num_artists, words.num_genres, whole.num_artists, whole.num_genres) == (3, 4, 3, 2)
    assert words.artist_id("Ann LEE!") == 1 and whole.artist_id("Bob O'Neil") == 2
    assert words.artist_id(None) == words.artist_id("") == words.artist_id("Unknown") == 0
    assert words.genre_ids("Classic Pop") == [2, 1]
    assert words.genre_ids(["Pop", "Folk"]) == [1, 3]
    assert words.genre_ids(None) == words.genre_ids([]) == [0]
    assert whole.genre_ids("Classic Pop") == [1]


def test_unknown_names_are_refused_with_the_nearest_or_taken_as_unknown(words, whole):
    with pytest.raises(ValueError, match=r"`artist` must be one of the 3 .* got 'an_lea' of 'An Lea'.*'ann_lee'"):
        words.artist_id("An Lea")
    with pytest.raises(ValueError, match=r"`genre` .* got 'clasic' of 'Clasic pop'; the nearest are 'classic'"):
        words.genre_ids("Clasic pop")
    assert words.artist_id("An Lea", unknown=True) == 0
    assert words.genre_ids("Clasic pop", unknown=True) == [0, 1]
    with pytest.raises(ValueError, match="`genre` must be one genre"):
        whole.genre_ids(["classic pop", "folk"])
    many = LabelVocabulary({f"singer {number}": number for number in range(1, 30)}, {})
    with pytest.raises(ValueError) as caught:
        many.artist_id("singer")
    assert str(caught.value).count("'singer ") == 5


def test_characters_become_ids(whole):
    ids, clean = whole.lyric_ids("a bád cab")
    assert ids == [1, 4, 2, 1, 4, 3, 1, 2]
    assert clean.dropped == "d"
    assert whole.lyric_text([0, 0, *ids, -1]) == "a ba cab"
    assert whole.lyric_ids(None)[0] == []


def test_a_compilation_makes_its_own():
    rows = [
        {"artist": "Zoë", "genre": "Folk Rock"},
        {"artist": None, "genre": ["Pop", "Rock"]},
        {"artist": "Ann", "lyrics": "la"},
        {"artist": "unknown", "genre": ""},
    ]
    whole = LabelVocabulary.from_metadata(rows)
    assert whole.artists == {"unknown": 0, "ann": 1, "zoë": 2}
    assert whole.genres == {"unknown": 0, "folk rock": 1, "pop": 2, "rock": 3}
    words = LabelVocabulary.from_metadata(reversed(rows[:2]), genre_words=True)
    assert words.artists == {"unknown": 0, "zo": 1}
    assert words.genres == {"unknown": 0, "folk": 1, "pop": 2, "rock": 3}
    assert LabelVocabulary.from_metadata([]).num_artists == 1


def test_pairs_are_the_labels_that_songs_have_together():
    rows = [{"artist": "Ann", "genre": "Jig"}, {"artist": "ann", "genre": "jig"}, {"artist": "Bob", "genre": "Reel"}]
    others = [{"artist": "Ann"}, {"genre": "Reel"}, {"artist": "Ann", "genre": ["Jig", "Reel"]}]
    vocabulary = LabelVocabulary.from_metadata(rows + others)
    assert vocabulary.pairs == (("ann", "jig"), ("bob", "reel"))
    assert LabelVocabulary(**json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    assert "pairs" not in LabelVocabulary.from_metadata(others).to_dict()
    words = LabelVocabulary.from_metadata([{"artist": "Ann Lee", "genre": "Slip Jig"}], genre_words=True)
    assert words.pairs == (("ann_lee", "slip_jig"),)


@pytest.mark.parametrize("pairs", ["ann", [["ann"]], [["ann", "polka"]], [["bob", "jig"]], [["ann", 1]]])
def test_pairs_of_names_that_are_not_known_are_refused(pairs):
    with pytest.raises(ValueError, match="`pairs`"):
        LabelVocabulary({"ann": 1}, {"jig": 1}, pairs=pairs)


def test_columns_of_a_dataset_are_read_by_name():
    from datasets import Dataset

    rows = Dataset.from_list([{"artist": "Ann"}, {"artist": None}])
    assert names_in(rows, "artist") == ["Ann"]
    assert names_in(rows, "genre") == []


def test_published_lists(tmp_path):
    lines = tmp_path / "artist_ids.txt"
    lines.write_text("unknown;0\n\nAC;DC;7\nZoë ; 3\n", encoding="utf-8")
    (names,) = read_names(lines)
    assert names.ids == {"unknown": 0, "ac;dc": 7, "zoë ": 3}
    assert (names.size, names.genre_words) == (8, None)
    both = tmp_path / "artists.json"
    both.write_text(json.dumps({"unknown.v2": 0, "ann_lee.v2": 4, "ann lee": 1}), encoding="utf-8")
    older, newer = read_names(both)
    assert older.ids == {"unknown": 0, "ann_lee": 4} and older.genre_words
    assert newer.ids == {"unknown": 0, "ann lee": 1} and newer.genre_words is False


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", b"unknown;0\nno id\n", "line 2: must be a name, a semicolon and its id, got 'no id'"),
        ("a.txt", b"ann;-1\n", "line 1"),
        ("a.txt", b"\xff\xfe", "must be UTF-8"),
        ("a.json", b"{", "JSON"),
        ("a.json", b"[1]", "must hold names"),
        ("a.json", b'{"ann": "x"}', "'ann': 'x'"),
        ("a.json", b'{"ann": true}', "ids from 0"),
        ("a.json", b"[" * 100000, "JSON"),
    ],
)
def test_damaged_lists_are_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_names(tmp_path / name)


@pytest.mark.parametrize(
    "fields",
    [{"artists": ["ann"]}, {"genres": {"pop": -1}}, {"genre_words": 1}, {"characters": "aa"}, {"characters": None}],
)
def test_what_cannot_be_a_vocabulary(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}`"):
        LabelVocabulary(**fields)


def test_a_prior_gets_the_list_that_it_was_trained_with():
    """That of as many ids as it has; else of its kind, where the file tells; else the longest that fits."""

    def chosen(rows, max_genres, *lists):
        config = SimpleNamespace(num_artists=rows, max_genres=max_genres, level=0)
        found = fitting_names("num_artists", lists, config)
        return next(index for index, own in enumerate(lists) if own.ids is found)

    def names(size, genre_words):
        return NameList({str(number): number for number in range(size)}, genre_words)

    words, whole, longest = names(4, True), names(5, False), names(9, True)
    assert [chosen(6, most, words, whole, longest) for most in (3, 1)] == [0, 1]
    assert [chosen(rows, 3, words, whole, longest) for rows in (4, 5, 9)] == [0, 1, 2]
    assert chosen(4, 1, words, whole) == 0
    assert chosen(6, 3, names(3, None), names(4, None)) == 1
    with pytest.raises(ValueError, match=r"`artists` must hold a list of at most 3 ids .* got 4, 5, 9"):
        chosen(3, 1, words, whole, longest)


@pytest.mark.parametrize("genre_words", [False, True])
def test_a_name_is_one_in_every_form_that_it_is_written(genre_words):
    forms = ["Beyonc\u00e9 K", "Beyonce\u0301 K", "beyonc\u00e9\u00a0k", " BEYONC\u00c9\u202fK "]
    vocabulary = LabelVocabulary.from_metadata(
        [{"artist": name, "genre": name} for name in forms], genre_words=genre_words
    )
    assert vocabulary.num_artists == 2
    assert {vocabulary.artist_id(name) for name in forms} == {1}
    assert len({tuple(vocabulary.genre_ids(name)) for name in forms}) == 1


def test_lists_of_another_form_are_found_in():
    vocabulary = LabelVocabulary({"beyonce\u0301": 1}, {"fado\u00a0novo": 1})
    assert vocabulary.artist_id("Beyonc\u00e9") == 1
    assert vocabulary.genre_ids("Fado Novo") == [1]
    with pytest.raises(ValueError, match="must be one of the 2"):
        vocabulary.artist_id("Beyonce")


@pytest.mark.parametrize(
    ("name", "text"), [("v3_artist_ids.txt", "ann lee;0\r\nbob;1\r\n"), ("a.json", '{"ann lee": 0}')]
)
def test_a_list_with_a_byte_order_mark_is_read(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert read_names(tmp_path / name)[0].ids["ann lee"] == 0


def test_a_list_of_names_is_a_file_of_some_size_with_any_line_ends(tmp_path, pipe, monkeypatch):
    with pytest.raises(OSError, match="no regular file"):
        read_names(pipe)
    path = tmp_path / "artists.txt"
    path.write_bytes(b"\xef\xbb\xbfann;1\rbob;2\r\ncy;3\n")
    assert read_names(path)[0].ids == {"unknown": 0, "ann": 1, "bob": 2, "cy": 3}
    monkeypatch.setattr(published, "_LARGEST", 10)
    with pytest.raises(ValueError, match=f"{path.name}.* more than 10 bytes"):
        read_names(path)
