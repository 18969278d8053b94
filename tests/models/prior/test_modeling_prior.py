import math
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Trainer, TrainingArguments

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.models.prior.modeling_prior import sinusoids


def test_output_shapes_and_loss(make_prior, make_inputs, kind):
    prior = make_prior(**kind)
    config = prior.config
    inputs = make_inputs(config)
    output = prior(**inputs, labels=inputs["codes"], output_hidden_states=True, output_attentions=True)
    assert output.logits.shape == (2, 24, 13)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 24, 32)] * config.num_hidden_layers
    assert len(output.attention_residuals) == len(output.attentions) == config.num_hidden_layers
    chosen = output.logits.log_softmax(-1).gather(-1, inputs["codes"].unsqueeze(-1))
    torch.testing.assert_close(output.loss, -chosen.mean())
    plain = prior(**inputs)
    assert plain.loss is None
    assert plain.hidden_states is None
    assert plain.attentions is None
    torch.testing.assert_close(plain.logits, output.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 4, 6, 8, 20])
def test_a_shorter_window_is_the_beginning_of_the_whole(make_prior, length):
    prior = make_prior(layer_types=["row", "column", "previous_row", "dense"], num_hidden_layers=4)
    codes = torch.randint(0, 13, (2, 24))
    torch.testing.assert_close(prior(codes[:, :length]).logits, prior(codes).logits[:, :length], atol=1e-5, rtol=1e-5)


def test_position_t_sees_codes_before_t_only(make_prior):
    prior = make_prior(layer_types=["dense"])
    codes = torch.randint(0, 13, (1, 24))
    changed = codes.clone()
    changed[0, 10] = (codes[0, 10] + 1) % 13
    difference = (prior(codes).logits - prior(changed).logits).abs().amax((0, 2))
    assert not difference[:11].any()
    assert (difference[11:] > 0).all()


def test_walking_the_blocks_equals_forward(make_prior, make_inputs, kind):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config)
    output = prior(**inputs, output_hidden_states=True)
    hidden, conditioning = prior.embed(**inputs)
    for block, state, residual in zip(prior.blocks, output.hidden_states, output.attention_residuals, strict=True):
        hidden, attention_residual, _ = block(hidden)
        assert torch.equal(hidden, state)
        assert torch.equal(attention_residual, residual)
    assert torch.equal(prior.head(hidden, conditioning), output.logits)


def test_conditioning_after_and_tied_output(make_prior, make_inputs):
    inputs = None
    for tied in (True, False):
        for after in (True, False):
            prior = make_prior(upsampling_strides=[2, 2], tie_word_embeddings=tied, add_conditioning_after=after)
            inputs = inputs or make_inputs(prior.config)
            output = prior(**inputs, output_hidden_states=True)
            hidden = output.hidden_states[-1]
            if after:
                hidden = hidden + prior.condition(2, 24, inputs["upper_codes"]).positions
            matrix = prior.code_embedding.weight if tied else prior.output.weight
            assert ("output.weight" in prior.state_dict()) != tied
            torch.testing.assert_close(output.logits, hidden @ matrix.T, atol=1e-5, rtol=1e-5)


