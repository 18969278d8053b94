import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPriorConfig
from fast_jukebox.generation import estimate
from fast_jukebox.generation.estimate import (
    LATER,
    Pace,
    estimate_generation,
    measure_decoding,
    measure_pace,
    weight_bytes,
)
from fast_jukebox.generation.levels import ROWS_AT_ONCE
from fast_jukebox.generation.request import FastJukeboxGenerationConfig, SongRequest
from fast_jukebox.models.prior.engines.native import weights_of
from fast_jukebox.models.prior.sampling_prior import choose_engine
from fast_jukebox.sampling import machine as batching
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.machine import Workers


def parts(model):
    return {
        "weights": [weight_bytes(prior) for prior in model.priors],
        "vqvae": weight_bytes(model.vqvae),
    }


@pytest.mark.parametrize("arguments", [{}, {"schedule": "sequential"}, {"num_samples": 3, "window_fractions": 0.5}])
def test_counts_are_those_of_the_generation(tiny_model, arguments):
    told = []
    tiny_model.generate(duration=0.5, seed=1, progress=told.append, **arguments)
    made = tiny_model.estimate(duration=0.5, calibrate=False, **arguments)
    for level in range(3):
        assert made.levels[level].codes == max(each.level_codes_done for each in told if each.level == level)
    assert [level.name for level in made.levels] == ["bottom", "middle", "top"]


@pytest.mark.parametrize("dtype", ["float32", torch.bfloat16])
def test_memory_is_that_of_real_tensors(tiny_model, dtype):
    made = tiny_model.estimate(duration=0.5, num_samples=2, dtype=dtype, calibrate=False)
    real = tiny_model
    real.priors.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
    names = [sum(tensor.nbytes for tensor in prior.state_dict().values()) for prior in real.priors]
    assert [level.weights for level in made.levels] == names
    assert made.vqvae_weights == sum(tensor.nbytes for tensor in real.vqvae.state_dict().values())
    for level, prior in zip(made.levels, real.priors, strict=True):
        length = min(prior.config.n_ctx, 64)
        cache = prior.new_cache(level.rows).nbytes
        conditioning = torch.zeros(level.rows, length, 16, dtype=real.dtype).nbytes
        noise, codes = torch.zeros(level.rows, length).nbytes, torch.zeros(level.rows, length).long().nbytes
        logits = 4 * torch.zeros(level.rows, 16).nbytes
        if level.name == "top":  # segments of a hop are shorter than a context at first, never in the end
            assert level.rows == 2
        assert level.memory == noise + codes + conditioning + max(conditioning, cache + logits)
    assert 10e6 < made.libraries < 20e9
    for level, prior in zip(made.levels, real.priors, strict=True):
        kept = weights_of(prior)._kept if choose_engine(prior) == "native" else []
        own = {weight.data_ptr() for weight in prior.parameters()}
        packed = [each for each in kept if each.dim() == 3 and each.data_ptr() not in own]
        assert level.copies == sum(each.nbytes for each in packed)
    held = sum(names) + made.vqvae_weights + sum(each.copies for each in made.levels)
    work = max(max(made.threads, 1) * max(each.memory for each in made.levels), made.decode_memory + 2 * 4 * 800)
    assert made.ram == made.libraries + LATER + held + work + 2 * 4 * 800
    assert made.disk == 2 * (44 + 2 * 800)
    assert made.device_memory == 0


