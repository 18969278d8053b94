import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPriorConfig
from fast_jukebox.conversion.openai_prior import prior_config
from fast_jukebox.conversion.published import published_model
from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.student import check_student, initialize_student, student_config


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


def published_top(name):
    """The published top prior's patterns and alignment layer, at a tiny width."""
    vqvae, priors = published_model(name)
    config = prior_config(priors[2], vqvae)
    shrunk = {"hidden_size": 32, "lyric_encoder_hidden_size": 16, "codebook_size": 16}
    return FastJukeboxPriorConfig(**{**config.to_dict(), **shrunk})


def grouped(layer_map):
    """Teacher layers that are learnt from, by pattern, and the last of each pattern in the teacher."""
    found, last = {}, {}
    for ours, theirs in layer_map:
        found.setdefault(layer_map.student_patterns[ours], []).append(theirs)
    for layer, word in enumerate(layer_map.teacher_patterns):
        last[word] = layer
    return found, last


@pytest.mark.parametrize("name", ["1b_lyrics", "5b_lyrics"])
@pytest.mark.parametrize("depth", [5, 6, 9, 18, 24, 36])
def test_students_of_the_published_lyric_models_follow_them_to_the_end(name, depth):
    teacher = published_top(name)
    student = student_config(teacher, depth)
    layer_map = check_student(student, teacher)
    # The deeper learns from the deeper, and the last from the last: of each pattern, and of all.
    assert list(layer_map.teacher_layers) == sorted(layer_map.teacher_layers)
    assert layer_map[depth - 1] == teacher.num_hidden_layers - 1
    found, last = grouped(layer_map)
    assert {word: layers[-1] for word, layers in found.items()} == last
    # The layer that shows when which character is sung is still there.
    assert layer_map[student.alignment_layer] == teacher.alignment_layer
    assert student.alignment_head == teacher.alignment_head


def test_the_1b_lyrics_student_of_18_layers():
    layer_map = check_student(student_config(published_top("1b_lyrics"), 18), published_top("1b_lyrics"))
    assert list(layer_map.teacher_layers[-4:]) == [63, 69, 70, 71] and 47 in layer_map.teacher_layers
    shares = {word: layer_map.student_patterns.count(word) for word in dict.fromkeys(layer_map.student_patterns)}
    assert shares == {"column": 6, "row": 5, "previous_row": 5, "dense": 1, "lyric_prefix": 1}


def test_a_student_as_deep_as_a_lyric_teacher_is_its_like():
    teacher = published_top("5b_lyrics")
    assert student_config(teacher, 79).to_dict() == teacher.to_dict()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 60))
def test_any_lyric_teacher_and_depth(data, layers):
    words = ["row", "column", "previous_row", "dense"]
    patterns = data.draw(st.lists(st.sampled_from([*words, "lyric_cross"]), min_size=layers, max_size=layers))
    patterns[data.draw(st.integers(0, layers - 1))] = "lyric_cross"
    teacher = lyric_config(patterns, layers)
    teacher.alignment_layer = data.draw(st.sampled_from([i for i, w in enumerate(patterns) if w == "lyric_cross"]))
    depth = data.draw(st.integers(len(set(patterns)), layers))
    layer_map = check_student(student := student_config(teacher, depth), teacher)
    assert len(student.layer_types) == depth and set(student.layer_types) == set(patterns)
    assert list(layer_map.teacher_layers) == sorted(layer_map.teacher_layers)
    found, last = grouped(layer_map)
    assert {word: own[-1] for word, own in found.items()} == last
    total = sum(patterns.count(word) for word in found)
    for word, own in found.items():
        least = 2 if word == "lyric_cross" else 1
        assert len(own) <= max(least, -(-depth * patterns.count(word) // total))
    if student.layer_types.count("lyric_cross") > 1 or teacher.alignment_layer == last["lyric_cross"]:
        assert layer_map[student.alignment_layer] == teacher.alignment_layer
    else:
        assert student.alignment_layer is None and depth == len(found)


def test_a_student_made_of_the_teachers_first_patterns_is_accepted():
    teacher = lyric_config([*(["row", "column", "previous_row"] * 5), "lyric_cross"], 32)
    student = student_config(teacher, 18)
    first = list(teacher.layer_types[:18])
    assert student.layer_types != first
    student.layer_types = first
    assert check_student(student, teacher)[17] == 29


def test_a_student_too_shallow_for_the_lyrics_is_refused():
    teacher = lyric_config(["row", "column", "lyric_cross"], 12)
    match = "pattern 'lyric_cross'.*at least 3, one for each of row, column, lyric_cross, got 2"
    with pytest.raises(ValueError, match=match):
        student_config(teacher, 2)
    prefix = FastJukeboxPriorConfig(
        **{**teacher.to_dict(), "lyric_encoder_layers": None, "layer_types": ["row", "column", "lyric_prefix"] * 4}
    )
    with pytest.raises(ValueError, match="pattern 'lyric_prefix'"):
        student_config(prefix, 2)


def test_a_student_too_shallow_for_other_patterns_says_so(tiny_config, caplog):
    teacher = tiny_config.prior_configs[0]
    check_student(student_config(teacher, 3), teacher)
    assert not caplog.messages
    check_student(student_config(teacher, 2), teacher)
    assert "a student of 2 layers has none of the attention pattern 'previous_row'" in caplog.text


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
