import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox.sessions.store import SessionError


@pytest.fixture
def session(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=1)
    session.run()
    return session


def test_siblings_share_the_file_that_they_begin_with(session):
    first, second = session.branch(2, 0.4)
    assert first.given == second.given
    assert len(list(session.folder.glob("codes/given-*"))) == 1
    assert first.known == (100, 50, 25)


def test_the_file_of_a_top_level_tells_the_song_alone(session):
    (take,) = session.branch(1, 0.4)
    session.run()
    codes = load_file(session.folder / "codes" / f"take-{take.number:04}-level-2.safetensors")["codes"]
    assert torch.equal(codes.long(), session.codes(take)[2][0])


def test_codes_that_are_none_are_refused(session):
    codes, take = session._codes, session.kept
    pieces = codes.window_codes(take, 0)
    codes.write_window_codes(take, 0, {number: piece + 10 for number, piece in pieces.items()})
    with pytest.raises(SessionError, match="from 0 to 10"):
        session.codes()


def test_codes_of_another_codebook_are_refused(session):
    tensors, facts = session._store.read_codes("take-0001-level-2")
    session._store.write_codes("take-0001-level-2", tensors, {**facts, "vqvae": "0" * 32})
    with pytest.raises(SessionError, match="another model's codebook"):
        session.codes()


def test_files_of_another_take_are_refused(session):
    session.extend(3.0)
    session.run()
    for name, other in (("take-0002-level-2", "take-0001-level-2"), ("take-0001-level-0", "take-0001-level-1")):
        session._store.write_codes(name, *session._store.read_codes(other))
        with pytest.raises(SessionError, match="does not belong"):
            session.codes(int(name[5:9]))


def test_codes_of_another_sessions_take_are_refused(session, tmp_path, stub_model):
    other = stub_model.new_session(tmp_path / "other", duration=2.0, seed=77)
    other.run()
    for level in (2, 0):
        name = f"codes/take-0001-level-{level}.safetensors"
        own = (session.folder / name).read_bytes()
        (session.folder / name).write_bytes((other.folder / name).read_bytes())
        with pytest.raises(SessionError, match=f"take-0001-level-{level}.*does not belong to take 1"):
            session.codes()
        (session.folder / name).write_bytes(own)
    session.codes()


def test_a_past_of_another_shape_is_refused(session):
    take = session.cut(1.0)
    tensors, facts = session._store.read_codes(take.given)
    session._store.write_codes(take.given, {name: own.reshape(-1, 1) for name, own in tensors.items()}, facts)
    with pytest.raises(SessionError, match="does not belong to take 2"):
        session.codes(2)


def test_codes_of_older_versions_are_read(session):
    expected = session.codes()
    for level in range(3):
        tensors, facts = session._store.read_codes(f"take-0001-level-{level}")
        session._store.write_codes(
            f"take-0001-level-{level}", tensors, {key: facts[key] for key in ("take", "level", "vqvae")}
        )
    for own, codes in zip(session.codes(), expected, strict=True):
        assert torch.equal(own, codes)


def test_a_past_that_is_lost(session):
    take = session.cut(1.0)
    (session.folder / "codes" / f"{take.given}.safetensors").unlink()
    with pytest.raises(SessionError, match="lost what take 2 begins with"):
        session.codes()


def test_a_lost_file_is_sampled_again(session):
    expected = session.codes()
    for path in session.folder.glob("codes/take-*"):
        path.unlink()
    assert session.shares() == [0, 0, 0]
    session.request()
    session.run()
    for own, codes in zip(session.codes(), expected, strict=True):
        assert torch.equal(own, codes)


def test_codes_are_exported_for_other_programs(session, tmp_path, stub_model):
    path = session.export(tmp_path / "codes.safetensors")
    found = load_file(path)
    for level, codes in enumerate(session.codes()):
        assert torch.equal(found[f"level_{level}"], codes)
    empty = stub_model.new_session(tmp_path / "empty", duration=1.0)
    with pytest.raises(ValueError, match="no level"):
        empty.export(tmp_path / "none.safetensors")
