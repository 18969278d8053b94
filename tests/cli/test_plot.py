import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox_cli.plot import ALL, TOP, _played

pytest.importorskip("matplotlib")


def test_files_and_models_are_drawn_side_by_side(run, model_dir):
    save_audio(run.folder / "song.wav", 0.1 * torch.randn(1600).clamp(-3, 3), 1600)
    for kind, output in (("waveforms", "a.png"), ("levels", "b.svg")):
        options = ("--kind", kind, "--output", output, "--seconds", 0.2)
        found = run("plot", "a song=song.wav", f"model={model_dir}", *options)
        assert found.exit_code == 0, found.output
        assert found.stdout.strip().endswith(output)
    assert (run.folder / "a.png").read_bytes().startswith(b"\x89PNG")
    found = run("plot", "a song=song.wav", "--output", "a.png", "--seconds", 0.2)
    assert (found.exit_code, "--force overwrites it" in found.output) == (2, True)
    assert run("plot", "a song=song.wav", "--output", "a.png", "--seconds", 0.2, "--force").exit_code == 0
    svg = (run.folder / "b.svg").read_text(encoding="utf-8")
    assert svg.count("<image") == 4  # the song, the model's two, the colour bar


def test_a_model_plays_its_top_level_and_the_whole(model_dir):
    found = _played(str(model_dir), 0.2, 0, "cpu")
    assert set(found) == {ALL, TOP}
    (whole, rate), (top, _) = found[ALL], found[TOP]
    assert (rate, len(whole)) == (1600, 320)
    assert len(top) == len(whole)
    assert not torch.equal(top, whole)


def test_a_model_that_is_not_there_is_said(run):
    found = run("plot", "./nowhere")
    assert found.exit_code == 1
    assert "nowhere" in found.output
    found = run("plot", "a=nowhere.wav")
    assert (found.exit_code, "there is no file 'nowhere.wav'" in found.output) == (1, True)
