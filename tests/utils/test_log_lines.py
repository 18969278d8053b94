"""When lines about work under way are printed, and when not."""

import io
import sys

import pytest


@pytest.fixture
def now(log_lines, monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(log_lines.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(log_lines, "FIRST", 2.0)
    return seconds


def test_the_first_line_comes_soon_and_others_now_and_then(log_lines, now, capsys):
    printed = []
    for _ in range(400):
        if log_lines.is_due():
            log_lines.print_line("working")
            printed.append(now[0])
        now[0] += 0.1
    assert printed == pytest.approx([102.0, 112.0, 122.0, 132.0], abs=0.6)
    assert capsys.readouterr().err == "working\n" * 4


def test_a_line_that_nobody_reads_is_no_error(log_lines, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    stream.close()
    log_lines.print_line("working")
