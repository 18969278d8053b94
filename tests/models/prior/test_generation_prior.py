import pytest
import torch

from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes, uniform_noise


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_by_default_one_song_fills_the_context(stub_prior):
    codes = stub_prior.generate(seed=1)
    assert codes.shape == (1, 24)
    assert codes.dtype == torch.int64
    assert ((codes >= 0) & (codes < 11)).all()
    assert not codes.is_inference()


def test_the_prompt_is_kept_and_gone_on_with(stub_prior):
    prompt = torch.randint(0, 11, (3, 6))
    codes = stub_prior.generate(prompt=prompt, length=10, seed=1)
    same(codes[:, :6], prompt)
    (call,) = stub_prior.calls
    same(call.prompt, prompt)
    same(stub_prior.generate(prompt=prompt, length=6, seed=1), prompt)


def test_codes_are_drawn_with_the_noise_of_their_position(stub_prior):
    codes = stub_prior.generate(batch_size=2, length=3, seed=5, temperature=1.4)
    noise = uniform_noise(5, [0, 1], 0, 0, 3)
    logits = stub_prior.prefill(codes[:, :2], stub_prior.condition(2, 3), stub_prior.new_cache(2))
    same(codes[:, 2], draw_codes(logits, noise[:, 2], SamplingSettings(temperature=1.4)))


def test_a_song_is_the_same_alone_and_in_a_batch(stub_prior):
    batch = stub_prior.generate(batch_size=4, seed=3)
    same(stub_prior.generate(seed=3), batch[:1])
    same(stub_prior.generate(batch_size=2, seed=3), batch[:2])
    same(stub_prior.generate(seed=[8, 3]), torch.cat([stub_prior.generate(seed=8), batch[:1]]))
    assert len({tuple(row) for row in batch.tolist()}) == 4


def test_a_continuation_of_its_own_beginning_is_itself(stub_prior):
    codes = stub_prior.generate(batch_size=2, seed=3)
    same(stub_prior.generate(prompt=codes[:, :9], seed=3), codes)


def test_without_a_seed_songs_differ(stub_prior):
    assert not torch.equal(stub_prior.generate(), stub_prior.generate())


def test_greedy(stub_prior):
    same(stub_prior.generate(do_sample=False, seed=1), stub_prior.generate(do_sample=False, seed=2))


def test_upper_codes_decide_the_length(stub_upsampler):
    upper = torch.randint(0, 5, (2, 3))
    assert stub_upsampler.generate(upper_codes=upper, seed=0).shape == (2, 12)
    assert stub_upsampler.generate(upper_codes=upper[:1], batch_size=3, seed=0).shape == (3, 12)
    assert stub_upsampler.generate(upper_codes=torch.randint(0, 5, (1, 6))).shape == (1, 24)


def test_metadata_is_passed_on(stub_labelled_prior):
    labels = torch.tensor([[100, 0, 10, 1, 2]])
    stub_labelled_prior.generate(batch_size=2, metadata=labels, seed=0)
    same(stub_labelled_prior.calls[0].metadata, labels.expand(2, -1))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"length": 0}, "length"),
        ({"length": 25}, "length"),
        ({"prompt": torch.zeros(1, 30).long()}, "prompt"),
        ({"prompt": torch.zeros(1, 3)}, "prompt"),
        ({"prompt": torch.full((1, 3), 11)}, "prompt"),
        ({"prompt": torch.zeros(3, 3).long(), "batch_size": 2}, "prompt|batch_size"),
        ({"upper_codes": torch.zeros(1, 3).long()}, "upper_codes"),
        ({"metadata": torch.zeros(1, 5).long()}, "metadata"),
        ({"temperature": 0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"do_sample": None}, "do_sample"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input(stub_prior, arguments, field):
    with pytest.raises(ValueError, match=field):
        stub_prior.generate(**arguments)
    assert not stub_prior.calls


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"upper_codes": torch.full((1, 3), 5)},
        {"upper_codes": torch.zeros(1, 7).long()},
        {"upper_codes": torch.zeros(1, 3).long(), "length": 8},
        {"upper_codes": torch.zeros(3).long()},
        {"upper_codes": torch.zeros(1, 0).long()},
        {"upper_codes": [0, 1, 2]},
    ],
)
def test_bad_upper_codes(stub_upsampler, arguments):
    with pytest.raises(ValueError, match="upper_codes"):
        stub_upsampler.generate(**arguments)
    assert not stub_upsampler.calls


def test_missing_metadata(stub_labelled_prior):
    with pytest.raises(ValueError, match="metadata"):
        stub_labelled_prior.generate()
