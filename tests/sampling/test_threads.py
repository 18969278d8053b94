import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fast_jukebox.sampling.machine import NARROW, granted_threads, share_out, single_threads, suited_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("width", "threads"), [(NARROW - 1, 1), (NARROW, 2)])
def test_narrow_priors_are_sampled_on_one_thread_and_the_others_come_back(two_threads, width, threads):
    prior = nn.Linear(1, 1)
    prior.config = SimpleNamespace(hidden_size=width)
    with pytest.raises(KeyboardInterrupt), suited_threads(prior):
        assert torch.get_num_threads() == threads
        assert granted_threads() == 2  # to whoever can use them
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_single_threads_within_single_threads(two_threads):
    with single_threads():
        with single_threads():
            assert (torch.get_num_threads(), granted_threads()) == (1, 2)
        assert (torch.get_num_threads(), granted_threads()) == (1, 2)
    assert (torch.get_num_threads(), granted_threads()) == (2, 2)


def test_work_is_shared_between_threads_that_have_one_each(two_threads):
    both = threading.Barrier(2, timeout=10)  # passed only if two work at once

    def work(index):
        both.wait()
        return index, torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with single_threads(), torch.inference_mode():
        assert share_out(work, 4) == [(index, 1, True, False) for index in range(4)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("single", [False, True])
def test_results_are_in_order_and_told_of_by_the_caller(two_threads, single):
    told = []

    def after(done):
        told.append((done, threading.current_thread()))

    def work(index):
        return 10 * index

    if single:
        with single_threads():
            results = share_out(work, 5, after)
    else:
        results = share_out(work, 5, after)
    assert results == [0, 10, 20, 30, 40]
    assert told == [(done, threading.current_thread()) for done in range(1, 6)]
    assert share_out(work, 0) == []


@pytest.mark.parametrize("where", ["work", "after"])
def test_an_error_ends_the_work(two_threads, where):
    begun, failed = [], threading.Event()

    def work(index):
        begun.append(index)
        if where == "work" and index == 1:
            failed.set()
            raise KeyError("work")
        if index > 100:  # however slowly the calling thread is run, the work is not done before the error
            failed.wait(timeout=60)
        return index

    def after(done):
        if where == "after" and done == 1:
            failed.set()
            raise KeyError("after")

    with pytest.raises(KeyError, match=where), single_threads():
        share_out(work, 10_000, after)
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 2


def test_numbers_do_not_depend_on_the_number_of_threads():
    convolution = nn.Conv1d(32, 32, 3, padding=1).requires_grad_(False)
    songs = torch.randn(4, 32, 1000)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with single_threads():
                results.append(torch.cat(share_out(lambda song: convolution(songs[song : song + 1]), 4)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
