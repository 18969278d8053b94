import threading
import time

import pytest

from fast_jukebox.demo.work import Queue, StudioBusy, Work
from fast_jukebox.sampling.progress import GenerationCancelled, GenerationProgress


def progress(fraction):
    return GenerationProgress(2, "top", 1, 2, 5, 10, 5, 10, fraction, 3.0)


def test_works_run_one_at_a_time_in_the_order_of_asking():
    queue, order, running = Queue(9), [], []
    gate = threading.Event()

    def work(name):
        def run(report):
            running.append(name)
            assert len(running) == 1
            gate.wait(10)
            order.append(name)
            running.remove(name)
            return name

        return Work(queue, run)

    works = [work(name) for name in "abcd"]
    assert [each.state.ahead for each in works] == [0, 1, 2, 3]
    assert {each.state.waiting for each in works} == {4}
    gate.set()
    assert [each.result() for each in works] == order == list("abcd")
    assert len(queue) == 0


def test_a_full_queue_refuses():
    queue, gate = Queue(2), threading.Event()
    works = [Work(queue, lambda report: gate.wait(10)) for _ in range(2)]
    with pytest.raises(StudioBusy, match="2 works are waiting already"):
        Work(queue, lambda report: None)
    gate.set()
    for each in works:
        each.result()
    assert Work(queue, lambda report: 3).result() == 3


def test_progress_is_seen_and_stops_the_work():
    begun = threading.Event()

    def run(report):
        while report(progress(0.25)) is not False:
            begun.set()
            time.sleep(0.005)
        raise GenerationCancelled

    work = Work(Queue(1), run)
    begun.wait(10)
    assert (work.state.fraction, work.state.seconds_left) == (0.25, 3.0)
    work.stop()
    assert work.result() is None
    assert work.done and work.stopped


def test_one_that_waits_can_be_stopped_and_those_behind_it_move_up():
    queue, gate, ran = Queue(3), threading.Event(), []
    first = Work(queue, lambda report: gate.wait(10))
    second = Work(queue, lambda report: ran.append("second"))
    third = Work(queue, lambda report: ran.append("third"))
    second.stop()
    assert second.result() is None
    assert third.state.ahead == 1
    gate.set()
    first.result()
    third.result()
    assert ran == ["third"]


def test_an_error_is_raised_where_the_result_is_asked_for_and_the_queue_goes_on():
    queue = Queue(2)

    def fail(report):
        raise OSError("the disk is full")

    work = Work(queue, fail)
    with pytest.raises(OSError, match="the disk is full"):
        work.result()
    assert Work(queue, lambda report: "next").result() == "next"


def test_a_watcher_that_goes_away_stops_the_work():
    def run(report):
        while report(progress(None)) is not False:
            time.sleep(0.005)
        raise GenerationCancelled

    work = Work(Queue(1), run)
    watcher = work.watch(0.01)
    next(watcher)
    assert not work.done
    watcher.close()
    assert work.result() is None
