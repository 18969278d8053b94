import torch

from fast_jukebox.generation.plan import plan_song
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import Window
from fast_jukebox.sessions.sampler import SessionSampler
from fast_jukebox.sessions.takes import window_key


def test_windows_that_are_known_are_not_sampled(stub_model):
    plan, saved = plan_song(stub_model, SongRequest(duration=2.0, num_samples=2, seed=3)), []
    stretches = [(0, [None, None, None])]

    def sampler(known, told=None):
        saved.clear()
        return SessionSampler(
            stub_model,
            plan,
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


def test_a_window_is_told_what_holds_at_its_middle(stub_model):
    """At the top, whose past is never sampled, what holds last."""
    plan = plan_song(stub_model, SongRequest(duration=2.0, seed=3))
    told = [None, None, None]

    def stretches(*starts):
        own = [(start, told) for start in starts]
        sampler = SessionSampler(stub_model, plan, "auto", None, [{}] * 3, own, print)
        return lambda level, start, length: sampler._stretch(level, Window(level, start, 0, length))

    # Of 4 bottom codes or 2 middle codes a top code is made.
    stretch = stretches(0, 10, 20)
    assert [stretch(0, start, 16) for start in (0, 31, 32, 71, 72)] == [0, 0, 1, 1, 2]
    assert [stretch(1, start, 8) for start in (0, 15, 16, 35, 36)] == [0, 0, 1, 1, 2]
    assert stretch(2, 0, 16) == 2
