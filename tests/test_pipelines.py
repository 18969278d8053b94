import io
import socket
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

import fast_jukebox
from fast_jukebox.evaluation.song_metrics import measure_song, summarise_songs
from fast_jukebox.pipelines import (
    TASK,
    FastJukeboxPipeline,
    check_device,
    default_model_path,
    register_pipeline,
)


@pytest.fixture
def pipe(tiny_model):
    return FastJukeboxPipeline(tiny_model, task=TASK, device="cpu", progress=False)


def same(first, second):
    np.testing.assert_array_equal(first, second)


def test_a_call_without_arguments_makes_a_song(tiny_model):
    tiny_model.generation_config.duration = 0.1
    song = FastJukeboxPipeline(tiny_model, device="cpu")()
    assert set(song) == {"audio", "sampling_rate"}
    assert isinstance(song["audio"], np.ndarray)
    assert song["audio"].dtype == np.float32
    assert song["audio"].shape == (160,)
    assert song["sampling_rate"] == 1600


def test_the_song_is_that_of_the_model(pipe, tiny_model):
    expected = tiny_model.generate(duration=0.1, seed=3, temperature=0.9)
    same(pipe(duration=0.1, seed=3, temperature=0.9)["audio"], expected.audio[0].numpy())
    same(pipe({"duration": 0.1, "seed": 3, "temperature": 0.9})["audio"], expected.audio[0].numpy())
    several = pipe(duration=0.1, seed=3, temperature=0.9, num_samples=2)
    assert several["audio"].shape == (2, 160)
    same(several["audio"][:1], expected.audio.numpy())


def test_a_list_gives_a_list_and_an_item_goes_before_the_call(pipe):
    inputs = [{"duration": 0.1, "seed": 1}, {"duration": 0.12, "seed": 2}, {"seed": 3}]
    songs = pipe(inputs, duration=0.05)
    assert [song["audio"].shape for song in songs] == [(160,), (192,), (80,)]
    for item, song in zip(inputs, songs, strict=True):
        same(pipe(**{"duration": 0.05, **item})["audio"], song["audio"])
    assert pipe([]) == []


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_batches_change_nothing(pipe, tiny_model, batch_size, monkeypatch):
    inputs = [{"duration": 0.1 if seed != 2 else 0.05, "seed": seed} for seed in range(5)]
    alone = pipe(inputs)
    sizes = []
    original = tiny_model.generate
    monkeypatch.setattr(tiny_model, "generate", lambda **kwargs: sizes.append(kwargs["seed"]) or original(**kwargs))
    together = pipe(inputs, batch_size=batch_size, return_details=True)
    assert len(sizes) < 5
    for index, (first, second) in enumerate(zip(alone, together, strict=True)):
        same(first["audio"], second["audio"])
        assert second["seed"] == index


def test_datasets_are_worked_off_like_generators(pipe):
    from datasets import Dataset

    requests = [{"duration": 0.1, "seed": 1}, {"duration": 0.2, "seed": 2}]
    songs = pipe(Dataset.from_list(requests))
    assert not isinstance(songs, list)
    for song, wanted in zip(songs, pipe(requests), strict=True):
        same(song["audio"], wanted["audio"])


def test_generators_are_worked_off_one_by_one(pipe):
    taken = []

    def inputs():
        for seed in range(3):
            taken.append(seed)
            yield {"duration": 0.05, "seed": seed}

    songs = pipe(inputs())
    first = next(songs)
    assert len(taken) == 1
    same(first["audio"], pipe(duration=0.05, seed=0)["audio"])
    assert len(list(songs)) == 2


def test_details_make_the_song_again(pipe):
    song = pipe(duration=0.1, return_details=True)
    assert [codes.shape for codes in song["codes"]] == [(1, 40), (1, 20), (1, 10)]
    same(pipe(duration=0.1, seed=song["seed"])["audio"], song["audio"])
    drafted = pipe(duration=0.1, stop_level=2, seed=song["seed"], return_details=True)
    assert drafted["codes"][0] is None
    assert all(song["engines"]) and drafted["engines"] == [None, None, song["engines"][2]]
    same(pipe(codes=[drafted["codes"][2]], seed=song["seed"])["audio"], song["audio"])


