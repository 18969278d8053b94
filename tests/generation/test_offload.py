import os
from pathlib import Path

import pytest
import torch

from fast_jukebox.generation.estimate import weight_bytes
from fast_jukebox.generation.offload import set_offload
from fast_jukebox.sampling.machine import row_bytes

GIB = 2**30


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("home", ["cpu", "disk"])
def test_the_codes_do_not_change(tiny_model, tmp_path, home):
    before = tiny_model.generate(duration=0.3, seed=1)
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    tiny_model.set_offload(home, folder=tmp_path)
    # Also where the process is killed now, no file stays.
    assert len(list(tmp_path.iterdir())) == (3 if home == "disk" and os.name == "nt" else 0)
    for _ in range(2):
        output = tiny_model.generate(duration=0.3, seed=1)
        same(output.codes, before.codes)
        same(output.audio, before.audio)
    tiny_model.set_offload(None)
    assert not list(tmp_path.iterdir())
    assert "condition" not in vars(tiny_model.priors[0])
    same(tiny_model.state_dict(), weights)
    same(tiny_model.generate(duration=0.3, seed=1).codes, before.codes)


def test_a_disk_that_cannot_keep_the_weights(tiny_model, tmp_path):
    before = tiny_model.generate(duration=0.1, seed=1).codes
    with pytest.raises(OSError, match=r"cannot keep the weights of level 0 in .*nowhere"):
        tiny_model.set_offload("disk", folder=tmp_path / "nowhere")
    assert all("condition" not in vars(prior) for prior in tiny_model.priors)
    same(tiny_model.generate(duration=0.1, seed=1).codes, before)


def test_weights_that_share_their_memory_are_kept_too(tiny_model, tmp_path):
    before = tiny_model.generate(duration=0.1, seed=1).codes
    for prior in tiny_model.priors:
        whole = torch.cat([parameter.data.reshape(-1) for parameter in prior.parameters()])
        parts = whole.split([parameter.numel() for parameter in prior.parameters()])
        for parameter, part in zip(prior.parameters(), parts, strict=True):
            parameter.data = part.view(parameter.shape)
    tiny_model.set_offload("disk", folder=tmp_path)
    same(tiny_model.generate(duration=0.1, seed=1).codes, before)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="tells what is mapped")
def test_weights_on_the_disk_are_mapped_and_not_held(tiny_model, tmp_path):
    tiny_model.set_offload("disk", folder=tmp_path)
    mapped = Path("/proc/self/maps").read_text()
    assert sum(f"{tmp_path}/.fast-jukebox-level-" in line for line in mapped.splitlines()) == 3
    tiny_model.set_offload(None)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_one_prior_at_a_time_is_on_the_device(tiny_model):
    set_offload(tiny_model, "cpu")
    visits = tiny_model._offload
    came = []
    bring = visits.bring

    def bringing(prior):
        bring(prior)
        at_home = [
            all(own.data_ptr() == visits._stored[id(each)][name].data_ptr() for name, own in each.named_parameters())
            for each in tiny_model.priors
        ]
        came.append([index for index, home in enumerate(at_home) if not home])

    # On the CPU a copy tells a visit from home.
    visits.bring = bringing
    original = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **kwargs: original(self, *args, **kwargs).clone()
    try:
        tiny_model.generate(duration=0.3, seed=1)
    finally:
        torch.Tensor.to = original
    assert [levels for index, levels in enumerate(came) if index == 0 or came[index - 1] != levels] == [[2], [1], [0]]


def test_a_session_knows_its_model_while_it_is_away(tiny_model, tmp_path):
    session = tiny_model.new_session(tmp_path / "song", duration=0.2, seed=1, stop_level=2)
    tiny_model.set_offload("disk", folder=tmp_path)
    session.run()
    session.upsample()
    tiny_model.set_offload(None)
    same(session.codes(), tiny_model.generate(duration=0.2, seed=1).codes)


def test_homes_and_devices_have_names(tiny_model):
    for arguments in (("attic",), ("cpu", "toaster")):
        with pytest.raises(ValueError, match=arguments[-1]):
            set_offload(tiny_model, *arguments)
    tiny_model.generate(duration=0.05, seed=1)


def on_meta(config, dtype):
    """A model's shapes, without weights."""
    from fast_jukebox import FastJukeboxModel

    with torch.device("meta"):
        return FastJukeboxModel(config).to(dtype)


def published(name):
    from fast_jukebox import FastJukeboxConfig
    from fast_jukebox.conversion.openai_prior import prior_config
    from fast_jukebox.conversion.openai_vqvae import vqvae_config
    from fast_jukebox.conversion.published import published_model

    vqvae, priors = published_model(name)
    return FastJukeboxConfig(
        vqvae_config=vqvae_config(vqvae), prior_configs=[prior_config(prior, vqvae) for prior in priors]
    )


def nbytes(module):
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


SPARE = 1.5 * GIB
"""For the context of CUDA, and for what the decoder and a step need for a moment."""


@pytest.mark.parametrize(
    ("name", "dtype", "card"), [("1b_lyrics", torch.float32, 8 * GIB), ("5b_lyrics", torch.float16, 16 * GIB)]
)
def test_large_models_make_a_minute_on_small_cards(name, dtype, card):
    """Windows are bounded by the context, so a minute takes no more than a few seconds but for its codes."""
    model = on_meta(published(name), dtype)
    codes = 8 * sum(60 * 44100 // hop for hop in model.vqvae.config.hop_lengths)
    largest = max(nbytes(prior) + row_bytes(prior, prior.config.n_ctx) for prior in model.priors)
    assert nbytes(model.vqvae) + largest + codes < card - SPARE
    assert weight_bytes(model) > card - SPARE - GIB  # all at once they leave no room


def test_steps_of_who_leaves_are_let_go(tiny_model, monkeypatch):
    """They hold the weights that they were recorded with."""
    left = []
    tiny_model.set_offload("cpu")
    monkeypatch.setattr("fast_jukebox.generation.offload.release_decoders", lambda: left.append(visits._loaded))
    visits = tiny_model._offload
    for prior in (2, 2, 1, 0):
        visits.bring(tiny_model.priors[prior])
    assert left == [None, None]  # after the top and the middle have gone


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_priors_visit_a_gpu(tiny_model, engine):
    before = tiny_model.to("cuda").generate(duration=0.3, seed=1, engine=engine)
    tiny_model.to("cpu").set_offload("cpu", "cuda")
    for _ in range(2):
        output = tiny_model.generate(duration=0.3, seed=1, engine=engine)
    same(output.codes, before.codes)
    assert {parameter.device.type for parameter in tiny_model.priors[2].parameters()} == {"cpu"}
