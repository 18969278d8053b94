"""Whole conversions, what they need of memory, what damage does to them, and the page for their users."""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.conversion import convert, transformers4
from fast_jukebox.conversion.convert import convert_checkpoint
from fast_jukebox.hub import HubError, require_license
from fast_jukebox_cli.app import app


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_four_files_become_a_model(tmp_path, hyperparameters, write_openai, zipped):
    models = write_openai(tmp_path / "files", hyperparameters, zipped=zipped)
    told = []
    output = convert_checkpoint(
        tmp_path / "files",
        tmp_path / "out",
        hyperparameters=hyperparameters,
        max_shard_size="12KB",
        progress=lambda *state: told.append(state),
    )
    assert output == tmp_path / "out"
    model = FastJukeboxModel.from_pretrained(output)
    assert model.dtype == torch.float16
    for level in range(3):
        assert same(model.priors[level], models[f"prior_level_{level}.pth.tar"].half())
    vectors = model.vqvae.state_dict()["levels.0.codebook.vectors"]
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, models["vqvae.pth.tar"].half().float().state_dict()["levels.0.codebook.vectors"])
    assert all(level.codebook.initialized for level in model.vqvae.levels)
    files = sorted(path.name for path in output.iterdir() if path.suffix == ".safetensors")
    assert len(files) == len(told) > 3
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {total for _, total, _ in told} == {told[-1][0]}
    assert told[-1][2] == "vqvae"
    for name in files:
        assert sum(tensor.nbytes for tensor in load_file(output / name).values()) <= 12_000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_card_carries_the_licence(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path / "files", hyperparameters)
    output = convert_checkpoint(tmp_path / "files", tmp_path / "my-jukebox", hyperparameters=hyperparameters)
    assert require_license(output) == "other"
    card = (output / "README.md").read_text()
    assert "license_name: jukebox-noncommercial" in card
    assert "not for commercial use" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = (
        code.replace("180 *", "90 *").replace("duration=20", "duration=0.01").replace('"my-jukebox"', repr(str(output)))
    )
    names = {}
    exec(code.replace("song.audio, song.sampling_rate", "song = song.audio, song.sampling_rate"), names)
    assert names["song"][0].shape == (1, 441)


def test_a_model_of_transformers_4_becomes_the_one_that_loads_from_it(golden_dir, tmp_path):
    source = golden_dir / "transformers4_5b_lyrics"
    output = convert_checkpoint(source, tmp_path / "out")
    assert same(FastJukeboxModel.from_pretrained(output), FastJukeboxModel.from_pretrained(source))
    tensors = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.bool}
    assert json.loads((output / "config.json").read_text())["model_type"] == "fast_jukebox"


def test_a_private_repository_in_that_layout_is_converted_and_loaded(hub, golden_dir, tmp_path):
    source = golden_dir / "transformers4_1b_lyrics"
    files = {path.name: path.read_bytes() for path in source.iterdir() if not path.name.startswith("expected")}
    commit = hub.put("ann/jukebox", files, private=True)
    hub.put("ann/jukebox", {"config.json": b"{}"})
    told = {"revision": commit, "token": "token-of-ann"}
    hub.fail("GET", "/store/", break_after=1000)  # once: the client goes on where it was
    output = convert_checkpoint("ann/jukebox", tmp_path / "out", **told)
    assert not any(fault.times for fault in hub.faults)
    assert same(FastJukeboxModel.from_pretrained(output), FastJukeboxModel.from_pretrained(source))
    prior = FastJukeboxPrior.from_pretrained("ann/jukebox", level=1, local_files_only=True, **told)
    assert same(prior, FastJukeboxPrior.from_pretrained(source, level=1))
    for wrong, message in (("token-of-bob", "no such model"), (None, "no revision 'gone'")):
        with pytest.raises(HubError, match=message):
            arguments = {"token": wrong} if wrong else {"revision": "gone"}
            convert_checkpoint("ann/jukebox", tmp_path / "none", **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]


