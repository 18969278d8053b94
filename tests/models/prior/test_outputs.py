import torch

from fast_jukebox.models.prior import FastJukeboxPriorConfig, FastJukeboxPriorOutput


def test_what_is_not_there_is_left_out():
    output = FastJukeboxPriorOutput(loss=torch.tensor(1.0), logits=torch.zeros(1, 2, 3))
    assert list(output) == ["loss", "logits"]
    assert output.to_tuple()[0] is output.loss


def test_the_trainer_takes_logits_and_nothing_of_the_lyrics_for_predictions():
    scores = {"code_loss", "lyric_loss", "lyric_logits"}
    assert set(FastJukeboxPriorConfig.keys_to_ignore_at_inference) == scores
    assert scores < set(FastJukeboxPriorOutput.__dataclass_fields__)
