import functools
import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fast_jukebox.models.prior.engines import cuda_graph as static
from fast_jukebox.models.prior.engines.cuda_graph import GRAPH_LAYERS, GraphDecoder, steps_in_a_row
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import EagerDecoder, open_decoder, sample_window
from fast_jukebox.sampling.weights import release_decoders

SETTINGS = SamplingSettings(temperature=0.9, top_k=9, top_p=0.9)
EVERY_PATTERN = {"layer_types": ["row", "column", "previous_row", "dense"], "num_hidden_layers": 4}


class Watch(TorchDispatchMode):
    """Notes each operation with the shapes that it gave, and whether a number was fetched from the device."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations.append((str(func), result.shape if isinstance(result, torch.Tensor) else None))
        return result


def test_a_step_is_the_same_operations_at_every_position_and_looks_at_nothing(make_prior):
    prior = make_prior(upsampling_strides=[2, 2], **EVERY_PATTERN)
    decoder = GraphDecoder(prior, 3, SETTINGS)
    watched = []
    for position in (1, 6, 11, 23):
        decoder.position.fill_(position)
        decoder.cursor.zero_()
        with torch.no_grad(), Watch() as watch:
            decoder.step()
        watched.append(watch.operations)
    assert all(operations == watched[0] for operations in watched)
    names = {name for name, _ in watched[0]}
    assert not {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.is_nonzero.default"} & names


def test_a_step_finds_its_place_once_for_all_layers_of_a_pattern(make_prior):
    counts = []
    for layers in (3, 9):
        decoder = GraphDecoder(make_prior(num_hidden_layers=layers), 2, SETTINGS)
        with torch.no_grad(), Watch() as watch:
            decoder.step()
        names = [name for name, _ in watch.operations]
        counts.append(
            [names.count(f"aten.{name}") for name in ("remainder.Scalar", "floor_divide.default", "lt.Tensor")]
        )
    assert counts[0] == counts[1] and all(counts[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_those_of_the_plain_step_to_rounding(make_prior, make_inputs, kind, dtype):
    prior = make_prior(**kind)
    inputs = make_inputs(prior.config, 3)
    with torch.no_grad():
        exact = prior.to(dtype).float()(**inputs).logits
    prior, codes = prior.to(dtype), inputs.pop("codes")
    conditioning, cache = prior.condition(3, 24, **inputs), prior.new_cache(3)
    decoder = GraphDecoder(prior, 3, SETTINGS)
    for own in (cache, decoder.cache):
        prior.prefill(codes[:, :2], conditioning, own)
    decoder.load(conditioning)
    for position in range(3, 24):
        wanted = prior.step(codes[:, position - 1], position, conditioning, cache)
        decoder.decode(codes[:, position - 1], position, torch.rand(3, 1))
        # No further from each other than the plain step is from float32.
        error = (wanted.float() - exact[:, position]).abs().max()
        assert (decoder.logits - wanted).abs().max() <= 2 * error + 0.05


def test_more_codes_than_a_row_are_refused(make_prior):
    prior = make_prior()
    decoder = GraphDecoder(prior, 1, SETTINGS)
    decoder.load(prior.condition(1, 24))
    with pytest.raises(ValueError, match="1 to 6 codes"):
        decoder.decode(torch.zeros(1, dtype=torch.int64), 1, torch.rand(1, 7))


def test_a_program_made_in_inference_mode_runs_outside_it(make_prior):
    prior = make_prior()
    with torch.inference_mode():
        decoder = GraphDecoder(prior, 1, SETTINGS)
        conditioning = prior.condition(1, 24)
    prompt, uniform = torch.zeros(1, 0, dtype=torch.int64), torch.rand(1, 24)
    codes = sample_window(decoder.open(prior, conditioning), prompt, uniform)
    with torch.inference_mode():
        again = sample_window(decoder.open(prior, conditioning), prompt, uniform)
    assert torch.equal(codes, again)


def test_a_kept_program_keeps_neither_its_prior_nor_the_conditioning(make_prior, monkeypatch):
    monkeypatch.setattr(GraphDecoder, "costly", True)
    prior = make_prior(upsampling_strides=[2, 2])
    conditioning = prior.condition(1, 24, torch.zeros(1, 6, dtype=torch.int64))
    step = open_decoder(prior, conditioning, 1, SETTINGS, "graph")
    sample_window(step, torch.zeros(1, 0, dtype=torch.int64), torch.rand(1, 24))
    assert open_decoder(prior, conditioning, 1, SETTINGS, "graph") is step
    step.close(finished=True)
    gone = [weakref.ref(prior), weakref.ref(conditioning.positions), weakref.ref(step)]
    del prior, conditioning, step
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


@pytest.fixture
def compile_at_once(monkeypatch):
    """torch.compile that only traces, and gives up on code that it has compiled for one size."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=1):
        yield


