"""Scores become codes as they would by way of files of sound, and what is encoded is kept."""

import pytest
import torch

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.data.codes import encode_songs, load_codes
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.tunes.encoding import SongEncoder
from fast_jukebox.data.tunes.recipe import SongRecipe
from fast_jukebox.data.tunes.rendering import render_songs

pytestmark = [pytest.mark.usefixtures("synthesiser"), pytest.mark.slow]
SPLITS = {"tune-1": "train", "tune-2": "test", "tune-3": "train"}


@pytest.fixture
def vqvae(tiny_config):
    torch.manual_seed(0)
    config = tiny_config.vqvae_config
    config.sampling_rate = 22050
    return FastJukeboxVQVAE(config).eval()


@pytest.fixture
def plan(score):
    return [(score(name, pitches=[60 + 2 * n, 64, 67] * (4 + 4 * n)), n) for n, name in enumerate(SPLITS)]


def full_disk(*arguments):
    raise OSError("the disk is full")


def test_codes_are_those_of_the_rendered_files(plan, vqvae, tmp_path, monkeypatch):
    recipe = SongRecipe(sampling_rate=22050, longest=3.0)
    with SongEncoder(vqvae, processes=1, batch_size=1) as encoder:
        report = encoder.encode(plan, SPLITS, recipe, tmp_path / "codes", progress=False)
        assert report.complete and not report.failed
        assert {split: len(rows) for split, rows in report.songs.items()} == {"train": 2, "test": 1}
        before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "codes").iterdir()}
        report = encoder.encode(plan, SPLITS, recipe, tmp_path / "codes", progress=False)
        after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "codes").iterdir()}
        assert {name for name in before if before[name] != after[name]} <= {"codes.json"}
        assert report.hours == pytest.approx(sum(r["duration"] for s in report.songs.values() for r in s) / 3600)
        with pytest.raises(ValueError, match="another recipe"):
            encoder.encode(plan, SPLITS, SongRecipe(seed=1, sampling_rate=22050, longest=3.0), tmp_path / "codes")
        with pytest.raises(ValueError, match="`sampling_rate`"):
            encoder.encode(plan, SPLITS, SongRecipe(longest=3.0), tmp_path / "others")
        late = encoder.encode(plan, SPLITS, recipe, tmp_path / "late", stop_at=1.0, progress=False)
        assert not late.complete and not late.songs["train"]

        with monkeypatch.context() as patch:
            patch.setattr("fast_jukebox.data.tunes.encoding._Shards.write", full_disk)
            with pytest.raises(OSError, match="full"):
                encoder.encode(plan, SPLITS, recipe, tmp_path / "again", progress=False)
        again = encoder.encode(plan, SPLITS, recipe, tmp_path / "again", progress=False)
        assert again.complete and not again.failed

    ours = load_codes(tmp_path / "codes", vqvae=vqvae)
    render_songs(tmp_path / "songs", plan, SPLITS, recipe, processes=1, progress=False)
    theirs = encode_songs(load_songs(tmp_path / "songs"), vqvae, tmp_path / "theirs", progress=False)
    wanted = {row["score"]: row for split in theirs.values() for row in split}
    for split in ours.values():
        for row in split:
            same = wanted[row["score"]]
            assert (row["artist"], row["genre"]) == (same["artist"], same["genre"])
            assert row["duration"] == pytest.approx(same["duration"], abs=1e-5)
            for level in range(vqvae.config.num_levels):
                own, other = row[f"codes_{level}"], same[f"codes_{level}"]
                equal = sum(a == b for a, b in zip(own, other, strict=False))
                assert abs(len(own) - len(other)) <= 4
                assert equal > 0.97 * len(other)
