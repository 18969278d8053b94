import json

import torch

from fast_jukebox import FastJukeboxVQVAE


def test_a_killed_run_goes_on_from_its_checkpoint(scripts, songs, tiny_config, tmp_path, training_options):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")

    def train(folder, *more):
        arguments = [
            "--songs", str(songs), "--test_fraction", "0.3", "--config_name", str(tmp_path / "vqvae-config"),
            "--window", "640", "--output_dir", str(folder), "--lr_scheduler_type", "constant",
            "--resume_from_checkpoint", "true", "--save_steps", "2", *more, *training_options,
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
        "songs": str(songs), "test_fraction": 0.3, "config_name": str(tmp_path / "vqvae-config"), "window": 640,
        "output_dir": str(tmp_path / "top"), "max_steps": 1, "levels": [2], "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    (tmp_path / "options.json").write_text(json.dumps(options))
    figures = scripts["run_vqvae"].main([str(tmp_path / "options.json")])
    assert "eval_snr_2" in figures
    assert "eval_snr_0" not in figures