def sampled_logits(prior, inputs, prompt):
    """Logits from `prompt` on by prefill and steps."""
    codes = inputs["codes"]
    songs, length = codes.shape
    conditions = {name: value for name, value in inputs.items() if name != "codes"}
    conditioning, cache = prior.condition(songs, length, **conditions), prior.new_cache(songs)
    logits = [prior.prefill(codes[:, :prompt], conditioning, cache)]
    for position in range(prompt + 1, length):
        logits.append(prior.step(codes[:, position - 1], position, conditioning, cache))
    return torch.stack(logits, dim=1)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_prefill_and_steps_equal_the_whole(make_prior, make_inputs, kind, data):
    prior = make_prior(**kind)
    ratio = prior.config.upper_ratio
    length = ratio * data.draw(st.integers(1, 24 // ratio), label="length")
    prompt = data.draw(st.integers(0, length - 1), label="prompt")
    inputs = make_inputs(prior.config, songs=data.draw(st.integers(1, 5), label="songs"), length=length)
    whole = prior(**inputs).logits[:, prompt:]
    torch.testing.assert_close(sampled_logits(prior, inputs, prompt), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", range(24))
def test_every_prompt_length(make_prior, make_inputs, prompt):
    prior = make_prior(layer_types=["row", "column", "previous_row", "dense"], num_hidden_layers=4)
    inputs = make_inputs(prior.config)
    whole = prior(**inputs).logits[:, prompt:]
    torch.testing.assert_close(sampled_logits(prior, inputs, prompt), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [0, 1, 7])
@pytest.mark.parametrize("width", [32, 36, 90, 180, 384])
def test_a_songs_logits_do_not_depend_on_the_batch(make_prior, make_inputs, prompt, width):
    prior = make_prior(upsampling_strides=[2, 2], hidden_size=width, num_attention_heads=1, num_hidden_layers=4)
    inputs = make_inputs(prior.config, songs=13)
    together = sampled_logits(prior, inputs, prompt)
    for songs in (1, 2, 3, 4, 5, 8, 9, 12):
        fewer = {name: value[:songs] for name, value in inputs.items()}
        assert torch.equal(sampled_logits(prior, fewer, prompt), together[:songs])


def test_prefill_overwrites_a_used_cache(make_prior, make_inputs):
    prior = make_prior()
    codes = make_inputs(prior.config)["codes"]
    conditioning, cache = prior.condition(2, 24), prior.new_cache(2)
    first = prior.prefill(codes[:, :3], conditioning, cache)
    prior.prefill(codes[:, :20], conditioning, cache)
    assert torch.equal(prior.prefill(codes[:, :3], conditioning, cache), first)


def test_steps_need_no_gradients_and_leave_no_state(make_prior, make_inputs):
    prior = make_prior()
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in prior.named_modules()}
    logits = sampled_logits(prior, make_inputs(prior.config), 5)
    assert not logits.requires_grad
    assert attributes == {name: set(vars(module)) for name, module in prior.named_modules()}
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())


def test_generate_greedily_equals_the_whole(make_prior, make_inputs, kind):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config)
    conditions = {name: value for name, value in inputs.items() if name != "codes"}
    codes = prior.generate(2, prompt=inputs["codes"][:, :5], do_sample=False, **conditions)
    assert torch.equal(codes[:, :5], inputs["codes"][:, :5])
    logits = prior(codes, **conditions).logits[:, 5:]
    best = logits.topk(2, dim=-1)
    clear = best.values[..., 0] - best.values[..., 1] > 1e-4
    assert torch.equal(codes[:, 5:][clear], best.indices[..., 0][clear])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_runs(make_prior, make_inputs, kind, dtype):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config)
    wanted = prior(**inputs).logits
    prior.to(dtype)
    output = prior(**inputs, labels=inputs["codes"], output_attentions=True)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    scale = float(wanted.abs().max())
    assert float((output.logits.float() - wanted).abs().max()) < 0.05 * scale
    steps = sampled_logits(prior, inputs, 3)
    assert steps.dtype == dtype
    assert float((steps.float() - wanted[:, 3:]).abs().max()) < 0.05 * scale


def enable_checkpointing(prior, arguments):
    # transformers renames it in the course of version 5.
    enable = getattr(prior, "activation_checkpointing_enable", None) or prior.gradient_checkpointing_enable
    enable(arguments)
    assert all(block.gradient_checkpointing for block in prior.blocks)


