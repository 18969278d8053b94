import json
import math

import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox.conversion.openai_prior import key_map, prior_config, prior_tensors, transposed_keys
from fast_jukebox.conversion.parts import prior_part
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library

CASES = [
    "top_unconditional",
    "upsampler_bottom_unconditional",
    "upsampler_middle_labelled",
    "top_5b",
    "top_5b_lyrics",
    "top_1b_lyrics",
]
HPARAMS = {
    "level": 0,
    "n_ctx": 24,
    "blocks": 4,
    "prior_width": 16,
    "prior_depth": 3,
    "heads": 2,
    "cond_width": 8,
    "cond_depth": 2,
    "cond_dilation_growth_rate": 3,
}
VQVAE = {"l_bins": 11, "downs_t": [3, 2, 2], "strides_t": [2, 2, 2]}
LABELS = {"labels": True, "y_bins": [5, 7], "max_bow_genre_size": 3}
TIMING = {"t_bins": 8, "min_duration": 1.0, "max_duration": 9.0}
LYRICS = {**LABELS, **TIMING, "level": 2, "use_tokens": True, "n_tokens": 8, "n_vocab": 10}
PREFIX = {**LYRICS, "single_enc_dec": True, "attn_order": 12, "prior_depth": 17}
ENCODER = {
    **LYRICS,
    "single_enc_dec": False,
    "attn_order": 6,
    "prior_depth": 5,
    "merged_decoder": True,
    **{"prime_width": 12, "prime_depth": 2, "prime_heads": 1, "prime_blocks": 4},
}


def convert_prior(state, hparams, vqvae):
    """The prior of published tensors in memory."""
    part = prior_part(prior_config(hparams, vqvae))
    tensors = prior_tensors(state, part.config)
    part.check(tensors, "state_dict")
    prior = FastJukeboxPrior(part.config)
    prior.load_state_dict(dict(part.tensors(tensors)))
    return prior.eval()


class Golden:
    """A golden case: its tensors, and the prior made of its state dict."""

    def __init__(self, folder, name):
        case = json.loads((folder / f"{name}.json").read_text())
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.patterns = case["attn_funcs"]
        state = {key.removeprefix("state/"): value for key, value in self.tensors.items() if key.startswith("state/")}
        vqvae = {key: case[key] for key in ("l_bins", "downs_t", "strides_t")}
        self.prior = convert_prior(state, case["hps"], vqvae)
        self.hop_length = case["raw_to_tokens"]
        self.codes = self.tensors["in/codes"]
        self.conditions = {"upper_codes": self.tensors.get("in/upper_codes"), "metadata": self.tensors.get("in/labels")}

    def check(self, name, value):
        torch.testing.assert_close(value, self.tensors[f"out/{name}"], atol=1e-4, rtol=0)


@pytest.fixture(scope="module", params=CASES)
def golden(request, golden_dir):
    return Golden(golden_dir, request.param)


@torch.no_grad()
def test_golden_whole(golden):
    output = golden.prior(
        golden.codes, **golden.conditions, labels=golden.codes, output_hidden_states=True, output_attentions=True
    )
    config = golden.prior.config
    conditioning = golden.prior.embed(golden.codes, **golden.conditions)[1]
    golden.check("logits", golden.prior.sequence_logits(output.hidden_states[-1], conditioning))
    golden.check("loss_bits", output.loss / math.log(2))
    golden.check("gen_loss_bits", (output.code_loss if config.has_lyrics else output.loss) / math.log(2))
    if config.has_lyrics:
        golden.check("prime_loss_bits", output.lyric_loss / math.log(2))
    assert output.logits.shape == (*golden.codes.shape, config.codebook_size)
    compared = 0
    for layer in range(golden.prior.config.num_hidden_layers):
        if f"out/hidden_{layer}" in golden.tensors:
            golden.check(f"hidden_{layer}", output.hidden_states[layer])
            golden.check(f"attention_{layer}", output.attentions[layer])
            compared += 1
    assert compared == 4


def test_golden_conditioning(golden):
    songs, length = golden.codes.shape
    conditioning = golden.prior.condition(songs, length, **golden.conditions)
    assert ("out/x_cond" in golden.tensors) == (conditioning.positions is not None)
    if conditioning.positions is not None:
        prefix = golden.prior.config.lyric_prefix_length
        golden.check("x_cond", conditioning.positions[:, prefix:])
        assert not conditioning.positions[:, :prefix].any()
    if "out/y_cond" in golden.tensors:
        golden.check("y_cond", conditioning.start)


@pytest.mark.parametrize("engine", ["eager", "native", "graph", "auto"])
@pytest.mark.parametrize("name", ["greedy", "greedy_continued"])
def test_golden_greedy_sampling(golden, name, engine):
    if engine == "native":
        try:
            library()
        except NativeUnavailable as error:
            pytest.skip(str(error))
    songs = golden.codes.shape[0]
    known = int(golden.tensors["in/prompt_len"]) if name == "greedy_continued" else 0
    codes = golden.prior.generate(
        songs, prompt=golden.codes[:, :known], do_sample=False, engine=engine, **golden.conditions
    )
    assert torch.equal(codes, golden.tensors[f"out/{name}"])


def test_golden_config(golden):
    config = golden.prior.config
    words = {0: "dense", 1: "row", 2: "column", 3: "previous_row", 6: "lyric_cross", 7: "lyric_prefix"}
    assert config.layer_types == [words[number] for number in golden.patterns]
    assert config.hop_length == golden.hop_length
    assert not golden.prior.training


