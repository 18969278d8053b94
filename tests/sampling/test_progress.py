import threading

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
    clock = ProgressClock(told.append, [LevelWork(1600, 5, 4.5), LevelWork(50, 2, 9.0), LevelWork(10, 1, 18.0)])
    for done in range(1, 11):
        clock_time[0] += 0.1
        clock.note(2, 1, done)
    clock.finish(2, 1)
    # A step of the middle costs half of one of the top, one of the bottom a quarter.
    left = 50 * 0.05 + 1600 * 0.025
    assert told[-1] == GenerationProgress(
        2, "top", 1, 1, 10, 10, 10, 1660, pytest.approx(1 / (1 + left)), pytest.approx(left)
    )
    assert len(told) < 10  # a few times a second
    for window in (1, 2):
        for done in range(1, 16):
            clock_time[0] += 0.5
            clock.note(1, window, done)
        clock.finish(1, window)
    last = told[-1]
    assert (last.level_name, last.window, last.windows, last.level_codes_done, last.codes_done) == (
        "middle",
        2,
        2,
        30,
        40,
    )
    pace = 16 / (10 * 18 + 30 * 9)  # seconds a unit of cost, so far
    assert last.seconds_left == pytest.approx((20 * 9 + 1600 * 4.5) * pace)


def test_a_batch_that_failed_does_not_count(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(100, 1)])
    for rows in (4, 2):
        clock_time[0] += 1.0
        clock.note(0, 1, rows)
    clock.finish(0, 1)
    assert told[-1].codes_done == 2
    assert told[-1].fraction == pytest.approx(0.02)


def test_songs_without_end_have_no_total(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(None, None)])
    clock.note(0, 3, 4)
    clock.finish(0, 3)
    assert told[-1] == GenerationProgress(0, "only", 3, None, 4, None, 4, None, None, None)


def test_a_callback_can_cancel():
    clock = ProgressClock(lambda progress: False, [LevelWork(5, 1)])
    with pytest.raises(GenerationCancelled, match="cancelled"):
        clock.note(0, 1, 1)


def test_no_time_left_before_the_first_code_or_from_the_first_moments(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(50, 1)])
    for seconds, codes, left in ((0.0, 0, None), (0.4, 1, None), (0.6, 5, 9.0), (1.0, 50, 0.0)):
        clock_time[0] += seconds
        clock.note(0, 1, codes)
        assert told[-1].seconds_left == (None if left is None else pytest.approx(left))
    assert told[0].fraction == 0.0 and told[-1].fraction == 1.0


def test_a_pause_is_no_time_of_the_work(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(40, 1)])
    clock.resume()  # nothing was paused
    for codes in (10, 20):
        clock_time[0] += 1.0
        clock.note(0, 1, codes)
        clock.pause()
        clock_time[0] += 1000.0
        clock.resume()
    assert told[-1].seconds_left == pytest.approx(2.0)


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


def moments(music=60.0):
    for number, (level, total) in enumerate(((2, 4), (1, 8))):
        for part, done in enumerate((total // 2, total), 1):
            fraction = (2 * number + part) / 4
            name = level_name(level, 3)
            yield GenerationProgress(level, name, 1, 1, done, total, done, 12, fraction, 90.0, fraction * music, music)


def test_the_work_is_counted_in_seconds_of_music(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(90, 5, 1.0), LevelWork(10, 2, 1.0)], music=60.0)
    clock.note(1, 1, 5)
    clock.finish(1, 1)
    assert (told[-1].music_done, told[-1].music_total) == (pytest.approx(3.0), 60.0)
    clock.note(1, 2, 5)
    clock.note(0, 1, 90)
    clock.finish(0, 1)
    clock.finish(1, 2)
    assert (told[-1].music_done, told[-1].music_total) == (60.0, 60.0)


def test_batches_of_several_levels_and_of_one_are_counted_together(clock_time):
    told = []
    clock = ProgressClock(told.append, [LevelWork(40, 4), LevelWork(10, 2)])
    clock.aside = True
    clock.note(1, 1, 4, "first")
    clock.note(0, 2, 8, "first")
    clock.note(0, 4, 6, "second")
    assert told == []  # other threads note, and do not call
    clock.report()
    assert (told[-1].level, told[-1].window, told[-1].level_codes_done, told[-1].codes_done) == (0, 4, 14, 18)
    clock.drop(0, "first")
    clock.finish(0, 4, "second")
    assert (told[-1].level_codes_done, told[-1].codes_done) == (6, 10)


def test_a_bar_shows_the_music_and_one_time_left(capsys):
    with ProgressBars(show=True) as bars:
        for moment in moments():
            bars(moment)
    everything = capsys.readouterr().err
    shown = everything.splitlines()[-1].split("\r")
    assert "preparing" in everything
    assert shown[-1].startswith("sampling: 60 of 60 s of music |")
    assert shown[-1].endswith("| 00:00 left") and shown[-1].count(":") == 2


def test_each_generation_has_its_bar_and_songs_without_end_count_codes(capsys):
    with ProgressBars(show=True) as bars:
        for moment in [*moments(), *moments(20.0)]:
            bars(moment)
        bars(GenerationProgress(0, "bottom", 3, None, 5, None, 5, None, None, None))
    shown = capsys.readouterr().err
    assert shown.count("sampling: 60 of 60 s of music") == shown.count("sampling: 20 of 20 s of music") == 1
    assert "sampling: 5.00code" in shown


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


@pytest.mark.parametrize(
    ("fraction", "left", "music", "said"),
    [
        (0.4, 12.3, 24.0, "sampling: 24 of 60 s of music, 12 s left"),
        (0.01, None, 0.6, "sampling: 1 of 60 s of music"),
        (1.0, 0.0, 60.0, "decoding"),
        (None, None, None, "sampling: 5 codes"),
    ],
)
def test_a_log_gets_a_line_of_all_levels(log_lines, monkeypatch, fraction, left, music, said):
    printed, lines = threading.Event(), []
    total = None if music is None else 60.0
    with ProgressBars(lines=True) as bars:
        bars(GenerationProgress(2, "top", 1, 2, 5, 10, 5, 12, fraction, left, music, total))
        monkeypatch.setattr(log_lines, "print_line", lambda text: (lines.append(text), printed.set()))
        monkeypatch.setattr(log_lines, "is_due", lambda: True)
        assert printed.wait(60)
    assert set(lines) == {said}


def test_a_log_gets_no_line_unless_it_is_asked_for(log_lines, monkeypatch):
    monkeypatch.setattr(log_lines, "is_due", lambda: pytest.fail("asked"))
    for bars in (ProgressBars(), ProgressBars(False, lines=True)):
        with bars:
            bars(GenerationProgress(2, "top", 1, 2, 5, 10, 5, None, None, None))
