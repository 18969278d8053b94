import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fast_jukebox import FastJukeboxVQVAE, FastJukeboxVQVAEConfig
from fast_jukebox.models.vqvae import modeling_vqvae


@pytest.fixture
def config():
    return FastJukeboxVQVAEConfig(
        downs=[2, 1, 1],
        strides=[2, 2, 2],
        multipliers=[2, 1, 1],
        width=4,
        depth=2,
        embed_dim=6,
        codebook_size=16,
        multispectral_n_fft=[64],
        multispectral_hop_length=[16],
        multispectral_win_length=[48],
        linf_k=8,
    )


@pytest.fixture
def vqvae(config):
    return spread(FastJukeboxVQVAE(config)).eval()


def spread(model: FastJukeboxVQVAE) -> FastJukeboxVQVAE:
    """Codebooks of the latents' own scale, so that random models use many codes."""
    model.train()(torch.rand(8, 512) * 2 - 1)
    return model


def test_shapes_follow_the_hops(vqvae):
    codes = vqvae.encode(torch.randn(2, 160))
    assert [tuple(level.shape) for level in codes] == [(2, 40), (2, 20), (2, 10)]
    assert all(level.dtype == torch.int64 for level in codes)
    for level in range(3):
        assert vqvae.decode(codes[level:], start_level=level).shape == (2, 160)
    assert len(codes[0].unique()) > 4


def test_only_the_first_level_listed_is_decoded(vqvae):
    codes = vqvae.encode(torch.randn(1, 160))
    torch.testing.assert_close(vqvae.decode(codes[1:], 1), vqvae.decode([codes[1]], 1))


@settings(max_examples=15, deadline=None)
@given(blocks=st.integers(1, 60), chunk=st.sampled_from([16, 48, 320]))
def test_chunks_give_what_the_whole_signal_gives(blocks, chunk):
    torch.manual_seed(0)
    config = FastJukeboxVQVAEConfig(
        downs=[2, 1], strides=[2, 4], multipliers=[1, 2], width=4, depth=2, embed_dim=6, codebook_size=16
    )
    vqvae = spread(FastJukeboxVQVAE(config)).eval()
    audio = torch.rand(2, blocks * 16) * 2 - 1
    original = modeling_vqvae.CHUNK_SAMPLES
    whole = vqvae.encode(audio)
    decoded = [vqvae.decode(whole[level:], level) for level in range(2)]
    try:
        modeling_vqvae.CHUNK_SAMPLES = chunk
        for level, codes in enumerate(vqvae.encode(audio)):
            assert torch.equal(codes, whole[level])
            torch.testing.assert_close(vqvae.decode(whole[level:], level), decoded[level], atol=1e-5, rtol=0)
    finally:
        modeling_vqvae.CHUNK_SAMPLES = original


def test_a_long_song_is_never_held_whole_in_the_network(vqvae, monkeypatch):
    monkeypatch.setattr(modeling_vqvae, "CHUNK_SAMPLES", 320)
    longest = {"latents": 0, "audio": 0}
    for name in longest:
        original = getattr(modeling_vqvae.VQVAELevel, name)

        def watched(self, signal, original=original, name=name):
            longest[name] = max(longest[name], signal.shape[-1])
            return original(self, signal)

        monkeypatch.setattr(modeling_vqvae.VQVAELevel, name, watched)
    codes = vqvae.encode(torch.randn(1, 16 * 1000))
    vqvae.decode(codes)
    reach = max(level.encoder_reach for level in vqvae.levels)
    assert longest["latents"] <= 320 + 2 * (reach + 16)
    assert longest["audio"] <= 320 // 4 + 2 * vqvae.levels[0].decoder_reach


def test_the_loss_is_the_weighted_sum_of_its_terms(vqvae):
    audio = torch.randn(2, 160)
    output = vqvae(audio)
    config = vqvae.config
    total = (
        output.reconstruction_losses
        + config.multispectral_weight * output.multispectral_losses
        + config.commit_weight * output.commitment_losses
    )
    torch.testing.assert_close(output.loss, total.sum())
    for level, reconstruction in enumerate(output.reconstructions):
        error = (audio - reconstruction).square()
        expected = error.mean() + 0.02 * error.topk(8, dim=1).values.mean()
        torch.testing.assert_close(output.reconstruction_losses[level], expected)
        torch.testing.assert_close(reconstruction, vqvae.decode([output.codes[level]], level), atol=1e-5, rtol=1e-4)


def test_training_compiles_in_one_graph_and_moves_the_codebooks_alike(vqvae):
    audio, plain = torch.rand(2, 256) * 2 - 1, copy.deepcopy(vqvae).train()
    torch.compiler.reset()
    compiled = torch.compile(vqvae.train(), backend="eager", fullgraph=True)
    torch.manual_seed(1)
    loss = compiled(audio).loss
    torch.manual_seed(1)
    torch.testing.assert_close(loss, plain(audio).loss)
    for name, buffer in vqvae.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(name), msg=name)


