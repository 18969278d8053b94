"""The whole way at toy size: songs, VQ-VAE, codes, priors, a model that sounds."""

import copy
import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxProcessor, FastJukeboxVQVAE
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.labelling import label_songs
from fast_jukebox.labelling.dataset import LabelSettings


def test_songs_become_a_model_that_sounds(scripts, songs, tiny_config, tmp_path, training_options):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")
    arguments = [
        "--songs", str(songs), "--test_fraction", "0.3", "--config_name", str(tmp_path / "vqvae-config"),
        "--window", "640", "--output_dir", str(tmp_path / "vqvae"), *training_options,
    ]  # fmt: skip
    figures = scripts["run_vqvae"].main([*arguments, "--max_steps", "3"])
    assert {f"eval_snr_{level}" for level in range(3)} <= figures.keys()
    vqvae = FastJukeboxVQVAE.from_pretrained(tmp_path / "vqvae")
    assert vqvae.config.bandwidth_l2 == pytest.approx(0.125, rel=0.05)

    for level, config in enumerate(tiny_config.prior_configs):
        config.save_pretrained(tmp_path / f"config-{level}")
        figures = scripts["run_prior"].main(
            [
                "--songs",
                str(songs),
                "--test_fraction",
                "0.3",
                "--vqvae",
                str(tmp_path / "vqvae"),
                "--codes",
                str(tmp_path / "codes"),
                "--config_name",
                str(tmp_path / f"config-{level}"),
                "--level",
                str(level),
                "--output_dir",
                str(tmp_path / f"prior-{level}"),
                "--max_steps",
                "2",
                *training_options,
            ]
        )
        assert 0 < figures["eval_bits_per_code"] < 10
        assert FastJukeboxPrior.from_pretrained(tmp_path / f"prior-{level}").config.level == level

    model = FastJukeboxModel.from_levels(
        vqvae=tmp_path / "vqvae", priors=[tmp_path / f"prior-{level}" for level in range(3)]
    )
    output = model.generate(duration=0.5, seed=0)
    assert output.audio.shape == (1, 800)
    assert output.audio.isfinite().all()


