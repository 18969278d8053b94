import copy
import json
import logging
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.conversion import transformers4
from fast_jukebox.conversion.published import MODELS

WHOLE = ["transformers4_1b_lyrics", "transformers4_5b_lyrics"]


@pytest.fixture(scope="module", params=WHOLE)
def folder(golden_dir, request):
    return golden_dir / request.param


@pytest.fixture(scope="module")
def model(folder):
    return FastJukeboxModel.from_pretrained(folder).eval()


@pytest.fixture
def config(folder):
    return json.loads((folder / "config.json").read_text())


def check(value, wanted):
    torch.testing.assert_close(value, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_whole_model_gives_the_published_numbers(folder, model):
    wanted = load_file(folder / "expected.safetensors")
    codes = model.vqvae.encode(wanted["in/x"][..., 0])
    assert all(torch.equal(own, wanted[f"out/codes_{level}"]) for level, own in enumerate(codes))
    check(model.vqvae.decode(codes), wanted["out/decoded"][..., 0])
    for index in range(3):  # there, prior 0 is the top
        prior, own = model.priors[2 - index], wanted[f"in/prior_{index}/codes"]
        upper, metadata = wanted.get(f"in/prior_{index}/upper_codes"), wanted[f"in/prior_{index}/metadata"]
        output = prior(own, upper, metadata, labels=own, output_hidden_states=True)
        conditioning = prior.embed(own, upper, metadata)[1]
        check(prior.sequence_logits(output.hidden_states[-1], conditioning), wanted[f"out/prior_{index}/logits"])
        check(output.loss / math.log(2), wanted[f"out/prior_{index}/loss_bits"])
    assert model.name_or_path == str(folder)
    assert model.dtype == torch.float32


@torch.no_grad()
def test_a_part_is_loaded_alone(folder):
    wanted = load_file(folder / "expected.safetensors")
    prior = FastJukeboxPrior.from_pretrained(folder, level=1, dtype=torch.float32).eval()
    own = wanted["in/prior_1/codes"]
    output = prior(own, wanted["in/prior_1/upper_codes"], wanted["in/prior_1/metadata"], labels=own)
    check(output.logits, wanted["out/prior_1/logits"])
    vqvae = FastJukeboxVQVAE.from_pretrained(folder)
    assert torch.equal(vqvae.encode(wanted["in/x"][..., 0])[2], wanted["out/codes_2"])
    with pytest.raises(ValueError, match=r"level.*bottom level \(0\).*top level \(2\).*3"):
        FastJukeboxPrior.from_pretrained(folder, level=3)
    with pytest.raises(ValueError, match=r"level.*VQ-VAE.*1"):
        FastJukeboxVQVAE.from_pretrained(folder, level=1)


def test_greedy_codes_of_a_whole_song_are_made(model):
    labels = [torch.zeros(1, prior.config.metadata_length, dtype=torch.int64) for prior in model.priors]
    for own in labels:
        own[:, 0] = 180 * 44100
    song = model.generate(duration=0.2, metadata=labels, do_sample=False)
    assert song.audio.shape == (1, 8820)
    assert song.audio.isfinite().all()


@pytest.mark.parametrize("layout", ["bin shards", "safetensors", "safetensors shards"])
def test_weights_are_found_in_every_file_that_transformers_wrote(golden_dir, tmp_path, layout):
    source = golden_dir / WHOLE[1]
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    shutil.copy(source / "config.json", tmp_path)
    safe = layout.startswith("safetensors")
    if not layout.endswith("shards"):
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    else:
        stem, ending = ("model", "safetensors") if safe else ("pytorch_model", "bin")
        names = {name: f"{stem}-0000{1 + (not name.startswith('priors.0'))}-of-00002.{ending}" for name in tensors}
        for file in set(names.values()):
            shard = {name: tensor.clone() for name, tensor in tensors.items() if names[name] == file}
            save_file(shard, tmp_path / file) if safe else torch.save(shard, tmp_path / file)
        (tmp_path / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": names}))
    read = transformers4.read_tensors(tmp_path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert {name.split(".")[1] for name in transformers4.read_tensors(tmp_path, "priors.0.")} == {"0"}
    if layout.endswith("shards"):  # of one part the other's file is not asked for
        lost = next(file for file in set(names.values()) if "-00002-of" in file)
        (tmp_path / lost).unlink()
        assert transformers4.read_tensors(tmp_path, "priors.0.")
        with pytest.raises(OSError, match=lost):
            transformers4.read_tensors(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": "../x.bin"}}',
    ],
)
def test_an_index_that_is_none_is_named(tmp_path, content):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(ValueError, match="pytorch_model.bin.index.json` must hold"):
        transformers4.read_tensors(tmp_path)


def test_half_precision_weights_stay_half(golden_dir, tmp_path):
    source = golden_dir / WHOLE[0]
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "pytorch_model.bin")
    assert FastJukeboxModel.from_pretrained(tmp_path).dtype == torch.float16
    assert FastJukeboxModel.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_older_names_and_separate_priors_are_understood(config):
    older = copy.deepcopy(config)
    for index, prior in enumerate(older.pop("prior_config_list")):
        prior["depth"], prior["width"] = prior.pop("num_layers"), prior.pop("hidden_size")
        prior["encoder_loss_fraction"] = [0.4, 0.0, 0.0]
        prior["unheard_of"] = 1
        older[f"prior_{index}"] = prior
    assert transformers4.hyperparameters(older) == transformers4.hyperparameters(config)


def test_camel_case_patterns_are_understood(config):
    config["prior_config_list"][1]["attention_pattern"] = "RawColumnPreviousRowAttention"
    assert transformers4.hyperparameters(config)[1][1]["attn_order"] == 2


def published_like(level, **changed):
    """The fields of a prior of the 5B model with lyrics, as transformers has them."""
    published = MODELS["5b_lyrics"][level]
    fields = {name: published[own] for own, name in transformers4._PRIOR_NAMES.items() if own in published}
    pattern = {2: "raw_column_previous_row_attention", 10: "large_separated_enc_dec_w_lyrics"}
    fields["attention_pattern"] = pattern[published["attn_order"]]
    return {**fields, "nb_relevant_lyric_tokens": 0, **changed}


def test_what_a_published_configuration_states_wrongly_is_put_right(caplog):
    encoder = {"hidden_size": 1280, "num_layers": 18, "n_heads": 4, "blocks": 32}
    encoder["attention_pattern"] = "raw_column_previous_row_attention"
    lyrics = {"nb_relevant_lyric_tokens": 512, "is_encoder_decoder": False, "encoder_config": encoder}
    top = published_like(2, blocks=64, alignment_layer=3, alignment_head=0, **lyrics)
    config = {"prior_config_list": [top, published_like(1), published_like(0)]}
    with caplog.at_level(logging.WARNING):
        _, priors = transformers4.hyperparameters(config)
    assert (priors[2]["blocks"], priors[2]["alignment_layer"], priors[2]["alignment_head"]) == (128, 68, 2)
    assert "`blocks` of `prior_config_list[0]` is 64" in caplog.text
    assert "prior_config_list[1]" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_config_list": "abc"}, "prior_config_list.*list of 3.*abc"),
        ({"prior_config_list": [{}, {}]}, "prior_config_list.*list of 3"),
        ({"prior_config_list": None}, "prior_2.*missing"),
        ({"vqvae_config": 3}, "vqvae_config.*mapping.*int"),
        ({"vqvae_config": {"res_downs_t": "3"}}, "downs_t.*vqvae_config.*'3'"),
        ({"vqvae_config": {"conv_res_scale": True}}, "conv_res_scale.*True"),
        ({"sampling_rate": "x"}, "sr.*'x'"),
    ],
)
def test_configurations_that_are_none_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        transformers4.parts_of({**config, **change})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attention_pattern", "spiral", "attention_pattern.*spiral"),
        ("n_ctx", None, "n_ctx.*None"),
        ("blocks", 7, "num_rows.*7"),
        ("metadata_dims", [5], "y_bins.*two numbers"),
        ("merged_decoder", "yes", "merged_decoder.*'yes'"),
    ],
)
def test_fields_of_the_wrong_kind_are_named(config, field, value, message):
    config["prior_config_list"][2][field] = value
    with pytest.raises(ValueError, match=message):
        transformers4.parts_of(config)


