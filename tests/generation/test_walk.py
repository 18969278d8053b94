"""How much of the package one call of `generate` walks through: bounds, so that it does not grow unseen."""

import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

import fast_jukebox
from fast_jukebox import FastJukeboxModel
from fast_jukebox.pipelines import default_model_path

ROOT = str(Path(fast_jukebox.__file__).parent)


def walk(model, duration):
    """Calls of each file of the package while a song is made."""
    model.generate(duration=min(duration, 1.0), seed=1)  # what is built once
    files = Counter()

    def count(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            files[frame.f_code.co_filename] += 1

    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        model.generate(duration=duration, seed=1)
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return files


def test_one_song_walks_through_few_files(tiny_model):
    files = walk(tiny_model, 0.5)
    assert 10 < len(files) <= 22, sorted(files)
    assert sum(files.values()) < 10_000


@pytest.mark.parametrize(("threads", "calls"), [(1, 3_200), (2, 5_300)])
def test_so_does_one_of_the_embedded_model_which_has_labels(threads, calls):
    """In proportion that is fewer than 40,000 calls for a minute of music."""
    model, before = FastJukeboxModel.from_pretrained(default_model_path()).eval(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        files = walk(model, 4.0)
    finally:
        torch.set_num_threads(before)
    assert 10 < len(files) <= 24, sorted(files)
    assert 1_000 < sum(files.values()) < calls, files
