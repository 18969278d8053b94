"""What can be said of single kernels; see test_fused.py for their work together."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from fast_jukebox.models.prior.engines import fused_tuning
from fast_jukebox.models.prior.engines.fused import FusedDecoder
from fast_jukebox.models.prior.engines.fused_tuning import Tuning
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.engine import EagerDecoder, open_decoder, sample_window
from fast_jukebox.sampling.weights import release_decoders

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(do_sample=False),
        SamplingSettings(top_k=1),
        SamplingSettings(top_k=5, temperature=1.7),
        SamplingSettings(top_p=0.5),
        SamplingSettings(top_k=9, top_p=0.8),
        SamplingSettings(top_k=400, top_p=0.999),
    ],
    ids=str,
)
@pytest.mark.parametrize("codes", [13, 300])
def test_a_code_is_drawn_as_by_the_plain_draw(interpreted, make_prior, settings, codes):
    prior, songs = make_prior(num_hidden_layers=1, codebook_size=codes), 16
    decoder = FusedDecoder(prior, songs, settings)
    decoder.load(prior.condition(songs, 24))
    for dtype_scale in (0.1, 3.0):
        logits = torch.randn(songs, codes) * dtype_scale
        logits[:8] = (logits[:8] * 9).round() / 9  # ties
        decoder.logits.copy_(logits)
        decoder.uniform.copy_(torch.rand(decoder.steps_per_call, songs))
        decoder.uniform[0, :4] = torch.tensor([0.0, 1 - 2**-24, 0.5017, 0.2613])
        decoder._draw(step=0, more=0)
        assert torch.equal(decoder.code, draw_codes(logits, decoder.uniform[0], settings))
        assert torch.equal(decoder.codes[0], decoder.code)


@pytest.mark.parametrize(
    ("shared", "entries", "stages"), [(227, 32768, 4), (163, 32768, 4), (99, 16384, 3), (64, 8192, 2)]
)
def test_blocks_are_made_small_enough_for_a_gpu(shared, entries, stages):
    tuning = Tuning(entries=32768, block=(64, 64, 128, 4, 4)).within(shared * 1024)
    assert (tuning.entries, tuning.block) == (entries, (64, 64, 128, stages, 4))
    assert tuning.within(shared * 1024) == tuning


def test_attention_to_wide_heads_is_split_more_for_a_few_rows():
    few, many = Tuning(kernel="few", splits=4), Tuning(kernel="many", splits=4)
    assert [few.for_heads(width).splits for width in (16, 256, 480, 600)] == [4, 4, 8, 12]
    assert many.for_heads(480) == many
    assert few.for_width(2048) == few and few.for_width(20000).kernel == "many"


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper_without_spills(repository_root):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.fused_compile",
        "--json",
        "--rows",
        "1",
        "4",
        "12",
        "46",
        "184",
        "--choices",
    ]
    command += ["--dtypes", "bfloat16", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository_root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"].split()[0] for row in rows} == {
        "attention", "draw", "embed", "linear_of_few", "linear_of_many", "normalise",
    }  # fmt: skip
    for row in rows:
        assert row["stack"] <= 16 and row["shared"] <= 227 * 1024 and row["registers"] <= 255, row


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("songs", "folded"),
    [(1, False), (3, False), (5, False), (5, True), (17, False), (17, True), (70, False), (70, True)],
)
def test_fused_steps_on_a_gpu(make_prior, monkeypatch, dtype, songs, folded):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    tunings = [(limit, dataclasses.replace(tuning, folded=folded)) for limit, tuning in fused_tuning.TUNINGS]
    monkeypatch.setattr(fused_tuning, "TUNINGS", tunings)
    settings, every = SamplingSettings(temperature=0.9), ["row", "column", "previous_row", "dense"]
    prior = make_prior(layer_types=every, num_hidden_layers=4, upsampling_strides=[2, 2]).to("cuda", dtype)
    conditioning = prior.condition(songs, 24, torch.randint(0, 13, (songs, 6), device="cuda"))
    prompt, uniform = torch.randint(0, 13, (songs, 5), device="cuda"), torch.rand(songs, 19, device="cuda")
    for _ in range(2):
        step = open_decoder(prior, conditioning, songs, settings, "fused")
        codes = sample_window(step, prompt, uniform)
    wanted = prior.prefill(codes[:, :-1], conditioning, prior.new_cache(songs))
    tolerance = {torch.float32: 4e-5, torch.bfloat16: 0.2, torch.float16: 0.04}[dtype]
    error = (step.logits.float() - wanted.float()).abs().max()
    assert error <= tolerance * max(1.0, wanted.float().abs().max())
    if dtype == torch.float32:
        assert torch.equal(codes, sample_window(EagerDecoder(prior, conditioning, songs, settings), prompt, uniform))
    release_decoders()
