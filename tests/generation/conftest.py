"""Priors and a VQ-VAE that keep the protocol, know what was asked of them and cost nothing."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fast_jukebox.generation import FastJukeboxGenerationMixin, PriorGenerationMixin

_STATES = 1009


class StubPrior(PriorGenerationMixin, nn.Module):
    """Logits depend on all codes so far, the upper code of the position and the metadata, and on nothing else."""

    def __init__(self, level=0, codebook_size=11, n_ctx=24, upper_ratio=1, upper_codebook_size=None, metadata_length=0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            level=level,
            codebook_size=codebook_size,
            n_ctx=n_ctx,
            upper_ratio=upper_ratio,
            upper_downs=None if upper_ratio == 1 else 1,
            upper_codebook_size=upper_codebook_size,
            metadata_length=metadata_length,
            use_timing=False,
        )
        self.table = torch.randn(_STATES, codebook_size, generator=torch.Generator().manual_seed(level))
        self.calls = []
        self.fail_at = None

    def new_cache(self, batch_size):
        return SimpleNamespace(batch_size=batch_size, state=None, position=None)

    def condition(self, batch_size, length, upper_codes=None, metadata=None, after_song=None):
        call = SimpleNamespace(
            batch_size=batch_size, length=length, upper_codes=upper_codes, metadata=metadata, steps=0
        )
        self.calls.append(call)
        assert length <= self.config.n_ctx
        for given in (upper_codes, metadata):
            assert given is None or given.shape[0] == batch_size
        if self.config.upper_ratio > 1:
            assert upper_codes.shape[1] * self.config.upper_ratio == length
        return call

    def prefill(self, codes, conditioning, cache):
        assert cache.state is None
        assert codes.shape[0] == cache.batch_size
        conditioning.prompt = codes.clone()
        cache.state = torch.full((cache.batch_size,), 7)
        if conditioning.metadata is not None:
            cache.state = cache.state + conditioning.metadata.sum(dim=1)
        for code in codes.unbind(dim=1):
            cache.state = _absorb(cache.state, code)
        cache.position = codes.shape[1]
        return self._logits(conditioning, cache)

    def step(self, code, position, conditioning, cache):
        assert position == cache.position + 1 < conditioning.length
        conditioning.steps += 1
        if self.fail_at is not None and position >= self.fail_at:
            raise KeyboardInterrupt
        cache.state, cache.position = _absorb(cache.state, code), position
        return self._logits(conditioning, cache)

    def _logits(self, conditioning, cache):
        state = cache.state
        if conditioning.upper_codes is not None:
            state = _absorb(state, conditioning.upper_codes[:, cache.position // self.config.upper_ratio])
        return 3 * self.table[state % _STATES] + self.weight


def _absorb(state, code):
    return (state * 31 + code + 1) % _STATES


class StubVQVAE(nn.Module):
    """Three levels of hops 2, 4, 8: a code is the first sample of its span, in hundredths; as sound it is joined by a
    trace of the codes to either side."""

    REACH = 3

    def __init__(self, codebook_size=11, hop_lengths=(2, 4, 8), sampling_rate=100):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            codebook_size=codebook_size, hop_lengths=list(hop_lengths), sampling_rate=sampling_rate
        )
        self.levels = [SimpleNamespace(decoder_reach=self.REACH) for _ in hop_lengths]

    def encode(self, audio):
        assert audio.shape[1] % self.config.hop_lengths[-1] == 0
        return [(audio[:, ::hop] * 100).round().long().clamp(0, 10) for hop in self.config.hop_lengths]

    def decode(self, codes, start_level=0, chunk_samples=None):
        assert len(codes) <= len(self.config.hop_lengths) - start_level
        own = codes[0] * 1000
        own = own + nn.functional.pad(codes[0], (self.REACH, self.REACH)).unfold(1, 2 * self.REACH + 1, 1).sum(dim=2)
        return (own.float() / 100000).repeat_interleave(self.config.hop_lengths[start_level], dim=1)


class StubModel(FastJukeboxGenerationMixin, nn.Module):
    def __init__(self, labelled=False):
        super().__init__()
        self.vqvae = StubVQVAE()
        self.priors = nn.ModuleList(
            StubPrior(level, n_ctx=(24, 20, 16)[level], upper_ratio=2 if level < 2 else 1, metadata_length=5 * labelled)
            for level in range(3)
        )


@pytest.fixture
def stub_prior():
    return StubPrior()


@pytest.fixture
def stub_upsampler():
    return StubPrior(level=1, upper_ratio=4, upper_codebook_size=5)


@pytest.fixture
def stub_labelled_prior():
    return StubPrior(level=2, metadata_length=5)


@pytest.fixture
def stub_model():
    """24 bottom, 20 middle, 16 top codes of context; 100 samples a second, 8 samples a top code."""
    return StubModel()


@pytest.fixture
def stub_labelled_model():
    return StubModel(labelled=True)
