import pytest
import torch

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPriorConfig
from fast_jukebox.generation.request import FastJukeboxGenerationConfig
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes, uniform_noise
from fast_jukebox.sampling.progress import GenerationCancelled


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


class TestModel:
    def test_shapes_of_the_output(self, stub_model):
        output = stub_model.generate(duration=1.01, num_samples=2, seed=4)
        assert output.audio.shape == (2, 101)
        assert output.audio.dtype == torch.float32
        assert [codes.shape for codes in output.codes] == [(2, 52), (2, 26), (2, 13)]
        assert (output.sampling_rate, output.seed) == (100, 4)
        assert not output.audio.is_inference()
        same(output.audio, stub_model.vqvae.decode(output.codes)[:, :101])

    def test_the_engine_of_each_level_is_reported(self, stub_model):
        assert stub_model.generate(duration=0.5, seed=0).engines == ["eager"] * 3
        codes = stub_model.generate(duration=0.5, seed=0).codes
        output = stub_model.generate(duration=0.5, seed=0, codes=[None, *codes[1:]], start_level=0)
        assert output.engines == ["eager", None, None]

    def test_the_seed_of_a_song_is_reported(self, stub_model):
        output = stub_model.generate(duration=0.5)
        again = stub_model.generate(duration=0.5, seed=output.seed)
        same(again.codes, output.codes)
        assert stub_model.generate(duration=0.5).seed != output.seed

    def test_a_window_is_conditioned_on_the_upper_codes_of_its_span(self, stub_model):
        output = stub_model.generate(duration=1.5, seed=0, schedule="sequential")
        for level in (0, 1):
            starts = [0, 12, 24, 36, 48, 52] if level == 0 else [0, 10, 18]
            calls = stub_model.priors[level].calls
            assert len(calls) == len(starts)
            for call, start in zip(calls, starts, strict=True):
                span = slice(start // 2, (start + call.length) // 2)
                same(call.upper_codes, output.codes[level + 1][:, span])
                same(call.prompt, output.codes[level][:, start : start + call.prompt.shape[1]])

    def test_the_first_top_window_is_that_of_the_prior(self, stub_model):
        codes = stub_model.generate(duration=1.0, seed=9, temperature=1.0).codes[2]
        same(codes, stub_model.priors[2].generate(length=13, seed=9))

    def test_a_song_is_the_same_alone_in_a_batch_and_in_split_batches(self, stub_model):
        batch = stub_model.generate(duration=1.5, num_samples=3, seed=6)
        for index in range(3):
            alone = stub_model.generate(duration=1.5, seed=6, song_ids=[index])
            same([codes[index : index + 1] for codes in batch.codes], alone.codes)
            same(batch.audio[index : index + 1], alone.audio)
        same(stub_model.generate(duration=1.5, num_samples=3, seed=6, max_batch_size=2).codes, batch.codes)
        own = stub_model.generate(duration=1.5, seed=[5, 6])
        assert own.seed == [5, 6]
        same([codes[1:] for codes in own.codes], stub_model.generate(duration=1.5, seed=6).codes)

    def test_a_longer_song_begins_like_the_shorter_one_where_windows_agree(self, stub_model):
        for schedule, agreed in (("sequential", 20), ("parallel", 17)):  # the last three may be the next window's
            short, long = (
                stub_model.generate(duration=seconds, seed=1, schedule=schedule).codes for seconds in (1.28, 2.56)
            )
            same(long[2][:, :16], short[2][:, :16])
            same(long[1][:, :agreed], short[1][:, :agreed])

    def test_a_recording_is_gone_on_with(self, stub_model):
        audio = torch.randint(0, 11, (80,)) / 100
        output = stub_model.generate(duration=2.0, prompt=audio, prompt_duration=0.5, seed=2)
        for codes, recorded in zip(output.codes, stub_model.vqvae.encode(audio[None, :48]), strict=True):
            same(codes[:, : recorded.shape[1]], recorded)
        assert output.audio.shape == (1, 200)
        two = stub_model.generate(duration=2.0, prompt=torch.stack([audio, audio.flip(0)]).numpy(), seed=2)
        assert two.audio.shape == (2, 200)
        whole = stub_model.generate(duration=0.8, prompt=audio, seed=2)
        same(whole.codes[0], stub_model.vqvae.encode(audio[None])[0])

    def test_codes_are_gone_on_with(self, stub_model):
        whole = stub_model.generate(duration=2.56, seed=3)
        cut = [codes[:, : codes.shape[1] // 2] for codes in whole.codes]
        same(stub_model.generate(duration=2.56, codes=cut, seed=3).codes[2], whole.codes[2])
        output = stub_model.generate(duration=2.56, codes=[cut[2]], seed=3)
        same(output.codes, whole.codes)

    def test_top_codes_are_upsampled(self, stub_model):
        whole = stub_model.generate(duration=1.28, seed=3)
        for codes in ([whole.codes[2]], [None, None, whole.codes[2]], whole.codes[1:]):
            same(stub_model.generate(codes=codes, seed=3).codes, whole.codes)
        same(stub_model.generate(codes=[whole.codes[2]], start_level=1, seed=3).codes, whole.codes)
        calls = len(stub_model.priors[2].calls)
        stub_model.generate(codes=whole.codes)  # nothing to sample, only to hear
        assert len(stub_model.priors[2].calls) == calls

    def test_upper_levels_only(self, stub_model):
        whole = stub_model.generate(duration=1.28, seed=3)
        draft = stub_model.generate(duration=1.28, seed=3, stop_level=2)
        assert draft.codes[:2] == [None, None]
        same(draft.codes[2], whole.codes[2])
        same(draft.audio, stub_model.vqvae.decode([whole.codes[2]], start_level=2))
        middle = stub_model.generate(codes=[draft.codes[2]], seed=3, start_level=1, stop_level=1)
        same(middle.codes[1], whole.codes[1])
        assert middle.codes[0] is None
        same(stub_model.generate(codes=middle.codes[1:], seed=3).codes, whole.codes)

    def test_labels_know_the_window(self, stub_labelled_model):
        labels = torch.tensor([[0, 0, 0, 3, 4]])
        stub_labelled_model.generate(duration=1.5, num_samples=2, metadata=labels, seed=0, schedule="sequential")
        calls = stub_labelled_model.priors[0].calls[2:]  # after those that check the labels
        assert [call.metadata[1].tolist() for call in calls[:3]] == [
            [150, 0, 48, 3, 4],
            [150, 24, 48, 3, 4],
            [150, 48, 48, 3, 4],
        ]
        assert {call.metadata[0, 2].item() for call in stub_labelled_model.priors[2].calls[2:]} == {128}
        stub_labelled_model.generate(duration=1.5, num_samples=2, metadata=labels, seed=0)
        (call,) = stub_labelled_model.priors[1].calls[-1:]
        assert call.metadata.tolist() == 2 * [[150, 0, 80, 3, 4], [150, 72, 80, 3, 4]]  # two windows of two songs

    def test_labels_that_fail_in_a_later_window_are_refused_before_sampling(self, tiny_config):
        timing = {"num_artists": 2, "num_genres": 2, "use_timing": True, "min_duration": 0.1, "max_duration": 2.0}
        top = FastJukeboxPriorConfig(**{**tiny_config.prior_configs[2].to_dict(), **timing})
        config = FastJukeboxConfig(
            vqvae_config=tiny_config.vqvae_config, prior_configs=[*tiny_config.prior_configs[:2], top]
        )
        model, calls = FastJukeboxModel(config), []
        labels = torch.tensor([[800, 0, 0, 1, 1]])  # half a second
        assert model.generate(duration=0.5, metadata=labels, progress=calls.append).audio.shape == (1, 800)
        assert calls
        calls.clear()
        with pytest.raises(ValueError, match=r"metadata.*total length.*0.5 seconds for 1 seconds"):
            model.generate(duration=1.0, metadata=labels, progress=calls.append)
        assert not calls

    def test_settings_come_from_the_generation_config_unless_given(self, stub_model):
        stub_model.generation_config = FastJukeboxGenerationConfig(duration=0.5, do_sample=False)
        default = stub_model.generate(seed=1)
        assert default.audio.shape == (1, 50)
        same(default.codes, stub_model.generate(seed=2).codes)
        assert not torch.equal(default.codes[0], stub_model.generate(seed=1, do_sample=True).codes[0])
        own = FastJukeboxGenerationConfig(duration=0.3)
        assert stub_model.generate(generation_config=own).audio.shape == (1, 30)
        mixed = stub_model.generate(seed=1, do_sample=[True, True, False])
        same(mixed.codes[2], default.codes[2])
        assert not torch.equal(mixed.codes[0], default.codes[0])

    def test_progress_counts_all_levels(self, stub_model):
        told = []
        stub_model.generate(duration=1.5, num_samples=3, max_batch_size=2, progress=told.append, schedule="sequential")
        assert [progress.level for progress in told] == sorted((progress.level for progress in told), reverse=True)
        assert told[-1].codes_done == told[-1].codes_total == 3 * (76 + 38 + 19)
        assert (told[-1].level_name, told[-1].window, told[-1].windows) == ("bottom", 6, 6)
        assert (told[-1].seconds_left, told[-1].fraction) == (0, 1)
        assert all(before.codes_done <= after.codes_done for before, after in zip(told, told[1:], strict=False))
        assert all(before.fraction <= 1 and (before.seconds_left or 0) >= 0 for before in told)

    def test_cancelling_leaves_the_model_clean(self, stub_model):
        def cancel(progress):
            if progress.level == 1:
                raise InterruptedError("enough")

        stub_model.train()
        stub_model.vqvae.eval()
        before = {name: value for name, value in vars(stub_model.priors[1]).items() if name != "calls"}
        with pytest.raises(InterruptedError, match="enough"):
            stub_model.generate(duration=1.0, progress=cancel, seed=1)
        assert stub_model.training
        assert not stub_model.vqvae.training
        assert {name: value for name, value in vars(stub_model.priors[1]).items() if name != "calls"} == before
        assert not torch.is_inference_mode_enabled()

    def test_an_interrupted_song_can_be_made_again(self, stub_model):
        expected = stub_model.generate(duration=1.0, seed=1)
        stub_model.priors[0].fail_at = 5
        with pytest.raises(KeyboardInterrupt):
            stub_model.generate(duration=1.0, seed=1)
        stub_model.priors[0].fail_at = None
        same(stub_model.generate(duration=1.0, seed=1).codes, expected.codes)

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"duration": 0}, "duration"),
            ({"temperature": [1.0, 0.0, 1.0]}, "temperature"),
            ({"top_p": 2}, "top_p"),
            ({"top_k": -1}, "top_k"),
            ({"hop_fractions": 0}, "hop_fractions"),
            ({"do_sample": 3}, "do_sample"),
        ],
    )
    def test_bad_input(self, stub_model, arguments, field):
        with pytest.raises(ValueError, match=field):
            stub_model.generate(**arguments)
        assert not any(prior.calls for prior in stub_model.priors)


