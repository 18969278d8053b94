import pytest

from fast_jukebox.evaluation.encoders import EMBEDDINGS, load_embedding


def test_embeddings_are_found_by_name():
    assert load_embedding("musicnn-MTT").name == "musicnn_mtt"
    assert load_embedding("musicnn_msd").name in EMBEDDINGS
    for name in ("vggish", "clap", "nothing", "musicnn_mtt:x"):
        with pytest.raises(ValueError, match="`embedding` must be one of musicnn_mtt"):
            load_embedding(name)
