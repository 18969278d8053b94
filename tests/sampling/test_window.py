import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import WindowSampling, sampling_mode
from fast_jukebox.sampling.machine import usual_rows


def begun(prior, length=24, known=3, after_code=None, engine="auto"):
    prompt = torch.arange(2 * known).reshape(2, known) % 11
    noise = torch.rand((2, length - known), generator=torch.Generator().manual_seed(1))
    return WindowSampling(prior, length, prompt, None, None, SamplingSettings(), noise, engine, after_code)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rests=st.lists(st.integers(0, 30), max_size=5), known=st.integers(0, 23))
def test_rests_change_no_code(stub_prior, rests, known):
    whole = begun(stub_prior, known=known).sample()
    assert whole.shape == (2, 24)
    window = begun(stub_prior, known=known)
    for rest in rests:
        before = window.known
        part = window.sample(rest)
        assert window.known == part.shape[1] == max(before, min(rest, 24))
        assert torch.equal(part, whole[:, : window.known])
    assert torch.equal(window.sample(), whole)


@pytest.mark.parametrize("engine", ["eager", "graph", "native"])
def test_real_priors_rest_at_rows(tiny_model, engine):
    prior = tiny_model.priors[2]
    with sampling_mode(prior):
        whole = begun(prior, prior.config.n_ctx, engine=engine).sample()
        window = begun(prior, prior.config.n_ctx, engine=engine)
        for known in range(3, prior.config.n_ctx):
            part = window.sample(known)
            assert part.shape[1] >= known
            assert torch.equal(part, whole[:, : window.known])
        assert torch.equal(window.sample(), whole)


def test_codes_are_counted_as_they_are_sampled(stub_prior):
    counts = []
    window = begun(stub_prior, after_code=counts.append)
    for known in (10, 24):
        window.sample(known)
    assert counts == [*range(1, 22)]


def test_numbers_that_are_none_are_told_of_at_every_rest(stub_prior):
    torch.nn.init.constant_(stub_prior.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN"):
        begun(stub_prior).sample(5)


def test_gpus_sample_few_sizes():
    assert [usual_rows(count) for count in (1, 2, 3, 5, 8, 9, 13, 17, 33, 46, 185)] == [
        1,
        2,
        4,
        8,
        8,
        10,
        14,
        20,
        40,
        48,
        192,
    ]
    sizes = {usual_rows(count) for count in range(1, 257)}
    assert len(sizes) == 4 + 5 * 4
    assert all(count <= usual_rows(count) < 2 * count for count in range(1, 2000))
