"""The lyric encoder, and what lyrics change in a prior of either kind."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.prior.conditioning import LyricEncoder

SONGS = 3


def sampled_logits(prior, inputs, prompt):
    """Logits from `prompt` on by prefill and steps, of the codes."""
    codes = inputs["codes"]
    songs, length = codes.shape
    conditioning, cache = prior.condition(songs, length, metadata=inputs["metadata"]), prior.new_cache(songs)
    logits = [prior.prefill(codes[:, :prompt], conditioning, cache)]
    for position in range(prompt + 1, length):
        logits.append(prior.step(codes[:, position - 1], position, conditioning, cache))
    return torch.stack(logits, dim=1)


def with_lyrics(inputs, lyrics):
    metadata = inputs["metadata"].clone()
    metadata[:, -lyrics.shape[1] :] = lyrics
    return {**inputs, "metadata": metadata}


def test_the_encoder_reads_characters_before_each_state(make_prior, lyric_kind):
    prior = make_prior(**lyric_kind)
    if not prior.config.has_lyric_encoder:
        assert prior.lyric_encoder is None
        return
    assert isinstance(prior.lyric_encoder, LyricEncoder)
    lyrics = torch.randint(0, 10, (1, 8))
    changed = lyrics.clone()
    changed[0, 3] = (lyrics[0, 3] + 1) % 10
    states = prior.lyric_encoder(lyrics)
    assert states.shape == (1, 8, 32)
    assert prior.lyric_encoder.logits(states).shape == (1, 8, 10)
    difference = (states - prior.lyric_encoder(changed)).abs().amax((0, 2))
    assert not difference[:4].any()
    assert difference[4:].all()


def test_losses_are_of_codes_and_characters(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config, SONGS)
    output = prior(**inputs, labels=inputs["codes"], output_hidden_states=True, output_attentions=True)
    prefix = prior.config.lyric_prefix_length
    assert output.logits.shape == (SONGS, 24, 13)
    assert output.hidden_states[0].shape == (SONGS, prefix + 24, 32)
    assert output.lyric_logits.shape == (SONGS, 8, 23 if prefix else 10)
    lyrics = inputs["metadata"][:, -8:]
    character = -output.lyric_logits.log_softmax(-1).gather(-1, lyrics.unsqueeze(-1)).mean()
    torch.testing.assert_close(output.lyric_loss, character)
    conditioning = prior.embed(inputs["codes"], None, inputs["metadata"])[1]
    logits = prior.sequence_logits(output.hidden_states[-1], conditioning)[:, prefix:]
    ids = inputs["codes"] + (10 if prefix else 0)
    code = -logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).mean()
    torch.testing.assert_close(output.code_loss, code)
    torch.testing.assert_close(output.loss, code * 24 / 32 + 0.4 * character * 8 / 32)
    assert prior(**inputs).loss is None
    torch.testing.assert_close(
        prior(**inputs, labels=inputs["codes"], num_items_in_batch=2 * 24 * SONGS).loss, output.loss / 2
    )


def test_walking_the_blocks_equals_forward(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    output = prior(**inputs, output_hidden_states=True)
    hidden, conditioning = prior.embed(inputs["codes"], None, inputs["metadata"])
    for block, state in zip(prior.blocks, output.hidden_states, strict=True):
        hidden = block(hidden, lyric_states=conditioning.lyric_states)[0]
        assert torch.equal(hidden, state)
    torch.testing.assert_close(prior.head(hidden, conditioning), output.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 5, 24])
@pytest.mark.parametrize("prompt", [0, 1, 4, 23])
def test_prefill_and_steps_equal_the_whole(make_prior, make_inputs, lyric_kind, length, prompt):
    if prompt >= length:
        prompt = length - 1
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config, SONGS, length)
    whole = prior(**inputs).logits[:, prompt:]
    stepped = sampled_logits(prior, inputs, prompt)
    assert stepped.shape[-1] == prior.config.vocab_size
    torch.testing.assert_close(stepped[..., :13], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [0, 7])
def test_a_songs_logits_do_not_depend_on_the_batch(make_prior, make_inputs, lyric_kind, prompt):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config, 6)
    together = sampled_logits(prior, inputs, prompt)
    for songs in (1, 3, 5):
        fewer = {name: value[:songs] for name, value in inputs.items()}
        assert torch.equal(sampled_logits(prior, fewer, prompt), together[:songs])


def test_a_used_cache_forgets_the_lyrics_before(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    other = with_lyrics(inputs, (inputs["metadata"][:, -8:] + 1) % 10)
    cache = prior.new_cache(2)
    codes = inputs["codes"][:, :5]
    told = prior.condition(2, 24, metadata=inputs["metadata"])
    first = prior.prefill(codes, told, cache).clone()
    second = prior.prefill(codes, prior.condition(2, 24, metadata=other["metadata"]), cache)
    assert not torch.allclose(first, second)
    assert torch.equal(prior.prefill(codes, told, cache), first)


def test_every_code_hears_every_character(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config, 1)
    lyrics = inputs["metadata"][:, -8:]
    whole = prior(**inputs).logits
    for character in range(8):
        changed = lyrics.clone()
        changed[0, character] = (lyrics[0, character] + 1) % 10
        difference = (prior(**with_lyrics(inputs, changed)).logits - whole).abs().amax((0, 2))
        # Of an encoder's states none has seen the last character; before the codes, the first code sees all.
        assert difference.any() == (character < 7 or prior.config.lyric_prefix_length > 0)


def test_a_drawn_character_goes_on_as_itself_and_is_heard_as_code_0(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    config = prior.config
    if not config.lyric_prefix_length:
        return
    inputs = make_inputs(config, 2)
    table = prior.drawn_rows(prior.code_embedding.weight)
    assert torch.equal(table[:13], prior.code_embedding.weight[10:])
    assert torch.equal(table[13:], prior.code_embedding.weight[:10])
    with torch.no_grad():
        prior.code_embedding.weight[4] *= 50  # a character that is drawn now and then
    codes = prior.generate(2, metadata=inputs["metadata"], seed=1, engine="eager", temperature=3.0)
    assert int(codes.max()) < 13
    conditioning, cache = prior.condition(2, 24, metadata=inputs["metadata"]), prior.new_cache(2)
    prior.prefill(inputs["codes"][:, :3], conditioning, cache)
    as_character = prior.step(torch.tensor([13 + 4, 13 + 4]), 4, conditioning, cache)
    cache.length = 4
    as_code = prior.step(torch.tensor([0, 0]), 4, conditioning, cache)
    assert not torch.allclose(as_character, as_code)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_greedy_generation_equals_the_whole(make_prior, make_inputs, lyric_kind, engine):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    prompt = inputs["codes"][:, :5]
    with torch.no_grad():
        prior.code_embedding.weight[: prior.config.code_offset] *= 0.01  # so that no character is the most probable
    codes = prior.generate(2, prompt=prompt, metadata=inputs["metadata"], do_sample=False, engine=engine)
    best = prior(codes, metadata=inputs["metadata"]).logits[:, 5:].topk(2, dim=-1)
    clear = best.values[..., 0] - best.values[..., 1] > 1e-3
    assert clear.any()
    assert torch.equal(codes[:, 5:][clear], best.indices[..., 0][clear])


def test_every_parameter_learns(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind).train()
    inputs = make_inputs(prior.config, songs=8)
    prior(**inputs, labels=inputs["codes"]).loss.backward()
    assert [name for name, p in prior.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_checkpointing_changes_nothing(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind).train()
    inputs = make_inputs(prior.config)
    gradients = []
    for arguments in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        if arguments is not None:
            enable = getattr(prior, "activation_checkpointing_enable", None) or prior.gradient_checkpointing_enable
            enable(arguments)
        prior.zero_grad()
        prior(**inputs, labels=inputs["codes"]).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in prior.named_parameters()})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_runs(make_prior, make_inputs, lyric_kind, dtype):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    wanted = prior(**inputs).logits
    prior.to(dtype)
    scale = float(wanted.abs().max())
    assert float((prior(**inputs).logits.float() - wanted).abs().max()) < 0.05 * scale
    assert float((sampled_logits(prior, inputs, 3)[..., :13].float() - wanted[:, 3:]).abs().max()) < 0.05 * scale


def test_saved_and_loaded_it_is_the_same(make_prior, make_inputs, lyric_kind, tmp_path):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    prior.save_pretrained(tmp_path)
    for implementation in ("sdpa", "eager"):
        loaded = FastJukeboxPrior.from_pretrained(tmp_path, attn_implementation=implementation).eval()
        torch.testing.assert_close(loaded(**inputs).logits, prior(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert loaded.config.layer_types == prior.config.layer_types


def test_a_fresh_one_starts_small(tiny_config, make_inputs, lyric_kind):
    prior = FastJukeboxPrior(tiny_config(**lyric_kind))
    inputs = make_inputs(prior.config)
    output = prior(**inputs, labels=inputs["codes"])
    ids = prior.config.vocab_size
    assert abs(output.code_loss.item() - torch.tensor(float(ids)).log().item()) < 0.2
    assert all(parameter.isfinite().all() for parameter in prior.parameters())


def test_the_trainer_trains_and_evaluates_it(tiny_config, make_inputs, lyric_kind, tmp_path):
    prior = FastJukeboxPrior(tiny_config(**lyric_kind))
    inputs = make_inputs(prior.config, songs=8)
    windows = [{name: value[song] for name, value in inputs.items()} for song in range(8)]
    windows = [{**window, "labels": window["codes"].clone()} for window in windows]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=6, learning_rate=1e-2, use_cpu=True, report_to=[], disable_tqdm=True
    )
    trainer = Trainer(model=prior, args=arguments, train_dataset=windows, eval_dataset=windows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize("character", [-1, 10])
def test_characters_that_do_not_exist_are_refused(make_prior, make_inputs, lyric_kind, character):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    inputs["metadata"][1, -3] = character
    with pytest.raises(ValueError, match=rf"metadata.*lyrics.*\[0, 10\).*{character}"):
        prior(**inputs)
    with pytest.raises(ValueError, match="metadata.*int64"):
        prior(inputs["codes"], metadata=inputs["metadata"][:, :-1])


def test_a_block_that_attends_to_lyrics_asks_for_them(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config)
    hidden, _ = prior.embed(inputs["codes"], None, inputs["metadata"])
    if prior.config.has_lyric_encoder:
        with pytest.raises(ValueError, match="lyric_states"):
            prior.blocks[1](hidden)
