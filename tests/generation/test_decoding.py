import subprocess
import sys
from itertools import islice
from pathlib import Path

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
    decoding_bytes,
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


def test_memory_of_decoding_counts_what_reaches_into_a_chunk_and_the_chunks_of_other_threads(tiny_model):
    vqvae, told = tiny_model.vqvae, {}
    for level in range(3):
        hop, reach = vqvae.hop_lengths[level], decoder_reach(vqvae, level)
        codes = 4 * LAST_SAMPLES // hop
        told[level] = decoding_bytes(vqvae, level, codes)
        of_a_sample = decoding_bytes(vqvae, level, FIRST_SAMPLES // hop) / FIRST_SAMPLES  # a song of one chunk
        assert told[level] == pytest.approx(of_a_sample * (LAST_SAMPLES + 2 * reach * hop), rel=0.01)
        assert decoding_bytes(vqvae, level, codes, 2) == pytest.approx(1.6 * told[level], rel=0.05)
    wide = type(vqvae.config)(**{**vqvae.config.to_dict(), "width": 4 * vqvae.config.width})
    assert decoding_bytes(type(vqvae)(wide), 0, codes) > 1.5 * told[0]


DECODE = """
import sys, torch
torch.set_num_threads(int(sys.argv[3]))
from fast_jukebox import FastJukeboxConfig, FastJukeboxVQVAE, FastJukeboxVQVAEConfig
from fast_jukebox.generation.decoding import decode_song, decoding_bytes
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.sampling.machine import process_memory
embedded = FastJukeboxConfig.from_pretrained(default_model_path()).vqvae_config
vqvae = FastJukeboxVQVAE(embedded if sys.argv[1] == "embedded" else FastJukeboxVQVAEConfig()).eval()
level = int(sys.argv[2])
codes = torch.randint(0, 2048, (1, 12 * 44100 // vqvae.hop_lengths[level])) % vqvae.config.codebook_size
before = process_memory()
with torch.inference_mode():
    audio = decode_song(vqvae, codes, level)
peak = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(decoding_bytes(vqvae, level, codes.shape[1], int(sys.argv[3])), peak - before - 2 * audio.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells what a process has used at most")
@pytest.mark.parametrize("size", ["published 0 1", "published 2 2", "embedded 0 1", "embedded 2 1"])
def test_memory_of_decoding_is_what_a_process_uses(size):
    command = [sys.executable, "-c", DECODE, *size.split()]
    told, used = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 0.8 * used < told < 1.25 * used


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
