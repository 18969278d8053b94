import pytest

from fast_jukebox.models.valence import ValenceConfig


def test_the_default_is_the_published_size_and_the_mini_one_hears_16_s():
    assert ValenceConfig().num_frames == 4096
    mini = ValenceConfig.mini()
    assert mini.num_frames * 256 / 12000 == pytest.approx(16.4, abs=0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_slices", 0), ("hidden_size", 30), ("depth_multiplier", 0), ("hidden_dropout", 2.0), ("held_out", "good")],
)
def test_values_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        ValenceConfig(**{field: value})
    with pytest.raises(ValueError, match="did you mean `num_slices`"):
        ValenceConfig(num_slice=3)


def test_a_classifier_without_held_out_metrics_is_refused(tmp_path):
    config = ValenceConfig.mini()
    with pytest.raises(ValueError, match="must state roc_auc, pr_auc, accuracy"):
        config.require_held_out()
    metrics = {"roc_auc": 0.7, "pr_auc": 0.5, "accuracy": 0.6, "pleasantness_auc": 0.55, "activation_auc": float("nan")}
    config.held_out = metrics
    with pytest.raises(ValueError, match="must state activation_auc, held_out_by, songs"):
        config.require_held_out()
    config.held_out = {**metrics, "activation_auc": 0.9, "held_out_by": "artist", "songs": 100}
    config.require_held_out()
    config.save_pretrained(tmp_path)
    assert ValenceConfig.from_pretrained(tmp_path).held_out == config.held_out