class TestRealModel:
    """The same promises of the networks themselves: hops 4, 8, 16; contexts 32, 32, 24; 1600 samples a second."""

    DURATION = 0.37  # 592 samples: 37 top codes, two windows

    def test_a_song_is_the_same_alone_and_in_a_batch(self, tiny_model):
        batch = tiny_model.generate(duration=self.DURATION, num_samples=3, seed=6)
        assert batch.audio.shape == (3, 592)
        assert [codes.shape[1] for codes in batch.codes] == [148, 74, 37]
        for index in (0, 2):
            alone = tiny_model.generate(duration=self.DURATION, seed=6, song_ids=[index])
            same([codes[index : index + 1] for codes in batch.codes], alone.codes)
            same(batch.audio[index : index + 1], alone.audio)
        split = tiny_model.generate(duration=self.DURATION, num_samples=3, seed=6, max_batch_size=2)
        same(split.codes, batch.codes)

    def test_sampled_codes_are_those_of_a_loop_without_a_cache(self, tiny_model):
        made = tiny_model.generate(duration=0.2, seed=8, temperature=1.0)
        prior = tiny_model.priors[1]
        upper = made.codes[2][:, :16]
        known = torch.zeros((1, 0), dtype=torch.int64)
        noise = uniform_noise(8, [0], 1, 0, 32)
        for position in range(32):
            padded = torch.cat([known, torch.zeros((1, 32 - position), dtype=torch.int64)], dim=1)
            logits = prior(padded, upper_codes=upper).logits[:, position]
            known = torch.cat([known, draw_codes(logits, noise[:, position], SamplingSettings())[:, None]], dim=1)
        same(made.codes[1][:, :32], known)

    def test_a_recording_is_gone_on_with(self, tiny_model):
        audio = 0.5 * torch.randn(2, 500).clamp(-1, 1)
        output = tiny_model.generate(duration=0.4, prompt=audio, prompt_duration=0.1, seed=2)
        assert output.audio.shape == (2, 640)
        decoded = tiny_model.vqvae.decode([output.codes[0]])[:, :640].float()
        same(output.audio[:, :112], audio[:, :112])  # 160 samples are kept; their last 30 ms, 48, fade
        torch.testing.assert_close(output.audio[:, 160:], decoded[:, 160:])
        middle = 0.5 * (audio[:, 136] + decoded[:, 136])
        torch.testing.assert_close(output.audio[:, 136], middle)
        draft = tiny_model.generate(duration=0.4, prompt=audio, prompt_duration=0.1, seed=2, stop_level=2)
        same(draft.audio[:, :112], audio[:, :112])
        for codes, recorded in zip(output.codes, tiny_model.vqvae.encode(audio[:, :496]), strict=True):
            kept = recorded.shape[1] * 10 // 31
            same(codes[:, :kept], recorded[:, :kept])

    def test_a_song_shorter_than_a_window(self, tiny_model):
        output = tiny_model.generate(duration=1 / 1600, seed=1)
        assert output.audio.shape == (1, 1)
        assert [codes.shape[1] for codes in output.codes] == [4, 2, 1]

    def test_upsampling_and_single_levels(self, tiny_model):
        whole = tiny_model.generate(duration=0.2, seed=3)
        draft = tiny_model.generate(duration=0.2, seed=3, stop_level=2)
        same(draft.codes[2], whole.codes[2])
        same(tiny_model.generate(codes=[draft.codes[2]], seed=3).codes, whole.codes)
        torch.testing.assert_close(draft.audio, tiny_model.vqvae.decode([draft.codes[2]], start_level=2).float())

    def test_numbers_do_not_depend_on_the_number_of_threads(self, tiny_model):
        before, songs = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                songs.append(tiny_model.generate(duration=0.5, num_samples=2, seed=4))
        finally:
            torch.set_num_threads(before)
        for song in songs[1:]:
            same(song.codes, songs[0].codes)
            same(song.audio, songs[0].audio)

    def test_cancelling_before_the_first_code_of_a_level(self, tiny_model):
        top = tiny_model.generate(duration=0.5, seed=4, stop_level=2).codes[2]
        told = []

        def cancel(progress):
            told.append(progress)
            return False

        with pytest.raises(GenerationCancelled) as cancelled:
            tiny_model.generate(codes=[top], seed=4, progress=cancel)
        assert [(one.level, one.level_codes_done) for one in told] == [(1, 0)]  # while windows are conditioned
        same(cancelled.value.codes[2], top)

    def test_both_kinds_of_model_can_generate(self, tiny_model, tmp_path):
        prior = tiny_model.priors[0]
        assert tiny_model.can_generate()
        assert prior.can_generate()
        upper = torch.randint(0, 16, (2, 16))
        expected = prior.generate(upper_codes=upper, seed=1)
        assert expected.shape == (2, 32)
        prior.save_pretrained(tmp_path)
        same(type(prior).from_pretrained(tmp_path).generate(upper_codes=upper, seed=1), expected)

    def test_codes_may_be_trained_on(self, tiny_model):
        codes = tiny_model.priors[2].generate(seed=1)
        tiny_model.priors[2].train()(codes, labels=codes).loss.backward()

    def test_labels_are_refused_before_any_level_is_sampled(self, tiny_config):
        for prior in tiny_config.prior_configs:
            prior.num_artists, prior.num_genres = 3, 2
        top = tiny_config.prior_configs[2]
        top.use_timing, top.min_duration, top.max_duration = True, 0.05, 1.0
        model = FastJukeboxModel(tiny_config).eval()
        good = torch.tensor([[0, 0, 0, 2, 1]])
        assert model.generate(duration=0.1, metadata=good, seed=1).audio.shape == (1, 160)
        told = []
        for bad, duration, what in (
            ([good, torch.tensor([[0, 0, 0, 3, 1]]), good], 0.1, "artist"),
            (torch.tensor([[0, 0, 0, 0, 2]]), 0.1, "genre"),
            (good, 0.01, "total length"),
        ):
            with pytest.raises(ValueError, match=what):
                model.generate(duration=duration, metadata=bad, progress=told.append)
        assert told == []

    def test_low_precision(self, tiny_model):
        output = tiny_model.to(torch.bfloat16).generate(duration=0.1, seed=1)
        assert output.audio.dtype == torch.float32
        assert torch.isfinite(output.audio).all()
