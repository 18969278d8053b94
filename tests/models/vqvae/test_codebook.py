import pytest
import torch

from fast_jukebox.models.vqvae.layers import Codebook


def naive_codes(latents: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    rows = latents.transpose(1, 2)
    return ((rows[:, :, None, :] - vectors[None, None]) ** 2).sum(-1).argmin(-1)


def trained_state(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Trained vectors whose counts are not known."""
    return {"vectors": vectors, "counts": torch.zeros(len(vectors)), "initialized": torch.tensor(True)}


@pytest.fixture
def trained():
    codebook = Codebook(8, 3, decay=0.9, revival_threshold=0.0)
    codebook.load_state_dict(trained_state(torch.randn(8, 3)))
    codebook.counts.copy_(torch.rand(8) + 1)
    return codebook


def test_a_latent_gets_the_nearest_code(trained):
    latents = torch.randn(2, 3, 50)
    assert torch.equal(trained.encode(latents), naive_codes(latents, trained.vectors))
    assert torch.equal(trained.decode(torch.tensor([[5, 0]]))[0].T, trained.vectors[[5, 0]])


def test_encoding_in_parts_changes_nothing(trained, monkeypatch):
    latents = torch.randn(2, 3, 50)
    whole = trained.encode(latents)
    monkeypatch.setattr("fast_jukebox.models.vqvae.layers._ROWS_AT_ONCE", 7)
    assert torch.equal(trained.encode(latents), whole)


def test_gradients_go_straight_through(trained):
    latents = torch.randn(1, 3, 5, requires_grad=True)
    weights = torch.randn(1, 3, 5)
    (trained.eval()(latents).vectors * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_commitment_is_the_mean_squared_distance_and_moves_only_the_latents(trained):
    latents = torch.randn(2, 3, 5, requires_grad=True)
    quantised = trained.eval()(latents)
    vectors = trained.decode(quantised.codes)
    torch.testing.assert_close(quantised.commitment_loss, (latents - vectors).square().mean())
    quantised.commitment_loss.backward()
    torch.testing.assert_close(latents.grad, 2 * (latents - vectors).detach() / latents.numel())


def test_a_training_step_is_the_moving_average_of_the_definition(trained):
    latents = torch.randn(2, 3, 50)
    codes, vectors, counts = naive_codes(latents, trained.vectors), trained.vectors.clone(), trained.counts.clone()
    quantised = trained.train()(latents)
    rows = latents.transpose(1, 2)
    for code in range(8):
        mine = rows[codes == code]
        total = 0.9 * vectors[code] * counts[code] + 0.1 * mine.sum(0)
        count = 0.9 * counts[code] + 0.1 * len(mine)
        torch.testing.assert_close(trained.counts[code], count)
        torch.testing.assert_close(trained.vectors[code], total / count)
    assert torch.equal(quantised.codes, codes)


def test_evaluation_moves_nothing(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained.eval()(torch.randn(2, 3, 50))
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_the_first_batch_initialises_every_vector_with_a_latent():
    codebook = Codebook(8, 3).train()
    latents = torch.randn(2, 3, 30)
    quantised = codebook(latents)
    assert bool(codebook.initialized)
    assert len(quantised.codes.unique()) == 8
    rows, chosen = latents.transpose(1, 2).reshape(-1, 3), quantised.vectors.transpose(1, 2).reshape(-1, 3)
    # Each vector used is one of the latents (up to the rounding of the straight-through sum).
    assert torch.cdist(chosen, rows, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-3


def test_unused_codes_are_replaced_by_latents_of_the_batch():
    codebook = Codebook(4, 2, decay=0.5, revival_threshold=1.0)
    codebook.load_state_dict(trained_state(torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, 50.0], [60.0, 60.0]])))
    codebook.counts.copy_(torch.tensor([10.0, 10.0, 1.5, 4.0]))
    latents = torch.rand(1, 2, 20)
    codebook.train()(latents)
    rows = latents[0].T
    # Nobody is near codes 2 and 3: 2 falls to a count of 0.75 and is revived, 3 falls to 2 and stays.
    assert torch.equal(codebook.vectors[3], torch.tensor([60.0, 60.0]))
    assert (rows == codebook.vectors[2]).all(1).any()
    assert codebook.counts[2] == 1.0
    assert codebook.counts[3] == 2.0


def test_vectors_without_counts_start_from_even_use():
    codebook = Codebook(4, 2, decay=0.5, revival_threshold=0.0)
    vectors = torch.randn(4, 2)
    codebook.load_state_dict(trained_state(vectors))
    latents = torch.randn(1, 2, 20)
    codes = naive_codes(latents, vectors)
    codebook.train()(latents)
    counts = 0.5 * 5.0 + 0.5 * torch.bincount(codes.flatten(), minlength=4)
    torch.testing.assert_close(codebook.counts, counts)


def test_half_precision_latents_are_compared_in_float32(trained):
    latents = torch.randn(1, 3, 40).bfloat16()
    assert torch.equal(trained.encode(latents), naive_codes(latents.float(), trained.vectors))
    assert trained.train()(latents).vectors.dtype == torch.bfloat16
