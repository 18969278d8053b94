"""The whole way at toy size: songs, VQ-VAE, codes, priors, a model that sounds."""

import pytest

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE


def test_songs_become_a_model_that_sounds(scripts, songs, tiny_config, tmp_path, training_options):
    tiny_config.vqvae_config.save_pretrained(tmp_path / "vqvae-config")
    arguments = [
        "--songs", str(songs), "--test_share", "0.3", "--config_name", str(tmp_path / "vqvae-config"),
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


def test_what_cannot_be_trained_is_said_first(scripts, tiny_config, tmp_path):
    (tmp_path / "codes").mkdir()
    with pytest.raises(ValueError, match="holds no codes: name `--songs` and `--vqvae`"):
        scripts["run_prior"].main(["--codes", str(tmp_path / "codes"), "--output_dir", str(tmp_path / "out")])