@pytest.mark.parametrize("compiled", [False, True])
def test_a_program_that_nobody_holds_gives_back_its_memory_at_once(make_prior, compile_at_once, compiled):
    prior = make_prior(num_hidden_layers=1)
    decoder = GraphDecoder(prior, 1, SETTINGS, compiled)
    decoder.load(prior.condition(1, 24))
    decoder.decode(torch.zeros(1, dtype=torch.int64), 1, torch.rand(1, 2))
    storage = weakref.ref(decoder.cache.layers[0].storage)
    gc.collect()
    gc.disable()  # a GPU's memory would be waited for in vain until garbage is collected
    try:
        del decoder
        assert storage() is None
    finally:
        gc.enable()


def test_steps_of_any_number_of_sizes_can_be_compiled(make_prior, compile_at_once):
    prior = make_prior(num_hidden_layers=1)
    for songs in (1, 2):
        decoder = GraphDecoder(prior, songs, SETTINGS, compiled=True)
        assert decoder.costly
        decoder.load(prior.condition(songs, 24))
        assert decoder.decode(torch.zeros(songs, dtype=torch.int64), 1, torch.rand(songs, 2)).shape == (songs, 2)


def fake_prior(config, dtype):
    torch.set_default_dtype(dtype)  # tensors without numbers cannot be converted in place
    try:
        return FastJukeboxPrior(config)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [SETTINGS, SamplingSettings(do_sample=False)], ids=["drawn", "most probable"])
def test_a_step_stays_on_a_gpu(tiny_config, kind, monkeypatch, dtype, settings):
    """By shapes, dtypes and devices alone: what would read a number, or mix devices, is an error here as well."""
    monkeypatch.setattr(GraphDecoder, "_record", lambda self: {})
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        decoder = GraphDecoder(fake_prior(tiny_config(**kind), dtype), 3, settings)
        with torch.no_grad():
            decoder.step()
    assert (decoder.logits.dtype, decoder.logits.device.type) == (dtype, "cuda")


