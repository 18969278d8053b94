import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.generation.plan import plan_song
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.sampling.progress import GenerationCancelled
from fast_jukebox.sampling.weights import kept_for_prior


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def widths(prior):
    return [call.batch_size for call in prior.calls]


class TestParallel:
    def test_all_windows_are_one_batch(self, stub_model):
        stub_model.generate(duration=1.5, num_samples=3, seed=1)
        assert widths(stub_model.priors[0]) == [12]  # four windows of three songs
        assert widths(stub_model.priors[1]) == [6]
        assert set(widths(stub_model.priors[2])) == {3}

    def test_a_window_is_what_its_prior_makes_of_its_span_alone(self, stub_model):
        output = stub_model.generate(duration=1.5, seed=1, temperature=1.0)
        top = output.codes[2]
        (call,) = stub_model.priors[1].calls
        same(call.upper_codes, torch.cat([top[:, :10], top[:, 9:19]]))
        same(output.codes[1][:, :18], stub_model.priors[1].generate(upper_codes=top[:, :10], seed=1)[:, :18])

    def test_neighbours_share_their_noise(self, stub_model):
        # A prior that looks at nothing but the noise: all windows agree everywhere.
        for prior in stub_model.priors:
            prior.table = prior.table[:1].expand(prior.table.shape)
        parallel = stub_model.generate(duration=2.0, seed=1, num_samples=2)
        same(parallel.codes, stub_model.generate(duration=2.0, seed=1, num_samples=2, schedule="sequential").codes)

    @given(st.integers(1, 9), st.integers(1, 4))
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_song_does_not_depend_on_its_batch(self, stub_model, rows, songs):
        model = type(stub_model)()
        whole = model.generate(duration=2.0, num_samples=4, seed=6)
        split = model.generate(duration=2.0, num_samples=songs, seed=6, max_batch_size=rows)
        same(split.codes, [codes[:songs] for codes in whole.codes])
        same(split.seams, [seams[:songs] for seams in whole.seams])
        assert max(widths(model.priors[0])[1:]) <= max(rows, 1)

    def test_given_codes_are_kept_and_gone_on_with(self, stub_model):
        whole = stub_model.generate(duration=2.0, seed=3)
        given = [codes[:, : codes.shape[1] // 2 // 4 * 4] for codes in whole.codes]
        output = stub_model.generate(duration=2.0, seed=3, codes=given)
        for codes, own in zip(output.codes, given, strict=True):
            same(codes[:, : own.shape[1]], own)
        assert all(call.prompt.shape[1] < 24 for call in stub_model.priors[0].calls)

    def test_a_whole_context_window_agrees_with_the_sequential_schedule(self, stub_model):
        short = {"duration": 0.4, "seed": 2, "num_samples": 2}  # one window at each level
        same(stub_model.generate(**short).codes, stub_model.generate(**short, schedule="sequential").codes)

    def test_real_windows_do_not_depend_on_their_batch(self, tiny_model):
        arguments = {"duration": 0.5, "seed": 6}
        batch = tiny_model.generate(**arguments, num_samples=3)
        for song in range(3):
            alone = tiny_model.generate(**arguments, song_ids=[song], max_batch_size=1)
            same([codes[song : song + 1] for codes in batch.codes], alone.codes)
            same(batch.audio[song : song + 1], alone.audio)


class TestMemory:
    def fail_above(self, prior, rows, error):
        condition = prior.condition

        def limited(batch_size, *args, **kwargs):
            if batch_size > rows:
                raise error
            return condition(batch_size, *args, **kwargs)

        prior.condition = limited

    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
    )
    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_a_batch_that_is_too_large_is_halved(self, stub_model, error, rows):
        expected = stub_model.generate(duration=1.5, num_samples=3, seed=1)
        stub_model.priors[0].calls.clear()
        self.fail_above(stub_model.priors[0], rows, error)
        told = []
        output = stub_model.generate(duration=1.5, num_samples=3, seed=1, progress=told.append)
        same(output.codes, expected.codes)
        assert max(widths(stub_model.priors[0])) <= rows
        assert told[-1].codes_done == told[-1].codes_total

    def test_what_is_done_stays_done(self, stub_model):
        prior, tries = stub_model.priors[0], []
        condition = prior.condition

        def once(batch_size, *args, **kwargs):
            tries.append(batch_size)
            if len(tries) == 2:
                raise torch.OutOfMemoryError("full")
            return condition(batch_size, *args, **kwargs)

        prior.condition = once
        stub_model.generate(duration=1.5, num_samples=1, seed=1, max_batch_size=2)
        assert tries == [2, 2, 1, 1]

    def test_recorded_steps_make_room_for_the_smaller_batch(self, stub_model):
        class Program:
            pass

        program, prior = Program(), stub_model.priors[0]
        held = weakref.ref(program)
        kept_for_prior(stub_model.priors[2], "key", None, [program].pop)  # of another level, as one recorded before
        del program
        condition, alive = prior.condition, []

        def limited(batch_size, *args, **kwargs):
            alive.append((batch_size, held() is not None))
            if batch_size > 2:
                raise torch.OutOfMemoryError("full")
            return condition(batch_size, *args, **kwargs)

        prior.condition = limited
        stub_model.generate(duration=1.5, num_samples=3, seed=1)
        assert alive[0] == (alive[0][0], True)
        assert alive[0][0] > 2
        assert all(not there for _, there in alive[1:])

    def test_one_row_that_is_too_large_is_an_error(self, stub_model):
        self.fail_above(stub_model.priors[0], 0, torch.OutOfMemoryError("full"))
        with pytest.raises(torch.OutOfMemoryError):
            stub_model.generate(duration=1.5, seed=1)

    def test_other_errors_are_not_hidden(self, stub_model):
        self.fail_above(stub_model.priors[0], 1, RuntimeError("shapes"))
        with pytest.raises(RuntimeError, match="shapes"):
            stub_model.generate(duration=1.5, seed=1)


class TestCancelling:
    @pytest.mark.parametrize("schedule", ["parallel", "sequential"])
    def test_the_codes_so_far_are_kept(self, stub_model, schedule):
        arguments = {"duration": 2.0, "seed": 5, "schedule": schedule}
        whole = stub_model.generate(**arguments)
        with pytest.raises(GenerationCancelled) as caught:
            stub_model.generate(**arguments, max_batch_size=1, progress=lambda told: told.level > 0 or told.window < 2)
        kept = caught.value.codes
        assert caught.value.seed == 5
        assert 0 < kept[0].shape[1] < whole.codes[0].shape[1]
        same(kept, [codes[:, : own.shape[1]] for codes, own in zip(whole.codes, kept, strict=True)])
        assert stub_model.generate(duration=2.0, seed=5, codes=kept).audio.shape == whole.audio.shape

    def test_only_false_cancels(self, stub_model):
        for answer in (None, 0, True):
            stub_model.generate(duration=0.3, progress=lambda told, answer=answer: answer)


def test_levels_that_are_not_made_are_not_there(stub_model):
    sampler = SongSampler(stub_model, plan_song(stub_model, SongRequest(duration=1.0, stop_level=1)))
    with pytest.raises(ValueError, match="level"):
        sampler[0]


def test_engines_have_names(stub_model):
    with pytest.raises(ValueError, match="engine"):
        stub_model.generate(duration=0.3, engine="steam")
    assert not stub_model.priors[2].calls
