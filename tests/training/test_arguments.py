import json
import sys
from dataclasses import dataclass, field

import pytest
from transformers import TrainingArguments

from fast_jukebox.training.arguments import checkpoint_to_resume, name_base_model, parse_arguments
from fast_jukebox.training.trainer import FastJukeboxTrainingArguments


@dataclass
class Options:
    songs: str = field(default="songs")
    steps: list[int] = field(default_factory=lambda: [1, 2])


def test_options_come_from_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script", "--songs", "here", "--steps", "3", "4"])
    (options,) = parse_arguments((Options,))
    assert (options.songs, options.steps) == ("here", [3, 4])


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_options_come_from_a_file(tmp_path, suffix):
    file = tmp_path / f"options{suffix}"
    file.write_text(json.dumps({"songs": "there", "steps": [5]}))
    (options,) = parse_arguments((Options,), [str(file)])
    assert (options.songs, options.steps) == ("there", [5])


@pytest.mark.parametrize(("wanted", "found"), [(None, None), ("false", None), ("true", "checkpoint-20"), ("x", "x")])
def test_the_checkpoint_to_resume(tmp_path, wanted, found):
    for step in (3, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    args = TrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint=wanted, use_cpu=True)
    resumed = checkpoint_to_resume(args)
    assert resumed == (str(tmp_path / found) if found and found != "x" else found)


def test_a_first_run_has_nothing_to_resume(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint="true", use_cpu=True)
    assert checkpoint_to_resume(args) is None


def test_a_base_model_is_named_where_it_has_a_name_on_the_hub(tmp_path):
    def named(source, given=None):
        args = FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True, hub_base_model=given)
        name_base_model(args, source)
        return args.hub_base_model

    assert named("ann/first") == "ann/first"
    assert named(None) is None and named(str(tmp_path)) is None
    assert named(str(tmp_path), "ann/first") == named("ann/second", "ann/first") == "ann/first"
