import json

import pytest


def test_info_reads_no_weights(run, model_dir, monkeypatch):
    (model_dir / "README.md").write_text(
        "---\nlicense: apache-2.0\ndatasets:\n- some/songs\n---\n\n# A model\n\nIt plays\nsongs.\n\n## More\n\nText.\n"
    )
    (model_dir / "model.safetensors").write_bytes(b"")
    result = run("info", model_dir)
    assert result.exit_code == 0, result.output
    for words in (
        "FastJukeboxModel",
        "bottom",
        "middle",
        "top",
        "4 samples",
        "16 samples",
        "32 codes",
        "24 codes",
        "previous_row",
        "license: apache-2.0",
        "some/songs",
        "It plays songs.",
    ):
        assert words in result.stdout
    assert "Text." not in result.stdout


def test_info_counts_parameters(run, model_dir, tiny_model):
    result = run("info", model_dir)
    total = sum(parameter.numel() for parameter in tiny_model.parameters())
    assert f"{total:,} parameters" in result.stdout
    assert f"{sum(parameter.numel() for parameter in tiny_model.priors[0].parameters()):,}" in result.stdout
    assert "no model card" in result.stdout


def test_info_of_parts(run, tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path / "vqvae")
    tiny_model.priors[1].save_pretrained(tmp_path / "prior")
    result = run("info", tmp_path / "vqvae")
    assert "FastJukeboxVQVAE" in result.stdout
    assert "Prior" not in result.stdout
    result = run("info", tmp_path / "prior")
    assert "FastJukeboxPrior" in result.stdout
    assert "level 1" in result.stdout


def test_info_of_something_else(run, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    result = run("info", folder)
    assert result.exit_code == 2
    assert "bert" in result.stderr


def test_info_shows_a_strangers_card_as_plain_text(run, model_dir):
    def shown(text):
        (model_dir / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
        result = run("info", model_dir)
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    card = "---\nlicense: mit\n---\n# x\n\n{}\n"
    for text in ("Trained on [folk] and [bold]pop[/bold].", "Of [/cs.SD].", "See [link=http://a]b[/link] :smile:"):
        assert text in shown(card.format(text))
    assert r"\x1b[31mred\x1b]8;;http://a\x07" in shown(card.format("A \x1b[31mred\x1b]8;;http://a\x07"))
    assert "model card: the metadata of" in shown("---\nlicense: [\n---\n# x\n")
    assert "must be UTF-8" in shown(b"---\nlicense: mit\n---\n# caf\xe9\n")
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "refers to a part of itself" in shown(f"---\n{bomb}datasets: *a11\n---\n# x\n\nText.\n")
    assert len(shown(card.format("a" * 100_000))) < 10_000


def test_info_lists_the_names_of_a_labelled_model(run, paired_model, tmp_path):
    paired_model.save_pretrained(tmp_path / "model")
    result = run("info", tmp_path / "model")
    assert "artists: fiddle, harp" in result.stdout
    assert "genres: air, jig, reel" in result.stdout


def test_info_of_a_damaged_configuration(run, tmp_path):
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    result = run("info", tmp_path)
    assert result.exit_code == 2
    assert "config.json" in result.stderr and "Traceback" not in result.stderr


def test_info_of_an_adapter_says_what_it_is_and_how_it_is_played(run, tmp_path):
    (tmp_path / "lora").mkdir()
    settings = {"peft_type": "LORA", "r": 4, "level": 2, "base_model_name_or_path": "ann/base\x1b[31m"}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    result = run("info", tmp_path / "lora")
    assert result.exit_code == 0, result.output
    text = "".join(result.stdout.split())
    assert "adapter(LoRA)ofrank4forlevel2" in text
    assert f"--adapter2={tmp_path / 'lora'}" in text
    assert "\x1b" not in result.stdout
    (tmp_path / "lora" / "adapter_config.json").write_text("{")
    result = run("info", tmp_path / "lora")
    assert result.exit_code == 2 and "adapter_config.json" in result.stderr


@pytest.mark.parametrize("command", [("info",), ("generate", "--duration", "0.1", "--model")])
def test_a_number_of_too_many_digits_is_named(run, model_dir, command):
    (model_dir / "config.json").write_text('{"model_type": "fast_jukebox", "dtype": ' + "1" * 5000 + "}")
    result = run(*command, model_dir)
    assert result.exit_code == 2
    assert f"`config.json` of `{model_dir}`" in result.stderr and "fetch or save it again" in result.stderr
