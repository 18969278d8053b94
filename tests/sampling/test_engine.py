import weakref

import pytest
import torch
from torch import nn

from fast_jukebox.sampling import weights
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.engine import (
    DECODERS_KEPT,
    ENGINES,
    EagerDecoder,
    open_decoder,
    sample_window,
    sampling_mode,
)
from fast_jukebox.sampling.weights import release_decoders

SETTINGS = SamplingSettings(temperature=1.5)


def naive(prior, prompt, uniform, conditioning):
    """Every code from a fresh prefill of all before it."""
    codes = prompt
    for index in range(uniform.shape[1]):
        logits = prior.prefill(codes, conditioning, prior.new_cache(len(codes)))
        codes = torch.cat([codes, draw_codes(logits, uniform[:, index], SETTINGS)[:, None]], dim=1)
    return codes


@pytest.mark.parametrize(("known", "new"), [(0, 1), (0, 9), (5, 1), (5, 8)])
def test_the_loop_is_prefill_and_steps(stub_prior, known, new):
    prompt, uniform = torch.randint(0, 11, (3, known)), torch.rand(3, new)
    conditioning = stub_prior.condition(3, known + new)
    codes = sample_window(EagerDecoder(stub_prior, conditioning, 3, SETTINGS), prompt, uniform)
    assert conditioning.steps == new - 1  # one prefill, then a step a code
    assert codes.dtype == torch.int64
    assert torch.equal(codes, naive(stub_prior, prompt, uniform, conditioning))


