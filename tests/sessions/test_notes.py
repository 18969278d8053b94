import json
from dataclasses import asdict, replace

import pytest
import torch

from fast_jukebox.generation.windows import Layout
from fast_jukebox.sessions.notes import (
    ModelFacts,
    Segment,
    SessionNotes,
    Take,
    checked_settings,
    metadata_record,
    updated_metadata,
)
from fast_jukebox.sessions.sampling import metadata_argument

FACTS = ModelFacts("", None, 80, (8, 16), 11, (8, 8), "", ("", ""))


def a_take(number, parent=None, **changes):
    facts = {
        "number": number,
        "parent": parent,
        "origin": "new",
        "kept": 0,
        "samples": 160,
        "seed": 5,
        "song": 0,
        "settings": {"top_k": [1, 2]},
        "segments": (Segment(0, None), Segment(4, {"words": {"artist": "A"}})),
        "given": None,
        "known": (0, 0),
        "layouts": (Layout(0, 20, 8, 6, parallel=True), Layout(1, 10, 8, 1, segment=1)),
    }
    return Take(**{**facts, **changes})


def test_a_take_survives_json():
    take = a_take(3, 1)
    assert Take.from_record(json.loads(json.dumps(take.record())), FACTS) == take
    assert take.metadata == {"words": {"artist": "A"}}
    assert take.length(1) == 10
    with pytest.raises(ValueError, match="fields"):
        Take.from_record({"segments": [], "layouts": []}, FACTS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"given": "../../somewhere"}, "not as it was written"),
        ({"layouts": (Layout(0, 20, 8, 0, parallel=True), Layout(1, 10, 8, 1))}, "hop"),
        ({"layouts": (Layout(0, 20, 8, 6, segment=0), Layout(1, 10, 8, 1))}, "segment"),
        ({"layouts": (Layout(0, None, 8, 6), Layout(1, 10, 8, 1))}, "length"),
        ({"layouts": (Layout(0, 20, 8, 6), Layout(1, 10, 8, 1, given=3))}, "given"),
        ({"segments": (Segment(0, None), Segment(-1, None))}, "start"),
        ({"segments": (Segment(0, {"labels": [True]}),)}, "labels"),
        ({"number": 1, "parent": 1}, "parent"),
        ({"samples": 0}, "samples"),
        ({"settings": {"top_k": -1}}, "top_k"),
    ],
)
def test_a_take_that_cannot_be_is_refused(changes, named):
    """What would be looked for elsewhere, or laid out without end."""
    with pytest.raises(ValueError, match=named):
        Take.from_record(json.loads(json.dumps(replace(a_take(3), **changes).record())), FACTS)


def test_seeds_of_branches():
    def notes(seed, branches):
        takes = [*(a_take(number) for number in (1, 2, 3)), *(a_take(4 + index, parent) for index, parent in branches)]
        return SessionNotes(FACTS, {take.number: replace(take, origin="branch") for take in takes}, (), seed, None)

    fresh = [notes(seed, []) for seed in range(3)]
    seeds = {each.branch_seed(each.takes[parent], index) for each in fresh for parent in (1, 2, 3) for index in (0, 1)}
    assert len(seeds) == 18 and all(0 <= seed < 2**53 for seed in seeds)
    later = notes(1, [(0, 2)])
    assert later.branch_seed(later.takes[2], 0) == fresh[1].branch_seed(fresh[1].takes[2], 1)
    assert later.branch_seed(later.takes[3], 0) == fresh[1].branch_seed(fresh[1].takes[3], 0)


def test_what_a_song_is_told_survives_json():
    labels = torch.tensor([[0, 0, 0, 4], [0, 0, 0, 5]])
    for metadata, song, expected in (
        (None, 0, None),
        (labels, 1, labels[1:]),
        (labels[:1], 1, labels[:1]),
        ([None, labels], 0, [None, labels[:1]]),
        ({"artist": "A", "genre": ("G", "H")}, 0, {"artist": "A", "genre": ["G", "H"]}),
        ([{"artist": "A"}, {"artist": "B"}], 1, {"artist": "B"}),
    ):
        found = metadata_argument(json.loads(json.dumps(metadata_record(metadata, song))))
        assert str(found) == str(expected)
    for wrong in (3, [], ["A"], {"artist": object()}):
        with pytest.raises(ValueError, match="metadata"):
            metadata_record(wrong, 0)


def test_words_that_are_not_said_again():
    assert updated_metadata({"words": {"a": 1, "b": 2}}, {"words": {"b": 3}}) == {"words": {"a": 1, "b": 3}}
    assert updated_metadata({"labels": [1]}, {"words": {"b": 3}}) == {"words": {"b": 3}}
    assert updated_metadata(None, {"labels": [2]}) == {"labels": [2]}


def test_settings_are_checked():
    assert checked_settings({"top_k": (1, 2)}) == {"top_k": [1, 2]}
    with pytest.raises(ValueError, match="tempo"):
        checked_settings({"tempo": 1})
    with pytest.raises(ValueError, match="temperature"):
        checked_settings({"temperature": 0})


def test_seconds_become_whole_codes():
    facts = replace(FACTS, sampling_rate=100, hop_lengths=(4, 8))
    assert facts.top_codes("seconds", 1.0) == 12
    assert facts.top_codes("seconds", 0.001) == 1
    with pytest.raises(ValueError, match="seconds"):
        facts.top_codes("seconds", 0)


def test_facts_know_adapters_and_notes_of_before_them_are_read():
    facts = replace(FACTS, name="band/model", adapters=("band/lora", None))
    assert ModelFacts.from_record(json.loads(json.dumps(asdict(facts)))) == facts
    assert facts.source == "band/model with the adapter 0=band/lora"
    before = {name: value for name, value in asdict(FACTS).items() if name != "adapters"}
    assert ModelFacts.from_record(json.loads(json.dumps(before))) == FACTS
    for adapters in (["one"], [1, 2], [None, ["two"]]):
        with pytest.raises(ValueError, match="model"):
            ModelFacts.from_record({**before, "adapters": adapters})
