"""Trainings side by side get their fractions of the device, and one that fails does not end the others."""

import sys
import time
from threading import Event, Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.training.side_by_side import TrainingJob, finish_times, run_side_by_side


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.05, 10), min_size=1))
def test_each_gets_its_fraction_where_all_that_run_share_evenly(fractions):
    times = finish_times(fractions, 100.0, 300.0)
    assert max(times.values()) == pytest.approx(300.0)
    got, last = dict.fromkeys(fractions, 0.0), 100.0
    for moment in sorted(set(times.values())):
        running = [name for name in fractions if times[name] >= moment - 1e-9]
        for name in running:
            got[name] += (moment - last) / len(running)
        last = moment
    for name, fraction in fractions.items():
        assert got[name] == pytest.approx(200 * fraction / sum(fractions.values()), rel=1e-6)


def test_fractions_must_be_positive():
    for fractions in ({}, {"a": 0.0}, {"a": 1.0, "b": -1.0}):
        with pytest.raises(ValueError, match="`fractions`"):
            finish_times(fractions, 0.0, 1.0)


def job(folder, code, fallback=None):
    return TrainingJob(folder, [sys.executable, "-c", code, str(folder)], fallback)


DONE = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'eval_results.json').write_text('{}')"


def test_jobs_that_are_done_are_not_run_again_and_each_is_reported(tmp_path):
    jobs = [job(tmp_path / name, DONE) for name in "ab"]
    seen = []
    run_side_by_side(jobs, 2, seen.append)
    run_side_by_side(jobs, 1, seen.append)  # their folders are there: a second run would fail
    assert sorted(own.folder.name for own in seen) == ["a", "a", "b", "b"]


def test_a_failure_is_named_and_the_others_are_done(tmp_path):
    jobs = [job(tmp_path / "bad", "raise SystemExit(3)"), job(tmp_path / "good", DONE)]
    with pytest.raises(ChildProcessError, match=r"bad ended with code 3, see .*bad\.log"):
        run_side_by_side(jobs, 2)
    assert jobs[1].done


def test_a_second_try_has_the_fallback(tmp_path):
    code = "import sys\nif len(sys.argv) < 3: raise SystemExit(1)\n" + DONE
    run_side_by_side([job(tmp_path / "a", code, ["--without"])], 1)
    assert (tmp_path / "a" / "eval_results.json").exists()


def test_jobs_are_ended_once_they_are_to_stop(tmp_path):
    stop, began = Event(), time.monotonic()
    Timer(0.3, stop.set).start()
    with pytest.raises(ChildProcessError, match="ended with code"):
        run_side_by_side([job(tmp_path / "a", "import time; time.sleep(600)", ["x"])], 1, stop=stop)
    assert time.monotonic() - began < 120


def test_jobs_are_ended_at_the_deadline_and_none_is_begun_after_it(tmp_path):
    begun = []
    jobs = [job(tmp_path / "slow", "import time; time.sleep(600)"), job(tmp_path / "late", DONE)]
    with pytest.raises(TimeoutError, match="same command"):
        run_side_by_side(jobs, 1, before=begun.append, deadline=time.monotonic() + 0.3)
    assert [own.folder.name for own in begun] == ["slow"] and not jobs[1].done
