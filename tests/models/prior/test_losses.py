import pytest
import torch

from fast_jukebox.models.prior.modeling_prior import cross_entropy, join_losses, share_of_batch, shifted


def test_cross_entropy_is_the_mean_over_what_counts():
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, -100, 4], [0, 2, -100]])
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)[labels >= 0]
    torch.testing.assert_close(cross_entropy(logits, labels), -chosen.mean())
    torch.testing.assert_close(cross_entropy(logits, labels, 8), -chosen.sum() / 8)
    assert cross_entropy(logits.half(), labels).dtype == torch.float32
    assert cross_entropy(logits, torch.full_like(labels, -100)) == 0


def test_each_part_counts_by_its_share_of_positions():
    loss = join_losses(torch.tensor(3.0), torch.tensor(5.0), code_count=6, character_count=2, lyric_weight=0.4)
    assert loss.item() == pytest.approx(3.0 * 6 / 8 + 0.4 * 5.0 * 2 / 8)


def test_accumulated_losses_add_up_to_that_of_one_batch():
    logits, lyric_logits = torch.randn(4, 6, 5), torch.randn(4, 2, 7)
    labels, lyrics = torch.randint(0, 5, (4, 6)), torch.randint(0, 7, (4, 2))

    def loss(songs, number):
        return join_losses(
            cross_entropy(logits[songs], labels[songs], number),
            cross_entropy(lyric_logits[songs], lyrics[songs]),
            6,
            2,
            0.4,
            share_of_batch(labels[songs], number),
        )

    whole = loss(slice(0, 4), None)
    torch.testing.assert_close(loss(slice(0, 1), 24) + loss(slice(1, 4), 24), whole)


def test_labels_become_ids_and_what_is_ignored_stays_so():
    labels = torch.tensor([0, 3, -100])
    assert shifted(labels, 0) is labels
    assert shifted(labels, 10).tolist() == [10, 13, -100]