SONG = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from fast_jukebox import FastJukeboxModel
from fast_jukebox.models.loading import default_model_path
model = FastJukeboxModel.from_pretrained(default_model_path())
told = model.estimate(duration=float(sys.argv[2]), calibrate=False)
model.generate(duration=float(sys.argv[2]), seed=1)
used = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(told.ram, 1024 * int(used.split()[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells what a process has used at most")
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_told_is_what_a_process_uses(threads):
    """Of a song of the embedded model: all of it is told, and at most an eighth more."""
    command = [sys.executable, "-c", SONG, str(threads), "5"]
    told, used = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 0.98 * used < told < 1.125 * used


@pytest.mark.parametrize("songs", [1, 2])
def test_sequential_levels_take_as_long_as_the_slowest_that_waits_for_itself(tiny_model, monkeypatch, songs):
    """By a clock that ticks once for a row of each window, and a thousand times at the bottom."""
    before = torch.get_num_threads()
    monkeypatch.setattr(
        estimate,
        "measure_pace",
        lambda prior, rows, *_: Pace(rows * (1000.0 if prior.config.level == 0 else 1.0), 0, 0),
    )
    monkeypatch.setattr(estimate, "measure_decoding", lambda *given: 0.0)
    torch.set_num_threads(2)
    try:
        made = tiny_model.estimate(duration=0.5, engine="native", schedule="sequential", num_samples=songs)
    finally:
        torch.set_num_threads(before)
    assert made.threads == 2
    assert made.seconds == made.levels[0].seconds == made.levels[0].chain_seconds


def test_parts_may_be_of_different_dtypes(tiny_model):
    tiny_model.to(torch.bfloat16).vqvae.float()
    made = tiny_model.estimate(duration=0.5, calibrate=False)
    assert [level.weights for level in made.levels] == [weight_bytes(prior) for prior in tiny_model.priors]
    assert made.vqvae_weights == weight_bytes(tiny_model.vqvae)
    with pytest.raises(ValueError, match="`dtype` must be .* got torch.float64"):
        tiny_model.double().estimate(duration=0.5, calibrate=False)


def test_a_gpu_holds_what_the_cpu_would(tiny_config):
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device"):
            FastJukeboxModel.estimate_from_config(tiny_config, device="cuda", calibrate=False)
        return
    made = FastJukeboxModel.estimate_from_config(tiny_config, duration=0.5, device="cuda", calibrate=False)
    assert made.device_memory > made.vqvae_weights + sum(level.weights for level in made.levels)


def test_batches_follow_the_free_memory(tiny_model, monkeypatch):
    row = batching.row_bytes(tiny_model.priors[0], 32)
    monkeypatch.setattr(estimate, "free_memory", lambda device: 6 * row)
    made = tiny_model.estimate(duration=0.5, calibrate=False)
    assert made.levels[0].rows == 3
    assert tiny_model.estimate(duration=0.5, calibrate=False, max_batch_size=2).levels[0].rows == 2


def test_a_model_that_is_on_the_device_already_takes_no_more_of_it(tiny_model, monkeypatch):
    row = batching.row_bytes(tiny_model.priors[0], 32)
    monkeypatch.setattr(estimate, "free_memory", lambda device: 6 * row)
    numbered = tiny_model.estimate(duration=0.5, device="cpu:0", calibrate=False)  # as `cuda` is to `cuda:0`
    assert numbered.levels[0].rows == 3


def test_time_comes_from_a_calibration(tiny_model):
    state = torch.get_rng_state()
    made = tiny_model.estimate(duration=0.5)
    assert all(level.seconds > 0 for level in made.levels)
    assert made.decode_seconds > 0
    assert made.seconds == pytest.approx(made.decode_seconds + sum(level.seconds for level in made.levels))
    assert torch.equal(torch.get_rng_state(), state)
    assert made.levels[0].seconds < tiny_model.estimate(duration=50.0).levels[0].seconds


def test_levels_at_the_same_time_share_the_threads(tiny_model, monkeypatch):
    """By a clock that ticks so often for a window of each level."""
    before = torch.get_num_threads()
    ticks = {0: 1e6, 1: 1.0, 2: 4.0}

    def pace(prior, rows, length, settings, device, engine, prompted):
        assert torch.get_num_threads() == 1 and rows <= ROWS_AT_ONCE
        return Pace(rows * ticks[prior.config.level], 0.0, 0.0)

    monkeypatch.setattr(estimate, "measure_pace", pace)
    monkeypatch.setattr(estimate, "measure_decoding", lambda *given: 0.0)
    torch.set_num_threads(2)
    try:
        made = tiny_model.estimate(duration=0.5, engine="native")
        bottom, middle, top = (level.seconds for level in made.levels)
        assert made.threads == 2
        assert made.seconds == (bottom + middle + top) / 2
        assert "levels on 2 threads at the same time" in str(made)
        ticks[2] = 1e9
        made = tiny_model.estimate(duration=0.5, engine="native")
        assert made.seconds == made.levels[2].seconds + sum(level.last_seconds for level in made.levels[:2])
        alone = tiny_model.estimate(duration=0.5, engine="native", stop_level=2, calibrate=False)
        assert alone.threads == 0
        assert tiny_model.estimate(duration=0.5, engine="eager", calibrate=False).threads == 0
    finally:
        torch.set_num_threads(before)


def test_it_needs_no_weights_and_prints_a_table():
    config = FastJukeboxConfig.preset("fastjukebox-18")
    made = FastJukeboxModel.estimate_from_config(
        config, duration=60.0, dtype="bfloat16", calibrate=False, max_batch_size=8
    )
    assert sum(level.codes for level in made.levels) > 330_750 + 82_688 + 20_672
    assert made.levels[2].codes == 20_672
    table = str(made).splitlines()
    assert table[0].split() == ["level", "codes", "steps", "at", "once", "time", "weights", "memory"]
    assert [line.split()[0] for line in table[1:5]] == ["top", "middle", "bottom", "decoding"]
    assert "60 s on cpu" in table[5]
    assert "GB of RAM, of which the libraries take" in table[6]


def test_settings_come_from_the_model(tiny_model):
    tiny_model.generation_config = FastJukeboxGenerationConfig(duration=0.2, schedule="sequential")
    made = tiny_model.estimate(calibrate=False)
    assert made.duration == 0.2
    assert made.levels[0].rows == 1
    assert estimate_generation(tiny_model, SongRequest(), calibrate=False).duration == 0.2
    other = SongRequest(generation_config=FastJukeboxGenerationConfig())
    assert estimate_generation(tiny_model, other, calibrate=False).duration == 20.0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"duration": 0}, "duration"),
        ({"num_samples": 0}, "num_samples"),
        ({"device": "toaster"}, "device"),
        ({"dtype": "int8"}, "dtype"),
        ({"schedule": "random"}, "schedule"),
        ({"engine": "steam"}, "engine"),
        ({"stop_level": 3}, "stop_level"),
        ({"max_batch_size": 0}, "max_batch_size"),
    ],
)
def test_bad_input(tiny_model, arguments, field):
    with pytest.raises(ValueError, match=field):
        tiny_model.estimate(**arguments)


