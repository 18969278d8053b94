import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch.utils.data import Dataset

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation.losses import kl_divergence
from fast_jukebox.distillation.student import initialize_student
from fast_jukebox.distillation.trainer import PROJECTION, DistillationArguments, DistillationTrainer, _read_json

STAGES = [
    {"loss": "intermediate", "steps": 4, "schedule": "linear"},
    {"loss": "prediction", "steps": 4, "learning_rate": 5e-3, "warmup_steps": 1},
]


class Scales(Dataset):
    """Codes that climb by one, with those of the level above for the same span."""

    def __init__(self, config, size=16):
        self.config, self.size = config, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        codes = (torch.arange(self.config.n_ctx) + index) % 16
        item = {"codes": codes, "labels": codes}
        if self.config.has_upper_level:
            item["upper_codes"] = codes[:: self.config.upper_ratio].clone()
        return item


@pytest.fixture
def distil(pair, tmp_path):
    def make(name="run", level=1, stages=STAGES, depths=(6, 3), size=16, student_changes=None, **kwargs):
        teacher, student = pair(level, *depths, **(student_changes or {}))
        settings = {
            "output_dir": str(tmp_path / name), "stages": stages, "save_steps": 2, "logging_steps": 1,
            "learning_rate": 1e-2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 5, "use_cpu": True,
            "disable_tqdm": True, "lr_scheduler_type": "constant", "seed": 0, "report_to": "none",
        }  # fmt: skip
        data = Scales(student.config, size)
        return DistillationTrainer(
            model=student,
            teacher=teacher,
            args=DistillationArguments(**(settings | kwargs)),
            train_dataset=data,
            eval_dataset=data,
            data_collator=stack_items,
        )

    return make


def logs_of(run):
    return [entry for entry in run.state.log_history if "loss" in entry]


def assert_same_weights(run, other, **tolerance):
    theirs = other.objective.state_dict()
    for name, value in run.objective.state_dict().items():
        torch.testing.assert_close(value, theirs[name], **({"atol": 1e-6, "rtol": 0} | tolerance))


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        ("intermediate", ["attention_residual", "hidden_states", "attentions"]),
        ("prediction", ["prediction"]),
        ("data", ["data"]),
    ],
)
def test_training_lowers_each_term(distil, loss, names):
    run = distil(stages=[{"loss": loss, "steps": 30}], save_strategy="no", initialize_from_teacher=False, depths=(4, 2))
    before = run.evaluate()
    run.train()
    logs, after = logs_of(run), run.evaluate()
    assert set(logs[0]) >= {*names, "loss", "stage"}
    for name in names:
        floor = before["eval_prediction"] - before["eval_kl_to_teacher"] * math.log(2) if name == "prediction" else 0.0
        assert logs[-1][name] - floor < 0.8 * (logs[0][name] - floor)
        if name != "data":
            assert after[f"eval_{name}"] < before[f"eval_{name}"]
    assert logs[-1]["loss"] == pytest.approx(sum(logs[-1][name] for name in names), rel=1e-3)


