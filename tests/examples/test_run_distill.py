"""Distillation at toy size, both stages: from songs and a tiny teacher to a student that sounds."""

import json

import pytest
import torch
from huggingface_hub import ModelCard

from fast_jukebox import FastJukeboxModel, FastJukeboxVQVAE
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.push import push_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.distillation import DistillationArguments, DistillationStage

STAGES = [{"loss": "intermediate", "steps": 2}, {"loss": "prediction", "steps": 2}]


@pytest.fixture
def options(songs, tiny_model, tmp_path):
    tiny_model.generation_config.temperature = [0.8, 0.85, 0.9]
    tiny_model.save_pretrained(tmp_path / "teacher")
    return {
        "teacher": str(tmp_path / "teacher"), "student_layers": 2, "codes": str(tmp_path / "codes"),
        "songs": str(songs), "test_fraction": 0.3, "output_dir": str(tmp_path / "student"), "stages": STAGES,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2, "logging_steps": 1, "save_steps": 2, "use_cpu": True, "disable_tqdm": True,
        "report_to": "none", "hub_license": "apache-2.0", "teacher_name": "someone/teacher",
    }  # fmt: skip


def test_a_teacher_becomes_a_student_that_sounds(scripts, options, tiny_model, tmp_path):
    (tmp_path / "options.json").write_text(json.dumps(options))
    figures = scripts["run_distill"].main([str(tmp_path / "options.json")])
    assert list(figures) == ["top level (2)", "middle level (1)", "bottom level (0)"]
    for level in figures.values():
        assert 0 < level["teacher_bits_per_code"] < 10 and 0 <= level["agreement"] <= 1
        assert -1e-6 < level["kl_to_teacher"] < level["bits_per_code"]  # of equal distributions 0 up to rounding

    student = FastJukeboxModel.from_pretrained(tmp_path / "student").eval()
    assert [prior.config.num_hidden_layers for prior in student.priors] == [2, 2, 2]
    theirs = tiny_model.vqvae.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in student.vqvae.state_dict().items())
    assert student.generation_config.temperature == [0.8, 0.85, 0.9]
    output = student.generate(duration=0.5, seed=0)
    assert output.audio.shape == (1, 800) and output.audio.isfinite().all()

    card = ModelCard.load(tmp_path / "student" / "README.md")
    assert card.data.base_model == "someone/teacher" and card.data.license == "apache-2.0"
    for text in (
        "top level (2): 2 layers",
        "| row     |",
        "| intermediate | 2 |",
        "KL divergence to the teacher, bits",
    ):
        assert text in card.text


def test_a_level_alone_leaves_the_others_to_the_teacher_and_is_kept(scripts, options, tiny_model, tmp_path):
    options |= {"level": 1, "max_steps": 2}
    (tmp_path / "options.json").write_text(json.dumps(options))
    assert list(scripts["run_distill"].main([str(tmp_path / "options.json")])) == ["middle level (1)"]
    student = FastJukeboxModel.from_pretrained(tmp_path / "student")
    assert [prior.config.num_hidden_layers for prior in student.priors] == [3, 2, 3]
    assert torch.equal(student.priors[2].position_embedding, tiny_model.priors[2].position_embedding)

    # The same command finds the level done.
    written = (tmp_path / "student" / "runs" / "level-1" / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "options.json").write_text(json.dumps(options | {"resume_from_checkpoint": "true"}))
    scripts["run_distill"].main([str(tmp_path / "options.json")])
    assert (tmp_path / "student" / "runs" / "level-1" / "model.safetensors").stat().st_mtime_ns == written


