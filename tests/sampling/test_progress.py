import pytest

from fast_jukebox.sampling import progress as progress_module
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.sampling.progress import (
    GenerationCancelled,
    GenerationProgress,
    LevelWork,
    ProgressBars,
    ProgressClock,
)


@pytest.fixture
def clock_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_counts_and_time_left(clock_time):
    told = []
    work = [LevelWork(1600, 5, 16, 9.0), LevelWork(50, 2, 1, 9.0), LevelWork(10, 1, 1, 18.0)]
    clock = ProgressClock(told.append, work)
    after_code = clock.batch(2, 1, 1).sampled
    for done in range(1, 11):
        clock_time[0] += 0.1
        after_code(done)
    clock.finish(2, 1)
    # A step of the others costs half of one of the top, one of 16 rows 17 / 2 of one of a single row.
    left = 50 * 0.05 + 100 * 0.05 * 17 / 2
    assert told[-1] == GenerationProgress(
        2, "top", 1, 1, 10, 10, 10, 1660, pytest.approx(1 / (1 + left)), pytest.approx(left)
    )
    assert len(told) < 10  # a few times a second
    for window in (1, 2):
        after_code = clock.batch(1, window, 1).sampled
        for done in range(1, 16):
            clock_time[0] += 0.5
            after_code(done)
        clock.finish(1, window)
    last = told[-1]
    assert (last.level_name, last.window, last.windows, last.level_codes_done, last.codes_done) == (
        "middle",
        2,
        2,
        30,
        40,
    )
    pace = 16 / (10 * 2 + 30)  # seconds a step of one row of the lower levels, so far
    assert last.seconds_left == pytest.approx((20 + 100 * 17 / 2) * pace)


def test_rows_cost_less_where_weights_are_read_for_each_step(clock_time):
    work = [LevelWork(1600, 5, 160, 9.0), LevelWork(10, 1, 1, 9.0)]
    clock = ProgressClock(lambda told: None, work, "cuda")
    after_code = clock.batch(1, 1, 1).sampled
    clock_time[0] += 1.0
    after_code(10)
    assert clock.seconds_left() == pytest.approx(10 * 0.1 * 320 / 161)


def test_a_batch_that_failed_does_not_count(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(100, 1, 4, 1.0)])
    for rows in (4, 2):
        after_code = clock.batch(0, 1, rows).sampled
        clock_time[0] += 1.0
        after_code(1)
    clock.finish(0, 1)
    assert told[-1].codes_done == 2
    assert told[-1].share == pytest.approx(0.02)


def test_songs_without_end_have_no_total(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(None, None, 4, 1.0)])
    clock.batch(0, 3, 4).sampled(1)
    clock.finish(0, 3)
    assert told[-1] == GenerationProgress(0, "only", 3, None, 4, None, 4, None, None, None)


def test_a_callback_can_cancel():
    clock = ProgressClock(lambda progress: False, [LevelWork(5, 1, 1, 1.0)])
    with pytest.raises(GenerationCancelled, match="cancelled"):
        clock.batch(0, 1, 1).sampled(1)


def test_no_estimate_before_the_first_code_or_from_the_first_moments(clock_time):
    clock = ProgressClock(lambda told: None, [LevelWork(50, 1, 1, 1.0)])
    assert clock.seconds_left() is None
    after_code = clock.batch(0, 1, 1).sampled
    clock_time[0] += 0.4
    after_code(1)
    assert clock.seconds_left() is None
    clock_time[0] += 0.6
    after_code(5)
    assert clock.seconds_left() == pytest.approx(9.0)
    after_code(50)
    assert clock.seconds_left() == 0.0


def test_what_comes_before_the_first_code_counts(clock_time):
    """Two batches of 4 rows of 100 codes, 40 of them known, at a level whose conditioning costs 0.4 of a step's row."""
    told = []
    rows, known, length = 4, 40, 100
    work = LevelWork(2 * rows * 60, 8, rows, 1.0, known=2 * rows * known, conditioned=2 * rows * length)
    clock = ProgressClock(told.append, [work])
    settings, steps = rows * (known + 0.4 * length), 60 * (rows + 1)
    whole = 2 * (settings + steps)
    for batch in range(2):
        each = clock.batch(0, 4 * batch + 4, rows, known, length)
        for row in range(1, rows + 1):
            clock_time[0] += 0.4 * length  # a second for each unit of cost
            each.conditioned(row)
            past = batch * (settings + steps) + row * 0.4 * length
            assert clock.seconds_left() == pytest.approx(whole - past)
        clock_time[0] += rows * known
        for done in range(1, 61):
            clock_time[0] += rows + 1
            each.sampled(done)
            past = batch * (settings + steps) + settings + done * (rows + 1)
            assert clock.seconds_left() == pytest.approx(whole - past)
        clock.finish(0, 4 * batch + 4)
    shares = [one.share for one in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert [one.level_codes_done for one in told[:rows]] == [0] * rows  # told of while nothing is sampled yet


def test_level_names():
    assert [level_name(level, 3) for level in range(3)] == ["bottom", "middle", "top"]
    assert [level_name(level, 4) for level in range(4)] == ["bottom", "level 1", "level 2", "top"]
    assert [level_name(level, 2) for level in range(2)] == ["bottom", "top"]
    assert level_name(0, 1) == "only"
    assert [level_name(level, 3, numbered=True) for level in (0, 2, 3)] == [
        "bottom level (0)",
        "top level (2)",
        "level 3",
    ]
    assert level_name(1, 4, numbered=True) == "level 1"


def moments():
    for number, (level, total) in enumerate(((2, 4), (1, 8))):
        for part, done in enumerate((total // 2, total), 1):
            share = (2 * number + part) / 4
            yield GenerationProgress(level, level_name(level, 3), 1, 1, done, total, done, 12, share, 90.0)


def test_a_bar_shows_the_level_and_one_time_left(capsys):
    with ProgressBars(show=True) as bars:
        for moment in moments():
            bars(moment)
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert last.startswith("middle: 100%")
    assert last.count(":") == 3 and last.endswith("00:00 left")


def test_each_generation_has_its_bar_and_songs_without_end_count_codes(capsys):
    with ProgressBars(show=True) as bars:
        for moment in [*moments(), *moments()]:
            bars(moment)
        bars(GenerationProgress(0, "bottom", 3, None, 5, None, 5, None, None, None))
    shown = capsys.readouterr().err
    assert shown.count("middle: 100%") == 2
    assert "bottom: 5.00code" in shown


@pytest.mark.parametrize("show", [False, None])
def test_no_bars_where_they_are_not_wanted_or_nobody_sees_them(capsys, show):
    with ProgressBars(show=show) as bars:
        for moment in moments():
            bars(moment)
    assert capsys.readouterr().err == ""


def test_bars_are_closed_when_the_work_is_cancelled(capsys):
    bars = ProgressBars(show=True)
    with pytest.raises(KeyboardInterrupt), bars:
        bars(next(moments()))
        raise KeyboardInterrupt
    assert bars._bar is None
