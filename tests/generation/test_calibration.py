import time

import pytest
import torch

from fast_jukebox import FastJukeboxPriorConfig
from fast_jukebox.generation import calibration
from fast_jukebox.generation.calibration import Pace, measure_decoding, measure_pace
from fast_jukebox.sampling.checks import SamplingSettings

CPU = torch.device("cpu")


def test_a_deeper_prior_is_gone_on_to(tiny_model, monkeypatch):
    prior = tiny_model.priors[0]
    prior.config.num_hidden_layers = 12
    timed = []

    def time_stack(prior, depth, rows, *args):
        timed.append((depth, rows))
        return Pace(1.0 + 0.1 * depth, 0.01 * depth, 0.5)

    monkeypatch.setattr(calibration, "_time_stack", time_stack)
    monkeypatch.setattr(calibration, "_time_conditioning", lambda prior, rows, length, device: 0.25 * rows)
    pace = measure_pace(prior, 128, 32, SamplingSettings(), CPU)
    expected = Pace(pytest.approx(2 * 2.2), pytest.approx(2 * 0.12), pytest.approx(2 * 0.5 + 0.25 * 128))
    assert pace == expected
    assert timed == [(12, 64)]  # narrow: all of it
    timed.clear()
    monkeypatch.setattr(calibration, "NARROW", prior.config.hidden_size)
    assert measure_pace(prior, 128, 32, SamplingSettings(), CPU) == expected
    assert timed == [(3, 64), (6, 64)]


@pytest.mark.parametrize("level", [0, 2])
def test_times_are_positive_and_random_numbers_untouched(tiny_model, level):
    state = torch.get_rng_state()
    prior = tiny_model.priors[level].to("meta")
    pace = measure_pace(prior, 2, prior.config.n_ctx, SamplingSettings(), CPU)
    assert pace.step > 0
    assert pace.prompt_code >= 0
    assert pace.window > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_labelled_priors_are_timed_too(tiny_model):
    config = FastJukeboxPriorConfig(
        **{
            **tiny_model.priors[2].config.to_dict(),
            **{"num_artists": 2, "num_genres": 2, "use_timing": True, "min_duration": 0.1, "max_duration": 2.0},
        }
    )
    with torch.device("meta"):
        prior = type(tiny_model.priors[2])(config)
    assert measure_pace(prior, 1, 24, SamplingSettings(), CPU).step > 0


def test_decoding_is_timed_with_what_pieces_share(tiny_model):
    short, long = (measure_decoding(tiny_model.vqvae, 0, samples, CPU) for samples in (1600, 1_600_000))
    assert 0 < short < long


def test_a_step_is_the_median_of_rows_of_steps():
    assert calibration._step_seconds([(1, 5.0), (9, 9.0), (17, 93.0), (20, 94.5)]) == 0.5
    assert calibration._step_seconds([(1, 5.0)]) == 5.0  # a window of one code


@pytest.mark.parametrize("level", [0, 1])
def test_conditioning_costs_in_proportion_to_rows(tiny_model, level, monkeypatch):
    """A clock that ticks once a window conditioned."""
    prior, ticks = tiny_model.priors[level], [0.0]
    condition = type(prior)._condition

    def counted(self, songs, *args):
        ticks[0] += songs
        return condition(self, songs, *args)

    monkeypatch.setattr(type(prior), "_condition", counted)
    monkeypatch.setattr(calibration, "_now", lambda device: ticks[0])
    assert calibration._time_conditioning(prior, 12, prior.config.n_ctx, CPU) == 12


def test_what_takes_long_is_timed_once(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(calibration, "_now", lambda device: clock[0])

    def work(seconds):
        calls.append(seconds)
        clock[0] += seconds

    assert calibration._least(lambda: work(5.0), CPU) == 5.0 and len(calls) == 1
    calls.clear()
    assert calibration._least(lambda: work(0.25), CPU) == 0.25 and len(calls) == 3


def test_prompts_are_timed_only_where_there_are_any(tiny_model, monkeypatch):
    prior = tiny_model.priors[0].to("meta")
    monkeypatch.setattr(calibration, "_least", lambda work, device: pytest.fail("a prompt was timed"))
    monkeypatch.setattr(calibration, "_time_conditioning", lambda *args: 0.0)
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