def test_a_teacher_and_songs_on_the_hub_become_a_student_there(hub, scripts, options, tiny_model, tmp_path):
    tiny_model.push_to_hub("ann/teacher", license="mit", max_shard_size="8KB", private=True)
    push_songs(load_songs(options["songs"], test_fraction=0.3), "ann/songs", license="mit")
    del options["teacher_name"]
    options |= {"teacher": "ann/teacher", "songs": "ann/songs", "push_to_hub": True, "hub_model_id": "ann/student"}
    options |= {"hub_private_repo": True, "level": 2}  # the others stay the teacher's
    (tmp_path / "options.json").write_text(json.dumps(options | {"hub_datasets": ["ann/songs"]}))
    scripts["run_distill"].main([str(tmp_path / "options.json")])
    assert hub.repository("ann/student").private
    student = FastJukeboxModel.from_pretrained("ann/student")
    theirs = FastJukeboxModel.from_pretrained(tmp_path / "student").state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in student.state_dict().items())
    assert [prior.config.num_hidden_layers for prior in student.priors] == [3, 3, 2]
    card = ModelCard.load("ann/student")
    assert (card.data.base_model, card.data.license) == ("ann/teacher", "apache-2.0")
    assert card.data.datasets == ["ann/songs"] and "Which layer learnt from which" in card.text
    assert len(card.data.eval_results) == 4
    assert set(hub.files("ann/student")) == {
        ".gitattributes", "README.md", "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip


def test_what_is_asked_of_the_push_and_of_the_windows_is_passed_on(scripts, options, tmp_path, monkeypatch):
    script, pushed, windows = scripts["run_distill"], {}, []
    options |= {"push_to_hub": True, "hub_model_id": "ann/student", "hub_private_repo": True, "hub_token": "token"}
    options |= {"hub_revision": "draft", "label_dropout": 0.25, "max_eval_windows": 3, "level": 2}
    (tmp_path / "options.json").write_text(json.dumps(options))
    monkeypatch.setattr(script, "push_folder", lambda *names, **more: pushed.update(more, names=names))
    monkeypatch.setattr(script, "write_student", lambda *_: {})
    with monkeypatch.context() as context:
        context.setattr(script, "distil_level", lambda *_: None)
        script.main([str(tmp_path / "options.json")])
    assert pushed == {
        "names": (options["output_dir"], "ann/student"), "private": True, "token": "token", "revision": "draft",
    }  # fmt: skip
    monkeypatch.setattr("fast_jukebox.training.data.CodeWindows", lambda *_, **more: windows.append(more))
    monkeypatch.setattr(script, "DistillationTrainer", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        script.main([str(tmp_path / "options.json")])
    train, test = windows
    assert train["label_dropout"] == 0.25 and "max_windows" not in train
    assert test["max_windows"] == 3 and "label_dropout" not in test


def test_a_teacher_that_is_told_words_has_such_a_student(scripts, options, words_model, songs, tmp_path):
    words_model.save_pretrained(tmp_path / "teacher")
    words = [{"file_name": "0.wav", "artist": "Ann Lee", "lyrics": "la"}, {"file_name": "1.wav", "genre": "hymn"}]
    (songs / "metadata.jsonl").write_text("\n".join(map(json.dumps, words)))
    options |= {"level": 2, "label_dropout": 0.1, "stages": [{"loss": "intermediate", "steps": 1}]}
    options |= {"stages": [*options["stages"], {"loss": "prediction", "steps": 1}]}
    (tmp_path / "options.json").write_text(json.dumps(options))
    scripts["run_distill"].main([str(tmp_path / "options.json")])
    student = FastJukeboxModel.from_pretrained(tmp_path / "student").eval()
    assert vars(student.processor) == vars(words_model.processor)
    assert student.priors[2].config.layer_types == ["row", "lyric_cross"]
    song = student.generate(duration=0.1, seed=0, metadata={"artist": "Ann Lee", "lyrics": "la la"})
    assert song.audio.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"student_layers": 4}, "`--student_layers` must be from 1 to the teacher's 3, got 4"),
        ({"level": 3}, "`--level` must be from 0 to 2, got 3"),
        ({"songs": None}, "holds no codes: name `--songs`"),
    ],
)
def test_what_cannot_be_distilled_is_said_first(scripts, options, tmp_path, changes, match):
    (tmp_path / "codes").mkdir()
    (tmp_path / "options.json").write_text(json.dumps(options | changes))
    with pytest.raises(ValueError, match=match):
        scripts["run_distill"].main([str(tmp_path / "options.json")])


