import json
from dataclasses import asdict

import pytest
import torch

from fast_jukebox.sessions.fingerprint import check_model, fingerprint, model_facts
from fast_jukebox.sessions.notes import ModelFacts


def test_a_model_is_known_again(tiny_model, tmp_path):
    from fast_jukebox import FastJukeboxModel

    facts = model_facts(tiny_model)
    tiny_model.save_pretrained(tmp_path)
    again = FastJukeboxModel.from_pretrained(tmp_path)
    check_model(facts, again, [0, 1, 2])
    found = model_facts(again)
    assert found.name == str(tmp_path)
    assert (found.vqvae, found.priors) == (facts.vqvae, facts.priors)
    assert len(set(facts.priors)) == 3


def test_other_weights_types_and_sizes_are_others(tiny_model):
    prior = tiny_model.priors[0]
    before = fingerprint(prior)
    assert fingerprint(prior.double()) != before
    assert fingerprint(prior.float()) == before
    with torch.no_grad():
        prior.position_embedding[0, 0] += 1
    changed = fingerprint(prior)
    assert changed != before
    prior.config.n_ctx = 16
    assert fingerprint(prior) != changed


def test_what_does_not_match_is_named(stub_model):
    facts = model_facts(stub_model, "band/model")
    other = type(stub_model)()
    other.priors[2].weight.data.fill_(2.0)
    check_model(facts, other, [0, 1])
    with pytest.raises(ValueError, match="top prior.*made with band/model"):
        check_model(facts, other, [0, 1, 2])
    other.vqvae.weight.data.fill_(2.0)
    with pytest.raises(ValueError, match="VQ-VAE"):
        check_model(facts, other, [])


def test_facts_survive_json(stub_model):
    facts = model_facts(stub_model)
    record = json.loads(json.dumps(asdict(facts)))
    assert ModelFacts.from_record(record) == facts
    for wrong in ({**record, "priors": []}, {**record, "sampling_rate": 0}, {"name": "x"}, None):
        with pytest.raises(ValueError):
            ModelFacts.from_record(wrong)
