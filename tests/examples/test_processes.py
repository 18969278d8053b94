"""What docs/distil.md starts is several processes, and they train what one trains on the windows of all of them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox import FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.songs import load_songs

FSDP = ["--fsdp", "--fsdp_config", '{"version": 2, "transformer_layer_cls_to_wrap": ["PriorBlock"]}']


@pytest.fixture
def train(request, songs, tiny_config, tmp_path):
    """Trains a tiny prior with a launcher; returns its weights."""
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config)
    # Of random codes, as a random VQ-VAE hears the same in every song.
    vqvae.encode = lambda audio: [torch.randint(16, (1, audio.shape[1] // hop)) for hop in (4, 8, 16)]
    encode_songs(load_songs(songs, test_fraction=0.3), vqvae, tmp_path / "codes", progress=False)
    FastJukeboxPrior(tiny_config.prior_configs[2]).save_pretrained(tmp_path / "first")

    def launch(launcher, batch_size, *options):
        output = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        command = [
            *launcher, str(request.config.rootpath / "examples" / "run_prior.py"), "--codes", str(tmp_path / "codes"),
            "--level", "2", "--model_name_or_path", str(tmp_path / "first"), "--output_dir", str(output),
            "--max_steps", "3", "--learning_rate", "1", "--lr_scheduler_type", "constant", "--optim", "sgd",
            "--per_device_train_batch_size", str(batch_size), "--use_cpu", "true", "--disable_tqdm", "true",
            "--report_to", "none", "--max_grad_norm", "0", *options,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        processes = 1 if launcher == [sys.executable] else 2
        assert ("on cpu:0, 2 processes." in done.stderr) == (processes == 2)
        assert f"in batches of {processes * batch_size}, 3 steps" in done.stderr
        adapter = output / "adapter_model.safetensors"
        return load_file(adapter) if adapter.exists() else FastJukeboxPrior.from_pretrained(output).state_dict()

    return launch


def documented(text):
    """Launchers, with two processes in place of eight, of the commands of a page that train a prior."""
    for line in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[0].replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if "examples/run_prior.py" in words:
            yield [word.replace("8", "2") for word in words[: words.index("examples/run_prior.py")]]


@pytest.mark.slow
def test_two_processes_train_what_one_does(train, docs_section, tmp_path):
    text = docs_section("distil.md", "Many processes, and compiled")
    launchers = list(documented(text))
    assert FSDP == shlex.split(re.search(r"`(--fsdp [^`]*)`", text)[1])
    assert [launcher[0] for launcher in launchers] == ["torchrun", "accelerate"]
    one = train([sys.executable], 4)
    smaller = train([sys.executable], 2)
    assert max(float((one[name] - smaller[name]).abs().max()) for name in one) > 1e-3
    tools = Path(sys.executable).parent
    for launcher, options in ((launchers[0], ()), (launchers[1], ()), (launchers[0], FSDP)):
        two = train([str(tools / launcher[0]), *launcher[1:]], 2, *options)
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_train_the_adapters_that_one_does(train):
    pytest.importorskip("peft")
    one = train([sys.executable], 4, "--lora_rank", "2")
    assert max(float(value.abs().max()) for name, value in one.items() if "lora_B" in name) > 1e-4
    launcher = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"]
    for options in ((), FSDP):
        two = train(launcher, 2, "--lora_rank", "2", *options)
        assert two.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_distil_what_one_does(request, songs, tiny_model, tmp_path):
    vqvae = tiny_model.vqvae
    vqvae.encode = lambda audio: [torch.randint(16, (1, audio.shape[1] // hop)) for hop in (4, 8, 16)]
    encode_songs(load_songs(songs, test_fraction=0.3), vqvae, tmp_path / "codes", progress=False)
    tiny_model.save_pretrained(tmp_path / "teacher")
    stages = [{"loss": "intermediate", "steps": 2}, {"loss": "prediction", "steps": 1}]

    def distil(launcher, batch_size):
        output = tmp_path / f"out-{batch_size}"
        options = {
            "teacher": str(tmp_path / "teacher"), "student_layers": 2, "codes": str(tmp_path / "codes"),
            "output_dir": str(output), "stages": stages, "learning_rate": 0.01, "lr_scheduler_type": "constant",
            "per_device_train_batch_size": batch_size, "use_cpu": True, "disable_tqdm": True, "report_to": "none",
            "hub_license": "mit",
        }  # fmt: skip
        (tmp_path / "options.json").write_text(json.dumps(options))
        script = request.config.rootpath / "examples" / "run_distill.py"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
        command = [*launcher, str(script), str(tmp_path / "options.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        files = {str(path.relative_to(output)) for path in output.rglob("*") if "rng_state" not in path.name}
        return load_file(output / "model.safetensors"), files

    one, files = distil([sys.executable], 4)
    two, same = distil([str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node", "2"], 2)
    assert files == same and "README.md" in files
    given = load_file(tmp_path / "teacher" / "model.safetensors")
    changed = [name for name in one if one[name].shape == given[name].shape and not torch.equal(one[name], given[name])]
    assert len(changed) > 20
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)