def test_no_more_songs_are_asked_for_than_one_call_makes(tiny_model):
    with pytest.raises(ValueError, match="`num_samples` must be an integer from 1 to 65536, got 1000000000"):
        tiny_model.estimate(duration=1.0, num_samples=10**9)
    with pytest.raises(ValueError, match="`num_samples` must be an integer from 1 to 65536, got 1000000000"):
        tiny_model.generate(duration=1.0, num_samples=10**9)
    with pytest.raises(ValueError, match="`batch_size` must be an integer from 1 to 65536, got 1000000000"):
        tiny_model.priors[2].generate(batch_size=10**9)


CPU = torch.device("cpu")


def test_the_pace_of_a_deeper_prior_follows_from_two_depths(tiny_model, monkeypatch):
    prior = tiny_model.priors[0]
    prior.config.num_hidden_layers = 12
    timed = []

    def time_stack(prior, depth, rows, *args):
        timed.append((depth, rows))
        return Pace(0.5, 0.01 * depth, 1.0 + 0.1 * depth)

    monkeypatch.setattr(estimate, "_time_stack", time_stack)
    expected = Pace(pytest.approx(2 * 0.5), pytest.approx(2 * 0.12), pytest.approx(2 * 2.2))
    assert measure_pace(prior, 128, 32, SamplingSettings(), CPU) == expected
    assert timed == [(12, 64)]  # narrow: all of it
    timed.clear()
    monkeypatch.setattr(estimate, "NARROW", prior.config.hidden_size)
    assert measure_pace(prior, 128, 32, SamplingSettings(), CPU) == expected
    assert timed == [(3, 64), (6, 64)]


