import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.utils import files
from fast_jukebox.utils.files import (
    check_apart,
    check_folder,
    claim_folder,
    clear_temporary,
    finish_replacing,
    new_folder,
    path_within,
    read_file,
    replacing,
    replacing_files,
    sync_folder,
    temporary_path,
    write_file,
    writing,
)

posix = pytest.mark.skipif(os.name != "posix", reason="links and signals are others there")


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_name_is_hidden_beside_its_place_and_of_the_same_kind(tmp_path):
    path = temporary_path(tmp_path / "my.song.wav")
    assert path.parent == tmp_path and path.suffix == ".wav" and path.name.startswith(".my.song.")
    assert temporary_path(tmp_path / "model").suffix == ".tmp"
    assert path != temporary_path(tmp_path / "my.song.wav")


@pytest.mark.parametrize("name", ["a" * 250 + ".wav", "ä" * 120 + ".flac", "a." + "b" * 250])
def test_a_long_name_is_written_too(tmp_path, name):
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("the file system takes no such name")
    write_file(tmp_path / name, b"sound")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"sound"


@posix
def test_what_the_dead_left_is_cleared_and_nothing_else(tmp_path, monkeypatch, dead):
    own = [temporary_path(tmp_path / name) for name in ("song.wav", "model")]
    monkeypatch.setattr(os, "getpid", lambda: dead)
    left = [temporary_path(tmp_path / name) for name in ("song.wav", "my.codes.safetensors", "a" * 250)]
    folder, link = temporary_path(tmp_path / "model"), temporary_path(tmp_path / "link")
    monkeypatch.setattr(files.socket, "gethostname", lambda: "another-machine")
    elsewhere = temporary_path(tmp_path / "song.wav")
    monkeypatch.undo()
    others = [tmp_path / name for name in ("song.wav", ".hidden", f".song.{dead}.tmp", f".song.{dead}-0.tmp.wav")]
    for path in (*own, *left, elsewhere, *others):
        path.touch()
    folder.mkdir()
    (folder / "model.safetensors").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    link.symlink_to(kept)
    clear_temporary(tmp_path)
    assert set(tmp_path.iterdir()) == {*own, elsewhere, *others, kept}
    assert (kept / "file").exists()


def test_a_folder_that_is_not_there_has_nothing_to_clear(tmp_path):
    clear_temporary(tmp_path / "nowhere")


@given(st.one_of(st.binary(max_size=5000), st.text(max_size=500).filter(lambda text: text.isprintable())))
def test_what_is_written_is_read_again(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "a"
    write_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    write_file(path, memoryview(b"another"))
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == b"another"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("open_file", [writing, replacing])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error, open_file):
    path = tmp_path / "sound.wav"
    path.write_bytes(b"before")
    with pytest.raises(type(error)), open_file(path) as file:
        file.write_bytes(b"half") if isinstance(file, Path) else file.write(b"half")
        raise error
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
            write_file(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("into", [new_folder, replacing_files])
def test_a_full_disk_names_the_folder_that_was_asked_for(tmp_path, into):
    """Whether the error names no file, as of writing one that is open, or a temporary one."""
    for name in (None, "a.parquet"):
        with pytest.raises(OSError, match="No space left on device") as caught, into(tmp_path / "data") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", *([] if name is None else [str(temporary / name)]))
        assert caught.value.filename == str(tmp_path / "data" / (name or ""))


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match=r"nowhere.a\.wav'") as caught:
        write_file(tmp_path / "nowhere" / "a.wav", b"sound")
    assert ".tmp" not in str(caught.value)


@posix
def test_permissions_are_those_of_any_new_file_or_as_asked(tmp_path):
    (tmp_path / "plain").touch()
    write_file(tmp_path / "written", b"")
    write_file(tmp_path / "own", b"", mode=0o700)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("plain", "written", "own")]
    assert modes[0] == modes[1] and modes[2] == 0o700


