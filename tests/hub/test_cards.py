import re

import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard, ModelCardData

from fast_jukebox import hub
from fast_jukebox.hub.push import check_metadata

ARGUMENTS = {
    "name": "someone/chorales",
    "description": "A small model.",
    "training": "Two hours on two cores.",
    "license": "apache-2.0",
}
FIGURES = {"bits per code": {"top": 5.25, "middle": 4.0}, "songs heard": 350, "machine": "one | laptop"}


def test_a_card_states_what_the_hub_asks_for(tmp_path):
    hub.write_model_card(
        tmp_path, **ARGUMENTS, metrics=FIGURES, datasets=["someone/songs"], base_model="someone/teacher", tags=["bach"]
    )
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.license == "apache-2.0"
    assert data.library_name == "fast-jukebox"
    assert data.pipeline_tag == "text-to-audio"
    assert data.datasets == ["someone/songs"]
    assert data.base_model == "someone/teacher"
    assert {"fast-jukebox", "bach"} <= set(data.tags)
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {"bits per code, top": 5.25, "bits per code, middle": 4.0, "songs heard": 350}
    assert all(result.dataset_type == "someone/songs" for result in data.eval_results)


def test_the_metadata_survives_a_round_trip():
    data = hub.model_card(**ARGUMENTS, metrics=FIGURES).data
    again = ModelCardData(**ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict())
    assert again.to_dict() == data.to_dict()


def test_figures_are_a_table_and_only_finite_numbers_are_results():
    card = hub.model_card(**ARGUMENTS, metrics={**FIGURES, "diverged": float("nan")})
    assert "| bits per code | top | 5.25 |" in card.text
    assert "| machine |  | one \\| laptop |" in card.text
    names = [result.metric_type for result in card.data.eval_results]
    assert names == ["bits_per_code_top", "bits_per_code_middle", "songs_heard"]


def test_a_card_without_figures_says_so():
    card = hub.model_card(**ARGUMENTS)
    assert "Nothing has been measured" in card.text
    assert card.data.eval_results is None


@pytest.mark.parametrize("kind", ["model", "vqvae", "prior"])
def test_the_example_is_python_and_names_the_model(kind):
    card = hub.model_card(**ARGUMENTS, kind=kind)
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "someone/chorales" in code
    assert code.splitlines()[0].split()[1].startswith("fast_jukebox")


def test_the_license_and_the_teacher_are_named():
    card = hub.model_card(
        **{**ARGUMENTS, "license": "other"}, license_name="nc", license_link="LICENSE.md", base_model="someone/teacher"
    )
    assert "[nc](LICENSE.md)" in card.text
    assert "derive from `someone/teacher`" in card.text
    assert card.data.license_link == "LICENSE.md"


@pytest.mark.parametrize("license", ["", "  ", None, "unknown"])
def test_a_card_without_a_license_is_refused(license):
    with pytest.raises(ValueError, match="license"):
        hub.model_card(**{**ARGUMENTS, "license": license})


def test_another_license_needs_its_name():
    with pytest.raises(ValueError, match="license_name"):
        hub.model_card(**{**ARGUMENTS, "license": "other"}, license_link="LICENSE.md")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        hub.model_card(**ARGUMENTS, kind="song")


def test_writing_leaves_no_other_file_and_replaces_the_old_card(tmp_path):
    hub.write_model_card(tmp_path, **ARGUMENTS)
    path = hub.write_model_card(tmp_path, **{**ARGUMENTS, "description": "A better model."})
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"]
    assert "A better model." in path.read_text(encoding="utf-8")


def test_a_card_shows_the_picture_that_lies_beside_it(tmp_path):
    (tmp_path / "spectrograms.png").write_bytes(b"picture")
    path = hub.write_model_card(tmp_path, **ARGUMENTS)
    assert "![mel spectrogram](spectrograms.png)" in path.read_text(encoding="utf-8")


def test_a_picture_from_elsewhere_is_copied_beside_the_card(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "song.png").write_bytes(b"new")
    for old in (None, b"old"):
        if old is not None:
            (tmp_path / "model" / "song.png").write_bytes(old)
        path = hub.write_model_card(tmp_path / "model", picture=tmp_path / "runs" / "song.png", **ARGUMENTS)
        assert "](song.png)" in path.read_text(encoding="utf-8")
        assert (tmp_path / "model" / "song.png").read_bytes() == b"new"


