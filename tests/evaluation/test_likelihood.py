import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.evaluation.likelihood import BigramModel, UnigramModel, count_likelihood, prior_likelihood

SONGS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=30), min_size=1, max_size=4)


@pytest.fixture
def top_prior(tiny_config):
    return FastJukeboxPrior(tiny_config.prior_configs[2])


@pytest.fixture
def upsampler(tiny_config):
    return FastJukeboxPrior(tiny_config.prior_configs[0])


def windows_of(count, length=24, upper=None):
    items = [{"codes": torch.randint(16, (length,))} for _ in range(count)]
    for item in items:
        if upper:
            item["upper_codes"] = torch.randint(16, (upper,))
    return items


def test_a_prior_that_knows_nothing_needs_all_bits(top_prior):
    torch.nn.init.zeros_(top_prior.code_embedding.weight)  # also the output matrix: every logit is 0
    found = prior_likelihood(top_prior, windows_of(3))
    assert found.bits_per_code == pytest.approx(4.0, abs=1e-6)
    assert found.perplexity == pytest.approx(16.0, rel=1e-5)
    assert (found.codes, found.windows) == (72, 3)


def test_the_bits_are_the_mean_of_the_loss_and_do_not_depend_on_batches(upsampler):
    items = windows_of(5, length=32, upper=16)
    codes, upper = (torch.stack([item[name] for item in items]) for name in ("codes", "upper_codes"))
    with torch.no_grad():
        output = upsampler.eval()(codes, upper_codes=upper, labels=codes)
    upsampler.train()
    found = prior_likelihood(upsampler, items, batch_size=2)
    assert found.bits_per_code == pytest.approx(float(output.loss) / math.log(2), rel=1e-5)
    assert found.accuracy == pytest.approx(float((output.logits.argmax(-1) == codes).float().mean()))
    assert prior_likelihood(upsampler, iter(items), batch_size=5).bits_per_code == pytest.approx(found.bits_per_code)
    assert upsampler.training


def test_no_windows_are_refused(top_prior):
    with pytest.raises(ValueError, match="windows"):
        prior_likelihood(top_prior, [])


def test_a_unigram_model_by_hand():
    model = BigramModel.fit([torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0])], codebook_size=4).unigram
    assert model.probabilities.tolist() == pytest.approx([0.6, 0.2, 0.1, 0.1])
    found = count_likelihood(model, [{"codes": torch.tensor([0, 1, 3])}])
    assert found.bits_per_code == pytest.approx(-(math.log2(0.6) + math.log2(0.2) + math.log2(0.1)) / 3)
    assert found.accuracy == pytest.approx(1 / 3)


def test_a_unigram_of_even_counts_needs_all_bits():
    model = UnigramModel(torch.full((32,), 7))
    assert count_likelihood(model, [{"codes": torch.arange(32)}]).bits_per_code == pytest.approx(5.0)


def test_codes_outside_the_codebook_are_refused():
    with pytest.raises(ValueError, match="songs"):
        BigramModel.fit([torch.tensor([0, 4])], codebook_size=4)


def test_a_bigram_model_learns_what_follows_what():
    cycle = torch.arange(4).repeat(50)
    bigram = BigramModel.fit([cycle], codebook_size=4)
    found = count_likelihood(bigram, [{"codes": cycle[:40]}])
    assert count_likelihood(bigram.unigram, [{"codes": cycle[:40]}]).bits_per_code == pytest.approx(2.0, abs=1e-3)
    assert found.bits_per_code < 0.1
    assert found.accuracy > 0.97


def test_a_bigram_of_independent_codes_is_smoothed_towards_the_unigram():
    codes = torch.randint(8, (400,))
    bigram = BigramModel.fit([codes], codebook_size=8)
    assert bigram.strength >= 64
    test = [{"codes": torch.randint(8, (2000,))}]
    own, unigram = count_likelihood(bigram, test), count_likelihood(bigram.unigram, test)
    assert own.bits_per_code == pytest.approx(unigram.bits_per_code, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(SONGS)
def test_probabilities_sum_to_one(songs):
    songs = [torch.tensor(song) for song in songs]
    bigram = BigramModel.fit(songs, codebook_size=5)
    singles = torch.zeros(5)
    for song in songs:
        singles += torch.bincount(song, minlength=5)
    unigram = (singles + 1) / (singles.sum() + 5)
    torch.testing.assert_close(bigram.unigram.probabilities.float(), unigram)
    log_probabilities = bigram.log_probabilities(songs[0][None])
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(1, len(songs[0]), dtype=torch.float64))
    torch.testing.assert_close(log_probabilities[0, 0].exp().float(), unigram)
