"""Levels that are sampled at the same time: the same codes, one order of errors, and nothing left running."""

import random
import threading
import time
from contextvars import ContextVar
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.generation import decoding
from fast_jukebox.generation.levels import ROWS_AT_ONCE
from fast_jukebox.generation.plan import plan_song
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.sampling.machine import row_bytes
from fast_jukebox.sampling.progress import GenerationCancelled

LONG = 30.0  # seconds that only a test which fails waits


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.fixture
def threads():
    """Lets torch have as many threads as a test wants."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def side_by_side(threads, stub_model):
    """Lets the stub priors' levels overlap on three threads, or not; returns their model."""
    kind = type(stub_model.priors[0])
    kind.overlaps = lambda self, engine: True
    threads(3)
    yield stub_model
    del kind.overlaps


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 6 to 48 samples, so that songs of the small models have many."""
    monkeypatch.setattr(decoding, "FIRST_SAMPLES", 6)
    monkeypatch.setattr(decoding, "LAST_SAMPLES", 48)


def one_after_the_other(model, **arguments):
    """The song of a new model whose levels do not overlap."""
    model = type(model)()
    for prior in model.priors:
        prior.overlaps = lambda engine: False
    return model.generate(**arguments)


CASES = {
    "from nothing": {},
    "several songs": {"num_samples": 3},
    "more songs than a batch": {"num_samples": 2 * ROWS_AT_ONCE + 3, "duration": 0.9},
    "small batches": {"num_samples": 2, "max_batch_size": 3},
    "short windows": {"window_fractions": 0.5},
    "sequential": {"schedule": "sequential"},
    "mixed": {"schedule": ["sequential", "parallel", "sequential"], "hop_fractions": 0.5},
    "a recording": {"prompt": torch.arange(90) % 11 / 100},
    "top codes": {"codes": [torch.arange(13)[None] % 11], "duration": None},
    "from the middle": {"codes": [None, None, torch.arange(26)[None] % 11], "start_level": 1, "duration": None},
    "a draft": {"stop_level": 2},
    "a rough draft": {"stop_level": 1},
    "greedy": {"do_sample": False},
}


@pytest.mark.parametrize("case", CASES)
def test_the_codes_are_those_of_levels_one_after_the_other(side_by_side, case):
    arguments = {"seed": 3, "duration": 1.63, **CASES[case]}
    expected = one_after_the_other(side_by_side, **arguments)
    output = side_by_side.generate(**arguments)
    assert torch.get_num_threads() == 3
    for name in ("codes", "seams", "audio"):
        same(output[name], expected[name])


@given(
    st.integers(1, 300), st.integers(1, 12), st.sampled_from(["parallel", "sequential"]), st.integers(2, 6), st.data()
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_codes_depend_on_no_delay(side_by_side, threads, samples, songs, schedule, count, data):
    arguments = {"duration": samples / 100, "num_samples": songs, "schedule": schedule, "seed": 1}
    expected = one_after_the_other(side_by_side, **arguments)
    threads(count)
    delays = random.Random(data.draw(st.integers(0, 2**32)))
    model, begun = type(side_by_side)(), []
    for prior in model.priors:

        def slow(rows, *rest, condition=prior.condition, level=prior.config.level, **named):
            begun.append((level, rows))
            time.sleep(delays.random() * 0.003)
            return condition(rows, *rest, **named)

        prior.condition = slow
    same(model.generate(**arguments).codes, expected.codes)
    batches = sorted(begun)
    begun.clear()
    model.generate(**arguments)
    assert sorted(begun) == batches  # which windows make a batch does not depend on time either


def test_real_levels_give_the_same_codes_on_any_number_of_threads(tiny_model, threads):
    assert all(prior.overlaps("native") and not prior.overlaps("eager") for prior in tiny_model.priors)
    songs = []
    for count in (1, 2, 4):
        threads(count)
        songs.append(tiny_model.generate(duration=1.0, num_samples=3, seed=6, engine="native"))
    for song in songs[1:]:
        same(song.codes, songs[0].codes)
        same(song.audio, songs[0].audio)
        assert song.engines == ["native"] * 3


def test_wide_priors_and_16_bits_do_not_overlap(tiny_model, monkeypatch):
    prior = tiny_model.priors[0]
    assert prior.overlaps("native")
    assert not prior.overlaps("graph")
    assert not prior.to(torch.bfloat16).overlaps("native")
    monkeypatch.setattr(tiny_model.priors[1].config, "hidden_size", 512)
    assert not tiny_model.priors[1].overlaps("native")


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_a_level_begins_while_the_one_above_goes_on(side_by_side, schedule):
    """The last window of each upper level waits for the first one of the level below."""
    begun = [threading.Event() for _ in side_by_side.priors]
    windows = plan_song(side_by_side, SongRequest(duration=3.0, schedule=schedule)).windows
    for level, prior in enumerate(side_by_side.priors):

        def condition(rows, *rest, level=level, condition=prior.condition, prior=prior, **named):
            begun[level].set()
            if level > 0 and sum(call.batch_size for call in prior.calls) + rows == len(windows[level]):
                assert begun[level - 1].wait(LONG)
            return condition(rows, *rest, **named)

        prior.condition = condition
    side_by_side.generate(duration=3.0, seed=1, schedule=schedule)
    assert all(event.is_set() for event in begun)


def test_no_more_threads_work_than_torch_was_granted(side_by_side, threads):
    lock, at_work, most, inside = threading.Lock(), set(), [], ContextVar("inside", default=None)
    inside.set("the caller's")
    for prior in side_by_side.priors:

        def step(*given, step=prior.step):
            with lock:
                at_work.add(threading.get_ident())
                most.append(len(at_work))
            assert torch.get_num_threads() == 1
            assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
            assert inside.get() == "the caller's"
            time.sleep(0.0002)
            logits = step(*given)
            with lock:
                at_work.discard(threading.get_ident())
            return logits

        prior.step = step
    before = threading.active_count()
    side_by_side.generate(duration=2.0, seed=1)
    assert max(most) <= 3
    assert torch.get_num_threads() == 3
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_error_in_one_level_ends_the_others(side_by_side, level, error):
    """Another level that is in the middle of a window goes on until it is told to stop, and no further."""
    arguments, failed = {"duration": 3.0, "seed": 1}, threading.Event()
    plan = plan_song(side_by_side, SongRequest(**arguments))
    sampler = SongSampler(side_by_side, plan)
    for number, prior in enumerate(side_by_side.priors):

        def step(code, position, conditioning, cache, number=number, prior=prior, step=prior.step):
            if number == level and position == 3 and len(prior.calls) > 1:
                failed.set()
                raise error
            if failed.is_set():
                ended = time.monotonic() + LONG
                while not sampler._workers.stopping and time.monotonic() < ended:
                    time.sleep(0.001)
                stopped.append(id(conditioning))
            return step(code, position, conditioning, cache)

        prior.step = step
    stopped, before = [], threading.active_count()
    with pytest.raises(type(error)) as caught:
        sampler.sample_all()
    assert caught.value is error
    assert threading.active_count() == before
    assert len(stopped) == len(set(stopped))  # one step of each batch, that which was under way
    assert torch.get_num_threads() == 3
    for prior in side_by_side.priors:
        del prior.step
    same(side_by_side.generate(**arguments).codes, one_after_the_other(side_by_side, **arguments).codes)


def test_an_interruption_of_the_caller_ends_all_levels(side_by_side):
    def interrupt(told):
        if told.level < 2:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        side_by_side.generate(duration=3.0, seed=1, progress=interrupt)
    assert threading.active_count() == before


def test_progress_is_told_by_the_caller_s_thread(side_by_side):
    told = []
    side_by_side.generate(
        duration=3.0, seed=1, num_samples=2, progress=lambda now: told.append((now, threading.get_ident()))
    )
    assert {thread for _, thread in told} == {threading.get_ident()}
    assert {now.level for now, _ in told} == {0, 1, 2}
    counts = [now.codes_done for now, _ in told]
    assert counts == sorted(counts)
    last = told[-1][0]
    assert last.codes_done == last.codes_total
    assert (last.fraction, last.seconds_left) == (1.0, 0.0)


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_a_cancelled_song_keeps_codes_to_go_on_from(side_by_side, schedule):
    arguments = {"duration": 3.0, "seed": 5, "schedule": schedule}
    whole = one_after_the_other(side_by_side, **arguments)
    with pytest.raises(GenerationCancelled) as caught:
        side_by_side.generate(**arguments, progress=lambda told: told.level > 0 or told.window < 3)
    kept = caught.value.codes
    # Which windows are done by then is the threads' affair.
    assert 0 <= kept[0].shape[1] <= whole.codes[0].shape[1]
    same(kept, [codes[:, : own.shape[1]] for codes, own in zip(whole.codes, kept, strict=True)])
    assert side_by_side.generate(**arguments, codes=kept).audio.shape == whole.audio.shape


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 100])
def test_where_memory_ends_levels_follow_one_another(side_by_side, level, rows):
    """A level has memory only while no other is at work, and for so many rows."""
    arguments = {"duration": 2.0, "seed": 1, "num_samples": 2}
    expected = one_after_the_other(side_by_side, **arguments)
    sampler = SongSampler(side_by_side, plan_song(side_by_side, SongRequest(**arguments)))
    lock, at_work, failures, crowds = threading.Lock(), [], [], []
    for number, prior in enumerate(side_by_side.priors):

        def condition(count, *rest, number=number, condition=prior.condition, **named):
            with lock:
                at_work.append(number)
                crowd = len(at_work)
                if sampler._alone and crowd > 1:
                    crowds.append(crowd)
            try:
                if number == level and (crowd > 1 or count > rows):
                    failures.append(count)
                    raise torch.OutOfMemoryError("full")
                time.sleep(0.001)
                return condition(count, *rest, **named)
            finally:
                with lock:
                    at_work.remove(number)

        prior.condition = condition
    sampler.sample_all()
    same(sampler.final_codes(), expected.codes)
    assert len(failures) < 20
    assert len(crowds) <= 2  # what the other two threads had begun before


def test_one_row_that_has_no_memory_alone_is_an_error(side_by_side):
    def condition(*given, **named):
        raise torch.OutOfMemoryError("full")

    side_by_side.priors[0].condition = condition
    with pytest.raises(torch.OutOfMemoryError):
        side_by_side.generate(duration=2.0, seed=1)


def test_batches_wait_for_memory_beside_others(side_by_side, monkeypatch):
    """Memory for one row."""
    row = row_bytes(side_by_side.priors[0], 24)
    monkeypatch.setattr("fast_jukebox.sampling.machine.free_memory", lambda device: 2 * row)
    lock, at_work, most = threading.Lock(), [], []
    for prior in side_by_side.priors:

        def step(code, *rest, step=prior.step):
            with lock:
                at_work.append(len(code))
                most.append(sum(at_work))
            logits = step(code, *rest)
            with lock:
                at_work.remove(len(code))
            return logits

        prior.step = step
    expected = one_after_the_other(side_by_side, duration=2.0, seed=1)
    same(side_by_side.generate(duration=2.0, seed=1).codes, expected.codes)
    assert max(most) == 1


def test_rows_of_all_levels_are_at_most_the_batch_size(side_by_side):
    lock, rows, most = threading.Lock(), [0], []
    for prior in side_by_side.priors:

        def step(code, *rest, step=prior.step):
            with lock:
                rows[0] += len(code)
                most.append(rows[0])
            logits = step(code, *rest)
            with lock:
                rows[0] -= len(code)
            return logits

        prior.step = step
    side_by_side.generate(duration=2.0, seed=1, max_batch_size=2)
    assert max(most) <= 2


@pytest.mark.parametrize("round_duration", [0.05, 10.0])
@pytest.mark.parametrize("case", ["several songs", "sequential", "mixed"])
def test_a_stream_is_the_song(side_by_side, short_chunks, case, round_duration):
    arguments = {"seed": 3, "duration": 1.63, **CASES[case]}
    expected = one_after_the_other(side_by_side, **arguments).audio
    chunks = list(side_by_side.stream(**arguments, round_duration=round_duration))
    same(torch.cat(chunks, dim=1), expected)


def test_a_stream_that_is_closed_leaves_no_thread(side_by_side, short_chunks):
    before = threading.active_count()
    stream = side_by_side.stream(seed=1)
    list(islice(stream, 5))
    assert threading.active_count() == before
    stream.close()


def test_windows_that_pause_make_way_for_one_that_has_no_memory(side_by_side, short_chunks):
    arguments = {"duration": 2.0, "seed": 1, "schedule": "sequential"}
    expected = one_after_the_other(side_by_side, **arguments).audio
    stream = side_by_side.stream(**arguments, round_duration=0.1)
    sampler = stream.gi_frame.f_locals["stream"].sampler
    prior, full = side_by_side.priors[0], []
    step = prior.step

    def step_while_there_is_room(*given):
        if len(prior.calls) > 1 and sampler._begun and not sampler._whole:
            full.extend(sampler._begun)
            raise torch.OutOfMemoryError("full")
        return step(*given)

    prior.step = step_while_there_is_room
    same(torch.cat(list(stream), dim=1), expected)
    assert full


def test_a_session_is_the_song_and_saves_every_batch(side_by_side, tmp_path):
    arguments = {"duration": 3.0, "seed": 3, "num_samples": 2}
    expected = one_after_the_other(side_by_side, **arguments)
    session = side_by_side.new_session(tmp_path / "song", **arguments)
    steps = []

    def cancel(told):
        steps.append(told)
        return told.codes_done < told.codes_total // 2

    with pytest.raises(GenerationCancelled):
        session.run(progress=cancel)
    assert all(0 < session.fractions(take)[2] <= 1 for take in (1, 2))
    asked = sum(call.batch_size * (call.steps + 1) for prior in side_by_side.priors for call in prior.calls)
    session.run()
    total = steps[-1].codes_total
    again = sum(call.batch_size * (call.steps + 1) for prior in side_by_side.priors for call in prior.calls)
    assert again < total + asked  # what was saved is not sampled again
    for song in range(2):
        same(session.codes(song + 1), [codes[song : song + 1] for codes in expected.codes])
