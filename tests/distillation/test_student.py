import pytest
import torch

from fast_jukebox import FastJukeboxPriorConfig
from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.student import check_student, initialize_student, student_config, student_layer_types


def test_a_student_is_its_teacher_at_another_depth(tiny_config):
    teacher = tiny_config.prior_configs[0]
    config = student_config(teacher, 2)
    assert config.num_hidden_layers == 2 and teacher.num_hidden_layers == 3
    assert config.to_dict() == teacher.to_dict() | {"num_hidden_layers": 2, "layer_types": teacher.layer_types[:2]}
    with pytest.raises(ValueError, match="`num_hidden_layers` must be an integer from 1 to 1024, got 0"):
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
        ("num_rows", 8, "`num_rows` is 8 in the student and 4 in the teacher"),
        ("upsampling_strides", [2, 2], "`upper_ratio` is 4 in the student and 2 in the teacher"),
        ("upsampling_strides", None, "`upper_ratio` is 1 in the student and 2 in the teacher"),
        ("upper_codebook_size", 8, "`upper_codebook_size` is 8 in the student and 16 in the teacher"),
        ("layer_types", ["row", "column"], r"`layer_types` is \['row', 'column'\] in the student and"),
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
    student.layer_types = ["row", "column"]
    assert list(check_student(student, teacher)) == [(0, 0), (1, 1)]


def lyric_config(patterns, depth, encoder=True):
    fields = {"lyric_encoder_layers": 1, "lyric_encoder_hidden_size": 8, "lyric_encoder_heads": 1}
    return FastJukeboxPriorConfig(
        n_ctx=24, num_rows=4, hidden_size=16, num_hidden_layers=depth, layer_types=patterns, num_artists=2,
        num_genres=2, lyric_length=32, lyric_encoder_num_rows=4, alignment_layer=patterns.index("lyric_cross"),
        alignment_head=1, **fields,
    )  # fmt: skip


def test_lyrics_that_only_deep_layers_hear_are_kept():
    three = ["row", "column", "previous_row"]
    # As the published 5B model: lyrics after 18 layers, then after every 9.
    teacher = lyric_config([*three * 3, *([*three * 3, "lyric_cross"] * 7)], 79)
    assert teacher.alignment_layer == 18
    student = student_config(teacher, 18)
    patterns = student.layer_types
    assert [index for index, word in enumerate(patterns) if word == "lyric_cross"] == [8, 17]
    assert [word for word in patterns if word != "lyric_cross"] == (three * 6)[:16]
    layer_map = check_student(student, teacher)
    assert [layer_map[8], layer_map[17]] == [48 - 10, 78]
    assert (student.alignment_layer, student.alignment_head) == (None, None)
    # Where the first layers hear them, the teacher's patterns go on.
    assert student_layer_types(teacher, 24) == teacher.layer_types
    same = student_config(teacher, 79)
    assert (same.alignment_layer, same.alignment_head) == (18, 1)
    # As the 1B model: every sixteenth layer, of which the last but one and a half shows the alignment.
    cycle = [*(three * 5), "lyric_cross"]
    teacher = lyric_config(cycle, 72)
    teacher.alignment_layer = 63
    student = student_config(teacher, 18)
    assert (student.alignment_layer, student.alignment_head) == (15, 1)
    assert student.layer_types == [*cycle, *three][:18]


@pytest.mark.parametrize("field", ["lyric_length", "lyric_vocab_size"])
def test_lyrics_must_be_the_same(field):
    teacher = lyric_config(["row", "lyric_cross"], 2)
    student = student_config(teacher, 2)
    setattr(student, field, 64)
    with pytest.raises(ValueError, match=f"`{field}` is 64 in the student"):
        check_student(student, teacher)


def test_a_deeper_student_is_refused(tiny_config):
    teacher = tiny_config.prior_configs[1]
    with pytest.raises(ValueError, match=r"the student has 2 \(of 4 layers\), the teacher 1 \(of 3\)"):
        check_student(student_config(teacher, 4), teacher)
