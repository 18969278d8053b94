import gc
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPriorConfig
from fast_jukebox.generation import decoding
from fast_jukebox.models.prior.engines.cuda_graph import GraphDecoder
from fast_jukebox.sampling.progress import GenerationCancelled

CASES = {
    "from nothing": {},
    "several songs": {"num_samples": 3, "max_batch_size": 4},
    "short windows": {"window_fractions": 0.5},
    "sequential": {"schedule": "sequential"},
    "mixed": {"schedule": ["parallel", "sequential", "sequential"], "hop_fractions": 0.5},
    "a recording": {"prompt": torch.arange(90) % 11 / 100},
    "top codes": {"codes": [torch.arange(13)[None] % 11]},
    "a draft": {"stop_level": 2},
    "greedy": {"do_sample": False},
}


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """Pieces of 6 to 48 samples, so that songs of the small models have many."""
    monkeypatch.setattr(decoding, "FIRST_SAMPLES", 6)
    monkeypatch.setattr(decoding, "LAST_SAMPLES", 48)


def joined(stream):
    return torch.cat(list(stream), dim=1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("round_duration", [0.05, 10.0])
def test_the_chunks_joined_are_the_song(stub_model, case, round_duration):
    arguments = {"seed": 3, "duration": 2.13, **CASES[case]}
    expected = stub_model.generate(**arguments).audio
    chunks = list(stub_model.stream(**arguments, round_duration=round_duration))
    same(torch.cat(chunks, dim=1), expected)
    assert expected.shape[1] == 213
    assert len(chunks) > 4
    assert all(chunk.dtype == torch.float32 and not chunk.is_inference() for chunk in chunks)


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_the_chunks_of_a_real_model_joined_are_the_song(tiny_model, schedule):
    arguments = {"seed": 3, "duration": 0.5, "schedule": schedule, "num_samples": 2}
    expected = tiny_model.generate(**arguments)
    same(joined(tiny_model.stream(**arguments)), expected.audio)
    torch.testing.assert_close(tiny_model.vqvae.decode(expected.codes)[:, :800], expected.audio)


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_a_song_without_end_begins_like_one_that_ends(stub_model, schedule):
    expected = stub_model.generate(duration=3.0, seed=3, schedule=schedule).audio
    endless = torch.cat(list(islice(stub_model.stream(seed=3, schedule=schedule), 9)), dim=1)
    assert endless.shape[1] > 250
    same(endless[:, :250], expected[:, :250])


def test_a_labelled_song_without_end(tiny_config):
    timing = {"num_artists": 2, "num_genres": 2, "use_timing": True, "min_duration": 0.1, "max_duration": 2.0}
    top = FastJukeboxPriorConfig(**{**tiny_config.prior_configs[2].to_dict(), **timing})
    config = FastJukeboxConfig(
        vqvae_config=tiny_config.vqvae_config, prior_configs=[*tiny_config.prior_configs[:2], top]
    )
    model = FastJukeboxModel(config).eval()
    with pytest.raises(ValueError, match="metadata.*total length"):
        model.stream(metadata=torch.tensor([[0, 0, 0, 1, 1]]))
    heard = 0
    for chunk in model.stream(metadata=torch.tensor([[800, 0, 0, 1, 1]]), seed=1):
        heard += chunk.shape[1]
        if heard > 1000:  # beyond the total length
            break


def codes_of(prior):
    """Codes that a stub prior has drawn."""
    return sum((call.steps + 1) * call.batch_size for call in prior.calls)


def test_the_first_sound_needs_no_more_than_the_codes_that_it_hears(stub_model):
    stream = stub_model.stream(duration=60.0, seed=1)
    assert next(stream).shape[1] == 6
    bottom, middle, top = stub_model.priors
    assert codes_of(bottom) == 3 + stub_model.vqvae.REACH  # the piece, and what reaches into it
    assert codes_of(middle) == 12  # what the first bottom window spans
    assert codes_of(top) == 10  # what the first middle window spans
    assert [len(prior.calls) for prior in stub_model.priors] == [1, 1, 5]
    next(stream)
    assert codes_of(bottom) == 3 + 6 + stub_model.vqvae.REACH  # the same window goes on
    assert [len(prior.calls) for prior in stub_model.priors] == [1, 1, 5]


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_no_window_is_sampled_twice(stub_model, schedule):
    stub_model.generate(duration=2.0, seed=1, schedule=schedule)
    once = [codes_of(prior) for prior in stub_model.priors]
    for prior in stub_model.priors:
        prior.calls.clear()
    joined(stub_model.stream(duration=2.0, seed=1, schedule=schedule, round_duration=0.1))
    assert [codes_of(prior) for prior in stub_model.priors] == once


@pytest.mark.parametrize("engine", ["eager", "graph", "native"])
@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_windows_rest_in_every_engine(tiny_model, engine, schedule):
    arguments = {"seed": 3, "duration": 0.5, "schedule": schedule, "num_samples": 2, "engine": engine}
    same(joined(tiny_model.stream(**arguments, round_duration=0.02)), tiny_model.generate(**arguments).audio)


@pytest.mark.parametrize("position", [0, 5])
def test_a_window_that_rests_makes_way_where_memory_ends(stub_model, position):
    expected = stub_model.generate(duration=2.0, seed=1, num_samples=2).audio
    prior = stub_model.priors[0]
    step, full = prior.step, []

    def step_while_there_is_room(code, place, conditioning, cache):
        if place > position and len(code) == 2 and not full:
            full.append(place)
            raise torch.OutOfMemoryError("full")
        return step(code, place, conditioning, cache)

    prior.step = step_while_there_is_room
    same(joined(stub_model.stream(duration=2.0, seed=1, num_samples=2)), expected)
    assert full


def test_priors_that_visit_a_device_do_whole_windows(tiny_model):
    expected = tiny_model.generate(duration=0.3, seed=1).audio
    tiny_model.set_offload("cpu", "cpu")
    stream = tiny_model.stream(duration=0.3, seed=1)
    sampler = stream.gi_frame.f_locals["stream"].sampler
    pieces = []
    for piece in stream:
        pieces.append(piece)
        assert not sampler._begun
    same(torch.cat(pieces, dim=1), expected)


def test_priors_that_begin_to_visit_do_whole_windows_from_then_on(tiny_model):
    expected = tiny_model.generate(duration=0.3, seed=1, engine="eager").audio
    stream = tiny_model.stream(duration=0.3, seed=1, engine="eager")
    pieces, sampler = [next(stream)], stream.gi_frame.f_locals["stream"].sampler
    assert set(sampler._begun) == {0, 1, 2}
    tiny_model.set_offload("cpu", "cpu")
    for piece in stream:
        pieces.append(piece)
        assert 0 not in sampler._begun
    assert not sampler._begun
    same(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("bottom", ["sequential", "parallel"])
def test_windows_that_rest_make_way_for_one_that_has_no_memory(stub_model, bottom):
    arguments = {"duration": 2.0, "seed": 1, "schedule": [bottom, "sequential", "sequential"]}
    expected = stub_model.generate(**arguments).audio
    prior, full = stub_model.priors[0], []
    prior.calls.clear()
    stream = stub_model.stream(**arguments, round_duration=0.1)
    sampler, step = stream.gi_frame.f_locals["stream"].sampler, prior.step

    def step_while_there_is_room(*given):
        if len(prior.calls) > 1 and sampler._begun:
            full.extend(sampler._begun)
            raise torch.OutOfMemoryError("full")
        return step(*given)

    prior.step = step_while_there_is_room
    same(joined(stream), expected)
    assert full
    assert len(full) == len(set(full))  # no window of those levels rests again


def test_memory_that_a_level_lacks_is_not_sought_at_the_levels_below(stub_model):
    tries = []

    def condition(*given, **named):
        tries.append(given)
        raise torch.OutOfMemoryError("full")

    stub_model.priors[1].condition = condition
    stream = stub_model.stream(seed=1)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        next(stream)
    assert len(tries) == 2  # beside windows that rest, and alone


def test_programs_of_windows_that_rest_outlive_a_closed_stream(tiny_model, monkeypatch):
    monkeypatch.setattr(GraphDecoder, "costly", True)
    made, begin = [], GraphDecoder.__init__

    def begin_and_note(program, prior, *given, **named):
        made.append(prior.config.level)
        begin(program, prior, *given, **named)

    monkeypatch.setattr(GraphDecoder, "__init__", begin_and_note)
    expected = tiny_model.generate(duration=0.1, seed=1, engine="eager").audio
    for _ in range(3):
        stream = tiny_model.stream(seed=1, engine="graph")
        first = next(stream)
        same(first, expected[:, : first.shape[1]])
        stream.close()
    assert sorted(made) == [0, 1, 2]


def test_a_piece_that_begins_beyond_the_end_is_not_heard(stub_model):
    expected = stub_model.generate(duration=1.37, seed=1).audio  # a piece begins at sample 138, and codes end at 144
    chunks = list(stub_model.stream(duration=1.37, seed=1))
    assert all(chunk.shape[1] for chunk in chunks)
    same(torch.cat(chunks, dim=1), expected)


def test_later_rounds_sample_many_windows_at_once(stub_model):
    for _ in stub_model.stream(duration=25.0, seed=1, round_duration=5.0):
        pass
    rows = [call.batch_size for call in stub_model.priors[0].calls]
    assert rows[0] <= 2
    assert max(rows) > 10
    assert len(rows) < 30


@pytest.mark.parametrize("schedule", ["parallel", "sequential"])
def test_memory_does_not_grow(stub_model, schedule):
    stream = stub_model.stream(seed=1, round_duration=0.5, schedule=schedule)
    kept = stream.gi_frame.f_locals["stream"].sampler
    widest, sizes = [], []
    tracemalloc.start()
    try:
        for _ in range(3):
            for _ in range(10):
                next(stream)
            for prior in stub_model.priors:
                prior.calls.clear()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            widest.append([own.codes.shape[1] for own in kept.levels])
    finally:
        tracemalloc.stop()
    assert max(sizes[1:]) - sizes[0] < 100_000
    assert np.max(widest) <= 400
    assert kept[0].offset > 500
    assert len(kept[0].seams[0]) < 20


def test_a_stream_closed_early_leaves_the_model_clean(stub_model):
    stub_model.train()
    stream = stub_model.stream(seed=1)
    next(stream)
    assert stub_model.training  # between two chunks too
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert stub_model.training
    with pytest.raises(StopIteration):
        next(stream)
    same(stub_model.generate(duration=0.3, seed=1).codes, type(stub_model)().generate(duration=0.3, seed=1).codes)


def test_bad_input_is_refused_before_the_first_chunk(stub_model):
    for arguments, field in (
        ({"duration": -1}, "duration"),
        ({"round_duration": 0}, "round_duration"),
        ({"temperature": 0}, "temperature"),
        ({"start_level": 0}, "codes"),
    ):
        with pytest.raises(ValueError, match=field):
            stub_model.stream(**arguments)
    with pytest.raises(TypeError, match="tempo"):
        stub_model.stream(tempo=3)
    assert not any(prior.calls for prior in stub_model.priors)


def test_progress_and_cancelling(stub_model):
    told = []
    joined(stub_model.stream(duration=2.0, seed=1, progress=told.append))
    assert told[-1].codes_done == told[-1].codes_total
    told.clear()
    list(islice(stub_model.stream(seed=1, progress=told.append), 3))
    assert {(moment.codes_total, moment.seconds_left, moment.fraction) for moment in told} == {(None, None, None)}
    with pytest.raises(GenerationCancelled) as caught:
        joined(stub_model.stream(duration=2.0, seed=1, progress=lambda moment: moment.level == 2))
    assert (caught.value.codes, caught.value.seed) == ([], 1)