def test_gradient_checkpointing_changes_nothing(make_prior, make_inputs, kind):
    prior = make_prior(**kind).train()
    inputs = make_inputs(prior.config)
    results = []
    for arguments in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        if arguments is not None:
            enable_checkpointing(prior, arguments)
        prior.zero_grad()
        output = prior(**inputs, labels=inputs["codes"], output_hidden_states=True, output_attentions=True)
        output.loss.backward()
        results.append((output.loss.detach(), {name: p.grad.clone() for name, p in prior.named_parameters()}))
    loss, gradients = results[0]
    for other_loss, other_gradients in results[1:]:
        torch.testing.assert_close(other_loss, loss, atol=1e-5, rtol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_every_parameter_learns(make_prior, make_inputs, kind):
    prior = make_prior(**kind).train()
    inputs = make_inputs(prior.config, songs=8)
    prior(**inputs, labels=inputs["codes"]).loss.backward()
    assert [name for name, p in prior.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_ignored_labels_and_num_items(make_prior, make_inputs):
    prior = make_prior()
    codes = make_inputs(prior.config)["codes"]
    labels = codes.clone()
    labels[:, :20] = -100
    output = prior(codes, labels=labels)
    chosen = output.logits.log_softmax(-1).gather(-1, codes.unsqueeze(-1))[:, 20:]
    torch.testing.assert_close(output.loss, -chosen.mean())
    torch.testing.assert_close(prior(codes, labels=labels, num_items_in_batch=16).loss, -chosen.sum() / 16)
    assert prior(codes, labels=torch.full_like(codes, -100)).loss == 0


def test_a_fresh_prior_predicts_evenly(tiny_config, make_inputs, kind):
    prior = FastJukeboxPrior(tiny_config(**kind))
    inputs = make_inputs(prior.config)
    loss = prior(**inputs, labels=inputs["codes"]).loss
    assert abs(loss.item() - math.log(13)) < 0.2
    assert 0.015 < prior.position_embedding.std() < 0.025


def test_save_and_load_are_equal(make_prior, make_inputs, kind, tmp_path):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config)
    prior.save_pretrained(tmp_path)
    for loaded in (FastJukeboxPrior.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, FastJukeboxPrior)
        assert torch.equal(loaded.eval()(**inputs).logits, prior(**inputs).logits)
        assert loaded.state_dict().keys() == prior.state_dict().keys()
        assert list(loaded.named_buffers()) == []


def test_what_a_file_lacks_is_initialised(make_prior, kind, tmp_path):
    prior = make_prior(**kind)
    prior.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    bare = [name for name in ("position_embedding", "start_token") if name in tensors]
    others = ["code_embedding.weight", "blocks.0.attention.qkv.weight", "blocks.1.mlp_norm.weight"]
    others += [name for name in tensors if name.startswith("upper_conditioner.stage.upsamplers.0")]
    for dropped in bare + others:
        save_file({name: value for name, value in tensors.items() if name != dropped}, file, metadata={"format": "pt"})
        loaded = FastJukeboxPrior.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
        value = loaded.get_parameter(dropped)
        assert value.isfinite().all(), dropped
        assert value.std() < 1, dropped
        for name, kept in loaded.state_dict().items():
            assert name == dropped or torch.equal(kept, tensors[name])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_implementations_agree(make_prior, make_inputs, tmp_path, implementation):
    prior = make_prior(layer_types=["row", "column", "previous_row", "dense"], num_hidden_layers=4)
    inputs = make_inputs(prior.config)
    prior.save_pretrained(tmp_path)
    loaded = FastJukeboxPrior.from_pretrained(tmp_path, attn_implementation=implementation).eval()
    assert loaded.config._attn_implementation == implementation
    torch.testing.assert_close(loaded(**inputs).logits, prior(**inputs).logits, atol=1e-5, rtol=1e-5)
    weights = loaded(**inputs, output_attentions=True).attentions
    for one, other in zip(weights, prior(**inputs, output_attentions=True).attentions, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_half_precision_files_keep_their_dtype(make_prior, tmp_path):
    make_prior().to(torch.bfloat16).save_pretrained(tmp_path)
    assert FastJukeboxPrior.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert FastJukeboxPrior.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_trainer_trains_it(tiny_config, tmp_path):
    config = tiny_config()
    prior = FastJukeboxPrior(config)
    windows = [{"codes": torch.arange(start, start + 24) % 13} for start in range(8)]
    windows = [{**window, "labels": window["codes"].clone()} for window in windows]
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=25,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model=prior, args=arguments, train_dataset=windows, eval_dataset=windows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_compiles_in_one_graph(make_prior, make_inputs, half):
    prior = make_prior(
        upsampling_strides=[2, 2], num_artists=5, num_genres=4, use_timing=True, min_duration=1.0, conditioner_depth=1
    )
    inputs = make_inputs(prior.config)
    inputs["labels"] = inputs["codes"]
    torch.compiler.reset()
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        warnings.simplefilter("ignore")
        compiled = torch.compile(prior, backend="eager", fullgraph=True)
        output, wanted = compiled(**inputs), prior(**inputs)
    tolerance = 0.02 if half else 1e-5
    torch.testing.assert_close(output.logits, wanted.logits, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(output.loss, wanted.loss, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 25, dtype=torch.int64), "codes.*1 to 24.*25"),
        (torch.zeros(1, 0, dtype=torch.int64), "codes.*1 to 24.*0"),
        (torch.zeros(0, 4, dtype=torch.int64), "codes.*at least 1.*0"),
        (torch.full((1, 4), 13), r"codes.*from 0 to 12.*13"),
        (torch.zeros(1, 4), "codes.*int64"),
        (torch.zeros(4, dtype=torch.int64), r"codes.*\(batch, length\)"),
    ],
)
def test_bad_codes_are_named(make_prior, codes, message):
    with pytest.raises(ValueError, match=message):
        make_prior()(codes)