def test_codes_of_another_vqvae_are_refused(scripts, options, tiny_config, tmp_path):
    another = FastJukeboxVQVAE(tiny_config.vqvae_config)
    encode_songs(load_songs(options["songs"], test_fraction=0.3), another, options["codes"])
    (tmp_path / "options.json").write_text(json.dumps(options | {"songs": None}))
    with pytest.raises(ValueError, match="codes holds codes of another VQ-VAE"):
        scripts["run_distill"].main([str(tmp_path / "options.json")])


def test_songs_of_which_none_are_held_out_are_refused_before_they_are_encoded(scripts, options, tmp_path):
    (tmp_path / "options.json").write_text(json.dumps(options | {"test_fraction": 0.0}))
    with pytest.raises(ValueError, match=r"`--songs` .* `test_fraction` above 0; got the splits train"):
        scripts["run_distill"].main([str(tmp_path / "options.json")])
    assert not (tmp_path / "codes").exists()


def test_what_cannot_be_gone_on_with_is_refused(scripts, options, tmp_path):
    options |= {"resume_from_checkpoint": "runs/checkpoint-2"}
    (tmp_path / "options.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match="`--resume_from_checkpoint` must be true or false where several levels"):
        scripts["run_distill"].main([str(tmp_path / "options.json")])

    # A level of two layers is done: one of three layers is another student.
    options |= {"level": 2, "max_steps": 1, "resume_from_checkpoint": "true"}
    (tmp_path / "options.json").write_text(json.dumps(options))
    scripts["run_distill"].main([str(tmp_path / "options.json")])
    options |= {"student_layers": 3}
    (tmp_path / "options.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match="`--student_layers` must be the 2 of .*level-2, which is finished"):
        scripts["run_distill"].main([str(tmp_path / "options.json")])


def test_a_level_that_is_begun_anew_is_not_finished_until_it_is(scripts, options, tmp_path, monkeypatch):
    script = scripts["run_distill"]
    options |= {"level": 2, "max_steps": 1}
    (tmp_path / "options.json").write_text(json.dumps(options))
    script.main([str(tmp_path / "options.json")])
    result = script.level_folder(options["output_dir"], 2) / script.RESULT
    assert result.is_file()
    with monkeypatch.context() as broken:
        broken.setattr(script.DistillationTrainer, "train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            script.main([str(tmp_path / "options.json")])
    assert not result.is_file()


def test_the_settings_that_are_given_can_be_read(scripts, repository_root, tmp_path):
    files = sorted((repository_root / "examples" / "configs").glob("distill-*.yaml"))
    assert [path.stem for path in files] == ["distill-fastjukebox-18", "distill-mini-12"]
    script = scripts["run_distill"]
    groups = (script.ModelArguments, script.CodesArguments, DistillationArguments)
    for path, layers in zip(files, (18, 12), strict=True):
        # Whether there is a GPU says nothing of the file.
        text = path.read_text(encoding="utf-8").replace("bf16: true", "use_cpu: true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
        model_args, _, args = script.parse_arguments(groups, [str(tmp_path / path.name)])
        assert model_args.student_layers == layers and isinstance(args.learning_rate, float)
        assert all(isinstance(stage, DistillationStage) for stage in args.stages)
    paper = script.parse_arguments(groups, [str(tmp_path / files[0].name)])[2]
    assert [(stage.name, stage.epochs) for stage in paper.stages] == [("intermediate", 20), ("prediction", 50)]
    assert not paper.initialize_from_teacher
