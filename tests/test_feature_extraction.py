"""Recordings to features: a model's `features`, and transformers' task `feature-extraction`."""

import numpy as np
import pytest
import soundfile
import torch
import transformers.pipelines
from transformers import BertConfig, BertModel, BertTokenizer, FeatureExtractionPipeline, pipeline

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.distillation import DistillationArguments, DistillationTrainer, student_config
from fast_jukebox.feature_extraction import FastJukeboxFeaturePipeline, FeatureExtraction


@pytest.fixture
def recording():
    time = np.arange(1000) / 1600
    return (0.4 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)


@pytest.mark.parametrize("level", [None, 2, 1, 0])
def test_features_of_a_recording_are_those_of_its_codes(tiny_model, recording, level):
    found = tiny_model.features(recording, level=level, layers=[0, 1], overlap=0.25)
    padded = torch.zeros(1, 1008)  # whole codes of the top level, 16 samples each
    padded[0, :1000] = torch.from_numpy(recording)
    codes, number = tiny_model.vqvae.encode(padded), 2 if level is None else level
    upper = codes[number + 1] if number < 2 else None
    wanted = tiny_model.priors[number].features(codes[number], upper, layers=[0, 1], overlap=0.25)
    assert found.level == number and found.teacher_layers is None
    for layer in (0, 1):
        assert torch.equal(found[layer], wanted[layer])


def test_several_recordings_at_once_are_each_as_alone(tiny_model, recording):
    both = torch.stack([torch.from_numpy(recording), torch.from_numpy(recording).flip(0)])
    found = tiny_model.features(both, pool="mean")
    for index in range(2):
        assert torch.equal(tiny_model.features(both[index], pool="mean")[1][0], found[1][index])


def test_words_of_a_song_are_heard(words_model, recording):
    nobody = words_model.features(recording, pool="mean")
    ann = words_model.features(recording, pool="mean", metadata={"artist": "Ann Lee"})
    (layer,) = nobody.layers
    assert not torch.equal(nobody[layer], ann[layer])


def test_students_name_their_teachers_layers(tiny_config, tiny_model, recording, tmp_path):
    config = tiny_config.prior_configs[2]
    config.layer_types, config.num_hidden_layers = ["row", "column"], 6
    teacher = FastJukeboxPrior(config)
    student = FastJukeboxPrior(student_config(teacher.config, 3))
    assert student.config.teacher_layers is None
    arguments = DistillationArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    DistillationTrainer(model=student, teacher=teacher, args=arguments)
    student.save_pretrained(tmp_path / "student")
    tiny_model.priors[2] = FastJukeboxPrior.from_pretrained(tmp_path / "student")
    found = tiny_model.features(recording, layers=[0, -1], pool="mean")
    assert found.teacher_layers == {0: 0, 2: 4}
    assert student_config(student.config, 3).teacher_layers is None
    student.config.num_hidden_layers = 2
    student.config.validate()
    assert student.config.teacher_layers is None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"level": 3}, "`level` must be an integer from 0 to 2, got 3"),
        ({"audio": np.zeros(10, dtype=np.int16)}, "`audio` must be floating-point audio"),
        ({"audio": np.full(10, np.nan, dtype=np.float32)}, "`audio` must be finite"),
        ({"layers": [9]}, "`layers` must be integers"),
        ({"metadata": {"artist": "Ann"}}, "`metadata` must be left out where no prior has labels"),
    ],
)
def test_bad_input_is_named(tiny_model, recording, arguments, match):
    with pytest.raises(ValueError, match=match):
        tiny_model.features(**{"audio": recording, **arguments})


def test_the_task_of_transformers_reads_recordings(tiny_model, recording, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "song.wav", recording, 1600, subtype="FLOAT")
    extract = pipeline("feature-extraction", model=str(tmp_path / "model"), layers=[1], pool="mean", device="cpu")
    assert isinstance(extract, FastJukeboxFeaturePipeline)
    wanted = tiny_model.features(recording, layers=[1], pool="mean")[1][0].numpy()
    song = extract(str(tmp_path / "song.wav"))
    assert song["level"] == 2 and song["frame_rate"] is None and song["teacher_layers"] is None
    np.testing.assert_array_equal(song["features"][1], wanted)
    inputs = [recording, {"array": recording, "sampling_rate": 1600}, {"raw": recording, "sampling_rate": 1600}]
    for found in [*extract(inputs), *extract(item for item in inputs)]:
        np.testing.assert_array_equal(found["features"][1], wanted)
    frames = extract(recording, pool=None, frame_rate=10, layers=[0, 2])
    assert {layer: states.shape for layer, states in frames["features"].items()} == {0: (7, 16), 2: (7, 16)}
    with pytest.raises(ValueError, match="`poool` is no argument of 'feature-extraction'"):
        extract(recording, poool="mean")


def test_models_of_others_get_the_pipeline_of_transformers(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n")
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    extract = pipeline("feature-extraction", model=str(tmp_path / "bert"), device="cpu")
    assert type(extract) is FeatureExtractionPipeline
    assert len(extract("hello")[0][0]) == 8
    known = transformers.pipelines.PIPELINE_REGISTRY.supported_tasks["feature-extraction"]["impl"]
    assert known is FeatureExtraction