def test_bad_labels_are_named(make_prior, make_inputs):
    prior = make_prior()
    codes = make_inputs(prior.config)["codes"]
    with pytest.raises(ValueError, match=r"labels.*\(2, 24\).*\(2, 23\)"):
        prior(codes, labels=codes[:, 1:])
    with pytest.raises(ValueError, match=r"labels.*from 0 to 12 or -100.*13"):
        prior(codes, labels=torch.full_like(codes, 13))


def test_bad_sampling_arguments_are_named(make_prior):
    prior = make_prior()
    codes = torch.zeros(2, 24, dtype=torch.int64)
    conditioning, cache = prior.condition(2, 8), prior.new_cache(2)
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        prior.new_cache(0)
    with pytest.raises(ValueError, match=r"length.*1 to 24.*25"):
        prior.condition(2, 25)
    with pytest.raises(ValueError, match=r"codes.*fewer than 8.*8"):
        prior.prefill(codes[:, :8], conditioning, cache)
    with pytest.raises(ValueError, match=r"codes.*batch size.*\(2\).*3"):
        prior.prefill(codes.new_zeros(3, 4), conditioning, cache)
    with pytest.raises(ValueError, match=r"position.*prefill.*1"):
        prior.step(codes[:, 0], 1, conditioning, cache)
    prior.prefill(codes[:, :6], conditioning, cache)
    with pytest.raises(ValueError, match=r"position.*7.*5"):
        prior.step(codes[:, 0], 5, conditioning, cache)
    prior.step(codes[:, 0], 7, conditioning, cache)
    with pytest.raises(ValueError, match=r"position.*less than 8.*8"):
        prior.step(codes[:, 0], 8, conditioning, cache)


def test_positions_start_as_sinusoids_in_which_a_fixed_step_back_is_one_rotation():
    table = sinusoids(96, 16).double()
    assert table.square().mean().item() == pytest.approx(1.0, abs=0.05)
    # One matrix takes every position to the one before it: what makes "the code before" easy to look up.
    rotation = torch.linalg.lstsq(table[1:], table[:-1]).solution
    torch.testing.assert_close(table[1:] @ rotation, table[:-1], atol=1e-3, rtol=0)
    assert sinusoids(5, 3).shape == (5, 3)
