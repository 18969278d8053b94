import math

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.valence import (
    ValenceJudge,
    held_out_markdown,
    score_songs,
    valence_estimates,
    valence_table,
)
from fast_jukebox.models.valence import ValenceConfig, ValenceFeatureExtractor, ValenceModel
from fast_jukebox.models.valence.classification import classification_metrics

STATED = {
    **{"roc_auc": 0.75, "pr_auc": 0.5, "accuracy": 0.6, "pleasantness_auc": 0.55, "activation_auc": 0.9},
    **{"held_out_by": "artist", "songs": 40},
}
RATE = 12000


@pytest.fixture
def judge():
    config = ValenceConfig(
        num_slices=2, slice_frames=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2, intermediate_size=8,
        held_out=STATED,
    )  # fmt: skip
    return ValenceJudge(ValenceModel(config), ValenceFeatureExtractor(num_frames=64))


def test_long_sound_is_the_mean_of_its_clips(judge):
    clip = 63 * 256  # samples of 64 frames
    audio = 0.1 * torch.randn(2 * clip + 256)
    frames = judge.extractor.frames(audio)
    parts = [judge.model(frames[None, :, first : first + 64]).probabilities[0] for first in (0, 64)]
    torch.testing.assert_close(judge.probabilities(audio), torch.stack(parts).mean(dim=0), atol=1e-6, rtol=0)


def test_short_sound_is_repeated_and_silence_is_refused(judge):
    found = judge.score(0.1 * torch.randn(8000), sampling_rate=16000)
    assert found.shape == (4,)
    assert judge.score(torch.zeros(8000), sampling_rate=16000).isnan().all()
    with pytest.raises(ValueError, match="silent"):
        judge.probabilities(torch.zeros(RATE))
    with pytest.raises(ValueError, match="finite"):
        judge.probabilities(torch.full((RATE,), float("nan")))


def test_files_have_numbers_by_name_and_silent_ones_none(judge, tmp_path):
    loud = save_audio(tmp_path / "loud.wav", (0.1 * torch.randn(RATE)).clamp(-1, 1), RATE)
    silent = save_audio(tmp_path / "silent.wav", torch.zeros(RATE), RATE)
    assert set(judge(loud)) == {"valence_AP", "valence_DP", "valence_AU", "valence_DU"}
    assert all(math.isnan(value) for value in judge(silent).values())
    assert score_songs(judge, [loud, silent]).shape == (1, 4)
    with pytest.raises(ValueError, match="not silent"):
        score_songs(judge, [silent])


def test_a_classifier_that_states_nothing_is_not_loaded(judge, tmp_path):
    judge.model.config.held_out = None
    judge.model.save_pretrained(tmp_path)
    judge.extractor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`held_out` of the classifier's configuration must state"):
        ValenceJudge.from_pretrained(str(tmp_path))
    again = ValenceJudge.from_pretrained(str(tmp_path), require_held_out=False)
    audio = 0.1 * torch.randn(RATE)
    torch.testing.assert_close(again.probabilities(audio), judge.probabilities(audio))
    with pytest.raises(ValueError, match="must state"):
        valence_table(judge.model.config, {"songs": torch.rand(3, 4)})


def test_the_table_has_means_with_intervals_and_says_what_the_classifier_cannot_tell(judge):
    songs = torch.rand(30, 4)
    text = valence_table(judge.model.config, {"real music": songs, "one": songs[:1]})
    found = valence_estimates(songs)
    assert f"| real music | 30 | {float(songs[:, 0].mean()):.4f} ({found['AP'].low:.3f} to" in text
    assert f"| one | 1 | {float(songs[0, 0]):.4f} |" in text
    assert "does not recognise pleasantness reliably" in text
    assert "activation reliably" not in text
    with pytest.raises(ValueError, match=r"must be \(songs, 4\)"):
        valence_estimates(songs[:0])


def test_the_held_out_report_has_every_class_and_the_confusion():
    labels = torch.eye(4)[torch.arange(20) % 4]
    probabilities = (labels + 0.2 * torch.rand(20, 4)) / 1.2
    text = held_out_markdown(classification_metrics(probabilities, labels), probabilities, labels)
    assert "| DU | 5 | 1.0000 | 1.0000 |" in text
    assert "| AU | 0 | 0 | 5 | 0 |" in text
    assert "activation alone 1.0000" in text