def write(folder, golden, change):
    """The golden model with changed tensors."""
    shutil.copy(golden / "config.json", folder)
    tensors = torch.load(golden / "pytorch_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")


def test_all_that_does_not_fit_is_listed(golden_dir, tmp_path):
    def change(tensors):
        tensors["priors.0.stranger"] = torch.zeros(1)
        tensors["priors.0.prior.pos_emb.pos_emb"] = torch.zeros(3, 16)
        tensors["priors.0.encoder.lm_head.weight"] = tensors["priors.0.encoder.lm_head.weight"].long()
        del tensors["priors.0.encoder.start_token"]

    write(tmp_path, golden_dir / WHOLE[1], change)
    message = (
        r"1 missing: priors\.0\.encoder\.start_token; 1 left over: priors\.0\.stranger; "
        r"1 of another shape: priors\.0\.prior\.pos_emb\.pos_emb \(3, 16\), wanted \(64, 16\); "
        r"1 not dense.*priors\.0\.encoder\.lm_head\.weight \(torch\.int64\)"
    )
    for load in (FastJukeboxModel.from_pretrained, lambda path: FastJukeboxPrior.from_pretrained(path, level=2)):
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


def test_tensors_of_no_part_are_listed(golden_dir, tmp_path):
    write(tmp_path, golden_dir / WHOLE[0], lambda tensors: tensors.update({"stranger.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"1 left over: stranger\.weight"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_a_tied_output_must_be_the_embedding(golden_dir, tmp_path):
    def change(tensors):
        tensors["priors.1.prior.fc_proj_out.weight"] = tensors["priors.1.prior.fc_proj_out.weight"] + 1

    write(tmp_path, golden_dir / WHOLE[0], change)
    with pytest.raises(ValueError, match=r"priors\.1\.prior\.fc_proj_out\.weight"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_a_folder_without_weights_is_refused(golden_dir, tmp_path):
    shutil.copy(golden_dir / WHOLE[0] / "config.json", tmp_path)
    with pytest.raises(OSError, match="holds no weights"):
        FastJukeboxModel.from_pretrained(tmp_path)