def test_every_parameter_learns(vqvae):
    vqvae.train()(torch.randn(2, 160)).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vqvae.parameters())


def test_levels_share_nothing(vqvae):
    audio = torch.randn(2, 160)
    vqvae.train()(audio, levels=[1]).loss.backward()
    for level, module in enumerate(vqvae.levels):
        assert all((parameter.grad is not None) == (level == 1) for parameter in module.parameters())


def test_training_lowers_the_loss(config):
    model = FastJukeboxVQVAE(config).train()
    audio = torch.sin(torch.arange(512) * 0.1).repeat(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(audio).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("shards", ["1MB", "2KB"])
def test_every_tensor_survives_saving_and_loading(vqvae, tmp_path, shards):
    vqvae.save_pretrained(tmp_path, max_shard_size=shards)
    for loaded in (FastJukeboxVQVAE.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, FastJukeboxVQVAE)
        theirs = dict(loaded.state_dict())
        assert all(torch.equal(value, theirs[name]) for name, value in vqvae.state_dict().items())


def test_tensors_missing_in_a_file_are_initialised(vqvae, tmp_path):
    vqvae.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    codebook = "levels.0.codebook"
    missing = [f"{codebook}.vectors", f"{codebook}.counts", f"{codebook}.initialized", "levels.1.out.weight"]
    save_file({key: value for key, value in tensors.items() if key not in missing}, file, metadata={"format": "pt"})
    loaded = FastJukeboxVQVAE.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    for name in missing:
        value = loaded.state_dict()[name].float()
        assert value.isfinite().all()
        assert value.abs().max() < 10
    assert not bool(loaded.levels[0].codebook.initialized)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_is_loaded_as_single(vqvae, tmp_path, dtype):
    codes = vqvae.to(dtype).encode(torch.randn(1, 160))
    assert vqvae.decode(codes).isfinite().all()
    vqvae.save_pretrained(tmp_path)
    loaded = FastJukeboxVQVAE.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.bool}


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(160), "shape"),
        (torch.zeros(1, 160, dtype=torch.int64), "floating-point"),
        (torch.zeros(1, 0), "multiple of 16"),
        (torch.zeros(1, 150), "multiple of 16, got 150"),
        ([[0.0] * 16], "tensor.*list"),
        (torch.zeros(0, 160), "at least one song"),
        (torch.zeros(2, 160).index_fill(1, torch.tensor(77), math.nan), "`audio` must be finite, got .* nan"),
        (torch.zeros(1, 160).index_fill(1, torch.tensor(159), math.inf), "`audio` must be finite, got .* to inf"),
        (torch.zeros(1, 160).index_fill(1, torch.tensor(0), -math.inf), "`audio` must be finite, got .* from -inf"),
    ],
)
def test_bad_audio_is_refused(vqvae, audio, message):
    with pytest.raises(ValueError, match=message):
        vqvae.encode(audio)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[0, 16]]), "from 0 to 15, got 0 to 16"),
        (torch.tensor([[-1, 0]]), "from 0 to 15"),
        (torch.tensor([0, 1]), "shape"),
        (torch.tensor([[0.5]]), "integers"),
        (torch.zeros(0, 4, dtype=torch.int64), "integers.*length >= 1"),
        (None, "integers.*NoneType"),
    ],
)
def test_bad_codes_are_refused(vqvae, codes, message):
    with pytest.raises(ValueError, match=message):
        vqvae.decode([codes])


def test_levels_that_do_not_exist_are_refused(vqvae):
    with pytest.raises(ValueError, match="level must be from 0"):
        vqvae.decode([torch.zeros(1, 4, dtype=torch.int64)], start_level=3)


def test_codes_of_the_wrong_levels_are_refused(vqvae):
    codes = vqvae.encode(torch.randn(1, 160))
    with pytest.raises(ValueError, match="`codes`.*`start_level` 1 up, 1 to 2 entries; got 3"):
        vqvae.decode(codes, start_level=1)
    with pytest.raises(ValueError, match="`codes`.*1 to 3 entries; got 0"):
        vqvae.decode([])
    with pytest.raises(ValueError, match="`codes` of level 2 must be 10 long.*20 of level 1, got 20"):
        vqvae.decode([codes[1], codes[1]], start_level=1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_any_integer_type_are_decoded(vqvae, dtype):
    codes = vqvae.encode(torch.randn(1, 160))
    torch.testing.assert_close(vqvae.decode([codes[0].to(dtype)]), vqvae.decode(codes), rtol=0, atol=0)


def test_a_configuration_that_was_spoilt_is_refused(config):
    config.strides = [3, 2, 2]
    with pytest.raises(ValueError, match="strides"):
        FastJukeboxVQVAE(config)
