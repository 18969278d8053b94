"""A training against the clock ends on time, and has what its checkpoint left."""

import json
import time

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from fast_jukebox.training.clock import TrainingClock


@pytest.fixture
def now(monkeypatch):
    moment = [1000.0]
    monkeypatch.setattr(time, "time", lambda: moment[0])
    return moment


def begun(clock, state=None):
    clock.on_train_begin(None, state or TrainerState(), TrainerControl())
    return clock


def test_the_rate_warms_up_by_steps_and_falls_by_the_clock(now):
    clock = begun(TrainingClock(max_minutes=1.0))
    assert clock.rate(0, 9) == pytest.approx(0.1)
    assert clock.rate(100, 9) == pytest.approx(1.0)
    now[0] += 30
    assert (clock.fraction(), clock.rate(100, 9)) == (pytest.approx(0.5), pytest.approx(0.5))
    now[0] += 60
    assert (clock.fraction(), clock.rate(100, 9)) == (1.0, pytest.approx(0.0))


def test_it_stops_at_whichever_limit_comes_first(now):
    for limits, seconds in (({"max_minutes": 1.0, "stop_at": 1030.0}, 30), ({"max_minutes": 0.25, "stop_at": 9e9}, 15)):
        now[0] = 1000.0
        clock = begun(TrainingClock(**limits))
        now[0] += seconds - 1
        assert not clock.on_step_end(None, TrainerState(), TrainerControl()).should_training_stop
        now[0] += 1
        assert clock.on_step_end(None, TrainerState(), TrainerControl()).should_training_stop


def test_it_evaluates_and_saves_at_even_fractions(now):
    clock = begun(TrainingClock(max_minutes=1.0, evaluations=2))
    marks = []
    for second in range(60):
        now[0] = 1000.0 + second
        control = clock.on_step_end(None, TrainerState(), TrainerControl())
        if control.should_save:
            assert control.should_evaluate
            marks.append(second)
    assert marks == [20, 40]


def test_a_resumed_training_has_what_its_checkpoint_left(now):
    clock = begun(TrainingClock(max_minutes=1.0))
    now[0] += 45
    state = TrainerState(global_step=3, stateful_callbacks={"TrainingClock": json.loads(json.dumps(clock.state()))})
    now[0] += 1000
    resumed = begun(TrainingClock(max_minutes=1.0), state)
    assert resumed.fraction() == pytest.approx(0.75)
    now[0] += 15
    assert resumed.on_step_end(None, state, TrainerControl()).should_training_stop


@pytest.mark.parametrize(
    ("values", "name"),
    [({}, "max_minutes"), ({"max_minutes": 0.0}, "max_minutes"), ({"stop_at": float("nan")}, "stop_at"),
     ({"max_minutes": 1.0, "evaluations": -1}, "evaluations")],
)  # fmt: skip
def test_limits_that_are_none_are_refused(values, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        TrainingClock(**values)


def test_training_arguments_take_a_limit_in_place_of_steps(tmp_path):
    from fast_jukebox.training.arguments import FastJukeboxTrainingArguments

    args = FastJukeboxTrainingArguments(output_dir=str(tmp_path), max_minutes=1.0, use_cpu=True)
    assert args.max_steps > 10**8
    assert isinstance(args, TrainingArguments)
    assert FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True).max_steps == -1


def test_a_second_training_has_all_of_its_time(now):
    clock = begun(TrainingClock(max_minutes=1.0))
    now[0] += 60
    assert clock.fraction() == 1.0
    assert begun(clock).fraction() == 0.0
