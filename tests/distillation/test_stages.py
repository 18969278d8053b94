import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.distillation.stages import PAPER_STAGES, DistillationStage, StageSchedule, parse_stages


def test_the_papers_stages_are_20_epochs_of_one_loss_and_50_of_the_other():
    schedule = StageSchedule(PAPER_STAGES, 7, 1e-3)
    assert [stage.name for stage in PAPER_STAGES] == ["intermediate", "prediction"]
    assert PAPER_STAGES[0].weights == {"attention_residual": 1, "hidden_states": 1, "attentions": 1}
    assert schedule.lengths == [140, 350] and schedule.total_steps == 490
    assert [schedule.index_at(step) for step in (0, 139, 140, 489, 490, 1000)] == [0, 0, 1, 1, 1, 1]
    assert all(temperature == 1.0 for temperature in (stage.temperature for stage in PAPER_STAGES))


def test_each_stage_has_its_own_learning_rate_and_schedule():
    stages = [
        DistillationStage("intermediate", steps=4, learning_rate=3e-3, schedule="linear", warmup_steps=2),
        DistillationStage({"prediction": 1.0, "data": 0.5}, steps=4, schedule="cosine", warmup_steps=0),
        DistillationStage("data", steps=10),
    ]
    schedule = StageSchedule(stages, None, 1e-3, "constant_with_warmup", warmup_steps=0.2)
    assert [schedule.factor(step) for step in range(4)] == pytest.approx([0, 1.5, 3, 1.5])
    half = (1 + math.cos(math.pi / 4)) / 2
    assert [schedule.factor(step) for step in range(4, 8)] == pytest.approx([1, half, 0.5, 1 - half])
    assert [schedule.factor(step) for step in range(8, 18)] == pytest.approx([0, 0.5, *[1] * 8])
    assert stages[1].name == "1 prediction + 0.5 data"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["constant", "linear", "cosine"])), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_a_schedule_is_its_stages_one_after_the_other(lengths, warmup):
    stages = [DistillationStage("data", steps=steps, schedule=name) for steps, name in lengths]
    schedule = StageSchedule(stages, None, 1e-3, warmup_steps=warmup)
    step = 0
    for index, stage in enumerate(stages):
        alone = StageSchedule([stage], None, 1e-3, warmup_steps=warmup)
        for local in range(stage.steps):
            assert schedule.index_at(step) == index
            assert schedule.factor(step) == alone.factor(local)
            assert 0 <= schedule.factor(step) <= 1
            step += 1
    assert step == schedule.total_steps


def test_parts_of_epochs_are_rounded_up():
    assert StageSchedule([DistillationStage("data", epochs=0.5)], 5, 1e-3).lengths == [3]
    assert StageSchedule([DistillationStage("data", epochs=0.3)], 10, 1e-3).lengths == [3]


def test_stages_are_read_from_what_a_file_says():
    stages = [{"loss": "intermediate", "epochs": 2}, {"loss": {"prediction": 1, "data": 0.5}, "steps": 3}]
    assert [stage.to_dict() for stage in parse_stages(stages)] == [stage | {"temperature": 1.0} for stage in stages]
    assert parse_stages(parse_stages(stages)) == parse_stages(stages)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"loss": "hidden", "steps": 1}, "`loss` must be one of intermediate, prediction, data"),
        ({"loss": {"hidden": 1.0}, "steps": 1}, "got one of 'hidden'"),
        ({"loss": "data"}, "either `epochs` or `steps`, got None and None"),
        ({"loss": "data", "steps": 1, "epochs": 1}, "either `epochs` or `steps`, got 1 and 1"),
        ({"loss": "data", "steps": 0}, "`steps` must be an integer at least 1, got 0"),
        ({"loss": "data", "epochs": -1.0}, "`epochs` must be a number above 0, got -1.0"),
        ({"loss": "data", "steps": 1, "learning_rate": "1e-4"}, "`learning_rate` must be a number above 0, got '1e-4'"),
        ({"loss": "data", "steps": 1, "temperature": 0}, "`temperature` must be a number above 0, got 0"),
        ({"loss": "data", "steps": 1, "warmup_steps": -1}, "`warmup_steps` must be a number of at least 0, got -1"),
        ({"loss": "data", "steps": 1, "schedule": "step"}, "`schedule` must be one of constant, .* got 'step'"),
        ({"loss": "data", "step": 1}, "no fields but loss, epochs"),
        ({"steps": 1}, "must have a `loss`"),
    ],
)
def test_stages_that_make_no_sense_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        parse_stages([fields])


@pytest.mark.parametrize("stages", [[], "data", {"loss": "data"}])
def test_what_is_no_list_of_stages_is_refused(stages):
    with pytest.raises(ValueError, match="`stages` must be a list of at least one stage"):
        parse_stages(stages)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stages": []}, "`stages` must have at least one"),
        ({"steps_per_epoch": None}, "`steps` must be given for data without length, got `epochs` 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0, got 0.0"),
        ({"schedule": "polynomial"}, "`lr_scheduler_type` must be one of constant, .* got 'polynomial'"),
    ],
)
def test_a_schedule_that_cannot_be_laid_out_is_refused(changes, match):
    fields = {"stages": [DistillationStage("data", epochs=1)], "steps_per_epoch": 3, "learning_rate": 1e-3}
    with pytest.raises(ValueError, match=match):
        StageSchedule(**(fields | changes))
