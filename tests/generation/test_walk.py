"""How much of the package one call of `generate` walks through: a bound, so that it does not grow unseen."""

import sys
import threading
from collections import Counter
from pathlib import Path

import fast_jukebox

ROOT = str(Path(fast_jukebox.__file__).parent)


def test_one_song_walks_through_few_files(tiny_model):
    tiny_model.generate(duration=0.5, seed=1)  # what is built once
    files = Counter()

    def count(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            files[frame.f_code.co_filename] += 1

    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        tiny_model.generate(duration=0.5, seed=1)
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    assert 10 < len(files) <= 24, sorted(files)
    assert sum(files.values()) < 10_000
