import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launched(monkeypatch):
    """What a studio was launched with, in place of a server."""
    pytest.importorskip("gradio", reason="the pages need Gradio")
    calls = []
    monkeypatch.setattr("fast_jukebox.demo.launch", lambda studio, **options: calls.append((studio, options)))
    return calls


def test_the_studio_opens_with_the_models_named(run, model_dir, launched):
    result = run("demo", "--model", model_dir, "--model", f"other={model_dir}", "--max-duration", 9, "--port", 7861)
    assert result.exit_code == 0, result.output
    ((studio, options),) = launched
    assert list(studio.models) == ["model", "other"]
    assert studio.model("other").source == str(model_dir)
    assert studio.folder == run.folder / "studio"
    assert studio.limits.duration == 9
    assert options == {"host": "127.0.0.1", "port": 7861, "share": False}


def test_without_a_name_it_is_the_embedded_model(run, launched):
    assert run("demo", "--share", "yes", "--folder", "here").exit_code == 0
    ((studio, options),) = launched
    assert list(studio.models) == ["embedded"]
    assert options["share"] is True
    assert studio.folder == run.folder / "here"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "maybe"], "`--share` must be yes or no, got 'maybe'"),
        (["--max-duration", 0], "`--max-duration` must be from 1 to 3600 seconds, got 0"),
        (["--model", "a=embedded", "--model", "a=embedded"], "`--model` must have different names"),
        (["--device", "tpu"], "tpu"),
        (["--model", "./nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_bad_options_are_one_line(run, launched, arguments, message):
    result = run("demo", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_without_gradio_it_says_what_to_install(run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run("demo")
    assert result.exit_code == 1
    assert 'the studio needs Gradio: pip install "fast-jukebox[demo]"' in result.stderr


def test_the_file_of_a_space_serves_what_the_environment_names(monkeypatch, model_dir, tmp_path, launched):
    import runpy

    monkeypatch.setenv("FAST_JUKEBOX_MODEL", f"first={model_dir}, second={model_dir}")
    monkeypatch.setenv("FAST_JUKEBOX_FOLDER", str(tmp_path / "songs"))
    runpy.run_path(str(ROOT / "demo" / "app.py"), run_name="__main__")
    ((studio, options),) = launched
    assert list(studio.models) == ["first", "second"]
    assert studio.folder == tmp_path / "songs"
    assert options == {"host": "0.0.0.0", "port": 7860}


def test_the_card_of_a_space_names_the_file_and_a_gradio_that_the_package_takes():
    hub = pytest.importorskip("huggingface_hub")
    card = hub.SpaceCard.load(ROOT / "demo" / "README.md").data
    assert card.sdk == "gradio" and (ROOT / "demo" / card.app_file).is_file()
    wanted = re.search(r"\"gradio([^\"]+)\"", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert card.sdk_version in SpecifierSet(wanted)
    assert len(card.short_description) <= 60
    assert {card.colorFrom, card.colorTo} <= {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
