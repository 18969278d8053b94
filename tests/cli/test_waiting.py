import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
import time

import pytest

from fast_jukebox_cli.values import Waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_what_is_over_at_once_is_not_told(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Waiting("thinking"):
        pass
    with pytest.raises(ValueError, match="no"), Waiting("thinking", quiet=True):
        time.sleep(1.2)
        raise ValueError("no")
    assert sys.stderr.getvalue() == ""


def test_a_log_gets_what_is_said(capsys):
    with Waiting("thinking") as waiting:
        time.sleep(1.2)
        waiting.say("a thought")
    assert capsys.readouterr().err == "a thought\n"


def test_a_terminal_sees_the_time_and_then_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Waiting("thinking") as waiting:
        time.sleep(1.5)
        waiting.say("a thought")
        time.sleep(1)
    shown = sys.stderr.getvalue()
    assert "thinking, 00:00" in shown and "a thought\n" in shown
    assert shown.rstrip("\r").rsplit("\r", 1)[-1].strip() == ""


def test_a_log_gets_a_line_now_and_then(log_lines, monkeypatch, capsys):
    printed = threading.Event()
    monkeypatch.setattr(log_lines, "FIRST", 0.0)
    usual = log_lines.print_line
    monkeypatch.setattr(log_lines, "print_line", lambda text: (usual(text), printed.set()))
    with Waiting("thinking"):
        assert printed.wait(60)
    assert capsys.readouterr().err == "thinking, 0 s\n"
    printed.clear()
    with Waiting("thinking again"):  # it is too soon for another one
        time.sleep(0.5)
    assert not printed.is_set()


def test_a_song_made_into_a_pipe_is_seen_to_go_on(run, model_dir, log_lines, monkeypatch):
    monkeypatch.setattr(log_lines, "FIRST", 0.0)
    monkeypatch.setattr(log_lines, "INTERVAL", 0.0)
    monkeypatch.setattr("fast_jukebox.sampling.progress._TICK", 0.001)  # however quickly the song is made
    command = ["generate", "--model", model_dir, "--duration", "5", "--engine", "eager", "--seed", "1"]
    shown = run(*command, "--output", "a.wav").stderr
    assert "loading the model, 0 s" in shown
    assert re.search(r"^(preparing|sampling: \d+ of 5 s of music)", shown, re.MULTILINE)
    monkeypatch.setattr(log_lines, "_next", None)
    assert run(*command, "--output", "b.wav", "--quiet").stderr == "5 seconds, seed 1\n"


def test_a_terminal_that_does_not_say_how_wide_it_is_sees_the_time_too():
    child, terminal = pty.fork()  # of no width, as of some containers
    if child == 0:
        code = "import time, fast_jukebox_cli.app as app, fast_jukebox_cli.values as values\n"
        code += "def wait():\n  with values.Waiting('thinking'):\n    time.sleep(1.7)\n"
        os.environ.pop("TQDM_NCOLS", None)
        os.execv(sys.executable, [sys.executable, "-c", f"{code}app.app = wait\napp.main()"])
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"thinking, 00:00" in shown


@pytest.mark.slow
def test_a_song_is_never_made_in_silence(tmp_path):
    """On a terminal something moves at least every other second; four times that is allowed where machines are busy."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        command = [sys.executable, "-m", "fast_jukebox_cli", "generate", "--duration", "6", "--seed", "1"]
        os.execv(sys.executable, [*command, "--output", str(tmp_path / "song.wav")])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    last, longest, shown = time.monotonic(), 0.0, b""
    while b"song.wav" not in shown:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    os.close(terminal)
    os.waitpid(child, 0)
    assert b"loading" in shown or b"preparing" in shown
    assert longest < 8