def test_a_bare_name_is_one_of_the_directorys_own_files(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    for folder in (tmp_path, tmp_path / "model"):
        (folder / "song.png").write_bytes(folder.name.encode())
    monkeypatch.chdir(tmp_path)
    hub.write_model_card("model", picture="song.png", **ARGUMENTS)
    assert (tmp_path / "model" / "song.png").read_bytes() == b"model"


def test_a_picture_that_is_not_there_is_refused_and_no_card_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="song.png"):
        hub.write_model_card(tmp_path, picture=tmp_path / "runs" / "song.png", **ARGUMENTS)
    assert not (tmp_path / "README.md").exists()


def test_a_card_without_picture_shows_none(tmp_path):
    assert "![" not in hub.write_model_card(tmp_path, **ARGUMENTS).read_text(encoding="utf-8")


def test_the_license_of_a_card_is_read(tmp_path):
    hub.write_model_card(tmp_path, **ARGUMENTS)
    assert hub.require_license(tmp_path) == "apache-2.0"
    assert hub.require_license(hub.model_card(**ARGUMENTS)) == "apache-2.0"
    with pytest.raises(ValueError, match="`license`.*has no README.md"):
        hub.require_license(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="`license` must be an identifier"):
        hub.require_license(ModelCard("---\ntags:\n- music\n---\n# A model\n"))


SONGS = {
    "name": "someone/songs",
    "description": "My band.",
    "license": "cc-by-4.0",
    "splits": {"train": ["train/**"], "test": ["test/**"]},
    "usage": 'songs = load_songs("someone/songs")',
}


def test_a_card_of_data_names_each_splits_files():
    card = hub.dataset_card(**SONGS, table={"songs": 12, "hours": 0.75}, tags=["bach"])
    again = DatasetCard(str(card)).data
    assert again.license == "cc-by-4.0" and {"fast-jukebox", "bach"} <= set(again.tags)
    assert again.configs == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": ["train/**"]}, {"split": "test", "path": ["test/**"]}],
        }
    ]
    assert "| hours | 0.75 |" in card.text and 'load_songs("someone/songs")' in card.text


def test_a_card_of_data_needs_a_license_too():
    with pytest.raises(ValueError, match="`license`"):
        hub.dataset_card(**{**SONGS, "license": ""})


@pytest.fixture
def client(request):
    """The Hub's client, talking to a server in the Hub's place."""
    return request.getfixturevalue("hub")


PRESETS = {72: None, 24: "your-name/fastjukebox-72", 18: "your-name/fastjukebox-72"}


@pytest.mark.parametrize("depth", PRESETS)
def test_the_templates_are_cards_that_want_a_license(depth, repository_root, client):
    from fast_jukebox import FastJukeboxConfig

    card = ModelCard.load(repository_root / "model_cards" / f"fastjukebox-{depth}.md", ignore_metadata_errors=False)
    check_metadata(card)
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.base_model) == ("fast-jukebox", "text-to-audio", PRESETS[depth])
    assert set(hub.TAGS) <= set(data.tags) and data.eval_results is None
    with pytest.raises(ValueError, match="`license`.*'unknown'"):
        hub.require_license(card)
    config = FastJukeboxConfig.preset(f"fastjukebox-{depth}")
    for level, prior in enumerate(config.prior_configs):
        seconds = prior.n_ctx * prior.hop_length / prior.sampling_rate
        row = f"| {level} | {prior.num_hidden_layers} | {prior.hidden_size} | {prior.n_ctx} | {seconds:.1f} s |"
        assert row in card.text
    assert "Nothing has been measured for this card." in card.text


@pytest.mark.parametrize("depth", PRESETS)
def test_the_templates_are_what_is_made_of_their_texts(depth, repository_root):
    from fast_jukebox import FastJukeboxConfig, FastJukeboxModel

    text = (repository_root / "model_cards" / f"fastjukebox-{depth}.md").read_text(encoding="utf-8")
    title, *sections = re.split(r"\n## (.*)\n\n", text.split("---\n", 2)[2])
    said = dict(zip(sections[::2], sections[1::2], strict=True))
    made = hub.model_card(
        name=f"your-name/fastjukebox-{depth}",
        description=title.split("\n\n", 1)[1],
        training=said["How it was trained"],
        license="apache-2.0",
        license_text=said["Licence"],
        base_model=PRESETS[depth],
        tags=["knowledge-distillation"] if PRESETS[depth] else [],
    )
    assert str(made).replace("license: apache-2.0", "license: unknown").rstrip() == text.rstrip()
    with torch.device("meta"):
        model = FastJukeboxModel(FastJukeboxConfig.preset(f"fastjukebox-{depth}"))
    assert f"{sum(weight.numel() for weight in model.parameters()) / 1e9:.2f} billion parameters" in title