def test_the_loop_counts_codes_and_stops_when_told(stub_prior):
    counted = []
    conditioning = stub_prior.condition(1, 10)
    step = EagerDecoder(stub_prior, conditioning, 1, SETTINGS)
    sample_window(step, torch.zeros((1, 4), dtype=torch.int64), torch.rand(1, 6), counted.append)
    assert counted == [1, 2, 3, 4, 5, 6]

    def cancel(done):
        if done == 2:
            raise KeyboardInterrupt

    conditioning = stub_prior.condition(1, 10)
    step = EagerDecoder(stub_prior, conditioning, 1, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        sample_window(step, torch.zeros((1, 4), dtype=torch.int64), torch.rand(1, 6), cancel)
    assert conditioning.steps == 1


def test_any_step_that_keeps_the_protocol_can_be_given():
    class Counting:
        steps_per_call, finished = 1, 0

        def prefill(self, prompt, noise):
            return prompt.sum(dim=1)

        def decode(self, code, position, noise):
            return (code * 10 + position)[:, None]

        def close(self, finished):
            self.finished += finished

    decoder = Counting()
    codes = sample_window(decoder, torch.tensor([[1, 2]]), torch.zeros(1, 3))
    assert codes.tolist() == [[1, 2, 3, 33, 334]]
    assert decoder.finished == 1


def test_logits_that_are_no_numbers_are_an_error(stub_prior):
    with torch.no_grad():
        stub_prior.weight.fill_(float("nan"))
    step = EagerDecoder(stub_prior, stub_prior.condition(1, 4), 1, SETTINGS)
    with pytest.raises(FloatingPointError, match="level 0"):
        sample_window(step, torch.zeros((1, 0), dtype=torch.int64), torch.rand(1, 4))


class StubDecoder:
    """Codes are ten times the code before plus the position."""

    engine, steps_per_call = "native", 4

    def __init__(self, batch_size=1, costly=True):
        self.batch_size = batch_size
        self.costly = costly
        self.calls = []

    def open(self, prior, conditioning, on_close=None):
        self.conditioning, self.on_close = conditioning, on_close
        return self

    def prefill(self, prompt, noise):
        return torch.arange(len(prompt)) + 3

    def close(self, finished):
        self.conditioning = None
        if self.on_close is not None:
            self.on_close()

    def decode(self, code, position, noise):
        self.calls.append((position, noise.shape[1]))
        codes = []
        for index in range(noise.shape[1]):
            code = code * 10 + position + index
            codes.append(code)
        self.logits = torch.zeros(len(code), 2)
        return torch.stack(codes, dim=1)


@pytest.fixture
def programmed_prior(stub_prior):
    """A prior that makes programs and counts them."""
    stub_prior.made = []

    def new_decoder(batch_size, settings, engine, threads):
        stub_prior.made.append((batch_size, engine, threads))
        return None if engine == "auto" else StubDecoder(batch_size)

    stub_prior.new_decoder = new_decoder
    yield stub_prior
    release_decoders()


def made_window(prior, batch_size=1, engine="graph", length=10, after_code=None):
    step = open_decoder(prior, prior.condition(batch_size, length), batch_size, SETTINGS, engine)
    codes = sample_window(
        step, torch.zeros((batch_size, 0), dtype=torch.int64), torch.rand(batch_size, length), after_code
    )
    return step, codes


def test_a_program_draws_rows_and_progress_is_told_after_each(programmed_prior):
    counted = []
    step, codes = made_window(programmed_prior, after_code=counted.append)
    assert isinstance(step, StubDecoder)
    assert counted == [1, 5, 9, 10]
    assert step.calls == [(1, 4), (5, 4), (9, 1)]
    first = int(codes[0, 0])
    assert codes[0, 1:4].tolist() == [first * 10 + 1, first * 100 + 12, first * 1000 + 123]


def test_a_program_steps_one_by_one_too(programmed_prior):
    step = open_decoder(programmed_prior, programmed_prior.condition(1, 10), 1, SETTINGS, "graph")
    assert step.decode(torch.tensor([4]), 3, torch.rand(1, 1)).tolist() == [[43]]


def test_the_plain_step_is_made_where_the_prior_prefers_it(programmed_prior, stub_upsampler):
    assert isinstance(made_window(programmed_prior, engine="auto")[0], EagerDecoder)
    assert isinstance(made_window(programmed_prior, engine="eager")[0], EagerDecoder)
    assert len(programmed_prior.made) == 1
    assert isinstance(open_decoder(stub_upsampler, None, 1, SETTINGS), EagerDecoder)  # it makes no programs at all


def test_unknown_engines_are_refused(stub_prior, programmed_prior):
    with pytest.raises(ValueError, match=r"`engine` must be one of 'auto'.*got 'fast'"):
        open_decoder(programmed_prior, None, 1, SETTINGS, "fast")
    del stub_prior.new_decoder
    for engine in set(ENGINES) - {"auto", "eager"}:
        with pytest.raises(ValueError, match=f"`engine` must be 'auto' or 'eager' for a StubPrior, got '{engine}'"):
            open_decoder(stub_prior, None, 1, SETTINGS, engine)


def test_costly_programs_are_kept_for_the_next_window(programmed_prior):
    first, _ = made_window(programmed_prior)
    second, _ = made_window(programmed_prior)
    assert second is first
    assert second.conditioning is None
    assert len(programmed_prior.made) == 1
    made_window(programmed_prior, batch_size=2)
    made_window(programmed_prior, batch_size=3)
    assert len(programmed_prior.made) == 3
    made_window(programmed_prior, batch_size=3)
    assert len(programmed_prior.made) == 3
    made_window(programmed_prior)  # the oldest had to go
    assert len(programmed_prior.made) == 3 + (DECODERS_KEPT < 3)
    release_decoders()
    made_window(programmed_prior)
    assert len(programmed_prior.made) == 5


def test_a_program_serves_one_window_at_a_time(programmed_prior):
    made_window(programmed_prior)
    steps = [open_decoder(programmed_prior, programmed_prior.condition(1, 10), 1, SETTINGS, "graph") for _ in range(2)]
    assert steps[0] is not steps[1]


def test_changed_weights_make_a_new_program(programmed_prior):
    first, _ = made_window(programmed_prior)
    with torch.no_grad():
        programmed_prior.weight.add_(1.0)
    second, _ = made_window(programmed_prior)
    programmed_prior.weight = nn.Parameter(torch.zeros(1))
    third, _ = made_window(programmed_prior)
    assert len({id(step) for step in (first, second, third)}) == 3


def test_a_program_that_was_interrupted_is_dropped(programmed_prior):
    first, _ = made_window(programmed_prior)

    def cancel(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_window(programmed_prior, after_code=cancel)
    again, _ = made_window(programmed_prior)
    assert again is not first


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_without_memory_the_kept_programs_make_room(programmed_prior, kind):
    made_window(programmed_prior)
    make, kept, halves = programmed_prior.new_decoder, [], []

    def new_decoder(*arguments):
        kept.append(len(weights._kept))
        if len(kept) == 1:
            half = StubDecoder()  # what the failed attempt had made so far
            halves.append(weakref.ref(half))
            raise kind("CUDA error: out of memory")
        assert halves[0]() is None
        return make(*arguments)

    programmed_prior.new_decoder = new_decoder
    made_window(programmed_prior, batch_size=2)
    assert kept == [1, 0]
    assert len(programmed_prior.made) == 2


@pytest.mark.parametrize("error", [None, ValueError])
def test_sampling_mode_leaves_modules_as_they_were(error):
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    model[0].eval()
    try:
        with sampling_mode(model):
            assert not any(part.training for part in model.modules())
            assert torch.is_inference_mode_enabled()
            if error is not None:
                raise error
    except ValueError:
        assert error is ValueError
    assert [part.training for part in model.modules()] == [True, False, True]
    assert not torch.is_inference_mode_enabled()
