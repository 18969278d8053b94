import pytest
import torch

from fast_jukebox.generation.plan import encode_prompt, plan_song, resolve_generation_config
from fast_jukebox.generation.request import FastJukeboxGenerationConfig, SongRequest

CODES = torch.zeros((1, 5), dtype=torch.int64)


def plan(model, config=None, endless=False, **arguments):
    request = SongRequest(generation_config=config or FastJukeboxGenerationConfig(), **{"seed": 0, **arguments})
    return plan_song(model, request, endless=endless)


def test_lengths_cover_the_duration_in_whole_top_codes(stub_model):
    made = plan(stub_model, duration=1.01)  # 101 samples, 12.6 top codes
    assert made.samples == 101
    assert made.lengths == [52, 26, 13]
    assert [windows[-1].end for windows in made.windows] == [52, 26, 13]
    assert plan(stub_model, duration=1.04).lengths == [52, 26, 13]
    assert plan(stub_model, duration=1.05).lengths == [56, 28, 14]
    assert plan(stub_model).samples == 2000


def starts(made, level):
    return [window.start for window in made.windows[level]]


def test_the_published_hop_fractions_are_the_default_of_the_sequential_schedule(stub_model):
    made = plan(stub_model, FastJukeboxGenerationConfig(schedule="sequential"), duration=2.0)
    assert starts(made, 0) == [0, 12, 24, 36, 48, 60, 72, 76]
    assert starts(made, 1) == [0, 10, 20, 30]
    assert starts(made, 2) == 8 * [0] + [2, 4, 6, 8, 9]  # the first window in segments of a hop
    assert [window.new_length for window in made.windows[2]] == 12 * [2] + [1]
    made = plan(stub_model, FastJukeboxGenerationConfig(schedule="sequential", hop_fractions=1.0), duration=2.0)
    assert [len(windows) for windows in made.windows] == [5, 3, 2]


def test_upsamplers_are_parallel_by_default(stub_model):
    made = plan(stub_model, duration=2.0)
    assert [layout.parallel for layout in made.layouts] == [True, True, False]
    assert [layout.size for layout in made.layouts] == [24, 20, 16]
    assert (starts(made, 0), starts(made, 1)) == ([0, 20, 40, 60, 76], [0, 18, 30])
    config = FastJukeboxGenerationConfig(window_fractions=0.5, schedule=["parallel", "sequential", None])
    made = plan(stub_model, config, duration=2.0)
    assert [layout.parallel for layout in made.layouts] == [True, False, False]
    assert [layout.size for layout in made.layouts] == [12, 20, 16]
    assert made.layouts[0].hop == 8  # three quarters of it, in whole codes of the level above


def test_a_song_without_end(stub_model):
    made = plan(stub_model, endless=True)
    assert (made.samples, made.lengths) == (None, [None] * 3)
    assert [layout.length for layout in made.layouts] == [None] * 3
    assert plan(stub_model, endless=True, duration=1.0).samples == 100
    upsampled = plan(stub_model, endless=True, codes=[CODES], start_level=1)
    assert (upsampled.samples, upsampled.lengths) == (40, [20, 10, 5])


def test_a_prompt_is_cut_to_whole_top_codes(stub_model):
    audio = torch.arange(30) / 1000  # 3 top codes of 8 samples
    codes = encode_prompt(stub_model.vqvae, audio, None)
    assert [own.shape for own in codes] == [(1, 12), (1, 6), (1, 3)]
    codes = encode_prompt(stub_model.vqvae, audio, 0.17)
    assert [own.shape for own in codes] == [(1, 8), (1, 4), (1, 2)]


def test_a_batch_is_that_of_its_inputs(stub_model):
    top = torch.zeros((3, 5), dtype=torch.int64)
    assert plan(stub_model, codes=[top]).num_samples == 3
    assert plan(stub_model, codes=[top], num_samples=3).num_samples == 3
    assert plan(stub_model, codes=[top[:1]], num_samples=3).num_samples == 3
    assert plan(stub_model, duration=0.1, seed=[1, 2]).num_samples == 2
    with pytest.raises(ValueError, match="num_samples"):
        plan(stub_model, codes=[top], num_samples=2)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"duration": 0}, "duration"),
        ({"duration": -1}, "duration"),
        ({"duration": float("nan")}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"duration": 1e6}, "duration"),
        ({"duration": 0.001}, "duration"),
        ({"duration": "20"}, "duration"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 1.5}, "num_samples"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"seed": []}, "seed"),
        ({"start_level": 3}, "start_level"),
        ({"stop_level": -1}, "stop_level"),
        ({"start_level": 0, "stop_level": 1}, "stop_level"),
        ({"start_level": 1}, "codes.*start_level"),
        ({"start_level": 1, "duration": 1.0, "codes": [CODES]}, "start_level"),
        ({"prompt": torch.zeros(100), "duration": 0.5}, "prompt.*duration"),
        ({"prompt": torch.zeros(0)}, "prompt"),
        ({"prompt": torch.zeros(7)}, "prompt"),
        ({"prompt": torch.zeros(1, 1, 8)}, "prompt"),
        ({"prompt": torch.full((8,), float("nan"))}, "prompt"),
        ({"prompt": torch.zeros(80), "prompt_duration": 0.9}, "prompt_duration"),
        ({"prompt": torch.zeros(80), "prompt_duration": 0.0}, "prompt_duration"),
        ({"prompt": torch.zeros(80), "prompt_duration": 0.05}, "prompt_duration"),
        ({"prompt_duration": 1.0}, "prompt_duration"),
        ({"prompt": torch.zeros(80), "codes": [CODES]}, "prompt.*codes"),
        ({"codes": [CODES], "duration": 0.2}, "codes.*duration"),
        ({"codes": [CODES + 11]}, "codes"),
        ({"codes": [CODES[:, :0]]}, "codes"),
        ({"codes": [CODES.repeat(1, 3), CODES]}, "codes"),
        ({"metadata": torch.zeros(1, 5)}, "metadata"),
        ({"metadata": [None]}, "metadata"),
    ],
)
def test_bad_input_is_refused(stub_model, arguments, field):
    with pytest.raises(ValueError, match=field):
        plan(stub_model, **arguments)
    assert not any(prior.calls for prior in stub_model.priors)


@pytest.mark.parametrize(
    "name", ["temperature", "top_k", "top_p", "do_sample", "hop_fractions", "window_fractions", "schedule"]
)
def test_settings_for_another_number_of_levels(stub_model, name):
    value = {"top_k": 1, "do_sample": True, "schedule": "sequential"}.get(name, 0.5)
    config = FastJukeboxGenerationConfig(**{name: [value] * 2})
    with pytest.raises(ValueError, match=name):
        plan(stub_model, config, duration=1.0)


def test_settings_of_a_call_change_nothing(stub_model):
    assert resolve_generation_config(stub_model, SongRequest()).duration == 20.0
    stub_model.generation_config = own = FastJukeboxGenerationConfig(temperature=0.7, top_k=5)
    made = resolve_generation_config(stub_model, SongRequest(temperature=[0.1, 0.2, 0.3]))
    assert (made.temperature, made.top_k) == ([0.1, 0.2, 0.3], 5)
    assert own.temperature == 0.7
    other = SongRequest(generation_config=FastJukeboxGenerationConfig(top_p=0.5))
    assert resolve_generation_config(stub_model, other).temperature == 0.99
