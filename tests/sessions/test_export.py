import pytest
import soundfile
import torch

from fast_jukebox.generation.decoding import decode_song
from fast_jukebox.sessions.export import decode_stretch, write_stretch
from fast_jukebox.sessions.store import SessionError


@pytest.mark.parametrize(("first", "last"), [(0, 800), (0, 101), (3, 4), (333, 657), (792, 800)])
def test_a_stretch_is_that_of_the_whole_song(stub_model, monkeypatch, first, last):
    monkeypatch.setattr("fast_jukebox.generation.decoding.FIRST_SAMPLES", 64)
    vqvae = stub_model.vqvae
    codes = torch.randint(11, (1, 200), generator=torch.Generator().manual_seed(1))
    whole = decode_song(vqvae, codes, 1)[0]
    read = []

    def own(start, stop):
        read.append((start, stop))
        return codes[0, start:stop]

    pieces = list(decode_stretch(vqvae, own, 1, first, last, 200))
    assert torch.equal(torch.cat(pieces), whole[first:last])
    assert read == [(max(first // 4 - 3, 0), min(-(-last // 4) + 3, 200))]


def test_codes_that_are_not_made_have_no_sound(stub_model):
    assert decode_stretch(stub_model.vqvae, lambda start, stop: None, 1, 0, 8, 4) is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "song.wav"
    assert write_stretch(path, iter([torch.zeros(50), torch.ones(25)]), 100) == path
    assert soundfile.info(path).frames == 75
    before = path.read_bytes()

    def breaks():
        yield torch.zeros(50)
        raise RuntimeError("a lamp fell over")

    with pytest.raises(RuntimeError, match="lamp"):
        write_stretch(path, breaks(), 100)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["song.wav"]
    with pytest.raises(SessionError, match="cannot write"):
        write_stretch(tmp_path / "nowhere" / "song.wav", iter([]), 100)
    with pytest.raises(ValueError, match="path"):
        write_stretch(tmp_path / "song.mp3", iter([]), 100)
