"""Metadata as people's programs write it: marks, line ends, tables, names in other forms."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.data.metadata import metadata_lines, read_metadata, tidy_name

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=80, deadline=None)
@given(lyrics=TEXT, title=st.one_of(st.none(), TEXT), number=st.one_of(st.none(), st.integers(-5, 5), st.floats(0, 1)))
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_is_written_is_read(tmp_path_factory, lyrics, title, number, line_end, mark):
    rows = [{"file_name": f"{i}.wav", "lyrics": lyrics, "title": title, "bpm": number} for i in range(3)]
    folder = tmp_path_factory.mktemp("metadata")
    (folder / "metadata.jsonl").write_bytes(mark + metadata_lines(rows).replace(b"\n", line_end.encode()))
    assert list(read_metadata(folder).values()) == rows
    assert metadata_lines(rows).decode().splitlines() == metadata_lines(rows).decode().split("\n")[:-1]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("escaped", [True, False])
def test_a_line_ends_at_a_line_feed_only(tmp_path, character, escaped):
    lyrics = f"one{character}two"
    lines = [json.dumps({"file_name": name, "lyrics": lyrics}, ensure_ascii=escaped) for name in ("a", "b")]
    text = (
        "\n".join(lines)
        if character not in "\x0b\x0c\x1c" or escaped
        else metadata_lines(map(json.loads, lines)).decode()
    )
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert [row["lyrics"] for row in read_metadata(tmp_path).values()] == [lyrics, lyrics]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"file_name": "a"}'.encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        (b'{"file_name": "a"}\n{"file_name": "\xff"}', r"line 2: no UTF-8 text"),
        (b'{"file_name": "a", "lyrics": "\\ud83d"}', "line 1: holds half of a pair"),
        (b"[" * 100_000, "line 1: must be one object of JSON"),
        (b'{"file_name": ""}', "line 1: must be an object with a `file_name`"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, content, reason):
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"metadata\.jsonl.*{reason}"):
        read_metadata(tmp_path)


def test_the_size_is_bounded_and_the_bound_can_be_raised(tmp_path):
    rows = [{"file_name": f"{number:05d}.wav", "lyrics": "la " * 20} for number in range(300)]
    (tmp_path / "metadata.jsonl").write_bytes(metadata_lines(rows))
    assert len(read_metadata(tmp_path)) == 300
    with pytest.raises(ValueError, match="more than 10000: raise `max_metadata_bytes`"):
        read_metadata(tmp_path, 10_000)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_table_is_read_with_its_types(tmp_path, mark):
    table = 'file_name,artist,lyrics,bpm,split\r\na.wav,12,"one\ntwo, three",80,train\r\nb.wav,,,,test\r\n'
    (tmp_path / "metadata.csv").write_bytes(mark + table.encode())
    assert list(read_metadata(tmp_path).values()) == [
        {"file_name": "a.wav", "artist": "12", "lyrics": "one\ntwo, three", "bpm": 80, "split": "train"},
        {"file_name": "b.wav", "artist": None, "lyrics": None, "bpm": None, "split": "test"},
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("name\na", "column `file_name`"),
        ('file_name,b\n"a', "quotation mark that is not closed"),
        ('file_name,b\na,"b\nc,d\n', "quotation mark that is not closed"),
        ("file_name,b,b\na,1,2", "column `b` twice"),
        ("file_name,b\na,1,2", "no CSV"),
        ("", "no CSV.*must be saved"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, table, reason):
    (tmp_path / "metadata.csv").write_text(table)
    with pytest.raises(ValueError, match=rf"metadata\.csv.*{reason}"):
        read_metadata(tmp_path)


def test_two_files_of_metadata_are_one_too_many(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name\na\n")
    (tmp_path / "metadata.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"metadata\.jsonl and metadata\.csv: keep"):
        read_metadata(tmp_path)


def test_names_within_the_folder_become_relative(tmp_path):
    for name in ("a/b.wav", "./a/b.wav", "a/../a/b.wav", str(tmp_path / "a" / "b.wav"), f"../{tmp_path.name}/a/b.wav"):
        assert tidy_name(tmp_path, name) == "a/b.wav"
    assert tidy_name(tmp_path, "../x.wav") == "../x.wav"
    assert tidy_name(tmp_path, unicodedata.normalize("NFD", "é.wav")) == unicodedata.normalize("NFD", "é.wav")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_as_programs_of_many_countries_write_them(tmp_path, delimiter, end):
    rows = [("file_name", "title"), ("a.wav", '12" mix'), ("b.wav", "Ä")]
    table = "".join(delimiter.join(row) + end for row in rows)
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    assert {name: row["title"] for name, row in read_metadata(tmp_path).items()} == dict(rows[1:])


@pytest.mark.parametrize("form", ["", "-le", "-be"])
@pytest.mark.parametrize("kind", ["utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "text"), [("csv", "file_name\na.wav\n"), ("jsonl", '{"file_name": "a.wav"}')])
def test_text_that_is_no_utf8_is_named_with_and_without_a_mark(tmp_path, name, text, kind, form):
    (tmp_path / f"metadata.{name}").write_bytes(text.encode(kind + form))
    with pytest.raises(ValueError, match=rf"metadata\.{name} is {kind.upper()} text: save it as UTF-8"):
        read_metadata(tmp_path)


def test_lines_may_end_as_those_of_old_computers(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a"}\r{"file_name": "b"}\r\r{"file_name": "c"}')
    assert list(read_metadata(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_ends_of_every_kind_part_a_file_of_many_blocks(tmp_path, end):
    """Of more bytes than a line may have, and with line ends at the edges of blocks."""
    rows = [json.dumps({"file_name": str(number), "lyrics": "x" * (2**16 + number)}).encode() for number in range(300)]
    (tmp_path / "metadata.jsonl").write_bytes(end.join(rows))
    assert list(read_metadata(tmp_path)) == [str(number) for number in range(300)]
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a"}' + end + b'"' + b"x" * 2**24)
    with pytest.raises(ValueError, match="line 2: has more than"):
        read_metadata(tmp_path)


def test_a_name_that_has_two_values_is_refused(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a"}\n{"file_name": "b", "artist": "x", "artist": "y"}\n')
    with pytest.raises(ValueError, match="line 2: `artist` stands there twice, keep"):
        read_metadata(tmp_path)


def test_spaces_around_the_names_of_columns_are_no_part_of_them(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name, artist ,bpm\na.wav,1975,90\n")
    assert read_metadata(tmp_path) == {"a.wav": {"file_name": "a.wav", "artist": "1975", "bpm": 90}}


def test_names_of_columns_that_are_no_utf8_are_told(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"file_name,k\xcanstler\na.wav,x\n")
    with pytest.raises(ValueError, match="metadata.csv is no CSV file in UTF-8"):
        read_metadata(tmp_path)
