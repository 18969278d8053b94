import pytest

from fast_jukebox import FastJukeboxModel
from fast_jukebox_cli.model import planned_model


def estimate(name):
    config, settings = planned_model(name)
    return FastJukeboxModel.estimate_from_config(config, generation_config=settings, calibrate=False)


def test_a_table_is_printed_and_no_weights_are_read(run, model_dir):
    (model_dir / "model.safetensors").write_bytes(b"")
    result = run("estimate", model_dir, "--duration", 0.2, "--device", "cpu", "--schedule", "sequential")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[0] == "top"
    assert "0.2 s on cpu" in result.stdout


def test_a_preset_and_a_model_s_own_settings(model_dir):
    made = estimate("fastjukebox-mini-9")
    assert made.duration == 20.0 and made.levels[2].codes == 6_891
    assert estimate(str(model_dir)).duration == 0.05


def test_a_part_is_no_whole_model(run, tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path / "part")
    with pytest.raises(ValueError, match="fast_jukebox_vqvae"):
        planned_model(str(tmp_path / "part"))
    result = run("estimate", tmp_path / "part", "--dtype", "int8")
    assert result.exit_code == 2
