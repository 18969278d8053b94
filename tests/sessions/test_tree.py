from fast_jukebox.generation.windows import Layout
from fast_jukebox.sessions.notes import Segment, Take
from fast_jukebox.sessions.tree import tree_lines


def a_take(number, parent=None, told=None):
    return Take(
        number=number,
        parent=parent,
        origin="new" if parent is None else "branch",
        kept=0,
        samples=160,
        seed=5,
        song=0,
        settings={},
        segments=(Segment(0, told),),
        given=None,
        known=(0, 0),
        layouts=(Layout(0, 20, 8, 6, parallel=True), Layout(1, 10, 8, 1)),
    )


def test_the_tree():
    takes = [a_take(1), a_take(2, 1), a_take(3, 2), a_take(4, 1), a_take(5)]
    shares = {1: [1, 1], 2: [0.5, 1], 3: [0, 0.25], 4: [0, 0], 5: [0, 1]}
    assert tree_lines(takes, 3, shares, 80) == [
        "take 1: new, 2 s, seed 5; top done, bottom done",
        "├─ take 2: branch, 2 s, seed 5; top done, bottom 50 %",
        "│  └─ take 3: branch, 2 s, seed 5; top 25 %  <- kept",
        "└─ take 4: branch, 2 s, seed 5; nothing made yet",
        "take 5: new, 2 s, seed 5; top done",
    ]


def test_what_takes_are_told():
    words = {"artist": "Ann Lee", "genre": ["classic", "pop"], "lyrics": "la la", "total_duration": 9.0}
    takes = [
        a_take(1, told={"words": words}),
        a_take(2, told={"words": {"genre": "pop"}}),
        a_take(3, told={"labels": [1]}),
    ]
    lines = tree_lines(takes, None, {take.number: [0, 1] for take in takes}, 80)
    assert lines[0] == "take 1: new, 2 s, seed 5, Ann Lee, classic, pop, sung; top done"
    assert lines[1] == "take 2: new, 2 s, seed 5, pop; top done"
    assert lines[2] == "take 3: new, 2 s, seed 5; top done"


def test_a_long_chain_of_takes():
    takes = [a_take(number, number - 1 or None) for number in range(1, 1501)]
    lines = tree_lines(takes, 1500, {take.number: [1, 1] for take in takes}, 80)
    assert len(lines) == 1500 and lines[-1].endswith("<- kept")
