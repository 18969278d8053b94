"""Measured labels of chorales whose key, tempo and instrument are known, as docs/train.md states their rates."""

import math

import pytest
import torch

from fast_jukebox.labelling import KeyLabeller, TagLabeller, TempoLabeller

CHORALES = ("bwv1.6", "bwv2.6", "bwv5.7", "bwv7.7", "bwv9.7", "bwv10.7", "bwv13.6", "bwv14.5", "bwv16.6", "bwv17.7")
RATE = 22050


@pytest.fixture(scope="module")
def clips():
    """The first 30 s of some chorales by a piano, each in its own key and tempo, with what is known of them."""
    for module in ("music21", "pretty_midi", "tinysoundfont", "libsonare"):
        pytest.importorskip(module)
    from fast_jukebox.data.tunes.chorales import chorale_paths, read_chorale
    from fast_jukebox.data.tunes.recipe import SongRecipe, render_song
    from fast_jukebox.data.tunes.synthesis import Player

    recipe = SongRecipe(voices=4, instruments=("piano",), longest=30.0, sampling_rate=RATE)
    player = Player(None, RATE)
    paths = [path for path in chorale_paths() if path.stem in CHORALES]
    assert len(paths) == len(CHORALES)
    return [render_song(read_chorale(path), recipe, player, check=False) for path in paths]


@pytest.mark.slow
def test_most_chorales_get_their_key_tempo_and_instrument(clips):
    keys, tempi, instruments = [], [], []
    for samples, row in clips:
        audio = torch.from_numpy(samples)
        keys.append(KeyLabeller(lead=0.0)(audio, RATE)["key"] == f"{row['key']} {row['mode']}")
        bpm = TempoLabeller(confidence=0.0)(audio, RATE)["bpm"]
        octaves = math.log2(bpm / row["bpm"])
        tempi.append(abs(octaves - round(octaves)) < math.log2(1.04))
        instruments.append("piano" in TagLabeller()(audio, RATE).get("instrument", ""))
    assert sum(keys) >= 7 and sum(tempi) >= 9 and sum(instruments) >= 7
