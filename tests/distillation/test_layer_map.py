import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPriorConfig
from fast_jukebox.distillation import layer_map as module
from fast_jukebox.distillation.layer_map import LayerMap

CYCLE = ("row", "column", "previous_row")


def depth_map(teacher, student, cycle=CYCLE):
    patterns = [list(cycle) * depth for depth in (teacher, student)]
    return LayerMap.from_patterns(patterns[0][:teacher], patterns[1][:student])


def groups(layer_map):
    """For each pattern the pairs, as indices into the pattern's layers of both sides."""
    result = {}
    for pattern in set(layer_map.student_patterns):
        theirs = [layer for layer, word in enumerate(layer_map.teacher_patterns) if word == pattern]
        ours = [layer for layer, word in enumerate(layer_map.student_patterns) if word == pattern]
        result[pattern] = (len(theirs), [theirs.index(dict(layer_map)[layer]) for layer in ours])
    return result


def test_72_to_24_learns_from_the_last_of_3_layers_of_the_pattern():
    expected = [9 * (layer // 3) + 6 + layer % 3 for layer in range(24)]
    assert [teacher for _, teacher in depth_map(72, 24)] == expected
    assert expected[:6] == [6, 7, 8, 15, 16, 17] and expected[-3:] == [69, 70, 71]
    for size, mapped in groups(depth_map(72, 24)).values():
        assert size == 24 and mapped == [2, 5, 8, 11, 14, 17, 20, 23]


def test_72_to_18_learns_from_the_last_of_4_layers_of_the_pattern():
    expected = [12 * (layer // 3) + 9 + layer % 3 for layer in range(18)]
    assert [teacher for _, teacher in depth_map(72, 18)] == expected
    assert expected[:3] == [9, 10, 11] and expected[-3:] == [69, 70, 71]
    for size, mapped in groups(depth_map(72, 18)).values():
        assert size == 24 and mapped == [3, 7, 11, 15, 19, 23]


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (12, [6, 7, 8, 15, 16, 17, 24, 25, 26, 33, 34, 35]),
        (9, [9, 10, 11, 21, 22, 23, 33, 34, 35]),
    ],
)
def test_the_mini_family_keeps_the_proportions(student, expected):
    assert [teacher for _, teacher in depth_map(36, student)] == expected


def test_depths_that_do_not_divide():
    # Patterns of 5 and 2 rows, 5 and 2 columns, 4 and 1 previous rows.
    assert list(depth_map(14, 5)) == [(0, 3), (1, 4), (2, 11), (3, 12), (4, 13)]


@settings(deadline=None)
@given(st.data(), st.lists(st.sampled_from([*CYCLE, "dense"]), min_size=1, max_size=5), st.integers(1, 90))
def test_any_depths_keep_patterns_and_order_and_are_spread_evenly(data, cycle, teacher):
    student = data.draw(st.integers(1, teacher))
    layer_map = depth_map(teacher, student, cycle)
    assert [layer for layer, _ in layer_map] == list(range(student)) and len(layer_map) == student
    for ours, theirs in layer_map:
        assert layer_map.student_patterns[ours] == layer_map.teacher_patterns[theirs]
        assert layer_map[ours] == theirs
    for size, mapped in groups(layer_map).values():
        steps = [after - before for before, after in zip([-1, *mapped], mapped, strict=False)]
        assert mapped[-1] == size - 1
        assert min(steps) >= 1 and max(steps) - min(steps) <= 1


@settings(deadline=None)
@given(st.integers(1, 90))
def test_a_student_as_deep_as_its_teacher_learns_from_each_layer(depth):
    assert list(depth_map(depth, depth)) == [(layer, layer) for layer in range(depth)]


def test_configurations_give_their_patterns():
    teacher, student = (FastJukeboxPriorConfig(num_hidden_layers=depth) for depth in (72, 24))
    assert LayerMap.from_configs(teacher, student) == depth_map(72, 24)


def test_the_table_names_every_layer_of_both():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in str(depth_map(14, 5)).splitlines()]
    assert rows[0] == ["pattern", "student layer", "teacher's layers", "learns from"]
    assert rows[2:] == [
        ["row", "0", "0, 3", "3"],
        ["row", "3", "6, 9, 12", "12"],
        ["column", "1", "1, 4", "4"],
        ["column", "4", "7, 10, 13", "13"],
        ["previous_row", "2", "2, 5, 8, 11", "11"],
    ]


def test_the_docstring_is_true():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("teacher", "student", "match"),
    [
        (["row"] * 3, ["row"] * 4, r"'row' the student has 4 \(of 4 layers\), the teacher 3 \(of 3\)"),
        (["row", "row"], ["row", "dense"], r"'dense' the student has 1 \(of 2 layers\), the teacher 0 \(of 2\)"),
        (["row"], [], "`student` must have at least 1 layer"),
    ],
)
def test_a_student_that_asks_for_too_much_is_refused(teacher, student, match):
    with pytest.raises(ValueError, match=match):
        LayerMap.from_patterns(teacher, student)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ((0,), "one entry for each of the student's 2 layers, got 1"),
        ((0, 4), r"in \[0, 4\), got 4 for student layer 1"),
        ((-2, 1), r"in \[0, 4\), got -2 for student layer 0"),
        ((0, 2), "student layer 1 is 'column', teacher layer 2 is 'row'"),
    ],
)
def test_a_map_by_hand_is_checked(layers, match):
    with pytest.raises(ValueError, match=match):
        LayerMap(("row", "column", "row", "column"), ("row", "column"), layers)


def test_no_teacher_layer_serves_twice():
    with pytest.raises(ValueError, match=r"got more for \[2\]"):
        LayerMap(("row", "row", "row"), ("row", "row"), (2, 2))
