import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from fast_jukebox_cli.code_files import all_codes, top_codes

CODES = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def test_codes_in_any_file(tiny_model, tmp_path):
    save_file({"level_2": CODES.to(torch.int16), "level_0": CODES}, tmp_path / "a.safetensors")
    save_file({"codes": CODES[0], "windows": CODES.clone()}, tmp_path / "b.safetensors")
    save_file({"zs": CODES.to(torch.int32)}, tmp_path / "c.safetensors")
    np.save(tmp_path / "d.npy", CODES.numpy().astype(np.uint16))
    torch.save({"zs": [CODES, CODES, CODES], "x": torch.zeros(1)}, tmp_path / "data.pth.tar")
    for path in sorted(tmp_path.iterdir()):
        assert torch.equal(top_codes(path, tiny_model), CODES), path.name


def test_a_recording_is_encoded(tiny_model, tmp_path):
    sound = np.sin(np.arange(1600) / 10).astype(np.float32) / 2
    soundfile.write(tmp_path / "phone.wav", sound, 1600, subtype="FLOAT")
    codes = top_codes(tmp_path / "phone.wav", tiny_model)
    assert torch.equal(codes, tiny_model.vqvae.encode(torch.from_numpy(sound).unsqueeze(0))[2])


def test_the_file_of_a_lost_session(tiny_model, tmp_path):
    session = tiny_model.new_session(tmp_path / "song", duration=0.3, seed=1, stop_level=2)
    session.run()
    path = tmp_path / "song" / "codes" / "take-0001-level-2.safetensors"
    assert torch.equal(top_codes(path, tiny_model), session.codes()[2])
    session.export(tmp_path / "codes.safetensors")
    assert torch.equal(top_codes(tmp_path / "codes.safetensors", tiny_model), session.codes()[2])
    with torch.no_grad():
        for parameter in tiny_model.vqvae.parameters():
            parameter.add_(1)
    for own in (path, tmp_path / "codes.safetensors"):
        with pytest.raises(ValueError, match="another model's codebook"):
            top_codes(own, tiny_model)


def test_codes_of_all_levels(tiny_model, tmp_path):
    session = tiny_model.new_session(tmp_path / "song", duration=0.3, seed=1)
    session.run()
    session.export(tmp_path / "codes.safetensors")
    torch.save({"zs": session.codes()}, tmp_path / "data.pth.tar")
    for name in ("codes.safetensors", "data.pth.tar"):
        for own, codes in zip(all_codes(tmp_path / name, tiny_model), session.codes(), strict=True):
            assert torch.equal(own, codes)
    np.save(tmp_path / "top.npy", CODES.numpy())
    assert all_codes(tmp_path / "top.npy", tiny_model)[:2] == [None, None]
    torch.save({"zs": [CODES] * 4}, tmp_path / "four.pth.tar")
    with pytest.raises(ValueError, match="at most 3 levels, got 4"):
        all_codes(tmp_path / "four.pth.tar", tiny_model)
    # What is lost of the lower levels is in nobody's way where they are played again.
    torch.save({"zs": [CODES + 100, None, CODES]}, tmp_path / "lost.pth.tar")
    assert torch.equal(top_codes(tmp_path / "lost.pth.tar", tiny_model), CODES)
    with pytest.raises(ValueError, match="from 0 to 15.*: name the model that they are of, or bring"):
        all_codes(tmp_path / "lost.pth.tar", tiny_model)
    with pytest.raises(ValueError, match="level 1"):
        top_codes(session.folder / "codes" / "take-0001-level-1.safetensors", tiny_model)


def test_what_holds_no_codes_is_refused(tiny_model, tmp_path):
    save_file({"a": CODES, "b": CODES.clone()}, tmp_path / "a.safetensors")
    save_file({"codes": CODES.float()}, tmp_path / "b.safetensors")
    save_file({"codes": CODES + 10}, tmp_path / "c.safetensors")
    save_file({"codes": CODES[:, :0]}, tmp_path / "d.safetensors")
    (tmp_path / "e.safetensors").write_bytes(b"nothing")
    np.save(tmp_path / "f.npy", np.array([1.5]))
    np.save(tmp_path / "g.npy", np.array([object()]), allow_pickle=True)
    torch.save({"z": 1}, tmp_path / "h.pth.tar")
    (tmp_path / "i.pt").write_bytes(b"nothing")
    (tmp_path / "j.wav").write_bytes(b"nothing")
    np.save(tmp_path / "whole", CODES.numpy())
    header = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "whole.npy").unlink()
    (tmp_path / "k.npy").write_bytes(header.replace(b"}", b"(", 1))
    (tmp_path / "l.npy").write_bytes(b"nothing")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=path.name.split(".")[0]) as caught:
            top_codes(path, tiny_model)
        assert "allow_pickle" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        top_codes(tmp_path / "nowhere.npy", tiny_model)


def test_an_array_that_states_more_than_its_file_holds_is_refused(tiny_model, tmp_path):
    path = tmp_path / "bomb.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**11,)})
        file.write(bytes(80))
    with pytest.raises(ValueError, match=r"bomb.npy.*is damaged.*write it again"):
        top_codes(path, tiny_model)
