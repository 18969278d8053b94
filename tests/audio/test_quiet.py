"""A decoder's complaints are kept from the terminal, and nothing else is."""

import os
import threading

import pytest

from fast_jukebox.audio.quiet import quiet_decoder

COMPLAINTS = (
    b"[src/libmpg123/layer3.c:INT123_do_layer3():1774] error: part2_3_length (1088) too large\n",
    b"Note: Illegal Audio-MPEG-Header 0x0ad4c0de at offset 4096.\n",
    b"Note: Trying to resync...\n",
    b"Warning: Xing stream size off by more than 1%, fuzzy seeking may be even more fuzzy than by design!\n",
)


def test_complaints_are_dropped_and_the_rest_comes_in_order(capfd):
    with quiet_decoder():
        for number, complaint in enumerate(COMPLAINTS):
            os.write(2, complaint)
            os.write(2, b"line %d\n" % number)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "line 0\nline 1\nline 2\nline 3\nafter\n"


def test_an_error_within_and_one_in_another_leave_the_stream(capfd):
    with pytest.raises(ValueError, match="broken"), quiet_decoder(), quiet_decoder():
        os.write(2, COMPLAINTS[0])
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_forked_meanwhile_can_decode_and_speak(capfd):
    begun, ended = threading.Event(), threading.Event()

    def decode():
        with quiet_decoder():
            begun.set()
            ended.wait(20)

    thread = threading.Thread(target=decode, daemon=True)
    thread.start()
    begun.wait(20)
    child = os.fork()
    if child == 0:
        with quiet_decoder():
            os.write(2, COMPLAINTS[0])
        os.write(2, b"child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ended.set()
    thread.join()
    assert capfd.readouterr().err == "child\n"
