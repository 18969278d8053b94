import json

from fast_jukebox.sessions.run import Job, alike, take_layouts


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
        assert take_layouts(session.facts, take.settings, take.samples, take.known) == take.layouts


def test_takes_that_are_alike_are_one_batch(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=1.0, num_samples=3, seed=1, stop_level=2)
    session.run()
    assert {call.batch_size for call in stub_model.priors[2].calls} == {3}
    session.upsample(2)
    batches = list(alike(session._codes, list(session.takes.values())))
    assert sorted([take.number for take in batch] for batch in batches) == [[1, 3], [2]]


def test_jobs_are_done_in_their_order_and_forgotten(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=1, stop_level=2)
    session.request([1], 1, start=0.5, end=1.0)
    session.request([1], 1, start=0.5, end=1.0)
    assert session.jobs == [Job((1,), 2), Job((1,), 1, 50, 100)]
    session.run()
    body = json.loads((session.folder / "session.json").read_text())
    assert body["jobs"] == [] and session.jobs == []
    assert 0 < session.shares()[1] < 1 and session.shares()[0] == 0
    calls = len(stub_model.priors[1].calls)
    session.upsample(stop_level=1, start=0.6, end=0.9)
    assert len(stub_model.priors[1].calls) == calls  # nothing is made twice
