import contextlib
import errno
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch

from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import MANIFEST, SessionError, SessionStore, codes_dtype
from fast_jukebox.utils import files
from fast_jukebox.utils.files import temporary_path


@pytest.fixture
def store(tmp_path):
    store = SessionStore(tmp_path / "song")
    store.make_folder()
    return store


def test_what_is_written_is_read(store):
    codes = np.arange(5, dtype=np.int16)
    store.write_manifest({"name": "Lied ohne Wörter"})
    store.write_codes("take-1", {"codes": codes}, {"take": 1})
    assert store.read_manifest()["name"] == "Lied ohne Wörter"
    tensors, facts = store.read_codes("take-1")
    assert tensors["codes"].tolist() == codes.tolist() and facts == {"take": 1}
    assert store.read_codes("take-2") is None and not store.has_codes("take-2")


def test_other_versions_are_refused(store):
    store.write_manifest({"name": "song"})
    path = store.folder / MANIFEST
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "version": 1}))
    with pytest.raises(SessionError, match="version 1.*version 2"):
        store.read_manifest()
    path.write_text(json.dumps({**written, "name": "other"}))
    with pytest.raises(SessionError, match="checksum"):
        store.read_manifest()
    for content in (b"", b"\xff", b"[]", b"[" * 100000):
        path.write_bytes(content)
        with pytest.raises(SessionError, match="damaged"):
            store.read_manifest()


@pytest.mark.skipif(os.name != "posix", reason="there are no such files")
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_what_is_no_regular_file_is_not_waited_for(store, kind):
    for path, read in (
        (store.folder / MANIFEST, store.read_manifest),
        (store.folder / "codes" / "take-1.safetensors", lambda: store.read_codes("take-1")),
    ):
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        with pytest.raises(SessionError, match=f"cannot read .*{path.name}.*no regular file"):
            read()


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(SessionError, match="no session"):
        Session.open(tmp_path / "nowhere")
    with pytest.raises(SessionError, match="no session"), SessionStore(tmp_path / "nowhere").locked():
        pass
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match="cannot make"):
        SessionStore(tmp_path / "file" / "song").make_folder()


def test_a_second_process_is_refused(store):
    with store.locked():
        with store.locked():  # its own holder may go in again
            pass
        with pytest.raises(SessionError, match=f"in use by another process \\({os.getpid()} on "):
            SessionStore(store.folder).locked().__enter__()
        child = os.fork() if hasattr(os, "fork") else None
        if child == 0:
            try:
                SessionStore(store.folder).locked().__enter__()
            except SessionError:
                os._exit(7)
            os._exit(0)
        if child is not None:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with SessionStore(store.folder).locked():
        pass


def test_the_lock_of_a_dead_process_is_taken_over(store):
    (store.folder / "lock").write_text("999999 on somewhere")
    before = set(store.folder.rglob("*"))
    for name in ("session.json", "codes/take.safetensors"):
        temporary_path(store.folder / name).touch()
    exported = temporary_path(store.folder / "take-1-top.wav")  # by this process, which has no need of the lock
    exported.touch()
    with store.locked():
        assert (store.folder / "lock").read_text().startswith(str(os.getpid()))
        assert set(store.folder.rglob("*")) == {*before, exported}


@pytest.mark.skipif(os.name != "posix", reason="nothing is cleared there")
def test_a_sound_that_a_killed_process_left_is_cleared(stub_model, tmp_path, monkeypatch):
    stub_model.new_session(tmp_path / "song", duration=1.0, seed=5, stop_level=2).run()
    child = os.fork()
    if child == 0:
        session = Session.open(tmp_path / "song", stub_model)
        monkeypatch.setattr(os, "replace", lambda *paths: os.kill(os.getpid(), signal.SIGKILL))
        session.export(tmp_path / "song" / "take-1-top.wav")
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    (left,) = (tmp_path / "song").glob(".take-1-top.*.tmp.wav")
    assert left.stat().st_size > 44
    session = Session.open(tmp_path / "song", stub_model)
    session.export(tmp_path / "song" / "other.wav")
    assert not left.exists()
    left.touch()
    session.keep(1)
    assert not left.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_was_saved_stands_when_the_disk_is_full(stub_model, tmp_path, monkeypatch, code):
    whole = stub_model.generate(duration=3.0, seed=5)
    writing, count = files.writing, 0

    @contextlib.contextmanager
    def full(path, mode=None):
        nonlocal count
        count += 1
        with writing(path, mode) as file:
            if count > 6:
                file.write(b"beginning")
                raise OSError(code, os.strerror(code))
            yield file

    session = stub_model.new_session(tmp_path / "song", duration=3.0, seed=5)
    monkeypatch.setattr(files, "writing", full)
    with pytest.raises(SessionError, match=f"{os.strerror(code)}.*saved before stands"):
        session.run(max_batch_size=1)
    monkeypatch.undo()
    again = Session.open(tmp_path / "song", stub_model)
    assert 0 < again.fractions()[2]
    again.run()
    for own, codes in zip(again.codes(), whole.codes, strict=True):
        assert torch.equal(own, codes)


@pytest.mark.skipif(sys.platform == "win32", reason="sizes of files have no limit there")
def test_a_lock_needs_no_room_on_the_disk(store):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with store.locked(), pytest.raises(SessionError, match="cannot write.*session.json.*saved before stands"):
            store.write_manifest({"seed": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(store.folder.glob(".*"))


def test_a_folder_that_cannot_be_written(store, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(SessionError, match="Permission denied"):
        store.locked().__enter__()


def test_a_session_that_was_killed_at_its_birth_is_begun_again(store):
    with store.locked():
        store.write_codes("given-1", {"level_0": np.zeros(3, np.int16)}, {})
    temporary_path(store.folder / "session.json").touch()
    SessionStore(store.folder).make_folder()


def test_codes_are_kept_small():
    assert codes_dtype(2048) is np.int16
    assert codes_dtype(2**15 + 1) is np.int32


@pytest.mark.skipif(os.name != "posix", reason="links need rights there")
def test_nothing_is_written_or_deleted_where_a_link_leads(store, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / ".a.1-00000000-0.tmp.safetensors").touch()
    codes = store.folder / "codes"
    for path in codes.iterdir():
        path.unlink()
    codes.rmdir()
    codes.symlink_to(target)
    with (
        pytest.raises(SessionError, match="codes' must be a folder of the session's own, got a link to"),
        store.locked(),
    ):
        pass
    with pytest.raises(SessionError, match="must be a folder"):
        store.write_codes("take-0001-level-2", {"codes": np.zeros(3, np.int64)}, {})
    assert [path.name for path in target.iterdir()] == [".a.1-00000000-0.tmp.safetensors"]
