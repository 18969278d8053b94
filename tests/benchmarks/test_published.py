import pytest
import torch
from benchmarks.published import PublishedLoop
from benchmarks.steps import any_labels

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig


def tiny_prior(**settings) -> FastJukeboxPrior:
    torch.manual_seed(0)
    config = FastJukeboxPriorConfig(
        **({"codebook_size": 16, "n_ctx": 24, "num_rows": 6, "hidden_size": 16, "num_hidden_layers": 4,
            "num_attention_heads": 2, "layer_types": ["row", "column", "previous_row", "dense"]} | settings)
    )  # fmt: skip
    prior = FastJukeboxPrior(config)
    for weight in prior.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return prior.eval()


@pytest.mark.parametrize("batch", [1, 3])
def test_its_codes_are_those_of_the_package(batch):
    prior = tiny_prior()
    codes = PublishedLoop(prior, batch_size=batch).sample(24, greedy=True)
    assert torch.equal(codes, prior.generate(batch_size=batch, do_sample=False))


def test_upsamplers_too():
    prior = tiny_prior(
        level=0, upsampling_strides=[2, 2], conditioner_width=8, conditioner_depth=2, hop_length=8,
        residual_scale=True,
    )  # fmt: skip
    upper = torch.randint(0, 16, (2, 24 // prior.config.upper_ratio))
    codes = PublishedLoop(prior, upper, batch_size=2).sample(24, greedy=True)
    assert torch.equal(codes, prior.generate(upper_codes=upper, do_sample=False))


def test_labelled_priors_too():
    prior = tiny_prior(num_artists=3, num_genres=2, use_timing=True, min_duration=1.0)
    labels = any_labels(prior, 2)
    codes = PublishedLoop(prior, batch_size=2, metadata=labels).sample(24, greedy=True)
    assert torch.equal(codes, prior.generate(batch_size=2, metadata=labels, do_sample=False))
    assert any_labels(tiny_prior(), 2) is None


def test_a_cache_holds_what_the_loop_would_have_left():
    prior = tiny_prior()
    walked, skipped = PublishedLoop(prior), PublishedLoop(prior)
    for position in range(24):
        if position % prior.config.row_length:  # at a row's first position the walked caches are still to be cut
            skipped.skip_to(position)
            held = [cache.key.shape[2] for cache in walked.caches]
            assert held == [cache.key.shape[2] for cache in skipped.caches]
        walked.logits(None if position == 0 else torch.zeros(1, dtype=torch.int64), position)