@posix
def test_nothing_is_written_through_a_link(tmp_path, monkeypatch):
    victim, path = tmp_path / "victim", tmp_path / "song"
    victim.write_text("precious")
    trap = tmp_path / ".trap"
    trap.symlink_to(victim)
    monkeypatch.setattr(files, "temporary_path", lambda path: trap)
    with pytest.raises(FileExistsError):
        write_file(path, b"sound")
    assert victim.read_text() == "precious"
    monkeypatch.undo()
    path.symlink_to(victim)
    write_file(path, b"sound")
    assert victim.read_text() == "precious" and path.read_bytes() == b"sound" and not path.is_symlink()


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_a_file_system_that_cannot_sync_is_written_to_all_the_same(tmp_path, monkeypatch, code):
    def refuse(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    write_file(tmp_path / "a", b"sound")
    assert (tmp_path / "a").read_bytes() == b"sound"
    sync_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_told(tmp_path, monkeypatch, code):
    def refuse(handle):
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_file(tmp_path / "a", b"sound")
    assert (tmp_path / "a").read_bytes() == b"before"


@posix
def test_paths_stay_in_their_folder(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "below", outside):
        folder.mkdir(parents=True)
    (root / "inner").symlink_to(root / "below")
    (root / "outer").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    for name in ("a", "below/a", "inner/a", "ä b", "a..b"):
        assert path_within(root, name) == root / name
    for name in ("../a", "below/../../outside/a", str(outside / "a"), "outer/a", "..\\a", "below/../a"):
        with pytest.raises(ValueError, match="leads out of the folder"):
            path_within(root, name)
    assert path_within(root, "outer/a", also=(outside,)) == root / "outer/a"
    for name in ("circle/a", "a\0b"):
        with pytest.raises(ValueError, match="cannot be the name of a file|leads out"):
            path_within(root, name)


@given(st.text(max_size=40))
def test_no_text_leads_out_of_its_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    try:
        path = path_within(root, name)
    except ValueError:
        return
    assert path.resolve().is_relative_to(root.resolve())


def test_a_file_larger_than_it_can_be_is_not_read(tmp_path):
    path = tmp_path / "card"
    path.write_bytes(bytes(100))
    assert read_file(path, 100) == bytes(100)
    with pytest.raises(ValueError, match="card.*more than 99 bytes"):
        read_file(path, 99)


@posix
def test_a_pipe_or_a_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="no regular file") as raised:
            read_file(tmp_path / name, 100)
        assert raised.value.filename == str(tmp_path / name)


WEIGHTS = re.compile(r"model.*\.safetensors")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def save(folder, files):
    with replacing_files(folder, WEIGHTS) as temporary:
        for name, text in files.items():
            (temporary / name).write_text(text)


OLD = {"config.json": "old", "model-1.safetensors": "old", "model-2.safetensors": "old"}
NEW = {"config.json": "new", "model.safetensors": "new", "more.json": "new"}


def test_files_are_replaced_together_and_old_weights_go(tmp_path):
    save(tmp_path / "m", OLD)
    (tmp_path / "m" / "README.md").write_text("mine")
    save(tmp_path / "m", NEW)
    assert contents(tmp_path / "m") == NEW | {"README.md": "mine"}
    save(tmp_path / "m", {"config.json": "newer"})
    assert contents(tmp_path / "m") == NEW | {"README.md": "mine", "config.json": "newer"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"README.md", *NEW}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_files(tmp_path, error):
    save(tmp_path, OLD)
    with pytest.raises(type(error)), replacing_files(tmp_path, WEIGHTS) as temporary:
        (temporary / "config.json").write_text("half")
        raise error
    assert {path.name for path in tmp_path.iterdir()} == set(OLD)
    assert contents(tmp_path) == OLD


def test_a_process_killed_at_any_call_leaves_the_old_files_or_the_new(tmp_path, monkeypatch):
    """Each call that changes the disk is the last one in turn; what is found afterwards is finished."""
    found = []
    for last in range(40):
        folder = tmp_path / str(last)
        save(folder, OLD)
        calls = [0]

        def dying(real, calls=calls, last=last):
            def call(*args, **kwargs):
                calls[0] += 1
                if calls[0] > last:
                    raise SystemExit
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "mkdir", "rmdir"):
                patch.setattr(os, name, dying(getattr(os, name)))
            patch.setattr("fast_jukebox.utils.files.shutil.rmtree", dying(shutil.rmtree))
            try:
                save(folder, NEW)
            except SystemExit:
                pass
            else:
                break
        finish_replacing(folder)
        found.append("new" if contents(folder) == NEW else "old" if contents(folder) == OLD else contents(folder))
    assert set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)
    assert 4 < len(found) < 39


