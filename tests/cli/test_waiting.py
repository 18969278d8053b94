import fcntl
import io
import os
import pty
import struct
import sys
import termios
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
