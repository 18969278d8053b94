from benchmarks import vqvae
from fast_jukebox.models.fast_jukebox import configuration_fast_jukebox


def test_a_table_has_a_row_for_each_level(tiny_config, monkeypatch):
    monkeypatch.setitem(configuration_fast_jukebox.PRESETS, "tiny", (lambda depth: tiny_config, 3))
    rows = vqvae.main(["--presets", "tiny", "--seconds", "0.5"])
    assert [row["level"] for row in rows] == [0, 1, 2]
    assert all(row["encode s/s"] > 0 and row["decode s/s"] > 0 for row in rows)