@pytest.mark.parametrize(("dtype", "wanted"), [("bfloat16", torch.bfloat16), (torch.float32, torch.float32)])
def test_the_dtype_is_the_one_asked_for(tmp_path, hyperparameters, write_openai, dtype, wanted):
    write_openai(tmp_path / "files", hyperparameters)
    output = convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters, dtype=dtype)
    tensors = load_file(output / "model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("priors.")} == {wanted}
    assert {t.dtype for name, t in tensors.items() if name.startswith("vqvae.")} == {torch.float32, torch.bool}
    assert FastJukeboxPrior.from_pretrained(output, level=2).dtype == wanted


class Memory(TorchDispatchMode):
    """Bytes of storages that operations made, and of those that came from elsewhere (a file), while they live."""

    def __init__(self):
        super().__init__()
        self.alive, self.made, self.loaded, self.most_made, self.most = {}, 0, 0, 0, 0

    def _note(self, tensor, kind):
        if tensor.device.type != "cpu":  # shapes alone
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return
        size = storage.nbytes()
        self.alive[key] = kind
        setattr(self, kind, getattr(self, kind) + size)
        self.most_made, self.most = max(self.most_made, self.made), max(self.most, self.made + self.loaded)
        weakref.finalize(storage, self._forget, key, kind, size)

    def _forget(self, key, kind, size):
        del self.alive[key]
        setattr(self, kind, getattr(self, kind) - size)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        for tensor in tensors:
            self._note(tensor, "loaded")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self._note(result, "loaded" if "aten.set_" in str(func) else "made")
        return result


@pytest.mark.parametrize("zipped", [True, False])
def test_a_conversion_takes_the_largest_file_and_one_shard(tmp_path, hyperparameters, write_openai, zipped):
    for prior in hyperparameters["priors"]:
        prior.update(prior_width=64, prior_depth=12)
    write_openai(tmp_path / "files", hyperparameters, zipped=zipped)
    sizes = [path.stat().st_size for path in (tmp_path / "files").iterdir()]
    shard, few = 60_000, 1000
    with Memory() as memory:
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters, max_shard_size=shard)
    assert sum(sizes) > 2 * max(sizes) > 10 * shard
    assert shard / 2 < memory.most_made <= shard + few
    # A mapped file counts here too, though it is in memory no more than its reader wants.
    assert max(sizes) / 2 < memory.most <= max(sizes) + shard + few


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path / "files", hyperparameters)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.txt").write_text("keep")
    with pytest.raises(ValueError, match="output.*empty.*out"):
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters)
    assert (tmp_path / "out" / "song.txt").read_text() == "keep"
    (tmp_path / "out" / "song.txt").unlink()
    assert convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters).is_dir()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, hyperparameters, write_openai, error):
    write_openai(tmp_path / "files", hyperparameters)

    def stop(*state):
        raise error("stop")

    with pytest.raises(error):
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


@pytest.mark.skipif(os.name != "posix", reason="nothing is cleared there")
def test_what_a_killed_conversion_left_is_cleared(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path / "files", hyperparameters)

    def die(*state):
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters, progress=die)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out.")]
    assert not (tmp_path / "out").exists()
    convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "out"]


def test_a_full_disk_is_told_before(tmp_path, hyperparameters, write_openai, monkeypatch):
    write_openai(tmp_path / "files", hyperparameters)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="free"):
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float64"}, "dtype.*float32, float16, bfloat16.*'float64'"),
        ({"max_shard_size": "huge"}, "max_shard_size.*'huge'"),
        ({"model": "2b"}, "model.*2b"),
        ({"hyperparameters": {"vqvae": {}}}, "hyperparameters.*vqvae"),
    ],
)
def test_bad_arguments_are_named(tmp_path, hyperparameters, write_openai, arguments, message):
    write_openai(tmp_path / "files", hyperparameters)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "files", tmp_path / "out", **arguments)


