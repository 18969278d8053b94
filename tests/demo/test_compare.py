import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.demo import compare
from fast_jukebox.demo.compare import System, equally_loud
from fast_jukebox.demo.limits import Limits
from fast_jukebox.demo.listening import ListeningTest, ListeningTests, Trial, at_least, blind_trials
from fast_jukebox.demo.sounds import new_token

SAFE, WILD = System("tiny", 1.0, 0.3), System("tiny", 1.0)


def last(views):
    return list(views)[-1]


def tokens(result):
    return re.findall(r"studio/sound/(\w+)/wav\"", result.split("<a ")[0] if "<a " in result else result)


def prepared(studio, pairs=3, systems=(SAFE, WILD)):
    view = last(compare.prepare(studio, "ann", systems, "", "", 0.3, "5", pairs))
    assert view.asking, view.status
    return ListeningTests(studio.tests_folder).read(view.key), view


def test_two_settings_make_the_same_seed_side_by_side(studio, tiny_model):
    view = last(compare.side_by_side(studio, "ann", (SAFE, WILD), "", "", 0.3, "5"))
    assert "tiny, temperature 1.0, top p 0.3" in view.result and "tiny, temperature 1.0<" in view.result
    sounds = [studio.sounds.get(token) for token in re.findall(r'src="studio/sound/(\w+)/wav"', view.result)]
    expected = equally_loud(
        [
            tiny_model.generate(duration=0.3, seed=5, temperature=[0.99, 0.99, 1.0], top_p=top_p).audio[0].clamp(-1, 1)
            for top_p in (0.3, 1.0)
        ]
    )
    for sound, song in zip(sounds, expected, strict=True):
        np.testing.assert_allclose(studio.sounds.audio(sound), song, atol=1e-3)


def test_the_pairs_of_a_blind_test_are_both_systems_and_x_is_one_of_them(studio):
    test, view = prepared(studio)
    assert test.systems == ("tiny, temperature 1.0, top p 0.3", "tiny, temperature 1.0")
    assert [trial.seed for trial in test.trials] == [5, 6, 7]
    for trial in test.trials:
        a, b, x = (studio.sounds.audio(studio.sounds.get(token)) for token in trial.sounds)
        assert torch.equal(x, a if trial.x == "A" else b)
        assert not torch.equal(a, b)
        assert len(set(trial.sounds)) == 3  # its address does not tell
    assert "Pair 1 of 3" in view.status
    assert "temperature" not in view.result + view.status


def test_answers_are_counted_and_saved(studio):
    test, view = prepared(studio)
    for index, trial in enumerate(test.trials):
        wrong = "B" if trial.x == "A" else "A"
        said = trial.x if index < 2 else wrong
        liked = ("A" if trial.first == 1 else "B") if index < 2 else "same"  # the second system, or neither
        view = compare.answer(studio, test.key, said, liked)
    assert view.asking is False
    assert "2 of 3, by guessing that or more with probability 0.500" in view.result
    tally = ListeningTests(studio.tests_folder).read(test.key).tally()
    assert (tally.answered, tally.right, tally.liked) == (3, 2, (0, 2))
    assert tally.p_value == 0.5
    assert tally.preference_p_value == 0.5
    folder = studio.tests_folder / test.key
    rows = list(csv.DictReader((folder / "tally.csv").read_text().splitlines()))
    assert [row["right"] for row in rows] == ["1", "1", "0"]
    assert [row["preferred"] for row in rows] == [test.systems[1]] * 2 + ["same"]
    assert [{row["A"], row["B"]} for row in rows] == [set(test.systems)] * 3
    assert json.loads((folder / "tally.json").read_text())["right"] == 2
    assert "all pairs are answered" in compare.answer(studio, test.key, "A", "A").status