def test_the_step_says_which_stage_it_is(distil):
    run = distil()
    run.train()
    logs = logs_of(run)
    assert [entry["stage"] for entry in logs] == [0] * 4 + [1] * 4
    assert all("hidden_states" in entry and "prediction" not in entry for entry in logs[:4])
    assert all("hidden_states" not in entry and "prediction" in entry for entry in logs[4:])
    # What is logged is the learning rate of the step just made.
    rates = [1e-2 * share for share in (1, 0.75, 0.5, 0.25)] + [0, 5e-3, 5e-3, 5e-3]
    assert [entry["learning_rate"] for entry in logs] == pytest.approx(rates)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_stage_has_its_own_temperature(distil, temperature):
    stages = [{"loss": "prediction", "steps": 1, "temperature": temperature}]
    run = distil(stages=stages, size=4, save_strategy="no", initialize_from_teacher=False)
    batch = stack_items([run.train_dataset[index] for index in range(4)])
    with torch.no_grad():
        expected = run.objective(**batch, weights={"prediction": 1.0}, temperature=temperature).loss
    run.train()
    assert logs_of(run)[0]["prediction"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_second_stage_is_a_training_of_its_own(distil):
    """The first stage's optimizer leaves nothing behind but the student."""
    both = distil("both", stages=[STAGES[0], {"loss": "prediction", "steps": 4}], save_strategy="no")
    both.train()
    first = distil("first", stages=STAGES[:1], save_strategy="no")
    first.train()
    second = distil("second", stages=[{"loss": "prediction", "steps": 4}], save_strategy="no", depths=(6, 3))
    second.student.load_state_dict(first.student.state_dict())
    second.train_dataset = both.train_dataset
    # The same windows: an epoch has 4 batches, and the second stage begins with the second epoch.
    second._get_train_sampler = lambda *_: [index for batch in epoch_batches(both, epoch=1) for index in batch]
    second.train()
    assert_same_weights(second, both, atol=1e-5)


def epoch_batches(run, epoch):
    loader = run.get_train_dataloader()
    for _ in range(epoch):
        list(loader.batch_sampler)
    loader.set_epoch(epoch)
    return list(loader.batch_sampler)


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_run_resumed_in_or_between_stages_is_the_uninterrupted_one(distil, steps):
    whole = distil("whole", save_strategy="no")
    whole.train()
    distil("parts", max_steps=steps).train()
    resumed = distil("parts")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8
    assert_same_weights(resumed, whole)
    for ours, theirs in zip(logs_of(resumed)[steps:], logs_of(whole)[steps:], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_a_projection_is_resumed_with_the_rest(distil):
    settings = {"student_changes": {"hidden_size": 8}, "initialize_from_teacher": False, "stages": STAGES[:1]}
    whole = distil("whole", **settings)
    whole.train()
    distil("parts", max_steps=2, **settings).train()
    resumed = distil("parts", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_same_weights(resumed, whole)
    assert set(load_file(f"{resumed.args.output_dir}/checkpoint-2/{PROJECTION}")) == {"weight", "bias"}


def test_accumulated_gradients_are_those_of_the_whole_batch(distil):
    # 10 windows in batches of 4: the last of each epoch is smaller. (Adam would make steps of rounding errors where a
    # gradient is zero, as that of the keys' biases is.)
    whole = distil("whole", size=10, save_strategy="no", optim="sgd")
    whole.train()
    parts = distil(
        "parts", size=10, save_strategy="no", optim="sgd", gradient_accumulation_steps=4, per_device_train_batch_size=1
    )
    parts.train()
    assert parts.state.global_step == whole.state.global_step == 8
    assert_same_weights(parts, whole, atol=1e-5)
    for ours, theirs in zip(logs_of(parts), logs_of(whole), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        for name in {"attentions", "prediction"} & theirs.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3)


def test_epochs_are_counted_in_steps_of_the_optimizer(distil):
    stages = [{"loss": "intermediate", "epochs": 2}, {"loss": "prediction", "epochs": 1.5}]
    assert distil(stages=stages).plan().lengths == [8, 6]
    assert distil(stages=stages, gradient_accumulation_steps=2).plan().lengths == [4, 3]
    assert distil(stages=stages, gradient_accumulation_steps=3).plan().lengths == [4, 3]


def test_labels_that_are_ignored_are_in_no_figure(distil):
    run = distil(level=2, save_strategy="no")
    items = [run.eval_dataset[index] for index in range(4)]
    with torch.no_grad():
        guesses = run.student.eval()(stack_items(items)["codes"]).logits.argmax(-1)
    for item, guess in zip(items, guesses, strict=True):
        item["labels"] = guess.clone()
        item["labels"][::2] = -100
    assert run.evaluate(items)["eval_accuracy"] == pytest.approx(1.0)


@pytest.mark.parametrize("teacher_dtype", [None, "bfloat16"])
def test_bfloat16_trains_about_alike(distil, teacher_dtype):
    exact = distil("exact", save_strategy="no")
    exact.train()
    rough = distil("rough", save_strategy="no", bf16=True, teacher_dtype=teacher_dtype)
    assert rough.objective.teacher.dtype == (torch.bfloat16 if teacher_dtype else torch.float32)
    rough.train()
    assert rough.student.dtype == torch.float32
    assert logs_of(rough)[-1]["loss"] == pytest.approx(logs_of(exact)[-1]["loss"], rel=0.05)


def test_what_is_saved_is_the_student_and_loads_as_a_prior(distil, tmp_path):
    run = distil(stages=STAGES[1:])
    run.train()
    run.save_model(str(tmp_path / "saved"))
    for folder in (tmp_path / "saved", tmp_path / "run" / "checkpoint-4"):
        loaded = FastJukeboxPrior.from_pretrained(folder)
        assert loaded.config.num_hidden_layers == 3
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, run.student.state_dict()[name])
    assert not (tmp_path / "run" / "checkpoint-4" / PROJECTION).exists()


def test_the_best_student_is_kept(distil):
    run = distil(
        load_best_model_at_end=True, eval_strategy="steps", eval_steps=2, metric_for_best_model="bits_per_code",
        greater_is_better=False, stages=[{"loss": "data", "steps": 6, "learning_rate": 0.3}],
    )  # fmt: skip
    run.train()
    best = FastJukeboxPrior.from_pretrained(run.state.best_model_checkpoint)
    for name, value in best.state_dict().items():
        assert torch.equal(value, run.student.state_dict()[name])


def test_evaluation_compares_with_data_and_teacher(distil):
    run = distil()
    figures = run.evaluate()
    batch = stack_items([run.eval_dataset[index] for index in range(16)])
    with torch.no_grad():
        ours, theirs = (model.eval()(**batch) for model in (run.student, run.objective.teacher))
    expected = {
        "loss": ours.loss.item(),
        "bits_per_code": ours.loss.item() / math.log(2),
        "perplexity": ours.loss.exp().item(),
        "accuracy": (ours.logits.argmax(-1) == batch["labels"]).float().mean().item(),
        "teacher_bits_per_code": theirs.loss.item() / math.log(2),
        "kl_to_teacher": kl_divergence(ours.logits, theirs.logits).item() / math.log(2),
        "agreement": (ours.logits.argmax(-1) == theirs.logits.argmax(-1)).float().mean().item(),
    }
    for name, value in expected.items():
        assert figures[f"eval_{name}"] == pytest.approx(value, rel=1e-3)
    assert {"eval_hidden_states", "eval_attention_residual", "eval_attentions", "eval_prediction"} <= set(figures)


def test_the_teacher_is_not_trained(distil):
    run = distil(save_strategy="no")
    before = copy.deepcopy(run.objective.teacher.state_dict())
    run.train()
    assert not run.objective.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in run.objective.teacher.state_dict().items())
    trained = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    assert trained == {id(weight) for weight in run.student.parameters()}


def test_the_student_begins_with_the_teachers_layers_unless_told_otherwise(distil, pair):
    teacher, student = pair(1, 6, 3)
    own = {name: value.clone() for name, value in student.state_dict().items()}
    initialize_student(student, teacher)
    for plain, expected in ((False, student.state_dict()), (True, own)):
        run = distil(initialize_from_teacher=not plain)
        assert all(torch.equal(value, expected[name]) for name, value in run.student.state_dict().items())


def test_arguments_are_not_changed(distil, pair, tmp_path):
    teacher, student = pair()
    args = DistillationArguments(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", stages=STAGES)
    before = args.to_dict()
    run = DistillationTrainer(student, teacher, args, train_dataset=Scales(student.config), data_collator=stack_items)
    assert run.plan().lengths == [4, 4]
    assert args.to_dict() == before and json.dumps(before["stages"])


def test_stages_come_from_the_paper_from_json_or_from_a_file(tmp_path):
    settings = {"output_dir": str(tmp_path), "use_cpu": True}
    paper = DistillationArguments(**settings).stages
    assert [(stage.name, stage.epochs) for stage in paper] == [("intermediate", 20), ("prediction", 50)]
    (tmp_path / "stages.json").write_text(json.dumps(STAGES))
    for source in (json.dumps(STAGES), str(tmp_path / "stages.json")):
        stages = DistillationArguments(**settings, stages=source).stages
        assert [(stage.name, stage.steps) for stage in stages] == [("intermediate", 4), ("prediction", 4)]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stages": "[{"}, "`stages` must be JSON"),
        ({"teacher_dtype": "int8"}, "`teacher_dtype` must be one of float32, bfloat16, float16, got 'int8'"),
        ({"num_train_epochs": 5}, "`num_train_epochs` must be left alone"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        DistillationArguments(output_dir=str(tmp_path), use_cpu=True, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"codebook_size": 8}, "`codebook_size` is 8 in the student and 16 in the teacher"),
        ({"num_attention_heads": 2}, "`num_attention_heads` must be the same where `attentions` are compared"),
        ({"hidden_size": 8}, "`initialize_from_teacher=False`"),
    ],
)
def test_models_that_do_not_fit_are_refused_at_once(distil, changes, match):
    with pytest.raises(ValueError, match=match):
        distil(student_changes=changes)


def test_the_card_tells_teacher_stages_and_layers(distil, tmp_path):
    run = distil(stages=STAGES[1:], save_strategy="no", hub_license="apache-2.0", teacher_name="someone/teacher")
    run.train()
    run.evaluate()
    run.create_model_card()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.base_model == "someone/teacher"
    for text in (str(run.layer_map), "| prediction | 4 | 0.005 | constant | 1 |", "kl to teacher", "one of 6 layers"):
        assert text in card.text
    assert "knowledge-distillation" in card.data.tags


def test_the_card_of_a_run_that_ended_early_says_how_far_it_came(distil):
    run = distil(stages=[*STAGES, {"loss": "data", "steps": 3}], max_steps=6, save_strategy="no")
    run.train()
    text = run.training_summary()
    for row in ("| intermediate | 4 |", "| prediction | 2 of 4 |", "| data | 0 of 3 |", "| steps | 6 |"):
        assert row in text


SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_trainer import Scales, STAGES
from fast_jukebox import FastJukeboxPrior
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation import DistillationArguments, DistillationTrainer
teacher, student = (FastJukeboxPrior.from_pretrained({folder!r} + "/" + name) for name in ("teacher", "student"))
args = DistillationArguments(
    output_dir={folder!r} + "/run", stages=STAGES, save_steps=6, logging_steps=1, learning_rate=1e-2,
    per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant", seed=0,
    report_to="none", initialize_from_teacher=False, ddp_backend="gloo", optim="sgd", per_device_eval_batch_size=2,
    **{options!r},
)
data, held_out = Scales(student.config), Scales(student.config, 5)  # the last of four windows a step would come twice
run = DistillationTrainer(student, teacher, args, train_dataset=data, eval_dataset=held_out, data_collator=stack_items)
assert run.args.world_size == 2
if student.config.hidden_size != teacher.config.hidden_size:
    torch.nn.init.constant_(run.objective.projection.weight, 0.1)
    torch.nn.init.zeros_(run.objective.projection.bias)
run.train(resume_from_checkpoint={resume!r})
figures = run.evaluate()
run.save_model({folder!r} + "/saved")
if run.is_world_process_zero():
    torch.save(([entry for entry in run.state.log_history if "loss" in entry], figures), {folder!r} + "/result.pt")
"""


@pytest.fixture
def in_two_processes(tmp_path, request):
    """Trains `tmp_path / "student"` on `tmp_path / "teacher"` in two processes: the student, the logs, the figures."""

    def launch(resume=None, **options):
        script = tmp_path / "script.py"
        script.write_text(
            SCRIPT.format(tests=str(request.path.parent), folder=str(tmp_path), options=options, resume=resume)
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr[-3000:]
        return FastJukeboxPrior.from_pretrained(tmp_path / "saved"), *torch.load(tmp_path / "result.pt")

    return launch


FSDP = {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["PriorBlock"]}}


@pytest.mark.slow
@pytest.mark.parametrize(("width", "options"), [(16, {}), (8, {}), (16, FSDP)], ids=["ddp", "ddp-projection", "fsdp"])
def test_two_processes_equal_one(distil, tmp_path, in_two_processes, width, options):
    """Also where the projection of another width is not used in the second stage, and where weights are sharded."""
    changes = {"hidden_size": width} if width != 16 else {}
    one = distil("one", save_strategy="no", optim="sgd", initialize_from_teacher=False, student_changes=changes)
    one.student.save_pretrained(tmp_path / "student")
    one.objective.teacher.save_pretrained(tmp_path / "teacher")
    if width != 16:
        torch.nn.init.constant_(one.objective.projection.weight, 0.1)
        torch.nn.init.zeros_(one.objective.projection.bias)
    student, logs, figures = in_two_processes(**options)
    one.train()
    weights = student.state_dict()
    for name, value in one.student.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0)
    for ours, theirs in zip(logs, logs_of(one), strict=True):
        for name in {"loss", "hidden_states", "prediction", "stage"} & theirs.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
    expected = one.evaluate(Scales(one.student.config, 5))
    for name in ("eval_kl_to_teacher", "eval_bits_per_code", "eval_hidden_states", "eval_agreement", "eval_loss"):
        assert figures[name] == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.slow
def test_sharded_training_resumes_as_if_uninterrupted(distil, tmp_path, in_two_processes):
    one = distil("one", save_strategy="no", optim="sgd", initialize_from_teacher=False)
    one.student.save_pretrained(tmp_path / "student")
    one.objective.teacher.save_pretrained(tmp_path / "teacher")
    whole = in_two_processes(**FSDP)[0].state_dict()
    resumed = in_two_processes(str(tmp_path / "run" / "checkpoint-6"), **FSDP)[0].state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_compiled_training_is_the_same(distil):
    """With the backend that traces and differentiates ahead of time; what it gives, inductor turns into kernels."""
    plain = distil("plain", save_strategy="no", optim="sgd")
    plain.train()
    compiled = distil(
        "compiled", save_strategy="no", optim="sgd", torch_compile=True, torch_compile_backend="aot_eager"
    )
    compiled.train()
    assert_same_weights(compiled, plain, atol=1e-6)


def test_the_student_alone_is_pushed_with_its_teachers_name(hub, distil):
    run = distil(hub_license="mit", hub_model_id="ann/student", teacher_name="ann/teacher", max_steps=2)
    run.train()
    run.push_to_hub()
    card = ModelCard.load("ann/student")
    assert card.data.base_model == "ann/teacher" and str(run.layer_map) in card.text
    theirs = run.student.state_dict()
    for name, value in FastJukeboxPrior.from_pretrained("ann/student", level=1).state_dict().items():
        assert torch.equal(value, theirs[name])
    assert not {PROJECTION, "optimizer.pt", "training_args.bin"} & set(hub.files("ann/student"))


def test_a_run_may_stop_early_but_only_in_its_last_stage(distil):
    stages = [{"loss": "intermediate", "steps": 6}, {"loss": "prediction", "steps": 30, "learning_rate": 3.0}]
    run = distil(
        stages=stages, early_stopping_patience=2, eval_strategy="steps", eval_steps=1, learning_rate=1e-9,
        metric_for_best_model="bits_per_code",
    )  # fmt: skip
    figures = run.train_and_save()
    evaluations = [entry["eval_bits_per_code"] for entry in run.state.log_history if "eval_loss" in entry]
    assert 8 <= run.state.global_step < 36  # nothing gets better in the first stage, which is trained to its end
    assert figures["eval_bits_per_code"] == pytest.approx(min(evaluations), abs=1e-5)


def test_a_file_of_stages_is_no_pipe(pipe):
    with pytest.raises(OSError, match="no regular file"):
        _read_json(str(pipe))
