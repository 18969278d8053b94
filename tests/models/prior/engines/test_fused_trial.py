import json
import logging

import pytest
import torch

from fast_jukebox.models.prior import sampling_prior
from fast_jukebox.models.prior.engines import fused_trial
from fast_jukebox.models.prior.engines.cuda_graph import GraphDecoder
from fast_jukebox.models.prior.engines.fused import FusedDecoder
from fast_jukebox.models.prior.engines.fused_trial import trial_name, trusted_decoder, try_fused
from fast_jukebox.sampling.checks import SamplingSettings

pytestmark = pytest.mark.usefixtures("interpreted", "fresh")

PLAIN = SamplingSettings()
GOOD = {"engine": "fused", "difference": 0.0, "fused_ms": 1.0, "graph_ms": 2.0}


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fused_trial, "_verdicts", {})


@pytest.fixture
def trials(monkeypatch):
    """Counts trials, of which each gives the next of some results."""
    results, done = [], []

    def trial(prior, batch_size):
        done.append(batch_size)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(fused_trial, "try_fused", trial)
    return results, done


def test_a_trial_measures_agreement_and_both_engines_on_a_layer_of_each_pattern(make_prior, monkeypatch):
    prior = make_prior(num_hidden_layers=4, layer_types=["row", "column"], upsampling_strides=[2, 2], hidden_size=16)
    layers = []
    for kind in (FusedDecoder, GraphDecoder):

        def noting(self, few, plain=kind._setup):
            layers.append(few.config.num_hidden_layers)
            plain(self, few)

        monkeypatch.setattr(kind, "_setup", noting)
    monkeypatch.setattr(fused_trial, "_TIMINGS", 1)
    verdict = try_fused(prior, 2)
    assert layers == [2, 2] and prior.config.num_hidden_layers == len(prior.blocks) == 4
    assert verdict["difference"] < 1e-5 and verdict["fused_ms"] > 0 and verdict["graph_ms"] > 0
    assert verdict["engine"] == "graph"  # the interpreter is slower than anything
    assert "reason" not in verdict


@pytest.mark.parametrize("spoilt", [0.5, float("nan")])
def test_steps_that_disagree_are_not_used(make_prior, monkeypatch, caplog, spoilt):
    prior = make_prior(num_hidden_layers=1, hidden_size=16)
    plain = FusedDecoder._steps

    def wrong(self, count):
        plain(self, count)
        self.logits.mul_(1 + spoilt)

    monkeypatch.setattr(FusedDecoder, "_steps", wrong)
    with caplog.at_level(logging.WARNING):
        assert [trusted_decoder(prior, 1, PLAIN) for _ in range(2)] == [None, None]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not those of the plain step" in caplog.text


@pytest.mark.parametrize("folded_ms", [1.0, 3.0])
def test_of_both_forms_of_layernorm_the_quicker_one_is_used(make_prior, monkeypatch, folded_ms):
    def timed(decoder):
        if isinstance(decoder, GraphDecoder):
            return 4.0
        return folded_ms if decoder.tuning.folded else 2.0

    monkeypatch.setattr(fused_trial, "_milliseconds", timed)
    prior = make_prior(num_hidden_layers=1, hidden_size=16)
    verdict = try_fused(prior, 5)
    assert (verdict["engine"], verdict["folded"], verdict["folded_ms"]) == ("fused", folded_ms < 2.0, folded_ms)
    for _ in range(2):  # by the trial, then by the file
        assert trusted_decoder(prior, 5, PLAIN).tuning.folded == (folded_ms < 2.0)
        monkeypatch.setattr(fused_trial, "_verdicts", {})
    assert "folded_ms" not in try_fused(prior, 4) and not trusted_decoder(prior, 4, PLAIN).tuning.folded


@pytest.mark.parametrize("failing", [True, False])
def test_a_folded_layernorm_that_fails_or_disagrees_is_left_out_alone(make_prior, monkeypatch, caplog, failing):
    plain = FusedDecoder._steps

    def wrong(self, count):
        plain(self, count)
        if self.tuning.folded and failing:
            raise RuntimeError("no such instruction")
        if self.tuning.folded:
            self.logits.mul_(2)

    monkeypatch.setattr(FusedDecoder, "_steps", wrong)
    monkeypatch.setattr(fused_trial, "_milliseconds", lambda decoder: 1.0)
    prior = make_prior(num_hidden_layers=1, hidden_size=16)
    with caplog.at_level(logging.WARNING):
        assert not trusted_decoder(prior, 5, PLAIN).tuning.folded
    assert not caplog.records


def test_every_kind_of_prior_can_be_tried(make_prior, lyric_kind, monkeypatch):
    monkeypatch.setattr(fused_trial, "_milliseconds", lambda decoder: 1.0)
    prior = make_prior(**lyric_kind)
    assert try_fused(prior, 1)["engine"] == "fused"


