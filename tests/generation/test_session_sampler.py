import torch

from fast_jukebox.generation.session_sampler import SessionSampler
from fast_jukebox.generation.takes import window_key


def test_windows_that_are_known_are_not_sampled(stub_model):
    whole = stub_model._sampler({"duration": 2.0, "num_samples": 2, "seed": 3})
    plan, saved = whole.plan, []
    stretches = [(0, [None, None, None])]

    def sampler(known, told=None):
        saved.clear()
        return SessionSampler(
            plan,
            whole.priors,
            whole.hop_lengths,
            "auto",
            told,
            known,
            stretches,
            lambda level, windows, songs, codes: saved.append((level, windows, songs, codes)),
        )

    first = sampler([{}, {}, {}])
    first.sample_all()
    known = [{}, {}, {}]
    for level, windows, songs, codes in saved:
        assert songs == slice(0, 2)
        for index, window in enumerate(windows):
            known[level][window_key(window)] = codes[:, index, window.prompt_length :]
    assert [len(own) for own in known] == [len(own) for own in plan.windows]
    calls = [len(prior.calls) for prior in stub_model.priors]

    del known[0][window_key(plan.windows[0][1])]
    told = []
    second = sampler(known, told.append)
    second.sample_all()
    assert [len(prior.calls) - count for prior, count in zip(stub_model.priors, calls, strict=True)] == [1, 0, 0]
    assert [(level, len(windows)) for level, windows, _, _ in saved] == [(0, 1)]
    for own, other in zip(second.final_codes(), first.final_codes(), strict=True):
        assert torch.equal(own, other)
    assert told[-1].codes_done == told[-1].codes_total == 2 * plan.windows[0][1].new_length
