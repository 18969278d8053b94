from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox.generation.decoding import (
    FIRST_SAMPLES,
    LAST_SAMPLES,
    KeptRecording,
    chunk_spans,
    decode_song,
    decoder_reach,
)


def test_pieces_double_and_begin_the_same_whatever_the_length():
    endless = list(islice(chunk_spans(8, None), 8))
    lengths = [(stop - start) * 8 for start, stop in endless]
    assert lengths[:5] == [FIRST_SAMPLES * 2**index for index in range(5)]
    assert lengths[-1] == LAST_SAMPLES
    assert all(before[1] == after[0] for before, after in zip(endless, endless[1:], strict=False))
    cut = list(chunk_spans(8, 20000))
    assert cut[:-1] == endless[: len(cut) - 1]
    assert cut[-1] == (endless[len(cut) - 1][0], 20000)
    assert list(islice(chunk_spans(16384, None), 2)) == [(0, 1), (1, 2)]


def test_a_song_in_pieces_is_the_song(stub_model, monkeypatch):
    monkeypatch.setattr("fast_jukebox.generation.decoding.FIRST_SAMPLES", 10)
    codes = torch.randint(0, 11, (2, 40))
    assert decoder_reach(stub_model.vqvae, 0) == 3
    assert torch.equal(decode_song(stub_model.vqvae, codes, 0), stub_model.vqvae.decode([codes]))


def test_real_pieces_have_all_that_reaches_into_them(tiny_model, monkeypatch):
    monkeypatch.setattr("fast_jukebox.generation.decoding.FIRST_SAMPLES", 64)
    for level in range(3):
        codes = torch.randint(0, 16, (2, 100))
        whole = tiny_model.vqvae.decode([codes], level)
        torch.testing.assert_close(decode_song(tiny_model.vqvae, codes, level), whole, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 40), st.integers(1, 60), st.integers(0, 50), st.integers(0, 70))
def test_a_recording_is_kept_and_fades_into_the_models_samples(start, length, kept, fade):
    recording, audio = torch.rand(1, kept), torch.rand(2, length)
    made = KeptRecording(recording, fade).join(audio, start)
    for offset in range(length):
        position = start + offset
        weight = 0.0 if position >= kept else min(1.0, (kept - position) / max(1, min(fade, kept)))
        for song in range(2):
            wanted = audio[song, offset]
            if weight:
                wanted = weight * recording[0, position] + (1 - weight) * wanted
            assert float(made[song, offset]) == pytest.approx(float(wanted), abs=1e-6)
