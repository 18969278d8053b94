"""Fixtures that several test files share."""

import gc
import importlib.util
import json
import math
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

if gc.isenabled():  # until all is imported: nothing of it is garbage, and looking through it takes seconds
    gc.disable()

import pytest
import soundfile
import torch
from torch import nn
from typer.testing import CliRunner

if not torch.cuda.is_available():  # before anything imports Triton: its interpreter then runs kernels on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

from fast_jukebox.models.fast_jukebox.generation_fast_jukebox import FastJukeboxGenerationMixin
from fast_jukebox.models.prior.generation_prior import PriorGenerationMixin
from fast_jukebox_cli import app as cli

ROOT = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has its own threads; together no more than there are cores
    torch.set_num_threads(1)


def pytest_collection_finish():
    """What was imported lives as long as the process: garbage collection need not look through it again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """What tests write need not outlive a power failure. A handle that could not be synced is an error as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def log_lines(monkeypatch):
    """The module of lines about work under way, which no test gets unless it asks: slow machines would print some."""
    from fast_jukebox.utils import log_lines

    monkeypatch.setattr(log_lines, "FIRST", math.inf)
    monkeypatch.setattr(log_lines, "_next", None)
    return log_lines


_REDIRECT = """import os
for number in (1, 2):
    os.dup2(os.open(os.path.join({folder!r}, str(number)), os.O_WRONLY | os.O_CREAT), number)
"""


@pytest.fixture(scope="session")
def fresh_processes():
    """Makes processes in which torch is imported where they can fork, and nothing of transformers or of the package.

    So they import the package in a third of the time.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "torch._dynamo.convert_frame", "torch.distributed.tensor", "torch.export", "scipy.optimize"]
    )
    return context


@pytest.fixture
def fresh_workers(fresh_processes, monkeypatch):
    """Workers that begin sooner; tests/utils/test_workers.py has those of the package."""
    monkeypatch.setattr("fast_jukebox.utils.workers.get_context", lambda method: fresh_processes)


@pytest.fixture(scope="session")
def run_afresh(fresh_processes, tmp_path_factory):
    """Runs code in such a process, which has imported `os`: what it printed, and its errors."""

    def run(code):
        folder = tmp_path_factory.mktemp("afresh")
        lines = _REDIRECT.format(folder=str(folder)) + code
        process = fresh_processes.Process(target=exec, args=(lines, {"__name__": "__main__"}))
        process.start()
        process.join(300)
        process.kill()
        printed, errors = ((folder / number).read_text(encoding="utf-8") for number in "12")
        assert process.exitcode == 0, errors[-3000:]
        return printed, errors

    return run


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def docs_section():
    """The text of one section of a page in docs: from its heading `## ...` to the next one."""

    def section(page: str, heading: str) -> str:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]

    return section


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of golden cases: $FAST_JUKEBOX_GOLDEN, or shared/golden beside the repository."""
    named = os.environ.get("FAST_JUKEBOX_GOLDEN")
    folder = Path(named) if named else ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        where = "$FAST_JUKEBOX_GOLDEN" if named else "../shared/golden and $FAST_JUKEBOX_GOLDEN is not set"
        pytest.skip(f"no golden cases: there is no folder at {where}")
    return folder


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes into. A reader that waits for it gets a `TimeoutError`."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs POSIX")

    def stop(*_):
        raise TimeoutError("the pipe was waited for")

    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def tiny_config():
    """A whole model of three levels (hops 4, 8, 16) that runs in milliseconds; a new object for each test."""
    from fast_jukebox import FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig

    vqvae = FastJukeboxVQVAEConfig(
        downs=[2, 1, 1],
        strides=[2, 2, 2],
        multipliers=[1, 1, 1],
        width=4,
        depth=1,
        embed_dim=4,
        codebook_size=16,
        multispectral_n_fft=[64],
        multispectral_hop_length=[16],
        multispectral_win_length=[48],
        linf_k=8,
        sampling_rate=1600,
    )
    shared = {"codebook_size": 16, "num_hidden_layers": 3, "hidden_size": 16, "num_rows": 4, "sampling_rate": 1600}
    upper = {
        "upsampling_strides": [2],
        "upper_codebook_size": 16,
        "conditioner_width": 8,
        "conditioner_depth": 2,
        "conditioner_dilation_cycle": 2,
        "num_attention_heads": 1,
    }
    return FastJukeboxConfig(
        vqvae_config=vqvae,
        prior_configs=[
            FastJukeboxPriorConfig(level=0, hop_length=4, n_ctx=32, **shared, **upper),
            FastJukeboxPriorConfig(level=1, hop_length=8, n_ctx=32, conditioner_residual_scale=True, **shared, **upper),
            FastJukeboxPriorConfig(level=2, hop_length=16, n_ctx=24, num_attention_heads=2, **shared),
        ],
    )


