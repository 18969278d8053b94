import errno
import os
import threading

import pytest

from fast_jukebox.utils import locks
from fast_jukebox.utils.locks import FolderLock, InUseError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of flock")


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has no flock, and tells so in one of its ways."""
    locks._warn_once.cache_clear()

    def refuse(code):
        def flock(file, operation):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("fcntl.flock", flock)

    return refuse


def other_process(path):
    """What another process gets: 0 where it has the lock, 7 where it is refused."""
    child = os.fork()
    if child == 0:
        try:
            FolderLock(path).held().__enter__()
        except InUseError:
            os._exit(7)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_other_processes_are_refused_and_other_threads_wait(tmp_path):
    lock, order = FolderLock(tmp_path / "lock"), []

    def second():
        with lock.held() as first:
            order.append(("second", first))

    thread = threading.Thread(target=second, daemon=True)
    with lock.held() as first:
        assert first
        with lock.held() as again:  # the same thread
            assert not again
        thread.start()
        assert other_process(tmp_path / "lock") == 7
        with pytest.raises(InUseError, match=f"{os.getpid()} on "):
            FolderLock(tmp_path / "lock").held().__enter__()
        order.append("first")
    thread.join()
    assert order == ["first", ("second", True)]
    assert other_process(tmp_path / "lock") == 0


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_file_stands_for_one_with_one_warning(tmp_path, without_flock, code, caplog):
    without_flock(code)
    lock = FolderLock(tmp_path / "lock")
    for _ in range(2):
        with lock.held():
            assert (tmp_path / "lock.soft").read_text().startswith(f"{os.getpid()} on ")
            assert other_process(tmp_path / "lock") == 7
        assert not (tmp_path / "lock.soft").exists()
    assert caplog.text.count("has no locks") == 1


def test_the_file_of_a_dead_process_is_taken_over_and_that_of_another_machine_is_not(tmp_path, without_flock):
    without_flock(errno.ENOSYS)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    soft = tmp_path / "lock.soft"
    soft.write_text(f"{dead} on {locks.socket.gethostname()}")
    with FolderLock(tmp_path / "lock").held():
        assert soft.read_text().startswith(str(os.getpid()))
    for holder in (f"{dead} on another-machine", "", "damaged", "long " * 100):
        soft.write_text(holder)
        with pytest.raises(InUseError, match=r"if it has ended, delete .*lock\.soft"):
            FolderLock(tmp_path / "lock").held().__enter__()


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path, without_flock):
    without_flock(errno.ENOSYS)
    os.mkfifo(tmp_path / "lock.soft")
    with pytest.raises(InUseError, match=r"unknown; if it has ended, delete .*lock\.soft"):
        FolderLock(tmp_path / "lock").held().__enter__()


def test_other_errors_are_told(tmp_path, without_flock):
    without_flock(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        FolderLock(tmp_path / "lock").held().__enter__()
    assert not (tmp_path / "lock.soft").exists()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "soft link"])
def test_what_is_no_lock_file_is_not_written_to(tmp_path, without_flock, kind):
    (tmp_path / "precious").write_text("my only copy")
    path = tmp_path / "lock"
    if kind == "link":
        path.symlink_to(tmp_path / "precious")
    elif kind == "hard link":
        path.hardlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        without_flock(errno.ENOSYS)
        FolderLock(path).soft_path.symlink_to(tmp_path / "precious")
    with pytest.raises(
        OSError, match="if it has ended, delete" if kind == "soft link" else "a link or no regular file; delete it"
    ):
        FolderLock(path).held().__enter__()
    assert (tmp_path / "precious").read_text() == "my only copy"