def test_words_go_to_the_model(words_model):
    words_pipe = FastJukeboxPipeline(words_model, device="cpu")
    words = {"artist": "Ann Lee", "lyrics": "Where the wind blows ♪"}
    song = words_pipe(duration=0.1, seed=1, metadata=words, return_details=True)
    same(song["audio"], words_model.generate(duration=0.1, seed=1, metadata=words).audio[0].numpy())
    assert song["dropped_lyrics"] == ["♪"]
    several = words_pipe([{"metadata": words, "seed": 1}, {"metadata": {}, "seed": 1}], duration=0.1, batch_size=2)
    same(several[0]["audio"], song["audio"])
    assert not np.array_equal(several[1]["audio"], song["audio"])


def test_a_recording_is_gone_on_with_however_it_is_given(pipe, tiny_model, tmp_path):
    samples = (0.3 * np.sin(np.arange(400) / 5)).astype(np.float32)
    path = tmp_path / "in.wav"
    soundfile.write(path, samples, 1600, subtype="FLOAT")
    expected = tiny_model.generate(duration=0.12, prompt=torch.from_numpy(samples), prompt_duration=0.1, seed=1)
    encoded = io.BytesIO(path.read_bytes()).getvalue()
    prompts = [
        path,
        str(path),
        encoded,
        samples,
        torch.from_numpy(samples),
        {"array": samples, "sampling_rate": 1600},
        {"raw": samples, "sampling_rate": 1600},
        {"bytes": encoded, "path": None},
    ]
    for prompt in prompts:
        same(pipe(prompt, prompt_duration=0.1, duration=0.12, seed=1)["audio"], expected.audio[0].numpy())
    for inputs, arguments in ((None, {"prompt": path}), ({"prompt": path}, {})):
        song = pipe(inputs, **arguments, prompt_duration=0.1, duration=0.12, seed=1)
        same(song["audio"], expected.audio[0].numpy())


def test_a_recording_of_another_rate_is_resampled(pipe):
    song = pipe({"array": np.zeros(800, dtype=np.float32), "sampling_rate": 3200}, duration=0.3, seed=1)
    assert song["audio"].shape == (480,)