def test_a_list_of_old_files_cannot_name_others(tmp_path):
    (tmp_path / "m" / ".saved").mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "m" / ".saved" / ".stale.json").write_text('["../secret", 5, "/etc/passwd"]')
    finish_replacing(tmp_path / "m")
    assert (tmp_path / "secret").exists()
    assert not list((tmp_path / "m").iterdir())


def test_a_new_folder_is_there_complete_or_not_at_all(tmp_path, monkeypatch):
    with new_folder(tmp_path / "songs") as temporary:
        (temporary / "one").write_bytes(b"1")
        assert not (tmp_path / "songs").exists()
    assert (tmp_path / "songs/one").read_bytes() == b"1"
    with pytest.raises(RuntimeError, match="stopped"), new_folder(tmp_path / "other") as temporary:
        (temporary / "one").write_bytes(b"1")
        raise RuntimeError("stopped")
    assert [path.name for path in tmp_path.iterdir()] == ["songs"]

    def failing(folder):
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(files, "sync_folder", failing)
    monkeypatch.setattr(files, "sync_files", lambda folder: None)
    with pytest.raises(OSError, match="the disk fails"), new_folder(tmp_path / "other") as temporary:
        (temporary / "one").write_bytes(b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["songs"]


def test_a_new_folder_takes_the_place_of_an_empty_one_alone(tmp_path):
    (tmp_path / "songs").mkdir()
    with new_folder(tmp_path / "songs") as temporary:
        (temporary / "one").write_bytes(b"1")
    with pytest.raises(OSError), new_folder(tmp_path / "songs"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["songs", "one"]


@posix
def test_a_new_folder_deletes_what_the_dead_left(tmp_path, monkeypatch, dead):
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead)
        left = temporary_path(tmp_path / "songs")
    left.mkdir()
    with new_folder(tmp_path / "songs"):
        assert not left.exists()


@posix
def test_a_folder_that_may_not_be_read_or_entered_is_told_and_others_are_left_alone():
    def is_told(path):
        child = os.fork()
        if child == 0:
            try:
                if os.getuid() == 0:  # who may read everything
                    os.setuid(65534)
                check_folder(path)
            except PermissionError:
                os._exit(7)
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("closed", "open"):
            (Path(folder) / name / "within").mkdir(parents=True)
        (Path(folder) / "file").touch()
        os.chmod(Path(folder) / "closed", 0)
        try:
            names = ("closed", "closed/within", "open", "file", "nowhere")
            assert [name for name in names if is_told(Path(folder) / name)] == ["closed", "closed/within"]
        finally:
            os.chmod(Path(folder) / "closed", 0o755)


def test_a_folder_is_claimed_once_and_for_the_same_settings(tmp_path):
    path = tmp_path / "out" / "made.json"
    claim_folder(path, {"rate": 8000, "words": ("a", "b")}, "songs made")
    claim_folder(path, {"rate": 8000, "words": ["a", "b"]}, "songs made")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out holds songs made with rate 8000, not 16000\. They are kept"):
        claim_folder(path, {"rate": 16000, "words": ["a", "b"]}, "songs made")
    with pytest.raises(ValueError, match="with seed None, not 1"):
        claim_folder(path, {"rate": 8000, "seed": 1}, "songs made")
    assert path.read_bytes() == before
    for damage in ("[]", "{", "3"):
        path.write_text(damage)
        with pytest.raises(ValueError, match=r"made\.json is damaged .*: name another folder"):
            claim_folder(path, {"rate": 8000}, "songs made")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["A.wav", "b.wav", "a.wav"], "got 'a.wav' beside 'A.wav', which is the same file on the disks of Windows"),
        (["d/STRASSE.wav", "d/stra\u00dfe.wav"], "beside 'd/STRASSE.wav'"),
        (["\u00e9.wav", "E\u0301.wav"], "beside '\u00e9.wav'"),
        (["a.wav", "a.wav"], "got 'a.wav' twice"),
        (["a.wav", "b.wav", "\u00e9.wav", "e.wav", "d/a.wav"], None),
    ],
)
def test_names_that_some_disks_take_for_one_are_refused(names, said):
    if said is None:
        check_apart(names, "songs")
        return
    with pytest.raises(ValueError, match=f"songs must have names that differ, .*{re.escape(said)}"):
        check_apart(names, "songs")
