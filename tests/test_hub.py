from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from fast_jukebox import hub

ARGUMENTS = {
    "name": "someone/chorales",
    "description": "A small model.",
    "training": "Two hours on two cores.",
    "license": "apache-2.0",
}
FIGURES = {"bits per code": {"top": 5.25, "middle": 4.0}, "songs heard": 350, "machine": "one | laptop"}


def test_a_card_states_what_the_hub_asks_for(tmp_path):
    hub.write_model_card(
        tmp_path, **ARGUMENTS, figures=FIGURES, datasets=["someone/songs"], base_model="someone/teacher", tags=["bach"]
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
    data = hub.model_card(**ARGUMENTS, figures=FIGURES).data
    again = ModelCardData(**ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict())
    assert again.to_dict() == data.to_dict()


def test_figures_are_a_table_and_only_finite_numbers_are_results():
    card = hub.model_card(**ARGUMENTS, figures={**FIGURES, "diverged": float("nan")})
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


@pytest.mark.parametrize("license", ["", "  ", None])
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


class FakeApi:
    """Stands for the Hub's client and keeps what it was told."""

    calls: list = []  # noqa: RUF012

    def __init__(self, **kwargs):
        self.calls.append(("client", kwargs))

    def create_repo(self, repo_id, **kwargs):
        self.calls.append(("create_repo", repo_id))
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, **kwargs):
        self.calls.append(("upload_folder", kwargs))
        return type("Commit", (), {"commit_url": f"hub/{kwargs['repo_id']}/commit"})


@pytest.fixture
def api(monkeypatch):
    FakeApi.calls = []
    monkeypatch.setattr(hub, "HfApi", FakeApi)
    return FakeApi


def test_nothing_is_pushed_without_a_card(tmp_path, api):
    with pytest.raises(ValueError, match="license"):
        hub.push_folder(tmp_path, "someone/chorales")
    assert api.calls == []


def test_nothing_is_pushed_without_a_license(tmp_path, api):
    (tmp_path / "README.md").write_text("---\ntags:\n- music\n---\n# A model\n", encoding="utf-8")
    with pytest.raises(ValueError, match="license"):
        hub.push_folder(tmp_path, "someone/chorales")
    assert api.calls == []


def test_a_licensed_model_is_pushed_without_code(tmp_path, api):
    hub.write_model_card(tmp_path, **ARGUMENTS)
    assert hub.push_folder(tmp_path, "someone/chorales") == "hub/someone/chorales/commit"
    name, sent = api.calls[-1]
    assert name == "upload_folder"
    assert not any(pattern.endswith(".py") or pattern == "*" for pattern in sent["allow_patterns"])


def test_a_model_is_saved_with_its_card_and_pushed(api):
    class Model:
        def save_pretrained(self, directory):
            self.directory = Path(directory)
            (self.directory / "config.json").write_text("{}")

    model = Model()
    hub.push_model(model, "someone/chorales", hub.model_card(**ARGUMENTS))
    assert api.calls[-1][0] == "upload_folder"
    assert not model.directory.exists()
