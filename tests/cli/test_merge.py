import json

import pytest
import soundfile
import torch

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.models.adapters import add_lora, save_adapter

pytest.importorskip("peft")


@pytest.fixture
def adapter(model_dir, run):
    """Folder of an adapter of the top level."""
    model = add_lora(FastJukeboxPrior.from_pretrained(model_dir, level=2), rank=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    save_adapter(model, run.folder / "lora")
    return run.folder / "lora"


def test_merged_models_play_as_with_the_adapter(run, model_dir, adapter):
    result = run("merge", model_dir, "merged", "--adapter", f"2={adapter}")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "merged"
    merged = FastJukeboxModel.from_pretrained(run.folder / "merged")
    with_adapter = FastJukeboxModel.from_pretrained(model_dir, adapters={2: adapter})
    for ours, theirs in zip(merged.state_dict().values(), with_adapter.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    songs = []
    for name, arguments in {
        "one": ["--model", "merged"],
        "two": ["--model", model_dir, "--adapter", f"2={adapter}"],
        "plain": ["--model", model_dir],
    }.items():
        result = run("generate", *arguments, "--duration", 0.4, "--seed", 3, "--output", f"{name}.wav")
        assert result.exit_code == 0, result.output
        songs.append(soundfile.read(run.folder / f"{name}.wav")[0])
    assert (songs[0] == songs[1]).all() and not (songs[0] == songs[2]).all()


def test_a_prior_alone_in_another_dtype(run, model_dir, adapter):
    FastJukeboxPrior.from_pretrained(model_dir, level=2).save_pretrained(run.folder / "prior")
    result = run("merge", "prior", "merged", "--adapter", f"2={adapter}", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert json.loads((run.folder / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert run("merge", "prior", "other", "--adapter", f"1={adapter}").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter", "lora"], "`--adapter` must be a level and a folder or Hub name, as 2=runs/lora, got 'lora'"),
        (["--adapter", "x=lora"], "got 'x=lora'"),
        (["--adapter", "2=lora", "--adapter", "2=lora"], "`--adapter` must be a level"),
        (["--adapter", "1=lora"], "is of level 2, got 1"),
        (["--adapter", "2=lora", "--dtype", "int8"], "`--dtype` must be float32, bfloat16 or float16, got 'int8'"),
        ([], "adapter"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, model_dir, adapter, arguments, message):
    result = run("merge", model_dir, "merged", *arguments)
    assert result.exit_code == 2 and message in result.stderr and not (run.folder / "merged").exists()


def test_nothing_is_overwritten(run, model_dir, adapter):
    result = run("merge", model_dir, adapter, "--adapter", f"2={adapter}")
    assert result.exit_code == 2 and "must be a new or empty folder" in result.stderr
