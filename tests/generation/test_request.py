import inspect
import typing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxModel, FastJukeboxPipeline
from fast_jukebox.generation.request import (
    COMPUTING,
    FIELDS,
    FROM_NOTHING,
    FastJukeboxGenerationConfig,
    SongRequest,
    request_arguments,
)
from fast_jukebox.generation.windows import SETTINGS

FIELD_PARAMETERS = dict(inspect.signature(SongRequest).parameters)
OF_A_SESSION = [name for name in FIELDS if name not in ("start_level", *COMPUTING)]


@pytest.mark.parametrize(
    ("function", "names", "others"),
    [
        (FastJukeboxModel.generate, FIELDS, []),
        (FastJukeboxModel.stream, FIELDS, ["round_duration"]),
        (FastJukeboxModel.new_session, OF_A_SESSION, ["folder", "model_name"]),
        (
            FastJukeboxPipeline.__call__,
            FIELDS,
            ["inputs", "forward_params", "generate_kwargs", "return_details", "batch_size", "num_workers"],
        ),
    ],
)
def test_functions_take_the_fields_of_a_request(function, names, others):
    """The same names in the same order, with the same types and defaults; a pipeline's may all be left to those that it
    was made with, its recordings and bars may be given in more ways.
    """
    taken = dict(inspect.signature(function).parameters)
    assert [name for name in taken if name not in ("self", *others)] == list(names)
    for name in names:
        own, field = taken[name], FIELD_PARAMETERS[name]
        if function is not FastJukeboxPipeline.__call__:
            assert (own.annotation, own.default) == (field.annotation, field.default), name
        elif name not in ("prompt", "progress"):
            assert own.annotation in (field.annotation, f"{field.annotation} | None"), name
            assert own.default is None
        assert f"\n    {name}: " in function.__doc__, name
    assert "{request}" not in function.__doc__


def test_an_estimate_takes_what_it_needs_of_a_request():
    taken = dict(inspect.signature(FastJukeboxModel.estimate).parameters)
    assert set(taken) == {*FIELDS, "self", "device", "dtype", "calibrate"} - {*FROM_NOTHING}
    for name in set(taken) & {*FIELDS}:
        field = FIELD_PARAMETERS[name]
        assert (taken[name].annotation, taken[name].default) == (field.annotation, field.default), name
        assert f"\n    {name}: " in FastJukeboxModel.estimate.__doc__, name


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented_where_it_is_taken(name):
    """The text of a field is the one of [`SongRequest`], however its lines are indented."""
    text = " ".join(inspect.cleandoc(SongRequest.__doc__).split())
    (own,) = [line for line in inspect.cleandoc(SongRequest.__doc__).splitlines() if line.startswith(f"    {name}: ")]
    assert own.strip() in text and own.strip() in " ".join(FastJukeboxModel.generate.__doc__.split())


def test_the_sampling_settings_are_those_of_the_generation_config():
    config = inspect.signature(FastJukeboxGenerationConfig).parameters
    assert {name: config[name].annotation for name in SETTINGS} == {
        name: FIELD_PARAMETERS[name].annotation for name in SETTINGS
    }
    assert set(config) - {"duration", "kwargs"} == set(SETTINGS)


def test_a_docstring_that_was_stripped_stays_so():
    def bare():
        pass

    assert request_arguments()(bare).__doc__ is None


@given(st.sets(st.sampled_from(sorted(FIELDS))))
def test_arguments_are_what_differs_and_make_the_same_request(names):
    values = {
        **{"duration": 2.0, "num_samples": 3, "prompt": torch.zeros(8), "prompt_duration": 0.5, "start_level": 1},
        **{"codes": [torch.zeros((1, 2), dtype=torch.int64)], "stop_level": 1, "metadata": {"artist": "Ann"}},
        **{"seed": [1, 2, 3], "schedule": "sequential", "window_fractions": 0.5, "hop_fractions": [0.5, None, 0.25]},
        **{"temperature": 0.9, "top_k": 5, "top_p": [0.5, 1.0, 1.0], "do_sample": False, "progress": print},
        **{"song_ids": [4], "max_batch_size": 2, "engine": "eager", "generation_config": FastJukeboxGenerationConfig()},
    }
    given = {name: values[name] for name in names}
    if "prompt" in given:
        given.pop("codes", None)
    elif "prompt_duration" in given:
        given.pop("prompt_duration")
    request = SongRequest(**given)
    assert request.arguments() == given
    assert SongRequest(**request.arguments()).arguments() == given
    assert request.settings == {name: value for name, value in given.items() if name in SETTINGS}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"duration": 0}, "duration"),
        ({"duration": "20"}, "duration"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 10**9}, "num_samples"),
        ({"num_samples": True}, "num_samples"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"seed": 2**63}, "seed"),
        ({"seed": [1, -1]}, "seed"),
        ({"seed": [None]}, "seed"),
        ({"prompt_duration": 1.0}, "prompt_duration"),
        ({"prompt": torch.zeros(8), "prompt_duration": -1.0}, "prompt_duration"),
        ({"prompt": torch.zeros(8), "codes": [torch.zeros((1, 1), dtype=torch.int64)]}, "prompt.*codes"),
        ({"engine": "steam"}, "engine"),
        ({"schedule": "random"}, "schedule"),
        ({"window_fractions": 1.5}, "window_fractions"),
        ({"hop_fractions": [0.5, 0.0]}, "hop_fractions"),
        ({"temperature": [1.0, 0.0, 1.0]}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"do_sample": "yes"}, "do_sample"),
    ],
)
def test_what_no_model_can_make_is_refused_without_one(arguments, field):
    with pytest.raises(ValueError, match=field):
        SongRequest(**arguments)


def test_a_request_does_not_change():
    with pytest.raises(AttributeError):
        SongRequest().seed = 1
    assert typing.get_type_hints(SongRequest.__init__)["duration"] == float | None


LONG = ["x" * 5000, list(range(5000)), {name: 0 for name in range(5000)}]


@pytest.mark.parametrize(
    "name",
    [
        *("duration", "num_samples", "max_batch_size", "song_ids", "engine", "temperature", "top_k", "top_p"),
        *("schedule", "window_fractions", "stop_level", "generation_config"),
    ],
)
def test_long_values_are_not_quoted_whole(tiny_model, name):
    for value in LONG:
        with pytest.raises(ValueError, match=f"`{name}`") as caught:
            tiny_model.generate(**{"duration": 0.1, name: value})
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["artist", "genre", "total_duration", "unknown", "x" * 5000])
def test_long_words_are_not_quoted_whole(words_model, name):
    for value in LONG:
        with pytest.raises(ValueError, match=r"`(artist|genre|total_duration|unknown|metadata)` must") as caught:
            words_model.generate(duration=0.1, metadata={name: value})
        assert len(str(caught.value)) < 600