def test_only_what_is_kept_of_a_recording_is_read(pipe, monkeypatch):
    read = {}
    original = fast_jukebox.pipelines.load_audio
    monkeypatch.setattr(
        fast_jukebox.pipelines, "load_audio", lambda *args, **kwargs: read.update(kwargs) or original(*args, **kwargs)
    )
    pipe(np.zeros(1600 * 60, dtype=np.float32), prompt_duration=0.1, duration=0.2)
    assert read["duration"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        ({"duratoin": 3}, {}, "duration"),
        (None, {"duration": 0}, "duration"),
        ([{"duration": -1}], {}, "duration"),
        (np.zeros(160, dtype=np.float32), {"prompt_duration": -1, "duration": 1}, "prompt_duration"),
        (np.zeros(1600, dtype=np.float32), {"duration": 0.1}, "prompt"),
        (None, {"temperature": 0}, "temperature"),
        ([{"duration": 0.1}], {"batch_size": 0}, "batch_size.*at least 1, got 0"),
        ({"array": np.zeros(160, dtype=np.float32), "sampling_rate": 1600, "duration": 1}, {}, "duration.*beside"),
        (None, {"prompt": {"path": "song.wav", "seed": 1}}, "seed.*beside"),
    ],
)
def test_bad_input(pipe, inputs, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(inputs, **arguments)


def test_misspelt_arguments_are_refused(pipe, tiny_model):
    with pytest.raises(TypeError, match="duratoin"):
        pipe(duratoin=3)
    with pytest.raises(ValueError, match="did you mean `duration`"):
        FastJukeboxPipeline(tiny_model, task=TASK, device="cpu", duratoin=3)


def test_arguments_of_the_pipeline_hold_where_a_call_names_none(tiny_model):
    pipe = FastJukeboxPipeline(tiny_model, task=TASK, device="cpu", duration=0.05, num_samples=2, stop_level=1, seed=3)
    expected = tiny_model.generate(duration=0.05, num_samples=2, stop_level=1, seed=3)
    same(pipe()["audio"], expected.audio.numpy())
    same(pipe(num_samples=1, stop_level=0)["audio"], tiny_model.generate(duration=0.05, seed=3).audio[0].numpy())


def test_a_file_that_is_no_sound_is_named(pipe, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("la la la")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        pipe(path, duration=0.1)
    with pytest.raises(FileNotFoundError, match="missing"):
        pipe(tmp_path / "missing.wav", duration=0.1)


def test_progress_is_told_or_shown_or_not(pipe, capsys):
    told = []
    pipe(duration=0.1, progress=told.append)
    assert told[-1].codes_done == told[-1].codes_total
    capsys.readouterr()
    pipe(duration=0.1, progress=True)
    assert "sampling: 0.1 of 0.1 s of music |" in capsys.readouterr().err
    pipe(duration=0.1)
    assert capsys.readouterr().err == ""


def test_the_task_loads_any_repository_by_name_or_as_an_object(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    for model in (str(tmp_path), tmp_path, tiny_model):
        pipe = pipeline(TASK, model=model, device="cpu")
        assert isinstance(pipe, FastJukeboxPipeline)
        assert pipe(duration=0.05, seed=0)["audio"].shape == (80,)
    assert "FastJukeboxModel" in repr(pipe)


def test_parts_of_a_model_are_refused(tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model.*FastJukeboxVQVAE"):
        pipeline(TASK, model=str(tmp_path), device="cpu")


def test_a_saved_pipeline_is_the_model_without_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "custom_pipelines" not in (tmp_path / "config.json").read_text()
    same(
        pipeline(TASK, model=str(tmp_path), device="cpu")(duration=0.05, seed=1)["audio"],
        pipe(duration=0.05, seed=1)["audio"],
    )


def test_the_default_is_a_folder_of_the_package_and_needs_no_network(tiny_model, tmp_path, monkeypatch):
    assert default_model_path().name == "pretrained"
    assert default_model_path().parent.name == "fast_jukebox"
    task = PIPELINE_REGISTRY.supported_tasks[TASK]
    assert task["default"]["model"] == (str(default_model_path()), None)

    def no_network(*args, **kwargs):
        raise AssertionError("the network was asked")

    tiny_model.save_pretrained(tmp_path)
    monkeypatch.setitem(task["default"], "model", (str(tmp_path), None))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert pipeline(TASK, device="cpu")(duration=0.05)["audio"].shape == (80,)


def test_registering_again_is_harmless(caplog):
    register_pipeline()
    assert PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] is FastJukeboxPipeline
    assert not caplog.records


def test_devices(tiny_model):
    assert FastJukeboxPipeline(tiny_model, device="auto").device.type in ("cpu", "cuda", "mps")
    assert check_device("cpu") == torch.device("cpu")
    assert check_device("auto") is None
    assert check_device(-1) == torch.device("cpu")
    for device in ("gpu", 1.5):
        with pytest.raises(ValueError, match="device"):
            check_device(device)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device"):
        check_device("cuda:0")


@pytest.fixture(scope="module")
def jukebox():
    return pipeline("fast-jukebox")


class TestEmbeddedDefault:
    """The model that comes with the package."""

    def test_it_sounds_without_a_network(self, jukebox, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr("socket.socket.connect", refuse)
        song = jukebox(duration=0.1, seed=0)
        assert song["sampling_rate"] == 44100
        assert song["audio"].shape == (4410,)
        assert np.isfinite(song["audio"]).all()
        assert np.abs(song["audio"]).max() > 1e-4

    def test_it_fits_the_package_and_states_its_figures(self):
        folder = default_model_path()
        assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 40e6
        assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".md", ".png"}
        card = ModelCard.load(folder / "README.md")
        assert card.data.license == "apache-2.0"
        measured = {result.metric_name: result.metric_value for result in card.data.eval_results}
        for level, bits in (("bottom", 3), ("middle", 2), ("top", 1.5)):
            assert measured[f"bits per code of the prior, {level}"] < bits
            assert measured[f"reconstruction, signal-to-noise ratio (dB), {level}"] > 2
        assert measured["time below -40 dBFS, samples of the model"] < 0.1
        assert measured["songs silent for over 2 s, samples of the model"] < 0.1
        assert measured["time with notes of one key, samples of the model"] > 0.95
        assert measured["tonal clarity, samples of the model"] > 0.75

    def test_it_says_which_pair_it_drew(self, jukebox):
        drawn = [jukebox(duration=0.1, seed=seed)["metadata"] for seed in range(6)]
        assert {(own["artist"], own["genre"]) for own in drawn} <= set(jukebox.model.processor.pairs)
        assert len({own["artist"] for own in drawn}) > 1

    def test_its_codes_keep_a_melody(self, jukebox):
        time = torch.arange(44032) / 44100
        tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)[None]
        vqvae = jukebox.model.vqvae
        noise = vqvae.decode(vqvae.encode(tone)) - tone
        assert 10 * torch.log10(tone.square().sum() / noise.square().sum()) > 10

    def test_its_weights_are_computed_with_in_float32(self, jukebox):
        assert {parameter.dtype for parameter in jukebox.model.parameters()} == {torch.float32}

    @pytest.mark.slow
    def test_it_plays_notes_without_holes(self, jukebox):
        made = jukebox.model.generate(duration=8, num_samples=4, seed=1000)
        songs = [asdict(measure_song(song, made.sampling_rate)) for song in made.audio]
        summary = {name: found.value for name, found in summarise_songs(songs).items()}
        assert summary["quiet_fraction"] < 0.25
        assert summary["noted_fraction"] > 0.7
        assert summary["tonal_clarity"] > 0.5
        assert summary["notes_per_minute"] > 30


@pytest.mark.parametrize(
    "given", ["https://example.com/song.wav", "a happy tune.wav", (1600, np.zeros(3200, "float32"))]
)
def test_what_is_no_recording_is_told_apart(pipe, given):
    with pytest.raises(ValueError, match="`prompt` must be"):
        pipe(given, duration=0.1)


def test_the_default_model_comes_without_advice(run_afresh):
    _, told = run_afresh("import fast_jukebox; from transformers import pipeline; pipeline('fast-jukebox')")
    assert "not recommended" not in told
    assert "No model was supplied" not in told


def test_a_labelled_model_plays_what_it_is_asked_for_or_says_what_it_chose(paired_model):
    pipe = FastJukeboxPipeline(paired_model, device="cpu", progress=False)
    song = pipe(duration=0.1, seed=2)
    assert {"artist", "genre"} == set(song["metadata"])
    asked = pipe(duration=0.1, seed=2, metadata=song["metadata"])
    assert "metadata" not in asked
    assert np.array_equal(asked["audio"], song["audio"])
    assert len(pipe(duration=0.1, seed=2, num_samples=2)["metadata"]) == 2
    several = pipe([{"duration": 0.1, "seed": seed} for seed in (2, 3)], batch_size=2)
    assert several[0]["metadata"] == song["metadata"]
    assert np.array_equal(several[0]["audio"], song["audio"])
    with pytest.raises(ValueError, match="`genre` must be one of"):
        pipe(duration=0.1, metadata={"genre": "polka"})
