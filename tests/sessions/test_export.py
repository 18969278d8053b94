from types import SimpleNamespace

import pytest
import soundfile
import torch

from fast_jukebox.generation.decoding import decode_song
from fast_jukebox.sessions.export import take_sound, write_sound
from fast_jukebox.sessions.store import SessionError


def codes_of(codes, level, read):
    """The codes of a take of 200 codes a level, of which one level is made."""

    def span(take, own, start, stop):
        read.append((own, start, stop))
        return codes[0, start:stop].numpy() if own == level else None

    take = SimpleNamespace(number=1, layouts=[None] * 3, length=lambda level: 200)
    return SimpleNamespace(span=span, recording=lambda take: None), take


@pytest.mark.parametrize(("first", "last"), [(0, 800), (0, 101), (3, 4), (333, 657), (792, 800)])
def test_a_part_is_that_of_the_complete_song(stub_model, monkeypatch, first, last):
    monkeypatch.setattr("fast_jukebox.generation.decoding.FIRST_SAMPLES", 64)
    vqvae, read = stub_model.vqvae, []
    codes = torch.randint(11, (1, 200), generator=torch.Generator().manual_seed(1))
    whole = decode_song(vqvae, codes, 1)[0]
    for level in (1, None):
        read.clear()
        chunks = list(take_sound(vqvae, *codes_of(codes, 1, read), level, first, last))
        assert torch.equal(torch.cat(chunks), whole[first:last])
        assert read[-1] == (1, max(first // 4 - 3, 0), min(-(-last // 4) + 3, 200))


def test_codes_that_are_not_made_have_no_sound(stub_model):
    with pytest.raises(ValueError, match="take 1 has no sound of the middle level"):
        take_sound(stub_model.vqvae, *codes_of(None, None, []), 1, 0, 8)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "song.wav"
    assert write_sound(path, iter([torch.zeros(50), torch.ones(25)]), 100) == path
    assert soundfile.info(path).frames == 75
    before = path.read_bytes()

    def breaks():
        yield torch.zeros(50)
        raise RuntimeError("a lamp fell over")

    with pytest.raises(RuntimeError, match="lamp"):
        write_sound(path, breaks(), 100)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["song.wav"]
    with pytest.raises(SessionError, match="cannot write"):
        write_sound(tmp_path / "nowhere" / "song.wav", iter([]), 100)
    with pytest.raises(ValueError, match="path"):
        write_sound(tmp_path / "song.ogg", iter([]), 100)