def test_a_test_goes_on_where_it_was_left(studio):
    test, _ = prepared(studio)
    compare.answer(studio, test.key, "A", "same")
    view = compare.reopened(studio, test.key)
    assert "Pair 2 of 3" in view.status
    assert view.asking
    for key in ("", "../tests", new_token(), None):
        assert compare.reopened(studio, key) == compare.CompareView()
        assert "no listening test" in compare.answer(studio, key, "A", "A").status


@pytest.mark.parametrize(("x", "liked"), [("", "A"), (None, "A"), ("C", "A"), ("A", ""), ("A", "C"), ("X", "same")])
def test_half_an_answer_is_none(studio, x, liked):
    test, _ = prepared(studio, pairs=1)
    assert 'role="alert"' in compare.answer(studio, test.key, x, liked).status
    assert ListeningTests(studio.tests_folder).read(test.key).current == 0


@pytest.mark.parametrize(
    ("systems", "pairs", "message"),
    [
        ((SAFE, SAFE), 2, "the two systems are the same"),
        ((SAFE, WILD), 21, "Pairs must be a whole number from 1 to 20"),
        ((SAFE, System("other")), 2, "Model must be one of tiny"),
        ((SAFE, System("tiny", 9)), 2, "Temperature must be"),
        ((SAFE, System("tiny", 1.0, 0)), 2, "Top p must be"),
        ((SAFE, System("tiny", 1.0, 1.0, "backwards")), 2, "must be of the lists"),
    ],
)
def test_bad_values_are_told(studio, systems, pairs, message):
    assert message in last(compare.prepare(studio, "ann", systems, "", "", 0.3, "5", pairs)).status
    assert list(studio.tests_folder.iterdir()) == []


def test_a_draft_and_other_windows_are_settings_too(studio, tiny_model):
    draft = System("tiny", None, 0.9, "sequential", "draft").song(studio, "", "", 0.3, 5)
    assert (draft.request.stop_level, draft.request.schedule, draft.request.top_p) == (2, "sequential", 0.9)
    assert System("tiny", None, 0.9, "sequential", "draft").described(studio).endswith("top p 0.9, sequential, draft")


def test_a_test_that_is_stopped_is_none(studio_of, tiny_model):
    studio = studio_of(Limits(), tiny=tiny_model)
    views = compare.prepare(studio, "ann", (SAFE, WILD), "", "", 20, "5", 3)
    next(views)
    studio.stop("ann", "compare")
    assert "a test needs all of its pairs" in last(views).status
    assert list(studio.tests_folder.iterdir()) == []


@given(trials=st.integers(0, 20), data=st.data())
def test_the_p_value_is_the_tail_of_the_binomial(trials, data):
    right = data.draw(st.integers(0, trials))
    ways = sum(bin(throw).count("1") >= right for throw in range(2 ** min(trials, 12))) if trials <= 12 else None
    if ways is not None:
        assert math.isclose(at_least(right, trials), ways / 2**trials)
    assert at_least(0, trials) == 1
    assert math.isclose(at_least(right, trials) + at_least(trials - right + 1, trials), 1, abs_tol=1e-9)


def test_what_is_blind_is_drawn_anew():
    drawn = blind_trials(range(200))
    assert {first for _, first, _ in drawn} == {0, 1}
    assert {x for _, _, x in drawn} == {"A", "B"}
    assert [seed for seed, _, _ in drawn] == list(range(200))
    assert drawn != blind_trials(range(200))


def test_sounds_are_made_equally_loud():
    loud, soft, silent = torch.full((10,), 0.8), torch.full((10,), 0.2), torch.zeros(10)
    a, b, c = equally_loud([loud, soft, silent])
    assert torch.allclose(a, soft) and torch.equal(b, soft) and torch.equal(c, silent)


def test_cells_are_no_formulas(tmp_path):
    trial = Trial(1, 0, "A", (new_token(), new_token(), new_token()), "A", "A")
    tests = ListeningTests(tmp_path)
    test = tests.create(("=1+1", "other"), [trial])
    assert isinstance(test, ListeningTest)
    assert "'=1+1" in (tmp_path / test.key / "tally.csv").read_text()
