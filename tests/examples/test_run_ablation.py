"""The ablation at toy size: its commands, its shared first stage, its measurement, and in a slow test all of it."""

import json
import shutil

import pytest
import torch

from fast_jukebox import FastJukeboxModel, FastJukeboxVQVAE
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.training.weights import deepen


@pytest.fixture
def options(songs, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    encode_songs(
        load_songs(songs, test_fraction=0.3), FastJukeboxVQVAE.from_pretrained(tmp_path / "model"), tmp_path / "codes"
    )
    return {
        "codes": tmp_path / "codes", "model": tmp_path / "model", "output_dir": tmp_path / "ablation",
        "report": tmp_path / "report.md", "teacher_layers": 6, "grow_teacher": "true", "teacher_steps": 2, "steps": 4,
        "intermediate_steps": 2, "eval_steps": 2, "eval_windows": 4, "curve_windows": 2, "measured_codes": 8,
        "warmup_steps": 1, "processes": 2,
    }  # fmt: skip


def command_line(options):
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def ablation(scripts, options):
    module = scripts["run_ablation"]
    values = {**options, "output_dir": str(options["output_dir"]), "codes": str(options["codes"]), "grow_teacher": True}
    args = module.AblationArguments(**values, student_layers=[3], plain_layers=[3])
    return module.Ablation(args)


def test_commands_differ_in_what_the_ablation_is_about(ablation):
    assert list(ablation.systems) == [
        "teacher-6", "scratch-3", "student-without-pred-3", "student-3", "student-plain-3"
    ]  # fmt: skip

    def option(system, name):
        command = ablation.job(system, 2).command
        return command[command.index(f"--{name}") + 1] if f"--{name}" in command else None

    assert option("teacher-6", "model_name_or_path") == option("scratch-3", "config_name") == str(ablation.args.model)
    assert option("scratch-3", "max_steps") == "4"
    assert (option("teacher-6", "layers"), option("scratch-3", "layers")) == ("6", "3")
    assert option("student-3", "student_layers") == "3"
    rates = {system: option(system, "learning_rate") for system in ablation.systems}
    assert rates == {
        "teacher-6": "0.0003", "scratch-3": "0.0012", "student-plain-3": "0.0012",
        "student-without-pred-3": "0.0006", "student-3": "0.0006",
    }  # fmt: skip
    for system, last, begins in (
        ("student-3", "prediction", "true"),
        ("student-without-pred-3", "data", "true"),
        ("student-plain-3", "prediction", "false"),
    ):
        stages = json.loads(option(system, "stages"))
        assert stages == [{"loss": "intermediate", "steps": 2}, {"loss": last, "steps": 2}]
        assert option(system, "initialize_from_teacher") == begins
    seeds = {option(system, "seed") for system in ablation.systems}
    assert len(seeds) == 1


def test_without_pred_goes_on_from_its_twin(scripts, ablation):
    module = scripts["run_ablation"]
    twin, job = ablation.job("student-3", 1), ablation.job("student-without-pred-3", 1)
    checkpoint = module.trained_by(ablation, twin) / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    module.share_first_stage(ablation, job)
    assert (module.trained_by(ablation, job) / "checkpoint-2" / "model.safetensors").read_bytes() == b"weights"


def test_measures_what_was_trained(scripts, ablation, tiny_model):
    module = scripts["run_ablation"]
    for system in ablation.systems:
        for level, prior in enumerate(tiny_model.priors):
            made = deepen(prior, 6) if system == "teacher-6" else prior
            made.save_pretrained(ablation.prior(system, level))
            state = {
                "global_step": 2,
                "log_history": [{"step": 2, "eval_bits_per_code": 4.0}, {"step": 2, "loss": 1.0}],
            }
            (ablation.prior(system, level) / "trainer_state.json").write_text(json.dumps(state))
    results = module.measure(ablation)
    for level in results["levels"].values():
        same = level["metrics"]["teacher-6"]["bits_per_code"]
        assert level["metrics"]["student-3"]["bits_per_code"] == pytest.approx(same, abs=1e-5)
        assert level["metrics"]["student-3"]["kl_to_teacher"] == pytest.approx(0.0, abs=1e-5)
        assert level["curves"]["scratch-3"] == [(2, 4.0)]
        assert set(level["training_seconds"]["3"]) == {"plain", "intermediate", "prediction"}
        assert set(level["sampling_seconds"]) == {"6", "3"}
    model = module.join(ablation, "student-3", ablation.output / "whole")
    whole = FastJukeboxModel.from_pretrained(ablation.output / "whole")
    assert model is None and whole.generate(duration=0.1, seed=0).audio.isfinite().all()


def test_refuses_before_anything_is_trained(scripts, options):
    with pytest.raises(ValueError, match="batch_sizes"):
        scripts["run_ablation"].main(command_line(options | {"batch_sizes": 3}))
    with pytest.raises(ValueError, match="intermediate_steps"):
        scripts["run_ablation"].main(command_line(options | {"intermediate_steps": 4}))
    with pytest.raises(TimeoutError, match="same command"):
        scripts["run_ablation"].main(command_line(options | {"minutes": 0}))


def test_what_was_trained_otherwise_is_not_reported_as_this(scripts, options):
    module = scripts["run_ablation"]
    line = command_line(options | {"minutes": 0})
    with pytest.raises(TimeoutError):
        module.main(line)
    with pytest.raises(ValueError, match=r"ablation holds trainings made with steps 4, not 6. .* another folder"):
        module.main(command_line(options | {"minutes": 0, "steps": 6}))
    with pytest.raises(TimeoutError):  # what does not change the trainings may change
        module.main(command_line(options | {"minutes": 0, "eval_windows": 3}))


def test_codes_of_another_model_are_refused_before_anything_is_trained(scripts, options, tiny_config):
    FastJukeboxModel(tiny_config).save_pretrained(options["model"])
    with pytest.raises(ValueError, match="codes of another VQ-VAE"):
        scripts["run_ablation"].main(command_line(options | {"minutes": 0}))
    assert not options["output_dir"].exists()


@pytest.mark.slow
def test_the_whole_ablation_runs_and_is_kept(scripts, options, tmp_path):
    (tmp_path / "training.json").write_text('{"prior-0": {"steps": 7}}')
    options["training"] = tmp_path / "training.json"
    line = [*command_line(options), "--student_layers", "3", "--plain_layers", "3"]
    results = scripts["run_ablation"].main(line)
    report = (tmp_path / "report.md").read_text()
    assert "3 (student) w/o Pred" in report and (tmp_path / "images" / "report.png").exists()
    for level in results["levels"].values():
        assert [step for step, _ in level["curves"]["student-without-pred-3"]] == [2, 4]
    story = json.loads((tmp_path / "ablation" / "training" / "student-plain-3.json").read_text())
    assert story["prior-0"]["steps"] == 7 and story["student-2"]["steps"] == 4
    systems = {path.name for path in (tmp_path / "ablation" / "models").iterdir()}
    assert systems == {"scratch-3", "student-without-pred-3", "student-3", "student-plain-3"}
    student = FastJukeboxModel.from_pretrained(tmp_path / "ablation" / "models" / "student-3")
    assert student.generate(duration=0.2, seed=0).audio.isfinite().all()
    shutil.rmtree(tmp_path / "codes" / ".cache")
    again = scripts["run_ablation"].main(line)
    found = [level["metrics"]["student-3"]["bits_per_code"] for level in again["levels"].values()]
    assert found == [level["metrics"]["student-3"]["bits_per_code"] for level in results["levels"].values()]
    assert torch.isfinite(torch.tensor(found)).all()