def test_sources_that_are_none_are_named(golden_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty.*neither.*but nothing"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "fast_jukebox"}')
    with pytest.raises(ValueError, match="model_type.*'jukebox'.*'fast_jukebox'"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match=r"model.*\.pth\.tar files.*'5b'"):
        convert_checkpoint(golden_dir / "transformers4_1b_lyrics", tmp_path / "out", model="5b")


# Damage: whatever happens to a checkpoint, a clear error and nothing half made.


def damaged_bytes(content, chance):
    """A file's bytes cut, with bytes changed, with a stretch missing, or something else altogether."""
    way = chance.choice(["cut", "flip", "hole", "zeros", "noise", "empty"])
    at = chance.randrange(len(content))
    if way == "cut":
        return content[:at]
    if way == "hole":
        return content[:at] + content[at + chance.randrange(1, 200) :]
    if way == "zeros":
        return content[:at] + bytes(len(content) - at)
    if way == "noise":
        return chance.randbytes(500)
    changed = bytearray(b"" if way == "empty" else content)
    for _ in range(chance.randrange(1, 20) if changed else 0):
        changed[chance.randrange(min(len(changed), 4000))] = chance.randrange(256)
    return bytes(changed)


def damaged_state(state, chance):
    """A state dict with a few tensors gone, added, misshapen, of another kind, or of numbers that are none."""
    state = dict(state)
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice(list(state))
        tensor = state[name] if isinstance(state[name], torch.Tensor) else torch.zeros(2)
        way = chance.choice(["drop", "add", "shape", "int", "nan", "text", "sparse", "scalar", "rename"])
        if way == "drop":
            del state[name]
        elif way == "add":
            state[f"{name}.more"] = torch.zeros(3)
        elif way == "rename":
            state[name[::-1]] = state.pop(name)
        else:
            state[name] = {
                "shape": torch.zeros(*tensor.shape, 2),
                "int": torch.zeros(tensor.shape, dtype=torch.int64),
                "nan": torch.full(tensor.shape, float("nan")),
                "text": "weights",
                "sparse": torch.eye(3).to_sparse(),
                "scalar": 3.0,
            }[way]
    return state


def damaged_json(value, chance):
    """A copy of nested JSON in which one thing is missing or of the wrong kind."""
    wrong = [None, -1, 0, 10**30, 1.5, float("inf"), "text", [], {}, [3], True, ["a", "b", "c"]]
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {name: entry for name, entry in value.items() if name != key}
        return rest if chance.random() < 0.2 else {**rest, key: damaged_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        index = chance.randrange(len(value))
        return [*value[:index], damaged_json(value[index], chance), *value[index + 1 :]]
    return chance.choice(wrong)


def converts_or_complains(source, output, **arguments):
    """Whether a conversion succeeded; if not, the error is a clear one and nothing is left."""
    try:
        convert_checkpoint(source, output, **arguments)
    except (ValueError, OSError) as error:
        assert len(str(error)) > 20, repr(error)
        assert not output.exists()
        assert not [path for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")]
        return False
    FastJukeboxModel.from_pretrained(output)
    shutil.rmtree(output)
    return True


CHECKS = [HealthCheck.function_scoped_fixture]
FEW = settings(deadline=None, max_examples=6, suppress_health_check=CHECKS)
MANY = settings(deadline=None, max_examples=25, suppress_health_check=CHECKS)


@FEW
@given(seed=st.integers(0, 2**32), zipped=st.booleans())
def test_damaged_bytes_are_refused(tmp_path, hyperparameters, write_openai, seed, zipped):
    chance = random.Random(seed)
    source = tmp_path / f"files-{zipped}"
    if not source.exists():
        write_openai(source, hyperparameters, zipped=zipped)
    name = chance.choice(sorted(path.name for path in source.iterdir()))
    whole = (source / name).read_bytes()
    (source / name).write_bytes(damaged_bytes(whole, chance))
    try:
        converts_or_complains(source, tmp_path / "out", hyperparameters=hyperparameters)
    finally:
        (source / name).write_bytes(whole)


@FEW
@given(seed=st.integers(0, 2**32))
def test_damaged_tensors_are_refused(tmp_path, hyperparameters, write_openai, seed):
    chance = random.Random(seed)
    source = tmp_path / "files"
    if not source.exists():
        write_openai(source, hyperparameters)
    name = chance.choice(sorted(path.name for path in source.iterdir()))
    whole = (source / name).read_bytes()
    state = torch.load(source / name, weights_only=True)["model"]
    torch.save({"model": damaged_state(state, chance)}, source / name)
    try:
        assert not converts_or_complains(source, tmp_path / "out", hyperparameters=hyperparameters)
    finally:
        (source / name).write_bytes(whole)


@FEW
@given(seed=st.integers(0, 2**32))
def test_damaged_hyperparameters_are_refused(tmp_path, hyperparameters, write_openai, seed):
    source = tmp_path / "files"
    if not source.exists():
        write_openai(source, hyperparameters)
    damaged = tmp_path / "hyperparameters.json"
    damaged.write_text(json.dumps(damaged_json(hyperparameters, random.Random(seed))))
    converts_or_complains(source, tmp_path / "out", hyperparameters=damaged)


@MANY
@given(seed=st.integers(0, 2**32))
def test_damaged_configurations_of_transformers_4_are_refused(golden_dir, seed):
    chance = random.Random(seed)
    config = json.loads((golden_dir / "transformers4_5b_lyrics" / "config.json").read_text())
    for prior in config["prior_config_list"]:
        prior["num_layers"] = min(prior["num_layers"], 10) + 9 * (prior["level"] == 0)
    with contextlib.suppress(ValueError):
        vqvae, priors = transformers4.parts_of(damaged_json(config, chance))
        FastJukeboxConfig(vqvae_config=vqvae.config, prior_configs=[prior.config for prior in priors])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": NaN', "\x00", "[" * 100_000])
def test_a_configuration_that_is_no_json_is_refused(golden_dir, tmp_path, text):
    source = tmp_path / "files"
    source.mkdir()
    (source / "config.json").write_text(text)
    assert not converts_or_complains(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["prior_level_2.pth.tar", "vqvae.pth.tar"])
def test_a_pickle_with_code_is_refused(tmp_path, hyperparameters, write_openai, name):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    write_openai(tmp_path / "files", hyperparameters)
    content = torch.load(tmp_path / "files" / name, weights_only=True)
    torch.save({**content, "payload": Payload()}, tmp_path / "files" / name)
    with pytest.raises(ValueError, match=rf"{name}.*Python object.*no code is run"):
        convert_checkpoint(tmp_path / "files", tmp_path / "out", hyperparameters=hyperparameters)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


# The page for owners of checkpoints, every command and snippet of it as written, on tiny stand-ins.


@pytest.fixture
def stand_ins(golden_dir, tmp_path, monkeypatch, tiny_published, write_openai):
    """A working folder with all that the page speaks of, at 441 samples a second."""
    for own in tiny_published.values():
        own["vqvae"]["sr"] = 441
        for prior in own["priors"]:
            prior["sr"] = 441
    tiny_published["5b_lyrics"]["priors"][-1]["n_vocab"] = 80  # the published characters, which lists of names need
    monkeypatch.chdir(tmp_path)
    write_openai(tmp_path / "jukebox-files", tiny_published["5b_lyrics"])
    (tmp_path / "jukebox-files" / "v2_artist_ids.txt").write_text(
        "".join(f"{name};{index}\n" for index, name in enumerate(["unknown", "ann_lee", *"abcde"]))
    )
    (tmp_path / "jukebox-files" / "v2_genre_ids.txt").write_text(
        "".join(f"{name};{index}\n" for index, name in enumerate(["unknown", "pop", *"abc"]))
    )
    write_openai(tmp_path / "models" / "5b", tiny_published["5b"])
    write_openai(tmp_path / "models" / "1b_lyrics", tiny_published["1b_lyrics"])
    write_openai(tmp_path / "my-files", tiny_published["1b_lyrics"], zipped=True)
    (tmp_path / "my-hyperparameters.json").write_text(json.dumps(tiny_published["1b_lyrics"]))
    shutil.copytree(golden_dir / "transformers4_1b_lyrics", tmp_path / "jukebox-1b-lyrics")
    return tmp_path


def test_the_section_for_owners_of_checkpoints_works_as_written(docs_section, stand_ins):
    page = docs_section("play.md", "Published Jukebox checkpoints")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL)
    assert {language for language, _ in blocks} == {"bash", "python"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, "docs/play.md", "exec"), {})
            continue
        for line in code.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "fast-jukebox"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.stderr}"
    made = {"my-jukebox", "my-jukebox-1b", "my-jukebox-t4", "my-own-jukebox"}
    assert made < {path.name for path in stand_ins.iterdir()}
    assert all(require_license(stand_ins / name) == "other" for name in made)
    assert (stand_ins / "song.wav").stat().st_size > 2 * 20 * 441
    assert FastJukeboxModel.from_pretrained(stand_ins / "my-jukebox").processor is not None
