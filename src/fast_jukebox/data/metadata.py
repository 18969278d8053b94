"""Metadata of the songs of a folder: `metadata.jsonl` or `metadata.csv`, as an AudioFolder has it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from fast_jukebox.utils.text import shown

METADATA_FILE = "metadata.jsonl"
METADATA_FILES = (METADATA_FILE, "metadata.csv")
MAX_METADATA_BYTES = 2**30
"""Size of such a file at most by default."""

ADDRESS = re.compile(r"[A-Za-z][\w+.-]+://|data:")
"""How a name begins that is no file's but an address."""
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_LONGEST_LINE = 2**24
# Characters at which other readers than those of JSON Lines end a line.
_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
_TEXTS = ("file_name", "split", "artist", "genre", "lyrics", "title")


def read_metadata(folder: Path, max_bytes: int = MAX_METADATA_BYTES) -> dict[str, dict[str, object]]:
    """Rows of a folder's metadata file by `file_name`; empty where there is no file.

    A `ValueError` names the file and the line: there are two files, one is too large, or a line is wrong.
    """
    paths = [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    if not paths:
        return {}
    if len(paths) > 1:
        raise ValueError(f"{folder} holds {' and '.join(METADATA_FILES)}: keep the one that is right")
    path = paths[0]
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))  # both formats begin with characters of ASCII
    if not encoding.startswith("utf-8"):
        raise ValueError(f"{path} is {encoding.upper()[:6]} text: save it as UTF-8")
    if path.stat().st_size > max_bytes:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than {max_bytes}: raise `max_metadata_bytes` of `SongLimits`"
        )
    rows: dict[str, dict[str, object]] = {}
    for where, row in _csv_rows(path) if path.suffix == ".csv" else json_rows(path):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise ValueError(f"{where}: must be an object with a `file_name`, got {str(row)[:80]!r}")
        name = row["file_name"]
        if name in rows:
            raise ValueError(f"{where}: `file_name` {shown(name)} stands there twice, keep the one that is right")
        split = row.get("split")
        if split is not None and not (isinstance(split, str) and SPLIT_NAME.fullmatch(split)):
            raise ValueError(f"{where}: `split` must be a word such as 'train', got {shown(split)}")
        rows[name] = row
    return rows


def metadata_lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    """Rows as a `metadata.jsonl`, one object a line, UTF-8; values that JSON has no type for as text."""
    lines = (json.dumps(dict(row), ensure_ascii=False, default=str).translate(_LINE_ENDS) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def tidy_name(folder: Path, name: str) -> str:
    """A name of the metadata relative to the folder, without `..` and absolute paths where it lies in the folder."""
    relative = os.path.relpath(os.path.normpath(folder.absolute() / name), folder.absolute())
    return Path(name).as_posix() if relative.startswith("..") else Path(relative).as_posix()


def json_rows(path: Path) -> Iterator[tuple[str, object]]:
    """What each line of a file of JSON Lines holds, after its place; a `ValueError` names a line that is wrong."""
    # Of bytes that are no UTF-8 halves of surrogates are made, so that their line is known.
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, text in enumerate(iter(partial(file.readline, _LONGEST_LINE + 1), ""), 1):
            where = f"{path}, line {number}"
            if len(text) > _LONGEST_LINE:
                raise ValueError(f"{where}: has more than {_LONGEST_LINE} characters, make it shorter")
            try:
                text.encode("utf-8", "surrogateescape").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: no UTF-8 text ({error}): save {path.name} as UTF-8") from error
            text = text.removeprefix("\ufeff") if number == 1 else text
            if not text.strip():
                continue
            try:
                row = json.loads(text, object_pairs_hook=_unique)
                if "\\ud" in text.lower():
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{where}: holds half of a pair of surrogates, which is no character: leave it out"
                ) from error
            except _StandsTwice as error:
                raise ValueError(f"{where}: `{error}` stands there twice, keep the one that is right") from error
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: must be one object of JSON, correct it: {error}") from error
            yield where, row


class _StandsTwice(ValueError):
    """A name has two values."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _StandsTwice(next(name for name in names if names.count(name) > 1))
    return found


def _delimiter(path: Path) -> str:
    """The separator of columns: a comma, a semicolon (as programs write in many countries), or a tab."""
    with path.open("rb") as file:
        head = file.readline(2**16).removeprefix(b"\xef\xbb\xbf").split(b"\r")[0].strip()
    for each in (b",", b";", b"\t"):
        if b"file_name" in [name.strip(b'" ') for name in head.split(each)]:
            return each.decode()
    return ","


def _check_quotes(path: Path, delimiter: str) -> None:
    """Raise a `ValueError` for a quotation mark that is not closed, which makes one value of all that follows."""
    with path.open("rb") as file:
        if sum(block.count(b'"') for block in iter(lambda: file.read(2**20), b"")) % 2 == 0:
            return
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for _ in rows:
                pass
        except csv.Error as error:
            if "end of data" in str(error):
                raise ValueError(f"{path} has a quotation mark that is not closed, close it or leave it out") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, object]]:
    import pyarrow
    import pyarrow.csv

    delimiter = _delimiter(path)
    _check_quotes(path, delimiter)
    spaced = ("{}", " {}", "{} ", " {} ")
    texts = {each.format(name): pyarrow.string() for name in _TEXTS for each in spaced}
    try:
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=texts,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        table = table.rename_columns([name.strip() for name in table.column_names])
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8, as which it must be saved: {error}") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} has the column `{twice}` twice: keep the one that is right")
    if "file_name" not in table.column_names:
        raise ValueError(f"{path} must have a column `file_name`, got {', '.join(table.column_names)}")
    for number, row in enumerate(table.to_pylist(), 2):
        yield f"{path}, row {number}", row
