import pytest
import torch

from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.student import check_student, initialize_student, student_config


def test_a_student_is_its_teacher_at_another_depth(tiny_config):
    teacher = tiny_config.prior_configs[0]
    config = student_config(teacher, 2)
    assert config.num_hidden_layers == 2 and teacher.num_hidden_layers == 3
    assert config.to_dict() == teacher.to_dict() | {"num_hidden_layers": 2}
    with pytest.raises(ValueError, match="`num_hidden_layers` must be an integer at least 1, got 0"):
        student_config(teacher, 0)


@pytest.mark.parametrize("level", [0, 2])
def test_a_student_begins_with_the_mapped_layers_and_all_the_rest(pair, level):
    teacher, student = pair(level, teacher=6, student=3)
    assert initialize_student(student, teacher) is student
    theirs, ours = teacher.state_dict(), student.state_dict()
    for layer, teacher_layer in LayerMap.from_configs(teacher.config, student.config):
        for name, weight in student.blocks[layer].state_dict().items():
            assert torch.equal(weight, theirs[f"blocks.{teacher_layer}.{name}"])
    rest = [name for name in ours if not name.startswith("blocks.")]
    assert {"code_embedding.weight", "position_embedding", "start_token"} <= set(rest)
    assert any(name.startswith("upper_conditioner.") for name in rest) == (level == 0)
    assert all(torch.equal(ours[name], theirs[name]) for name in rest)
    student.code_embedding.weight.data.zero_()
    assert teacher.code_embedding.weight.abs().sum() > 0


def test_a_student_of_another_width_cannot_begin_so(pair):
    teacher, student = pair(hidden_size=8)
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"`position_embedding` is \(32, 8\) in the student .* \(32, 16\) in the teach"
    ):
        initialize_student(student, teacher)
    assert all(torch.equal(weight, before[name]) for name, weight in student.state_dict().items())


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("codebook_size", 8, "`codebook_size` is 8 in the student and 16 in the teacher"),
        ("level", 0, "`level` is 0 in the student and 1 in the teacher"),
        ("n_ctx", 16, "`n_ctx` is 16 in the student and 32 in the teacher"),
        ("blocks", 8, "`blocks` is 8 in the student and 4 in the teacher"),
        ("upper_downs", 2, "`upper_ratio` is 4 in the student and 2 in the teacher"),
        ("upper_downs", None, "`upper_ratio` is 1 in the student and 2 in the teacher"),
        ("upper_codebook_size", 8, "`upper_codebook_size` is 8 in the student and 16 in the teacher"),
        ("attention_patterns", ["row", "column"], r"`attention_patterns` is \['row', 'column'\] in the student and"),
        ("hop_length", 4, "`hop_length` is 4 in the student and 8 in the teacher"),
    ],
)
def test_what_does_not_fit_is_shown_on_both_sides(tiny_config, field, value, match):
    teacher = tiny_config.prior_configs[1]
    student = student_config(teacher, 3)
    setattr(student, field, value)
    with pytest.raises(ValueError, match=match):
        check_student(student, teacher)


def test_patterns_written_otherwise_may_be_the_same(tiny_config):
    teacher = tiny_config.prior_configs[1]
    student = student_config(teacher, 2)
    student.attention_patterns = ["row", "column"]
    assert list(check_student(student, teacher)) == [(0, 0), (1, 1)]


def test_a_deeper_student_is_refused(tiny_config):
    teacher = tiny_config.prior_configs[1]
    with pytest.raises(ValueError, match=r"the student has 2 \(of 4 layers\), the teacher 1 \(of 3\)"):
        check_student(student_config(teacher, 4), teacher)
