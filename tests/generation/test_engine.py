from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fast_jukebox.generation.engine import NARROW, EagerStep, sample_window, sampling_mode, suited_threads
from fast_jukebox.generation.sampling import SamplingSettings, draw_codes

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
    codes = sample_window(EagerStep(stub_prior, conditioning, 3, SETTINGS), prompt, uniform)
    assert conditioning.steps == new - 1  # one prefill, then a step a code
    assert codes.dtype == torch.int64
    assert torch.equal(codes, naive(stub_prior, prompt, uniform, conditioning))


def test_the_loop_counts_codes_and_stops_when_told(stub_prior):
    counted = []
    conditioning = stub_prior.condition(1, 10)
    step = EagerStep(stub_prior, conditioning, 1, SETTINGS)
    sample_window(step, torch.zeros((1, 4), dtype=torch.int64), torch.rand(1, 6), counted.append)
    assert counted == [1, 2, 3, 4, 5, 6]

    def cancel(done):
        if done == 2:
            raise KeyboardInterrupt

    conditioning = stub_prior.condition(1, 10)
    step = EagerStep(stub_prior, conditioning, 1, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        sample_window(step, torch.zeros((1, 4), dtype=torch.int64), torch.rand(1, 6), cancel)
    assert conditioning.steps == 1


def test_any_step_that_keeps_the_protocol_can_be_given():
    class Counting:
        finished = 0

        def first(self, prompt, uniform):
            return prompt.sum(dim=1)

        def next(self, code, position, uniform):
            return code * 10 + position

        def finish(self):
            self.finished += 1

    step = Counting()
    codes = sample_window(step, torch.tensor([[1, 2]]), torch.zeros(1, 3))
    assert codes.tolist() == [[1, 2, 3, 33, 334]]
    assert step.finished == 1


def test_logits_that_are_no_numbers_are_an_error(stub_prior):
    with torch.no_grad():
        stub_prior.weight.fill_(float("nan"))
    step = EagerStep(stub_prior, stub_prior.condition(1, 4), 1, SETTINGS)
    with pytest.raises(FloatingPointError, match="level 0"):
        sample_window(step, torch.zeros((1, 0), dtype=torch.int64), torch.rand(1, 4))


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


@pytest.mark.parametrize(("width", "threads"), [(NARROW - 1, 1), (NARROW, 2)])
def test_narrow_priors_are_sampled_on_one_thread_and_the_others_come_back(width, threads):
    prior = nn.Linear(1, 1)
    prior.config = SimpleNamespace(hidden_size=width)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt), suited_threads(prior):
            assert torch.get_num_threads() == threads
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