@pytest.mark.parametrize("level", [0, 2])
def test_a_pace_is_that_of_windows_sampled_and_given(tiny_model, level, monkeypatch):
    """A clock that ticks twice for a code that is sampled, once for one that is given and seven times for a window."""
    ticks = [0.0]

    class Window:
        def __init__(self, prior, length, prompt, upper, labels, settings, noise, engine):
            assert length == prompt.shape[1] + noise.shape[1]
            assert (upper is None) == (level == 2) and labels is None
            self.known, self.length = prompt.shape[1], length
            ticks[0] += 7 + self.known

        def sample(self, known=None):
            ticks[0] += 2 * ((known or self.length) - self.known)
            self.known = known or self.length

    monkeypatch.setattr(estimate, "WindowSampling", Window)
    monkeypatch.setattr(estimate, "_now", lambda device: ticks[0])
    monkeypatch.setattr(estimate, "_SECONDS", 1000)
    prior = tiny_model.priors[level].to("meta")
    unit = prior.config.upper_ratio
    pace = measure_pace(prior, 2, prior.config.n_ctx, SamplingSettings(), CPU)
    assert pace.window == 7 + unit - 1 + 2
    assert pace.step == 2.0
    assert pace.prompt_code == pytest.approx(1.0, rel=0.2)  # of those beyond the shortest window's


def test_labelled_priors_are_timed_and_random_numbers_untouched(tiny_model):
    config = FastJukeboxPriorConfig(
        **{
            **tiny_model.priors[2].config.to_dict(),
            **{"num_artists": 2, "num_genres": 2, "use_timing": True, "min_duration": 0.1, "max_duration": 2.0},
        }
    )
    with torch.device("meta"):
        prior = type(tiny_model.priors[2])(config)
    state = torch.get_rng_state()
    assert measure_pace(prior, 1, 24, SamplingSettings(), CPU).step > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_decoding_takes_longer_for_longer_songs(tiny_model):
    short, long = (measure_decoding(tiny_model.vqvae, 0, samples, CPU) for samples in (1600, 1_600_000))
    assert 0 < short < long


def test_prompts_are_timed_only_where_there_are_any(tiny_model):
    prior = tiny_model.priors[0].to("meta")
    pace = measure_pace(prior, 2, prior.config.n_ctx, SamplingSettings(), CPU, prompted=False)
    assert pace.prompt_code == 0 < pace.step


def test_a_context_of_a_million_codes_is_estimated_soon(tiny_model):
    config = FastJukeboxPriorConfig(
        **{**tiny_model.priors[0].config.to_dict(), "n_ctx": 10**6, "num_rows": 1000, "upsampling_strides": None}
    )
    with torch.device("meta"):
        prior = type(tiny_model.priors[0])(config)
    started = time.process_time()
    assert measure_pace(prior, 1, 10**6, SamplingSettings(), CPU).step > 0
    assert time.process_time() - started < 15


def test_the_pace_of_one_thread_is_its_own_time_whatever_else_runs(monkeypatch):
    """A wall clock on which hours pass between two looks, as on a machine that is given to others."""
    clock = itertools.count(step=3600.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with Workers(1) as workers:
        workers.start(0, lambda: estimate._now(CPU) - estimate._now(CPU))
        assert abs(workers.next()[1]()) < 60
    monkeypatch.setattr(estimate, "granted_threads", lambda: 2)
    assert estimate._now(CPU) - estimate._now(CPU) == -3600
