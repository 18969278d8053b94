import pytest
import torch

from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionStore


def test_reading_is_possible_while_another_process_writes_and_changes_nothing(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=1.2, seed=7, stop_level=1)
    session.run()
    whole = stub_model.generate(duration=1.2, seed=7, stop_level=1)
    before = {path: path.read_bytes() for path in session.folder.rglob("*") if path.is_file()}
    with SessionStore(session.folder).locked():
        again = Session.open(session.folder, stub_model)
        assert again.fractions() == [0, 1, 1] and again.tree() == session.tree()
        assert again.codes()[0] is None
        torch.testing.assert_close(again.codes()[1:], whole.codes[1:], rtol=0, atol=0)
        torch.testing.assert_close(again.audio(), whole.audio[0], rtol=0, atol=0)
        again.export(tmp_path / "song.wav")
    after = {path: path.read_bytes() for path in before if path.name != "lock"}
    assert after == {path: content for path, content in before.items() if path.name != "lock"}
    assert (tmp_path / "song.wav").stat().st_size == 44 + 2 * 120


def test_what_is_not_there_is_named(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=1.0, seed=7, stop_level=2)
    with pytest.raises(ValueError, match="take 1 has no sound of any level there yet"):
        session.audio()
    with pytest.raises(ValueError, match="take 1 has no level that is complete"):
        session.export(tmp_path / "codes.safetensors")
    with pytest.raises(ValueError, match="`model` must be given"):
        Session.open(session.folder).audio()
    assert list(tmp_path.iterdir()) == [session.folder]
