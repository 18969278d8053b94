import json
import logging
import sys
from dataclasses import dataclass, field

import pytest
import torch

from fast_jukebox.training.arguments import FastJukeboxTrainingArguments, name_base_model, parse_arguments
from fast_jukebox.training.fine_tuning import choose_learning_rate


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


def test_a_base_model_is_named_where_it_has_a_name_on_the_hub(tmp_path):
    def named(source, given=None):
        args = FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True, hub_base_model=given)
        name_base_model(args, source)
        return args.hub_base_model

    assert named("ann/first") == "ann/first"
    assert named(None) is None and named(str(tmp_path)) is None
    assert named(str(tmp_path), "ann/first") == named("ann/second", "ann/first") == "ann/first"


def test_scripts_show_the_messages_of_the_package(capfd, monkeypatch):
    logger = logging.getLogger("fast_jukebox")
    monkeypatch.setattr(logger, "handlers", [])
    level = logger.level
    try:
        parse_arguments((Options,), [])
        parse_arguments((Options,), [])
        logging.getLogger("fast_jukebox.data.codes").info("12 songs")
        assert capfd.readouterr().err == "12 songs\n"
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setenv("RANK", "1")
        parse_arguments((Options,), [])
        assert not logger.handlers
    finally:
        logger.setLevel(level)


@pytest.mark.parametrize("adapters", [False, True])
def test_adapters_learn_faster_unless_a_rate_is_given(tmp_path, caplog, adapters):
    given = FastJukeboxTrainingArguments(output_dir=str(tmp_path), learning_rate=3e-5)
    choose_learning_rate(given, adapters)
    assert given.learning_rate == 3e-5
    args = FastJukeboxTrainingArguments(output_dir=str(tmp_path))
    with caplog.at_level(logging.INFO):
        choose_learning_rate(args, adapters)
    assert args.learning_rate == (1e-3 if adapters else 1e-4)
    assert f"learning rate {args.learning_rate:g}, as no `--learning_rate` is given" in caplog.text


def test_loaders_pin_memory_only_for_an_accelerator(tmp_path):
    pinned = FastJukeboxTrainingArguments(str(tmp_path)).dataloader_pin_memory
    assert pinned is torch.accelerator.is_available()
