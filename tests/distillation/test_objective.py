import copy

import pytest
import torch
from torch import nn

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.losses import (
    INTERMEDIATE_TERMS,
    LOSSES,
    TERMS,
    attention_mse,
    hidden_state_mse,
    prediction_cross_entropy,
)
from fast_jukebox.distillation.objective import DistillationObjective
from fast_jukebox.distillation.student import initialize_student, student_config

EVERYTHING = dict.fromkeys(TERMS, 1.0)


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("length", [None, 10])
def test_terms_are_those_of_two_whole_forwards(pair, batch, level, length):
    teacher, student = pair(level, teacher=8, student=4)
    inputs = batch(student.config, length=length)
    objective = DistillationObjective(student, teacher)
    output = objective(**inputs, weights=EVERYTHING, temperature=2.0)

    with torch.no_grad():
        ours, theirs = (
            model(**inputs, output_hidden_states=True, output_attentions=True) for model in (student, teacher)
        )
    pairs = list(objective.layer_map)
    expected = {
        "attention_residual": [
            hidden_state_mse(ours.attention_residuals[s], theirs.attention_residuals[t]) for s, t in pairs
        ],
        "hidden_states": [hidden_state_mse(ours.hidden_states[s], theirs.hidden_states[t]) for s, t in pairs],
        "attentions": [
            attention_mse(
                ours.attentions[s],
                theirs.attentions[t],
                student.blocks[s].attention.pattern,
                inputs["codes"].shape[1],
            )
            for s, t in pairs
        ],
        "prediction": [prediction_cross_entropy(ours.logits, theirs.logits, 2.0)],
        "data": [ours.loss],
    }
    for name, values in expected.items():
        assert output.terms[name] > 0
        torch.testing.assert_close(output.terms[name], torch.stack(values).mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.loss.detach(), sum(output.terms.values()))
    torch.testing.assert_close(output.logits.detach(), ours.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.teacher_logits, theirs.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["prefix", "encoder"])
def test_lyrics_are_heard_by_both(words_config, kind):
    config = words_config.prior_configs[2]
    if kind == "prefix":
        fields = {"layer_types": ["row", "lyric_prefix"], "lyric_encoder_layers": None, "alignment_layer": 1}
        config = type(config)(**{**config.to_dict(), **fields})
    config.num_hidden_layers = 8
    teacher, student = FastJukeboxPrior(config), FastJukeboxPrior(student_config(config, 4))
    objective = DistillationObjective(student, teacher)
    codes = torch.randint(16, (2, 20))
    metadata = torch.cat([torch.tensor([[9600, 0, 384, 1, 1]] * 2), torch.randint(1, 79, (2, 12))], dim=1)
    output = objective(codes, metadata=metadata, weights=EVERYTHING)
    with torch.no_grad():
        ours, theirs = (
            model(codes, metadata=metadata, labels=codes, output_hidden_states=True, output_attentions=True)
            for model in (student, teacher)
        )
    pairs = list(objective.layer_map)
    hidden = [hidden_state_mse(ours.hidden_states[s], theirs.hidden_states[t]) for s, t in pairs]
    torch.testing.assert_close(output.terms["hidden_states"], torch.stack(hidden).mean(), rtol=1e-4, atol=1e-6)
    length = ours.hidden_states[0].shape[1]
    attentions = [
        attention_mse(ours.attentions[s], theirs.attentions[t], student.blocks[s].attention.pattern, length)
        for s, t in pairs
    ]
    torch.testing.assert_close(output.terms["attentions"], torch.stack(attentions).mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.logits.detach(), ours.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.teacher_logits, theirs.logits, rtol=1e-4, atol=1e-5)
    silent = metadata.clone()
    silent[:, 5:] = 0
    assert not torch.allclose(objective(codes, metadata=silent, weights=EVERYTHING).teacher_logits, theirs.logits)
    output.loss.backward()
    heard = student.code_embedding.weight if kind == "prefix" else student.lyric_encoder.character_embedding.weight
    assert heard.grad.abs().sum() > 0


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_student_equal_to_its_teacher_has_no_intermediate_loss(pair, batch, level):
    teacher, student = pair(level, teacher=6, student=6)
    initialize_student(student, teacher)
    objective = DistillationObjective(student, teacher)
    output = objective(**batch(student.config), weights=EVERYTHING)
    for name in INTERMEDIATE_TERMS:
        assert output.terms[name] == 0.0
    entropy = prediction_cross_entropy(output.teacher_logits, output.teacher_logits)
    torch.testing.assert_close(output.terms["prediction"], entropy)


def test_weights_multiply_and_terms_without_weight_are_left_out(pair, batch):
    teacher, student = pair()
    objective = DistillationObjective(student, teacher)
    inputs = batch(student.config)
    terms = objective(**inputs, weights=EVERYTHING).terms
    output = objective(**inputs, weights={"hidden_states": 0.5, "data": 2.0, "prediction": 0})
    assert set(output.terms) == {"hidden_states", "data"}
    torch.testing.assert_close(output.loss.detach(), 0.5 * terms["hidden_states"] + 2.0 * terms["data"])
    assert output.teacher_logits is None


