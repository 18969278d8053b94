import json

import pytest

from fast_jukebox.generation.session import Session
from fast_jukebox.generation.session_store import SessionError


@pytest.fixture
def session(stub_model, tmp_path):
    return stub_model.new_session(tmp_path / "song", duration=1.0, seed=1, stop_level=2)


def test_what_was_asked_for_is_in_the_manifest(session):
    again = Session.open(session.folder)
    assert again.jobs == session.jobs and again.takes == session.takes
    assert again.facts == session.facts and again.kept == session.kept
    assert again.model is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("takes", None),
        ("takes", [{}]),
        ("takes", []),
        ("jobs", [3]),
        ("kept", 4),
        ("seed", -1),
        ("model", {"name": "x"}),
        ("model", None),
    ],
)
def test_a_manifest_that_says_something_else(session, name, value):
    body = session._store.read_manifest()
    body[name] = value
    session._store.write_manifest(body)
    with pytest.raises(SessionError, match="not as it was written"):
        Session.open(session.folder)


def test_takes_that_are_not_as_they_were_written(session):
    for name, value in (("seed", -3), ("known", [0]), ("origin", "heaven"), ("stretches", []), ("samples", "many")):
        body = json.loads(json.dumps(session._store.read_manifest()))
        body["takes"][0][name] = value
        session._store.write_manifest(body)
        with pytest.raises(SessionError, match="not as it was written"):
            Session.open(session.folder)
        body["takes"][0] = session.takes[1].record()
        session._store.write_manifest(body)


def test_a_session_sees_what_another_process_did(session):
    other = Session.open(session.folder, session.model)
    other.run()
    other.branch(2, 0.5)
    session.keep(2)
    assert len(session.takes) == 3
