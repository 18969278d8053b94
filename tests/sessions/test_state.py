import json
import random

import pytest

from fast_jukebox.sessions.sampling import samplers_of
from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionError


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
    with pytest.raises(SessionError, match="not as it was written.*; the codes beside it stand"):
        Session.open(session.folder)


def test_takes_that_are_not_as_they_were_written(session):
    for name, value in (("seed", -3), ("known", [0]), ("origin", "heaven"), ("segments", []), ("samples", "many")):
        body = json.loads(json.dumps(session._store.read_manifest()))
        body["takes"][0][name] = value
        session._store.write_manifest(body)
        with pytest.raises(SessionError, match="not as it was written.*; the codes beside it stand"):
            Session.open(session.folder)
        body["takes"][0] = session.takes[1].record()
        session._store.write_manifest(body)


OTHERS = [
    *(None, True, 0, -1, 3, 10**6, 10**18, 2**70, 0.5, float("nan"), "", "parallel", "../codes/given"),
    *([], {}, [1], [[1]], {"a": 1}),
]


def places(value, way=()):
    """The ways to everything in a manifest but its format."""
    if way and way[0] not in ("format", "version"):
        yield way
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*way, key))


def test_a_manifest_that_says_anything_is_refused_or_as_good_as_before(stub_model, session):
    """Whatever one place of it says, with a checksum that is right."""
    session.run()
    session.cut(0.8)
    session.branch(1, 0.4)
    session.request([1], 1, 0.1, 0.5)
    body = session._store.read_manifest()
    chance = random.Random(0)
    ways = list(places(body))
    refused = 0
    for way in chance.sample(ways, 120):
        damaged = json.loads(json.dumps(body))
        *path, key = way
        at = damaged
        for step in path:
            at = at[step]
        if chance.random() < 0.2:
            del at[key]
        else:
            at[key] = chance.choice(OTHERS)
        session._store.write_manifest(damaged)
        try:
            again = Session.open(session.folder, stub_model)
            again.tree()
            for take in again.takes:
                again.audio(1, level=2)
                samplers_of(stub_model, again._codes, [again.takes[take]], 0, "auto", None)
        except (SessionError, ValueError) as error:
            refused += 1
            assert len(str(error)) > 20, way
    assert refused > 80


def test_a_session_sees_what_another_process_did(session):
    other = Session.open(session.folder, session.model)
    other.run()
    other.branch(2, 0.5)
    session.keep(2)
    assert len(session.takes) == 3


def test_what_cannot_be_made_is_not_noted(words_model, tmp_path):
    """Or it would be in the way of whatever is asked for next."""
    session = words_model.new_session(
        tmp_path / "song", duration=0.2, metadata={"total_duration": 0.3}, seed=1, stop_level=2
    )
    session.run()
    before = session._store.read_manifest()
    for ask in (lambda: session.branch(2, 1.0), lambda: session.extend(2.0), lambda: session.extend(700.0)):
        with pytest.raises(ValueError, match="total length"):
            ask()
    own, words_model.priors[0].config.num_artists = words_model.priors[0].config.num_artists, 1
    with pytest.raises(ValueError, match="must have the session's bottom prior"):
        session.request([1])
    words_model.priors[0].config.num_artists = own
    assert session._store.read_manifest() == before
    session.branch(1, 0.1)
    session.run()


def test_dropped_lyrics_are_told_when_they_are_given(words_model, tmp_path, caplog):
    session = words_model.new_session(tmp_path / "song", duration=0.1, metadata={"lyrics": "la ♪"}, seed=1)
    session.run()
    assert caplog.text.count("cannot be spelt") == 1
    session.branch(1, 0.1)
    session.run()
    assert caplog.text.count("cannot be spelt") == 1
    session.branch(1, 0.1, metadata={"lyrics": "♫ la"})
    session.run()
    assert caplog.text.count("cannot be spelt") == 2 and "♫" in caplog.text
