import pytest

from fast_jukebox import FastJukeboxModel
from fast_jukebox_cli.models import convert


def test_the_bar_shows_how_far_it_is(golden_dir, tmp_path, capsys):
    convert(str(golden_dir / "transformers4_5b_lyrics"), tmp_path / "out", max_shard_size="100KB")
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'out'}\n"
    assert "vqvae: 100%" in shown.err
    assert FastJukeboxModel.from_pretrained(tmp_path / "out").config.num_levels == 3


def test_quiet_shows_nothing(golden_dir, tmp_path, capsys):
    convert(str(golden_dir / "transformers4_5b_lyrics"), tmp_path / "out", quiet=True, dtype="bfloat16")
    assert capsys.readouterr().err == ""


def test_errors_come_through_without_a_bar(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither"):
        convert(str(tmp_path / "empty"), tmp_path / "out")
    assert capsys.readouterr().err == ""