def published(config):
    """A state dict under published names for a random prior of a config."""
    prior = FastJukeboxPrior(config)
    tensors, transposed = prior.state_dict(), transposed_keys(config)
    state = {}
    for ours, theirs in key_map(config).items():
        parts = ((theirs, 1),) if isinstance(theirs, str) else theirs
        share = tensors[ours].shape[0] // sum(count for _, count in parts)
        for (name, _), part in zip(parts, tensors[ours].split([share * count for _, count in parts]), strict=True):
            state[name] = (part.T if ours in transposed else part).clone()
    return state, prior


@pytest.mark.parametrize(
    "hparams",
    [
        HPARAMS,
        {**HPARAMS, "level": 2},
        {**HPARAMS, **LABELS, "level": 1, "cond_res_scale": True, "cond_dilation_cycle": 2},
        {**HPARAMS, **LABELS, **TIMING, "level": 2, "merged_decoder": True, "res_scale": True, "attn_order": 9},
        {**HPARAMS, "attn_order": 0},
        {**HPARAMS, **PREFIX},
        {**HPARAMS, **ENCODER},
    ],
)
def test_there_and_back(hparams):
    tensors, prior = published(prior_config(hparams, VQVAE))
    wrapped = {f"module.{name}": value.half() for name, value in tensors.items()}
    converted = convert_prior(wrapped, hparams, VQVAE)
    for name, value in converted.state_dict().items():
        assert torch.equal(value, prior.state_dict()[name].half().float()), name


def test_checkpointed_conditioners_name_their_blocks_otherwise():
    tensors, prior = published(prior_config(HPARAMS, VQVAE))
    renamed = {name.replace(".0.model.", ".0.blocks.", 1): value for name, value in tensors.items()}
    assert renamed.keys() != tensors.keys()
    converted = convert_prior(renamed, HPARAMS, VQVAE)
    assert all(torch.equal(value, prior.state_dict()[name]) for name, value in converted.state_dict().items())


def test_the_tied_output_must_be_the_embedding():
    tensors, _ = published(prior_config(HPARAMS, VQVAE))
    convert_prior({**tensors, "prior.x_out.weight": tensors["prior.x_emb.weight"]}, HPARAMS, VQVAE)
    with pytest.raises(ValueError, match=r"prior\.x_out\.weight"):
        convert_prior({**tensors, "prior.x_out.weight": tensors["prior.x_emb.weight"] + 1}, HPARAMS, VQVAE)


def test_missing_and_left_over_tensors_are_named():
    tensors, _ = published(prior_config(HPARAMS, VQVAE))
    tensors["prior.start"] = tensors.pop("prior.start_token")
    with pytest.raises(ValueError, match=r"1 missing: prior\.start_token; 1 left over: prior\.start$"):
        convert_prior(tensors, HPARAMS, VQVAE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_order": 5}, "attn_order.*5"),
        ({"attn_order": 12, "prior_depth": 16}, "lyric_prefix"),
        ({"attn_order": 6, "prior_depth": 4}, "lyric_cross"),
        ({"level": 3}, "level.*3"),
        ({**LYRICS}, "single_enc_dec"),
        ({**LYRICS, "single_enc_dec": False}, "prime_width"),
        ({**ENCODER, "prime_attn_order": 0}, "prime_attn_order.*0"),
        ({**PREFIX, "n_tokens": 7}, "lyric_length.*7"),
        ({"n_ctx": "24"}, "n_ctx.*whole number.*'24'"),
        ({"res_scale": 1}, "res_scale.*true or false.*1"),
        ({"labels": True}, "y_bins"),
        ({**LABELS, "level": 2}, "t_bins"),
        ({"blocks": 5}, "num_rows.*5"),
    ],
)
def test_bad_hyperparameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        prior_config({**HPARAMS, **change}, VQVAE)


@pytest.mark.parametrize("name", ["n_ctx", "cond_width", "heads", "level"])
def test_missing_hyperparameters_are_named(name):
    with pytest.raises(ValueError, match=f"hparams.*{name}"):
        prior_config({key: value for key, value in HPARAMS.items() if key != name}, VQVAE)


def test_missing_hyperparameters_of_the_vqvae_are_named():
    with pytest.raises(ValueError, match=r"vqvae_hparams.*l_bins"):
        prior_config(HPARAMS, {"downs_t": [3], "strides_t": [2]})


def test_lengths_of_strides_and_downs_must_agree():
    with pytest.raises(ValueError, match=r"strides_t.*3.*\[2\]"):
        prior_config(HPARAMS, {**VQVAE, "strides_t": [2]})


@pytest.mark.parametrize(
    ("order", "depth", "lyrics"),
    [(6, 8, [3, 7]), (7, 32, [15, 31]), (8, 20, [9, 19]), (10, 79, [18, 28, 38, 48, 58, 68, 78])],
)
def test_where_the_published_orders_put_the_encoders_lyrics(order, depth, lyrics):
    config = prior_config({**HPARAMS, **ENCODER, "attn_order": order, "prior_depth": depth}, VQVAE)
    assert [layer for layer, word in enumerate(config.layer_types) if word == "lyric_cross"] == lyrics
    others = [word for word in config.layer_types if word != "lyric_cross"]
    assert others == (["row", "column", "previous_row"] * depth)[: len(others)]


def test_every_sixteenth_layer_of_order_12_sees_lyrics_or_everything():
    patterns = prior_config({**HPARAMS, **PREFIX, "prior_depth": 72}, VQVAE).layer_types
    seen = {layer: word for layer, word in enumerate(patterns) if layer % 16 == 15}
    assert seen == {15: "lyric_prefix", 31: "lyric_prefix", 47: "dense", 63: "lyric_prefix"}
    assert all(
        word == ("row", "column", "previous_row")[layer % 3] for layer, word in enumerate(patterns) if layer not in seen
    )