def test_the_loss_is_the_share_of_the_accumulated_batches(pair, batch):
    teacher, student = pair()
    objective = DistillationObjective(student, teacher)
    inputs = batch(student.config, songs=4)
    whole = objective(**inputs, weights=EVERYTHING).loss
    parts = [
        objective(
            **{name: value[part] for name, value in inputs.items()},
            weights=EVERYTHING,
            num_items_in_batch=inputs["labels"].numel(),
        ).loss
        for part in (slice(0, 3), slice(3, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_gradients_reach_the_student_and_nothing_else(pair, batch):
    teacher, student = pair()
    objective = DistillationObjective(student, teacher).train()
    assert not teacher.training and student.training
    assert {name for name, _ in objective.named_parameters()} == {
        f"student.{name}" for name, _ in student.named_parameters()
    }
    assert objective.state_dict().keys() == {f"student.{name}" for name in student.state_dict()}
    objective(**batch(student.config), weights=EVERYTHING).loss.backward()
    assert all(weight.grad is not None for weight in student.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())


def test_no_more_of_the_teacher_is_kept_than_waits_for_the_student(pair, batch):
    """Of a teacher whose depth divides, no mapped activation outlives the layer that learns from it."""
    teacher, student = pair(teacher=12, student=3)
    objective = DistillationObjective(student, teacher)
    steps = []
    for name, model in (("teacher", teacher), ("student", student)):
        for layer, block in enumerate(model.blocks):
            block.register_forward_hook(lambda *_, key=(name, layer): steps.append(key))
    objective(**batch(student.config), weights=LOSSES["intermediate"])
    expected, done = [], 0
    for ours, theirs in objective.layer_map:
        expected += [("student", ours), *(("teacher", layer) for layer in range(done, theirs + 1))]
        done = theirs + 1
    assert steps == expected


def test_layers_that_cross_wait_for_each_other(pair, batch):
    teacher, student = pair(teacher=10, student=5)
    objective = DistillationObjective(student, teacher)
    assert sorted(objective.layer_map.teacher_layers) != list(objective.layer_map.teacher_layers)
    assert objective(**batch(student.config), weights=EVERYTHING).loss.isfinite()


def test_other_widths_are_projected(pair, batch):
    teacher, student = pair(hidden_size=8)
    objective = DistillationObjective(student, teacher)
    assert isinstance(objective.projection, nn.Linear)
    assert objective.projection.weight.shape == (16, 8)
    objective(**batch(student.config), weights=LOSSES["intermediate"]).loss.backward()
    assert objective.projection.weight.grad.abs().sum() > 0
    assert isinstance(DistillationObjective(*reversed(pair())).projection, nn.Identity)


def test_a_teacher_of_lower_precision_teaches_nearly_the_same(pair, batch):
    teacher, student = pair(level=2)
    inputs = batch(student.config)
    exact = DistillationObjective(student, teacher)(**inputs, weights=EVERYTHING)
    rough = DistillationObjective(student, copy.deepcopy(teacher).bfloat16())(**inputs, weights=EVERYTHING)
    assert rough.loss.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact.loss, rtol=0.03, atol=0)


def test_checkpointed_gradients_are_the_same(pair, batch):
    teacher, student = pair()
    inputs = batch(student.config)
    objective = DistillationObjective(student, teacher).train()
    objective(**inputs, weights=EVERYTHING).loss.backward()
    plain = [weight.grad.clone() for weight in student.parameters()]
    objective.zero_grad()
    newer = hasattr(student, "activation_checkpointing_enable")
    (objective.activation_checkpointing_enable if newer else objective.gradient_checkpointing_enable)()
    assert student.blocks[0].gradient_checkpointing
    objective(**inputs, weights=EVERYTHING).loss.backward()
    for weight, expected in zip(student.parameters(), plain, strict=True):
        torch.testing.assert_close(weight.grad, expected)


def test_it_compiles_in_one_graph(pair, batch):
    teacher, student = pair(2, teacher=8, student=4)
    objective, inputs = DistillationObjective(student.train(), teacher), batch(student.config)
    torch.compiler.reset()
    loss = torch.compile(objective, backend="eager", fullgraph=True)(**inputs, weights=EVERYTHING).loss
    torch.testing.assert_close(loss, objective(**inputs, weights=EVERYTHING).loss)


def test_attentions_of_other_heads_are_not_compared(pair, batch):
    teacher, student = pair(num_attention_heads=2)
    objective = DistillationObjective(student, teacher)
    inputs = batch(student.config)
    with pytest.raises(ValueError, match="`num_attention_heads` must be the same .* 2 in the student and 1 in the"):
        objective(**inputs, weights=EVERYTHING)
    assert objective(**inputs, weights={"hidden_states": 1.0}).loss > 0


def test_a_model_is_not_its_own_teacher(pair):
    teacher, _ = pair()
    with pytest.raises(ValueError, match="`student` must be another model"):
        DistillationObjective(teacher, teacher)


@pytest.mark.parametrize("depths", [(6, 2), (12, 3)])
def test_a_map_of_other_models_is_refused(pair, depths):
    other_teacher, other_student = pair(1, *depths)
    layer_map = LayerMap.from_configs(other_teacher.config, other_student.config)
    teacher, student = pair(1, 6, 3)
    what = "student_patterns" if depths[0] == 6 else "teacher_patterns"
    with pytest.raises(ValueError, match=f"`layer_map` must be of these two models, but its `{what}` are"):
        DistillationObjective(student, teacher, layer_map)
    with pytest.raises(ValueError, match=f"`layer_map` must be of these two models, but its `{what}` are"):
        initialize_student(student, teacher, layer_map)