def test_priors_are_told_what_the_songs_tell(scripts, songs, tiny_config, tmp_path, training_options, monkeypatch):
    lines = [
        {"file_name": f"{index}.wav", "artist": ["Ann", "Bob", None][index % 3], "genre": "Slow Pop", "lyrics": text}
        for index, text in enumerate(["la la la", None, "Where the wind blows, there I go", None, None, "ah"])
    ]
    (songs / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    FastJukeboxVQVAE(tiny_config.vqvae_config).save_pretrained(tmp_path / "vqvae")
    monkeypatch.setattr(FastJukeboxConfig, "preset", classmethod(lambda cls, name: copy.deepcopy(tiny_config)))
    script = scripts["run_prior"]
    arguments = [
        "--songs", str(songs), "--test_fraction", "0.3", "--vqvae", str(tmp_path / "vqvae"), "--codes",
        str(tmp_path / "codes"), "--labels", "true", "--genre_words", "2", "--lyric_length", "8", "--label_dropout",
        "0.2", "--max_steps", "2", *training_options,
    ]  # fmt: skip
    for level in range(3):
        figures = script.main(
            [*arguments, "--level", str(level), "--layers", "4", "--output_dir", str(tmp_path / f"prior-{level}")]
        )
        assert ("eval_bits_per_character" in figures) == (level == 2)
    # A prior is trained on with the names it has.
    named = [*arguments[:8], *arguments[-len(training_options) :], "--max_steps", "1"]
    script.main([*named, "--model_name_or_path", str(tmp_path / "prior-2"), "--output_dir", str(tmp_path / "more")])
    assert (tmp_path / "more" / "vocabulary.json").read_text() == (tmp_path / "prior-2" / "vocabulary.json").read_text()

    model = FastJukeboxModel.from_levels(tmp_path / "vqvae", [tmp_path / f"prior-{level}" for level in range(3)])
    vocabulary = model.processor.vocabularies[0]
    assert set(vocabulary.genres) == {"unknown", "slow", "pop"} and vocabulary.genre_words
    assert set(vocabulary.artists) <= {"unknown", "ann", "bob"}
    top = model.priors[2].config
    assert (top.lyric_length, top.use_timing, top.layer_types[3]) == (8, True, "lyric_prefix")
    song = model.generate(duration=0.2, seed=0, metadata={"genre": "pop", "lyrics": "la la la, long enough"})
    assert song.audio.isfinite().all()
    with pytest.raises(ValueError, match="`--labels` must be true where"):
        script.main([*named, "--lyric_length", "8", "--output_dir", str(tmp_path / "out")])


def named_songs(songs, names):
    """Two songs a name, of which the metadata hold out none."""
    lines = [
        {
            "file_name": f"{index}.wav",
            "artist": names[index // 2],
            "genre": "Pop",
            "split": ["train", "test"][index % 2],
        }
        for index in range(2 * len(names))
    ]
    (songs / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_a_model_learns_the_names_of_new_songs_and_keeps_its_own(
    scripts, songs, tiny_config, tmp_path, training_options, capsys
):
    torch.manual_seed(1)
    FastJukeboxVQVAE(tiny_config.vqvae_config).save_pretrained(tmp_path / "vqvae")
    tiny_config.prior_configs[2].save_pretrained(tmp_path / "config")
    shared = ["--songs", str(songs), "--vqvae", str(tmp_path / "vqvae"), "--max_steps", "3", *training_options]
    for number, names in enumerate((["Ann", "Bob"], ["Cleo", "Bob"], ["Ann", "Dora", "Abe"])):
        named_songs(songs, names)
        arguments = [*shared, "--codes", str(tmp_path / f"codes-{number}"), "--output_dir", str(tmp_path / str(number))]
        if number == 0:
            arguments += ["--config_name", str(tmp_path / "config"), "--labels", "true"]
        else:
            arguments += ["--model_name_or_path", str(tmp_path / str(number - 1))]
        scripts["run_prior"].main(arguments)
    ids = {"unknown": 0, "ann": 1, "bob": 2, "cleo": 3, "abe": 4, "dora": 5}
    rows = []
    for number, count in enumerate((3, 4, 6)):
        prior = FastJukeboxPrior.from_pretrained(tmp_path / str(number))
        vocabulary = FastJukeboxProcessor.find(tmp_path / str(number), prior.config).vocabularies[0]
        assert vocabulary.artists == dict(list(ids.items())[:count])
        rows.append(prior.label_conditioner.artist_embedding.weight.detach())
        assert rows[-1].shape[0] == prior.config.num_artists == count
    assert torch.equal(rows[1][1], rows[0][1])  # Ann is in no song of the second training
    assert torch.equal(rows[2][2], rows[1][2]) and torch.equal(rows[2][3], rows[1][3])  # nor Bob and Cleo in the third
    assert not torch.equal(rows[1][2], rows[0][2]) and not torch.equal(rows[1][3], rows[0][1:].mean(0))
    scripts["run_prior"].main(
        [*arguments[:-1], str(tmp_path / "0"), "--output_dir", str(tmp_path / "as"), "--new_names", "false"]
    )
    assert FastJukeboxPrior.from_pretrained(tmp_path / "as").config.num_artists == 3


def test_a_model_without_labels_is_given_some(scripts, songs, tiny_config, tmp_path, training_options):
    named_songs(songs, ["Ann", "Bob", "Cleo"])
    torch.manual_seed(1)
    FastJukeboxVQVAE(tiny_config.vqvae_config).save_pretrained(tmp_path / "vqvae")
    prior = FastJukeboxPrior(tiny_config.prior_configs[1])
    prior.save_pretrained(tmp_path / "base")
    arguments = [
        "--songs", str(songs), "--vqvae", str(tmp_path / "vqvae"), "--codes", str(tmp_path / "codes"), "--level", "1",
        "--model_name_or_path", str(tmp_path / "base"), "--labels", "true", "--learning_rate", "0", "--max_steps", "1",
        "--output_dir", str(tmp_path / "out"), *training_options,
    ]  # fmt: skip
    scripts["run_prior"].main(arguments)
    labelled = FastJukeboxPrior.from_pretrained(tmp_path / "out")
    processor = FastJukeboxProcessor.find(tmp_path / "out", labelled.config)
    codes, upper = torch.randint(16, (1, 32)), torch.randint(16, (1, 16))
    metadata = processor({"artist": "Cleo", "genre": "pop", "total_duration": 1.5}).metadata[0]
    torch.testing.assert_close(
        labelled(codes, upper, metadata=metadata).logits, prior.eval()(codes, upper).logits, rtol=0, atol=1e-6
    )


class Named:
    name = "a plug"

    def __call__(self, audio, sampling_rate):
        return {"genre": "slow pop", "moods": ["calm"] if float(audio[0]) == 0 else []}


def test_clips_with_labels_train_a_prior_and_a_student(scripts, songs, tiny_model, tmp_path, training_options):
    (songs / "metadata.jsonl").write_text(json.dumps({"file_name": "0.wav", "artist": "Ann"}))
    settings = LabelSettings(clip_seconds=1.0, sampling_rate=8000)
    label_songs(songs, tmp_path / "labelled", settings, labellers=[Named()], test_fraction=0.3, progress=False)
    tiny_model.vqvae.save_pretrained(tmp_path / "vqvae")
    tiny_model.config.prior_configs[2].save_pretrained(tmp_path / "config")
    shared = ["--songs", str(tmp_path / "labelled"), "--max_steps", "1", *training_options]
    scripts["run_prior"].main([
        *shared, "--vqvae", str(tmp_path / "vqvae"), "--codes", str(tmp_path / "codes"), "--level", "2",
        "--config_name", str(tmp_path / "config"), "--labels", "true", "--output_dir", str(tmp_path / "prior"),
    ])  # fmt: skip
    vocabulary = FastJukeboxProcessor.from_pretrained(tmp_path / "prior").vocabularies[0]
    assert set(vocabulary.genres) == {"unknown", "slow pop"}
    tiny_model.save_pretrained(tmp_path / "teacher")
    scripts["run_distill"].main([
        *shared, "--teacher", str(tmp_path / "teacher"), "--student_layers", "2", "--level", "2", "--codes",
        str(tmp_path / "codes"), "--output_dir", str(tmp_path / "student"),
    ])  # fmt: skip
    assert FastJukeboxModel.from_pretrained(tmp_path / "student").priors[2].config.num_hidden_layers == 2


@pytest.mark.parametrize(("script", "kind"), [("run_prior", "priors"), ("run_vqvae", "vqvae")])
def test_a_model_of_the_hub_that_is_trained_further_is_named(
    hub, scripts, songs, tiny_model, tmp_path, training_options, script, kind
):
    part = tiny_model.vqvae if kind == "vqvae" else tiny_model.priors[2]
    part.push_to_hub("ann/first", license="cc-by-nc-4.0")
    arguments = ["--songs", str(songs), "--test_fraction", "0.3", "--output_dir", str(tmp_path / "more")]
    if kind == "vqvae":
        arguments += ["--window", "640"]
    else:
        encode_songs(load_songs(songs, test_fraction=0.3), tiny_model.vqvae, tmp_path / "codes")
        arguments = ["--codes", str(tmp_path / "codes"), *arguments[4:]]
    arguments += ["--max_steps", "1", "--push_to_hub", "true", "--hub_model_id", "ann/more", *training_options]
    scripts[script].main([*arguments, "--hub_license", "cc-by-nc-4.0", "--model_name_or_path", "ann/first"])
    card = ModelCard.load("ann/more")
    assert card.data.base_model == "ann/first" and "derive from `ann/first`, whose terms hold" in card.text


def test_adapters_are_trained_resumed_pushed_and_played(hub, scripts, songs, tiny_model, tmp_path, training_options):
    pytest.importorskip("peft")
    encode_songs(load_songs(songs, test_fraction=0.3), tiny_model.vqvae, tmp_path / "codes")
    tiny_model.push_to_hub("ann/base", license="cc-by-nc-4.0")
    arguments = [
        "--codes", str(tmp_path / "codes"), "--model_name_or_path", "ann/base", "--lora_rank", "2", "--learning_rate",
        "0.1", "--save_steps", "2", "--hub_license", "cc-by-nc-4.0", "--max_steps", "4", *training_options,
    ]  # fmt: skip
    main = scripts["run_prior"].main
    whole = main([*arguments, "--output_dir", str(tmp_path / "whole")])
    main([*arguments, "--output_dir", str(tmp_path / "lora")])
    shutil.rmtree(tmp_path / "lora" / "checkpoint-4")
    for path in (tmp_path / "lora").iterdir():
        path.is_file() and path.unlink()
    pushed = ["--push_to_hub", "true", "--hub_model_id", "ann/lora", "--resume_from_checkpoint", "true"]
    resumed = main([*arguments, "--output_dir", str(tmp_path / "lora"), *pushed])
    assert resumed["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-5)
    again = main([*arguments, "--output_dir", str(tmp_path / "lora"), "--resume_from_checkpoint", "true"])
    assert again == resumed
    # The best of several evaluations is kept: at this learning rate an early one.
    stopped = main(
        [*arguments, "--output_dir", str(tmp_path / "stopped"), "--early_stopping_patience", "1", "--eval_steps", "1",
         "--eval_strategy", "steps", "--max_steps", "9", "--learning_rate", "30", "--lora_dora", "true"]
    )  # fmt: skip
    log = json.loads((tmp_path / "stopped" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert stopped["eval_loss"] == pytest.approx(min(losses), abs=1e-5) and min(losses) < losses[-2]

    assert set(hub.files("ann/lora")) >= {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert not {"config.json", "model.safetensors"} & set(hub.files("ann/lora"))
    card = ModelCard.load("ann/lora")
    assert card.data.base_model == "ann/base" and {"lora", "peft", "adapter"} <= set(card.data.tags)
    assert 'FastJukeboxModel.from_pretrained("ann/base", adapters={2: "ann/lora"})' in card.text
    assert "LoRA adapters of rank 2 (alpha 4, dropout 0) on contract, expand, projection, qkv" in card.text
    assert str(tmp_path) not in card.content
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["level"]) == ("ann/base", 2)
    model = FastJukeboxModel.from_pretrained("ann/base", adapters={2: "ann/lora"})
    plain = FastJukeboxModel.from_pretrained("ann/base")
    assert not torch.equal(model.generate(0.5, seed=0).codes[2], plain.generate(0.5, seed=0).codes[2])


def test_adapters_need_their_base(scripts, songs, tiny_model, tmp_path, training_options):
    pytest.importorskip("peft")
    encode_songs(load_songs(songs, test_fraction=0.3), tiny_model.vqvae, tmp_path / "codes")
    tiny_model.save_pretrained(tmp_path / "base")
    arguments = ["--codes", str(tmp_path / "codes"), "--lora_rank", "2", "--output_dir", str(tmp_path / "lora")]
    arguments += ["--max_steps", "1", *training_options]
    named = [*arguments, "--model_name_or_path", str(tmp_path / "base")]
    for given, match in (
        ([*arguments, "--preset", "fastjukebox-mini-9"], "`--lora_rank` must go with `--model_name_or_path`"),
        ([*named, "--layers", "6"], "a model left as it is, and without `--layers`"),
        ([*named, "--lora_targets", "query"], "got 'query'"),
        ([*named, "--push_to_hub", "true", "--hub_license", "mit"], "`hub_base_model` must name the adapter's base"),
    ):
        with pytest.raises(ValueError, match=match):
            scripts["run_prior"].main(given)


def test_songs_of_which_none_are_held_out_are_refused(scripts, songs, tiny_config, tmp_path, training_options):
    FastJukeboxVQVAE(tiny_config.vqvae_config).save_pretrained(tmp_path / "vqvae")
    shared = ["--songs", str(songs), "--test_fraction", "0", "--output_dir", str(tmp_path / "out"), *training_options]
    with pytest.raises(ValueError, match="got the splits train"):
        scripts["run_vqvae"].main([*shared, "--model_name_or_path", str(tmp_path / "vqvae")])
    with pytest.raises(ValueError, match="got the splits train"):
        scripts["run_prior"].main([*shared, "--vqvae", str(tmp_path / "vqvae"), "--codes", str(tmp_path / "codes")])
    assert not (tmp_path / "codes").exists()


def test_what_cannot_be_trained_is_said_first(scripts, tiny_config, tmp_path):
    (tmp_path / "codes").mkdir()
    with pytest.raises(ValueError, match="holds no codes: name `--songs` and `--vqvae`"):
        scripts["run_prior"].main(["--codes", str(tmp_path / "codes"), "--output_dir", str(tmp_path / "out")])


def codes_of(songs, tiny_config, tmp_path):
    torch.manual_seed(0)
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config)
    encode_songs(load_songs(songs, test_fraction=0.3), vqvae, tmp_path / "codes", progress=False)
    tiny_config.prior_configs[1].save_pretrained(tmp_path / "config")
    return [
        "--codes", str(tmp_path / "codes"), "--config_name", str(tmp_path / "config"), "--level", "1",
        "--max_eval_windows", "2", "--device_codes", "true",
    ]  # fmt: skip


def test_a_training_with_codes_on_the_device_resumes_where_it_was(
    scripts, songs, tiny_config, tmp_path, training_options
):
    arguments = [*codes_of(songs, tiny_config, tmp_path), *training_options, "--save_steps", "2"]
    whole = scripts["run_prior"].main([*arguments, "--output_dir", str(tmp_path / "whole"), "--max_steps", "4"])
    part = [*arguments, "--output_dir", str(tmp_path / "part"), "--lr_scheduler_type", "constant"]
    same = [*arguments, "--output_dir", str(tmp_path / "same"), "--lr_scheduler_type", "constant"]
    scripts["run_prior"].main([*part, "--max_steps", "2"])
    resumed = scripts["run_prior"].main([*part, "--max_steps", "4", "--resume_from_checkpoint", "true"])
    alone = scripts["run_prior"].main([*same, "--max_steps", "4"])
    assert resumed["eval_loss"] == pytest.approx(alone["eval_loss"], abs=1e-6)
    assert 0 < whole["eval_bits_per_code"] < 10


def test_a_training_ends_by_the_clock_and_begins_with_given_weights(
    scripts, songs, tiny_config, tmp_path, training_options, capsys
):
    arguments = [*codes_of(songs, tiny_config, tmp_path), *training_options]
    torch.manual_seed(5)
    start = FastJukeboxPrior(tiny_config.prior_configs[1])
    weights = {name: tmp_path / f"{name}.safetensors" for name in ("start", "other")}
    save_file({"blocks.0.mlp.expand.weight": start.blocks[0].mlp.expand.weight.detach()}, weights["start"])
    save_file({"other": torch.zeros(2)}, weights["other"])
    clock = ["--max_minutes", "0.02", "--clock_evaluations", "1", "--learning_rate", "0"]
    arguments += [*clock, "--output_dir", str(tmp_path / "run"), "--initial_weights"]
    scripts["run_prior"].main([*arguments, str(weights["start"])])
    printed = capsys.readouterr().out
    assert "drawn at random:" in printed and "blocks.0.mlp.expand.weight" not in printed
    trained = FastJukeboxPrior.from_pretrained(tmp_path / "run")
    assert torch.equal(trained.blocks[0].mlp.expand.weight, start.blocks[0].mlp.expand.weight)
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert 0 < state["global_step"] < 10**6
    with pytest.raises(ValueError, match="has no tensor"):
        scripts["run_prior"].main([*arguments, str(weights["other"])])


@pytest.mark.parametrize(
    "option",
    ["--compile_layers true", "--code_noise 0.1", "--window_parts 1 4", "--more_codes other", "--wait_minutes 1"],
)
def test_options_of_codes_on_the_device_are_refused_without_it_before_codes_are_read(
    option, scripts, tmp_path, training_options
):
    arguments = ["--codes", str(tmp_path / "none"), "--level", "1", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=f"`{option.split()[0]}` needs `--device_codes true`"):
        scripts["run_prior"].main([*arguments, *training_options, *option.split()])