@pytest.fixture
def tiny_model(tiny_config):
    """A whole model of random weights, in eval mode."""
    from fast_jukebox import FastJukeboxModel

    return FastJukeboxModel(tiny_config).eval()


@pytest.fixture
def write_notes():
    """Writes six songs of notes in C major at 8 kHz, two of them held out."""

    from fast_jukebox.evaluation.controls import random_notes
    from fast_jukebox.evaluation.pitch import SCALES

    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(6):
            song = random_notes(2.0, 8000, index, pitch_classes=SCALES["major"])
            soundfile.write(folder / f"{index}.wav", song.numpy(), 8000)
            rows.append(json.dumps({"file_name": f"{index}.wav", "split": "test" if index < 2 else "train"}))
        (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")

    return write


@pytest.fixture
def audible_settings(tiny_config):
    """The tiny model's configuration at 8 kHz, at which notes can be heard, with hops of 16, 32 and 64."""
    settings = tiny_config.to_dict()
    settings["vqvae_config"] |= {"strides": [4, 2, 2], "sampling_rate": 8000}
    for level, prior in enumerate(settings["prior_configs"]):
        prior |= {"sampling_rate": 8000, "hop_length": 16 * 2**level}
    return settings


@pytest.fixture
def words_config(tiny_config):
    """The tiny model told of words: artists and up to 3 genre words below, artist, genre, time and lyrics (with an
    encoder) at the top.
    """
    from fast_jukebox import FastJukeboxConfig

    below = {"num_artists": 4, "num_genres": 6, "max_genres": 3}
    top = {
        **{"num_artists": 5, "num_genres": 3, "use_timing": True, "timing_bins": 8, "min_duration": 0.0},
        **{"max_duration": 600.0, "lyric_length": 12, "lyric_vocab_size": 79, "num_hidden_layers": 4},
        **{"layer_types": ["row", "lyric_cross", "column", "previous_row"], "lyric_encoder_layers": 1},
        **{"lyric_encoder_hidden_size": 8, "lyric_encoder_heads": 1, "lyric_encoder_num_rows": 4},
        **{"alignment_layer": 1, "alignment_head": 1, "initializer_range": 0.3},
    }
    configs = [config.to_dict() for config in tiny_config.prior_configs]
    return FastJukeboxConfig(
        vqvae_config=tiny_config.vqvae_config,
        prior_configs=[config | (top if config["level"] == 2 else below) for config in configs],
    )


@pytest.fixture
def words_files(tmp_path):
    """Lists of artists and of genres in the published layout: of genre words, and of whole genres."""
    texts = {
        "v2_artist_ids.txt": "unknown;0\nann_lee;1\nthe_choir;2\nbob_o_neil;3\n",
        "v3_artist_ids.txt": "unknown;0\nann lee;1\nthe choir;2\nbob o'neil;3\nzoe;4\n",
        "v2_genre_ids.txt": "unknown;0\npop;1\nclassic;2\nhymn;3\nslow;4\nfolk;5\n",
        "v3_genre_ids.txt": "unknown;0\nclassic pop;1\nhymn;2\n",
    }
    folder = tmp_path / "lists"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {
        "artists": [folder / "v2_artist_ids.txt", folder / "v3_artist_ids.txt"],
        "genres": [folder / "v2_genre_ids.txt", folder / "v3_genre_ids.txt"],
    }


@pytest.fixture
def words_model(words_config, words_files):
    """A whole model of random weights that is told of words, with its processor, in eval mode."""
    from fast_jukebox import FastJukeboxModel, FastJukeboxProcessor

    model = FastJukeboxModel(words_config).eval()
    model.processor = FastJukeboxProcessor.from_vocabulary_files(words_config, **words_files)
    return model


@pytest.fixture
def paired_model(tiny_config):
    """A whole model of random weights whose top prior is labelled, and whose processor knows which labels go together:
    a fiddle plays jigs and reels, a harp plays airs.
    """
    from fast_jukebox import FastJukeboxModel, FastJukeboxProcessor
    from fast_jukebox.data.labels import labelled_config
    from fast_jukebox.processing import LabelVocabulary

    pairs = [("fiddle", "jig"), ("fiddle", "reel"), ("harp", "air")]
    vocabulary = LabelVocabulary.from_metadata([{"artist": artist, "genre": genre} for artist, genre in pairs])
    tiny_config.prior_configs[-1] = labelled_config(tiny_config.prior_configs[-1], vocabulary, longest=86400.0)
    model = FastJukeboxModel(tiny_config).eval()
    model.processor = FastJukeboxProcessor.from_vocabulary(vocabulary, tiny_config)
    return model


class _OnGpu(torch.Tensor):
    def _refuse(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    numpy = __array__ = _refuse

    def to(self, *args, **kwargs):
        return super().to(*args, **kwargs).as_subclass(torch.Tensor)

    def cpu(self):
        return self.as_subclass(torch.Tensor)


@pytest.fixture
def as_on_gpu():
    """Makes a tensor that has to be brought to the CPU before numpy may see it."""
    return lambda tensor: tensor.as_subclass(_OnGpu)


@pytest.fixture(scope="session")
def hub_tools():
    """The module of servers in the Hub's place."""
    for name in ("hub_store", "hub_api", "hub_server"):
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
    return sys.modules["hub_server"]


@pytest.fixture
def hub(hub_tools, tmp_path, monkeypatch):
    """A server in the Hub's place, with an empty cache, on which Ann is logged in; she writes to `ann` and `band`."""
    users = {"token-of-ann": ["ann", "band"], "token-of-bob": ["bob"]}
    with hub_tools.HubServer(users, readers={"token-of-a-reader": ["ann"]}) as server:
        hub_tools.point_client_at(server.url, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "token-of-ann")
        yield server


@pytest.fixture
def model_dir(tiny_model, tmp_path):
    """The tiny model in a folder, with songs of 0.05 s."""
    tiny_model.generation_config.duration = 0.05
    tiny_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command line in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    call.folder = folder
    return call


# Priors and a VQ-VAE that keep the protocol, know what was asked of them and cost nothing.
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
            upsampling_strides=None if upper_ratio == 1 else [upper_ratio],
            upper_codebook_size=upper_codebook_size,
            metadata_length=metadata_length,
            use_timing=False,
        )
        self.table = torch.randn(_STATES, codebook_size, generator=torch.Generator().manual_seed(level))
        self.calls = []
        self.fail_at = None

    def cache_nbytes(self, batch_size):
        return 0

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
        self.config = SimpleNamespace(codebook_size=codebook_size, sampling_rate=sampling_rate)
        self.hop_lengths = list(hop_lengths)
        self.levels = [SimpleNamespace(decoder_reach=self.REACH) for _ in hop_lengths]

    def encode(self, audio):
        assert audio.shape[1] % self.hop_lengths[-1] == 0
        return [(audio[:, ::hop] * 100).round().long().clamp(0, 10) for hop in self.hop_lengths]

    def decode(self, codes, start_level=0, chunk_samples=None):
        assert len(codes) <= len(self.hop_lengths) - start_level
        own = codes[0] * 1000
        own = own + nn.functional.pad(codes[0], (self.REACH, self.REACH)).unfold(1, 2 * self.REACH + 1, 1).sum(dim=2)
        return (own.float() / 100000).repeat_interleave(self.hop_lengths[start_level], dim=1)


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
