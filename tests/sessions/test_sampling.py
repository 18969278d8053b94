import json

import pytest
import torch

from fast_jukebox.generation.plan import plan_song
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import Window
from fast_jukebox.sessions.notes import Job
from fast_jukebox.sessions.sampling import SessionSampler, batches


def test_windows_that_are_known_are_not_sampled(stub_model):
    plan, saved = plan_song(stub_model, SongRequest(duration=2.0, num_samples=2, seed=3)), []
    segments = [(0, [None, None, None])]

    def sampler(known, told=None):
        saved.clear()
        return SessionSampler(
            stub_model,
            plan,
            "auto",
            told,
            known,
            segments,
            lambda level, windows, songs, codes: saved.append((level, windows, songs, codes)),
        )

    first = sampler([{}, {}, {}])
    first.sample_all()
    known = [{}, {}, {}]
    for level, windows, songs, codes in saved:
        assert songs == slice(0, 2)
        for index, window in enumerate(windows):
            known[level][window.end] = codes[:, index, window.prompt_length :]
    assert [len(own) for own in known] == [len(own) for own in plan.windows]
    calls = [len(prior.calls) for prior in stub_model.priors]

    del known[0][plan.windows[0][1].end]
    told = []
    second = sampler(known, told.append)
    second.sample_all()
    assert [len(prior.calls) - count for prior, count in zip(stub_model.priors, calls, strict=True)] == [1, 0, 0]
    assert [(level, len(windows)) for level, windows, _, _ in saved] == [(0, 1)]
    for own, other in zip(second.final_codes(), first.final_codes(), strict=True):
        assert torch.equal(own, other)
    assert told[-1].codes_done == told[-1].codes_total == 2 * plan.windows[0][1].new_length
    assert told[-1].music_done == told[-1].music_total == pytest.approx(2 * plan.windows[0][1].new_length * 0.02)


def test_a_window_is_told_what_holds_at_its_middle(stub_model):
    """At the top, whose past is never sampled, what holds last."""
    plan = plan_song(stub_model, SongRequest(duration=2.0, seed=3))
    told = [None, None, None]

    def segments(*starts):
        own = [(start, told) for start in starts]
        sampler = SessionSampler(stub_model, plan, "auto", None, [{}] * 3, own, print)
        return lambda level, start, length: sampler._segment(level, Window(level, start, 0, length))

    # Of 4 bottom codes or 2 middle codes a top code is made.
    segment = segments(0, 10, 20)
    assert [segment(0, start, 16) for start in (0, 31, 32, 71, 72)] == [0, 0, 1, 1, 2]
    assert [segment(1, start, 8) for start in (0, 15, 16, 35, 36)] == [0, 0, 1, 1, 2]
    assert segment(2, 0, 16) == 2


def test_windows_of_children_are_those_of_generate(stub_model, tmp_path):
    for index, arguments in enumerate(
        (
            {"duration": 2.0},
            {"duration": 0.05},
            {"duration": 3.1, "schedule": "sequential"},
            {"duration": 2.0, "hop_fractions": [0.5, 0.6, 0.7], "window_fractions": [0.5, 1.0, None]},
        )
    ):
        session = stub_model.new_session(tmp_path / str(index), **arguments)
        take = session.kept
        assert session.facts.layouts(take.settings, take.samples, take.known) == take.layouts


def test_takes_that_are_alike_are_one_batch(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=1.0, num_samples=3, seed=1, stop_level=2)
    session.run()
    assert {call.batch_size for call in stub_model.priors[2].calls} == {3}
    session.upsample(2)
    found = batches(session._codes, list(session.takes.values()))
    assert sorted([take.number for take in batch] for batch in found) == [[1, 3], [2]]


def test_jobs_are_done_in_their_order_and_forgotten(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=1, stop_level=2)
    session.request([1], 1, start=0.5, end=1.0)
    session.request([1], 1, start=0.5, end=1.0)
    assert session.jobs == [Job((1,), 2), Job((1,), 1, 50, 100)]
    session.run()
    body = json.loads((session.folder / "session.json").read_text())
    assert body["jobs"] == [] and session.jobs == []
    assert 0 < session.fractions()[1] < 1 and session.fractions()[0] == 0
    calls = len(stub_model.priors[1].calls)
    session.upsample(stop_level=1, start=0.6, end=0.9)
    assert len(stub_model.priors[1].calls) == calls  # nothing is made twice