def test_a_verdict_is_remembered_by_the_process_and_by_the_machine(make_prior, trials, monkeypatch):
    results, done = trials
    results.append(dict(GOOD))
    prior = make_prior(num_hidden_layers=1)
    assert isinstance(trusted_decoder(prior, 2, PLAIN), FusedDecoder)
    assert isinstance(trusted_decoder(prior, 2, SamplingSettings(top_k=3)), FusedDecoder)
    monkeypatch.setattr(fused_trial, "_verdicts", {})  # another process
    assert isinstance(trusted_decoder(prior, 2, PLAIN), FusedDecoder)
    assert done == [2]


@pytest.mark.parametrize("content", ["", "[]", '{"engine": "other"}', "x" * 5000])
def test_a_file_that_is_no_verdict_is_replaced(make_prior, trials, content):
    results, done = trials
    results.append(dict(GOOD))
    prior = make_prior(num_hidden_layers=1)
    path = fused_trial._path(trial_name(prior, 1))
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert isinstance(trusted_decoder(prior, 1, PLAIN), FusedDecoder)
    assert done == [1] and json.loads(path.read_text()) == GOOD


def test_what_a_trial_raises_is_remembered_with_one_warning(make_prior, trials, caplog, monkeypatch):
    results, done = trials
    results.append(RuntimeError("no such instruction"))
    prior = make_prior(num_hidden_layers=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            monkeypatch.setattr(fused_trial, "_verdicts", {})
            assert trusted_decoder(prior, 1, PLAIN) is None
    assert done == [1] and len(caplog.records) == 1 and "no such instruction" in caplog.text


def test_too_little_memory_is_no_verdict(make_prior, trials):
    results, done = trials
    results += [torch.OutOfMemoryError("CUDA out of memory"), dict(GOOD)]
    prior = make_prior(num_hidden_layers=1)
    assert trusted_decoder(prior, 1, PLAIN) is None
    assert isinstance(trusted_decoder(prior, 1, PLAIN), FusedDecoder)
    assert done == [1, 1]


def test_a_program_that_cannot_be_made_takes_back_the_verdict(make_prior, trials, monkeypatch, caplog):
    results, _ = trials
    results.append(dict(GOOD))
    prior = make_prior(num_hidden_layers=1)

    def fail(self, prior):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(FusedDecoder, "_setup", fail)
    with caplog.at_level(logging.WARNING):
        assert trusted_decoder(prior, 1, PLAIN) is None
    assert "shared memory" in caplog.text
    assert json.loads(fused_trial._path(trial_name(prior, 1)).read_text())["engine"] == "graph"


def test_a_verdict_holds_for_one_size_and_dtype(make_prior):
    prior = make_prior(num_hidden_layers=1)
    names = {
        trial_name(prior, 1),
        trial_name(prior, 2),
        trial_name(make_prior(num_hidden_layers=2), 1),
        trial_name(make_prior(num_hidden_layers=1, hidden_size=48), 1),
        trial_name(make_prior(num_hidden_layers=1, upsampling_strides=[2, 2]), 1),
        trial_name(make_prior(num_hidden_layers=1).to(torch.bfloat16), 1),
    }
    assert len(names) == 6
    assert trial_name(make_prior(num_hidden_layers=1), 1) == trial_name(prior, 1)
    assert trial_name(make_prior(num_hidden_layers=3), 1) == trial_name(make_prior(num_hidden_layers=9), 1)


def test_without_a_folder_to_write_to_a_verdict_holds_for_the_process(make_prior, trials, monkeypatch, tmp_path):
    results, done = trials
    results.append(dict(GOOD))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    prior = make_prior(num_hidden_layers=1)
    assert all(isinstance(trusted_decoder(prior, 1, PLAIN), FusedDecoder) for _ in range(2))
    assert done == [1]


def test_auto_takes_what_the_trial_says(make_prior, monkeypatch):
    prior, decoder = make_prior(num_hidden_layers=1), object()
    monkeypatch.setattr(sampling_prior, "choose_engine", lambda prior: "graph")
    for trusted in (decoder, None):
        monkeypatch.setattr(sampling_prior, "trusted_decoder", lambda *arguments, trusted=trusted: trusted)
        made = prior.new_decoder(1, PLAIN)
        assert made is decoder if trusted is decoder else isinstance(made, GraphDecoder)
    assert isinstance(prior.new_decoder(1, PLAIN, "graph"), GraphDecoder)


def test_a_prior_that_the_kernels_cannot_step_is_not_tried(make_prior, trials):
    assert trusted_decoder(make_prior(num_hidden_layers=1).to(torch.float64), 1, PLAIN) is None
    assert trials[1] == []
