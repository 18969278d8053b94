"""The whole way at toy size: songs, VQ-VAE, codes, priors, a model that sounds."""

import importlib.util
import json

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE


@pytest.fixture(scope="module")
def scripts(request):
    examples = request.config.rootpath / "examples"

    def load(name):
        spec = importlib.util.spec_from_file_location(name, examples / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        # HfArgumentParser looks the dataclasses' module up by name.
        import sys

        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return {name: load(name) for name in ("run_vqvae", "run_prior")}


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    time = np.arange(2400) / 1600
    for index in range(6):
        tone = 0.5 * np.sin(2 * np.pi * (110 + 20 * index) * time)
        soundfile.write(folder / f"{index}.wav", tone.astype(np.float32), 1600)
    return folder


COMMON = [
    "--logging_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true",
    "--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2",
]  # fmt: skip


def test_songs_become_a_model_that_sounds(scripts, songs, tiny_config, tmp_path):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")
    arguments = [
        "--songs", str(songs), "--test_share", "0.3", "--config_name", str(tmp_path / "vqvae-config"),
        "--window", "640", "--output_dir", str(tmp_path / "vqvae"), *COMMON,
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
                "--test_share",
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
                *COMMON,
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


def test_a_killed_run_goes_on_from_its_checkpoint(scripts, songs, tiny_config, tmp_path):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")

    def train(folder, *more):
        arguments = [
            "--songs", str(songs), "--test_share", "0.3", "--config_name", str(tmp_path / "vqvae-config"),
            "--window", "640", "--output_dir", str(folder), "--lr_scheduler_type", "constant",
            "--resume_from_checkpoint", "true", "--save_steps", "2", *more, *COMMON,
        ]  # fmt: skip
        scripts["run_vqvae"].main(arguments)
        return FastJukeboxVQVAE.from_pretrained(folder).state_dict()

    train(tmp_path / "parts", "--max_steps", "2")
    parts = train(tmp_path / "parts", "--max_steps", "4")
    assert json.loads((tmp_path / "parts" / "trainer_state.json").read_text())["global_step"] == 4
    whole = train(tmp_path / "whole", "--max_steps", "4")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=0)


def test_options_come_from_a_json_file_too(scripts, songs, tiny_config, tmp_path):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")
    options = {
        "songs": str(songs), "test_share": 0.3, "config_name": str(tmp_path / "vqvae-config"), "window": 640,
        "output_dir": str(tmp_path / "top"), "max_steps": 1, "levels": [2], "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    (tmp_path / "options.json").write_text(json.dumps(options))
    figures = scripts["run_vqvae"].main([str(tmp_path / "options.json")])
    assert "eval_snr_2" in figures
    assert "eval_snr_0" not in figures


def test_what_cannot_be_trained_is_said_first(scripts, tiny_config, tmp_path):
    (tmp_path / "codes").mkdir()
    with pytest.raises(ValueError, match="holds no codes: name `--songs` and `--vqvae`"):
        scripts["run_prior"].main(["--codes", str(tmp_path / "codes"), "--output_dir", str(tmp_path / "out")])
