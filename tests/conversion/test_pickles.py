import collections
import os
import pickle
import sys
import types
import zipfile

import pytest
import torch

from fast_jukebox.conversion.pickles import read_pickle, read_state_dict

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(4).half()}


class RunsCode:
    """What a malicious checkpoint would hold."""

    def __reduce__(self):
        return (os.mkdir, ("pwned",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_tensors_are_read_from_either_format(tmp_path, zipped, wrapped):
    path = tmp_path / "x.pth.tar"
    content = {"model": STATE, "step": 3, "opt": None} if wrapped else collections.OrderedDict(STATE)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_state_dict(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in STATE.items())


def test_the_hyperparameters_that_trainers_leave_beside_the_weights_do_no_harm(tmp_path, monkeypatch):
    package, module = types.ModuleType("jukebox"), types.ModuleType("jukebox.hparams")
    module.Hyperparams = type("Hyperparams", (dict,), {"__module__": "jukebox.hparams"})
    monkeypatch.setitem(sys.modules, "jukebox", package)
    monkeypatch.setitem(sys.modules, "jukebox.hparams", module)
    path = tmp_path / "x.pth.tar"
    torch.save({"model": STATE, "hps": module.Hyperparams(a=1, b=[2, 3])}, path)
    monkeypatch.undo()
    assert read_pickle(path)["hps"] == {"a": 1, "b": [2, 3]}
    assert read_state_dict(path).keys() == STATE.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth.tar"
    torch.save({"model": STATE, "payload": RunsCode()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x\.pth\.tar.*Python object.*mkdir.*no code is run: fetch it again"):
        read_state_dict(path)
    assert not (tmp_path / "pwned").exists()


def test_a_plain_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(ValueError, match=r"x\.bin"):
        read_pickle(tmp_path / "x.bin")
    assert not (tmp_path / "pwned").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth\.tar"):
        read_pickle(tmp_path / "none.pth.tar")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([STATE["a"]], "tensors by name, got list"),
        ({}, "tensors by name"),
        ({"a": 3}, "'a'"),
        ({"model": {"a": STATE["a"], "b": "text"}}, "'b'"),
        ({1: STATE["a"]}, "1 is none"),
    ],
)
def test_what_holds_no_tensors_by_name_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth.tar")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "x.pth.tar")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, zipped):
    path = tmp_path / "x.pth.tar"
    torch.save({"model": STATE}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(len(whole) // 40, 1)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.pth\.tar"):
            read_state_dict(path)


def test_parts_that_are_compressed_are_refused(tmp_path):
    torch.save({"a": torch.zeros(10)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for part in plain.namelist():
            bomb.writestr(part, plain.read(part), zipfile.ZIP_DEFLATED)
    assert read_pickle(tmp_path / "plain.pth")["a"].shape == (10,)
    with pytest.raises(ValueError, match=r"bomb.pth` is no checkpoint.*is compressed\): fetch it again"):
        read_pickle(tmp_path / "bomb.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_larger_than_the_file_are_refused(tmp_path, zipped):
    path = tmp_path / "bomb.pth"
    for content in (torch.zeros(1).expand(10**6, 10**6), {"zs": [torch.zeros(8).as_strided((10**5, 8), (0, 1))]}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert path.stat().st_size < 10_000
        with pytest.raises(ValueError, match=r"bomb.pth` is no checkpoint.*is made of \d+ bytes"):
            read_pickle(path)
    torch.save(torch.arange(12).reshape(3, 4).T, path, _use_new_zipfile_serialization=zipped)
    assert read_pickle(path).shape == (4, 3)


def test_lists_that_hold_themselves_or_one_another_many_times_are_read_at_once(tmp_path):
    circle = [torch.zeros(2)]
    circle.append(circle)
    doubled = [torch.zeros(2)]
    for _ in range(60):
        doubled = [doubled, doubled]
    for content in (circle, doubled):
        torch.save(content, tmp_path / "x.pth")
        assert len(read_pickle(tmp_path / "x.pth")) == 2


def test_an_error_of_the_reader_that_names_no_file_gets_its_name(tmp_path, monkeypatch):
    torch.save(torch.zeros(2), tmp_path / "x.pth")

    def beyond(*args, **kwargs):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(torch, "load", beyond)
    with pytest.raises(ValueError, match=r"x\.pth` is no checkpoint that can be read.*Invalid argument"):
        read_pickle(tmp_path / "x.pth")