class Recording(TorchDispatchMode):
    """Stands for a CUDA graph: the operations between entry and exit, done anew on the very same tensors by `replay`.

    What the host decides on the way is decided once, and whatever it reads is what stood there while recording.
    """

    replays = 0

    def __init__(self):
        super().__init__()
        self.tape = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.tape.append((func, args, kwargs, result))
        return result

    def replay(self):
        Recording.replays += 1
        for func, args, kwargs, result in self.tape:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorded(monkeypatch):
    """Makes a decoder on the CPU that has recorded its steps as if it were on a GPU."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "device": nullcontext,
        "stream": nullcontext,
        "current_stream": lambda device=None: stream,
        "graph_pool_handle": lambda: None,
        "CUDAGraph": Recording,
        "graph": lambda graph, **options: graph,
        "Event": lambda: SimpleNamespace(record=lambda stream: None, synchronize=lambda: None),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(static, "_side_stream", lambda device: stream)
    monkeypatch.setattr(Recording, "replays", 0)

    def make(prior, songs):
        decoder = GraphDecoder(prior, songs, SETTINGS)
        with torch.inference_mode(False), torch.no_grad():
            decoder._graphs = decoder._record()
        return decoder

    return make


def test_a_replayed_row_is_the_plain_steps(make_prior, recorded):
    prior = make_prior(upsampling_strides=[2, 2], **EVERY_PATTERN)
    decoder = recorded(prior, 3)
    for known in (0, 5, 20):  # one decoder, window after window
        conditioning = prior.condition(3, 24, torch.randint(0, 13, (3, 6)))
        prompt, uniform = torch.randint(0, 13, (3, known)), torch.rand(3, 24 - known)
        wanted = sample_window(EagerDecoder(prior, conditioning, 3, SETTINGS), prompt, uniform)
        Recording.replays = 0
        with torch.inference_mode():
            codes = sample_window(decoder.open(prior, conditioning), prompt, uniform)
        assert torch.equal(codes, wanted)
        rows, single = divmod(23 - known, decoder.steps_per_call)
        assert Recording.replays == rows + single


def test_a_recording_leaves_nothing_behind(make_prior, recorded):
    decoder = recorded(make_prior(), 2)
    assert (decoder.steps_per_call, sorted(decoder._graphs), decoder.costly) == (6, [1, 6], True)
    assert not any(cache.storage.any() for cache in decoder.cache.layers)
    assert not decoder.position.any() and not decoder.cursor.any()


def test_a_recorded_row_is_bounded():
    assert steps_in_a_row(64, 18) == 32
    assert steps_in_a_row(96, 72) == 12
    assert steps_in_a_row(7, GRAPH_LAYERS) == 1
    assert steps_in_a_row(7, 2 * GRAPH_LAYERS) == 1


@pytest.mark.slow
def test_the_compiled_step_draws_the_same_codes(make_prior):
    prior = make_prior(upsampling_strides=[2, 2], **EVERY_PATTERN)
    conditioning = prior.condition(3, 24, torch.randint(0, 13, (3, 6)))
    prompt, uniform = torch.randint(0, 13, (3, 5)), torch.rand(3, 19)
    wanted = sample_window(EagerDecoder(prior, conditioning, 3, SETTINGS), prompt, uniform)
    assert torch.equal(
        sample_window(open_decoder(prior, conditioning, 3, SETTINGS, "compiled"), prompt, uniform), wanted
    )
    release_decoders()


# ---- on a GPU ----


@pytest.fixture(params=["graph", "compiled"])
def engine(request):
    yield request.param
    release_decoders()


def on_gpu(make_prior, dtype=torch.float32, **fields):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    prior = make_prior(upsampling_strides=[2, 2], **{**EVERY_PATTERN, **fields}).to("cuda", dtype)
    conditioning = prior.condition(3, 24, torch.randint(0, 13, (3, 6), device="cuda"))
    prompt, uniform = torch.randint(0, 13, (3, 5), device="cuda"), torch.rand(3, 19, device="cuda")
    return prior, conditioning, prompt, uniform


@pytest.mark.gpu
def test_recorded_steps_draw_the_codes_of_the_plain_step_on_a_gpu(make_prior, engine):
    prior, conditioning, prompt, uniform = on_gpu(make_prior)
    wanted = sample_window(EagerDecoder(prior, conditioning, 3, SETTINGS), prompt, uniform)
    for _ in range(2):  # the second window is sampled by the decoder of the first
        step = open_decoder(prior, conditioning, 3, SETTINGS, engine)
        assert torch.equal(sample_window(step, prompt, uniform), wanted)
    torch.testing.assert_close(step.logits, last_logits(prior, conditioning, wanted), atol=1e-4, rtol=1e-4)


def last_logits(prior, conditioning, codes):
    return prior.prefill(codes[:, :-1], conditioning, prior.new_cache(len(codes)))


@pytest.mark.gpu
def test_a_row_of_steps_waits_for_nothing_on_a_gpu(make_prior, engine):
    prior, conditioning, prompt, uniform = on_gpu(make_prior)
    step = open_decoder(prior, conditioning, 3, SETTINGS, engine)
    code = step.prefill(prompt, uniform[:, 0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for position in (6, 12, 18):
            code = step.decode(code, position, uniform[:, position - 5 : position + 1])[:, -1]
        code = step.decode(code, 23, uniform[:, 18:])[:, 0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    step.close(finished=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_on_a_gpu(make_prior, engine, dtype):
    prior, conditioning, prompt, uniform = on_gpu(make_prior, dtype)
    step = open_decoder(prior, conditioning, 3, SETTINGS, engine)
    codes = sample_window(step, prompt, uniform)
    wanted = last_logits(prior, conditioning, codes)
    torch.testing.assert_close(step.logits.float(), wanted.float(), atol=0.25, rtol=0.05)


@pytest.mark.gpu
def test_windows_take_no_more_memory_on_a_gpu(make_prior, engine):
    prior, conditioning, prompt, uniform = on_gpu(make_prior)
    taken = []
    for _ in range(4):
        sample_window(open_decoder(prior, conditioning, 3, SETTINGS, engine), prompt, uniform)
        torch.cuda.synchronize()
        taken.append(torch.cuda.memory_allocated())
    assert taken[1] == taken[2] == taken[3]
    release_decoders()
    assert torch.cuda.memory_allocated() < taken[0]
