"""Rows hold what is known of a song, then what was measured, and nothing that somebody made up or smuggled in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.labelling.dataset import LABELS, ROW_KEYS, all_labels, describe, known_labels, tidy_label
from fast_jukebox.utils.text import printable

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(LABELS), ANYTHING)
def test_any_value_is_a_short_printable_label_or_none(name, value):
    label = tidy_label(name, value)
    if label is None:
        return
    json.dumps(label, allow_nan=False).encode()
    if name == "bpm":
        assert 0 < label <= 1000
        return
    for text in label if name == "moods" else [label]:
        assert text and len(text) <= 2000 and "\n" not in text and text == printable(text) == text.strip()
    assert name != "moods" or len(label) <= 16


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("artist", "  Ann\n Lee ", "Ann Lee"),
        ("artist", 311, "311"),
        ("title", "\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("genre", ["folk", "pop"], "folk, pop"),
        ("moods", "happy", ["happy"]),
        ("bpm", "84.5", 84.5),
        ("bpm", float("nan"), None),
        ("bpm", True, None),
        ("genre", "", None),
        ("genre", {"a": "b"}, None),
    ],
)
def test_values_become_labels(name, value, label):
    assert tidy_label(name, value) == label


def test_metadata_goes_before_tags_and_tags_before_what_was_measured():
    known = known_labels({"artist": "Ann", "genre": None, "bpm": 90}, {"artist": "tag", "genre": "Folk", "bpm": "1"})
    assert known == {
        "artist": ("Ann", "metadata"),
        "genre": ("Folk", "file tags"),
        "bpm": (90.0, "metadata"),
    }
    measured = {"genre": ("rock", "measured: x"), "key": ("C major", "measured: y")}
    labels, sources = all_labels(known, measured)
    assert labels["genre"] == "Folk" and sources["genre"] == "file tags"
    assert labels["key"] == "C major" and sources["key"] == "measured: y"
    assert labels["description"] == "Folk music, in C major, at 90 beats a minute"
    assert sources["description"] == "composed of the other labels"
    assert labels["title"] is labels["moods"] is None and sources["title"] is None
    assert list(labels) == list(sources) == list(LABELS)


def test_a_mode_beside_a_key_goes_with_it():
    assert known_labels({"key": "E", "mode": "minor"}, {})["key"] == ("E minor", "metadata")
    assert known_labels({"key": "E major", "mode": "minor"}, {})["key"] == ("E major", "metadata")
    assert known_labels({"key": None, "mode": "minor"}, {}) == {}


def test_nothing_known_is_described_by_nothing():
    assert describe(dict.fromkeys(LABELS)) == ""
    labels, sources = all_labels({}, {})
    assert set(labels.values()) == set(sources.values()) == {None}


def test_a_description_that_is_given_stays():
    labels, sources = all_labels({"description": ("Mine.", "metadata")}, {"key": ("C major", "measured: y")})
    assert (labels["description"], sources["description"]) == ("Mine.", "metadata")


def test_the_keys_are_the_twelve_of_audiocraft():
    audiocraft = "key artist sample_rate file_extension description duration bpm genre title instrument moods path"
    assert sorted(ROW_KEYS) == sorted(audiocraft.split(" "))
