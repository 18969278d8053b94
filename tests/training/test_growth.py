"""A prior that grows by layers, names or labels computes what the one it is made from computes, and all of it can
learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.distillation import initialize_student, student_config
from fast_jukebox.processing import FastJukeboxProcessor, LabelVocabulary
from fast_jukebox.training.weights import add_labels, add_names, deep_layer, deepen


def tiny_prior(layers: int = 3, **settings) -> FastJukeboxPrior:
    torch.manual_seed(0)
    config = FastJukeboxPriorConfig(
        codebook_size=16,
        n_ctx=16,
        num_rows=4,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        **settings,
    )
    prior = FastJukeboxPrior(config)
    for weight in prior.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return prior.eval()


def test_deeper_computes_the_same():
    prior = tiny_prior()
    deep = deepen(prior, 12).eval()
    codes = torch.randint(0, 16, (2, 16))
    assert deep.config.num_hidden_layers == len(deep.blocks) == 12
    torch.testing.assert_close(deep(codes).logits, prior(codes).logits, rtol=0, atol=1e-6)


def test_every_layer_learns():
    deep = deepen(tiny_prior(), 9).train()
    codes = torch.randint(0, 16, (2, 16))
    for _ in range(2):  # what stands before a branch's zero end gets its gradient once the end has moved
        deep(codes, labels=codes).loss.backward()
        with torch.no_grad():
            for weight in deep.parameters():
                weight -= 0.01 * weight.grad
    assert all(block.mlp.expand.weight.grad.abs().sum() > 0 for block in deep.blocks)


def test_a_student_of_the_same_depth_gets_its_layers_back():
    prior = tiny_prior(6)
    deep = deepen(prior, 18)
    student = initialize_student(FastJukeboxPrior(student_config(deep.config, 6)), deep).eval()
    codes = torch.randint(0, 16, (1, 16))
    assert torch.equal(student(codes).logits, prior(codes).logits)


@given(st.integers(1, 5), st.integers(0, 7), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_places_are_in_order_and_keep_the_pattern(groups, more, cycle):
    depth, deep = groups * cycle, (groups + more) * cycle
    places = [deep_layer(layer, depth, deep, cycle) for layer in range(depth)]
    assert places == sorted(set(places))
    assert [place % cycle for place in places] == [layer % cycle for layer in range(depth)]
    assert places[-1] == deep - 1


@pytest.mark.parametrize("layers", [2, 4, 0])
def test_refuses_depths(layers):
    with pytest.raises(ValueError, match="num_hidden_layers"):
        deepen(tiny_prior(), layers)


def test_refuses_scaled_branches():
    with pytest.raises(ValueError, match="residual_scale"):
        deepen(tiny_prior(residual_scale=True), 6)


NAMES = st.lists(
    st.fixed_dictionaries(
        {"artist": st.sampled_from([None, "Ann", "Bob", "Zoë", "unknown"]), "genre": st.text(max_size=4)}
    ),
    max_size=4,
)


def labelled_prior(spare: int = 0, **settings) -> tuple[FastJukeboxPrior, FastJukeboxProcessor]:
    prior = tiny_prior(num_artists=3 + spare, num_genres=3 + spare, max_duration=600.0, **settings)
    vocabulary = LabelVocabulary({"ann": 1, "cleo": 2}, {"pop": 1, "folk": 2}, pairs=(("ann", "pop"),))
    return prior, FastJukeboxProcessor.from_vocabulary(vocabulary, prior.config)


@pytest.mark.parametrize("settings", [{}, {"use_timing": True, "genre_period": 8}])
def test_new_names_leave_the_old_ones_bit_for_bit_and_begin_as_their_mean(settings):
    prior, processor = labelled_prior(**settings)
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    grown = add_names(prior, processor, [{"artist": "Zoe", "genre": "Trip Hop"}, {"artist": "Ann", "genre": "pop"}])
    vocabulary = grown.vocabularies[0]
    assert vocabulary.artists == {"unknown": 0, "ann": 1, "cleo": 2, "zoe": 3}
    assert vocabulary.genres == {"unknown": 0, "pop": 1, "folk": 2, "trip hop": 3}
    assert vocabulary.pairs == (("ann", "pop"), ("zoe", "trip hop"))
    assert (prior.config.num_artists, prior.config.num_genres) == (4, 4)
    for name, tensor in prior.state_dict().items():
        old = before[name]
        assert torch.equal(tensor[: len(old)], old), name
        if "artist" in name or "genre" in name:
            torch.testing.assert_close(tensor[3], old[1:].mean(0))
    assert processor.vocabularies[0].num_artists == 3  # the one given stays as it was


def test_known_names_change_nothing():
    prior, processor = labelled_prior()
    weight = prior.label_conditioner.artist_embedding.weight
    assert add_names(prior, processor, [{"artist": "ANN", "genre": "Folk"}, {}]).vocabularies[0].artists == (
        processor.vocabularies[0].artists
    )
    assert prior.label_conditioner.artist_embedding.weight is weight


def test_rows_that_have_no_name_are_left_alone():
    prior, processor = labelled_prior(spare=2)
    grown = add_names(prior, processor, [{"artist": "Zoe"}])
    assert grown.vocabularies[0].artists["zoe"] == 5 and prior.config.num_artists == 6
    bare, _ = labelled_prior(spare=2)
    grown = add_names(bare, None, [{"artist": "Zoe"}])
    assert grown.vocabularies[0].artists == {"unknown": 0, "zoe": 5}
    unknown = bare.label_conditioner.artist_embedding.weight[0]
    assert torch.equal(bare.label_conditioner.artist_embedding.weight[5], unknown)


@settings(max_examples=25, deadline=None)
@given(NAMES, NAMES)
def test_names_may_be_added_again_and_again(first, second):
    prior, processor = labelled_prior()
    old = prior.label_conditioner.artist_embedding.weight.clone()
    for rows in (first, second):
        processor = add_names(prior, processor, rows)
    processor.check(prior.config)
    ids = list(processor.vocabularies[0].artists.values())
    assert sorted(ids) == list(range(prior.config.num_artists)) == list(range(len(ids)))
    assert torch.equal(prior.label_conditioner.artist_embedding.weight[:3], old)
    for row in first + second:
        assert processor({key: value for key, value in row.items() if value}).metadata[0] is not None


def test_new_names_are_saved_and_learn(tmp_path):
    prior, processor = labelled_prior()
    processor = add_names(prior, processor, [{"artist": "Zoe", "genre": "pop"}])
    prior.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = FastJukeboxPrior.from_pretrained(tmp_path)
    found = FastJukeboxProcessor.find(tmp_path, loaded.config)
    metadata = found({"artist": "Zoe", "genre": "pop", "total_duration": 60}).metadata[0]
    codes = torch.randint(0, 16, (1, 16))
    out = loaded(codes, metadata=metadata, labels=codes)
    torch.testing.assert_close(out.logits, prior(codes, metadata=metadata).logits, rtol=0, atol=0)
    out.loss.backward()
    grad = loaded.label_conditioner.artist_embedding.weight.grad
    assert grad[3].abs().max() > 0 and grad[:3].abs().max() == 0


def test_a_prior_that_gets_labels_computes_the_same_whatever_they_are():
    prior = tiny_prior(sampling_rate=1600, hop_length=8)
    labelled = add_labels(prior, [{"artist": "Ann", "genre": "slow pop"}], max_genres=2).eval()
    assert (labelled.config.num_artists, labelled.config.num_genres, labelled.config.use_timing) == (2, 3, True)
    codes = torch.randint(0, 16, (2, 16))
    metadata = torch.tensor([[16000, 0, 128, 1, 1, 2], [32000, 1600, 128, 0, 0, -1]])
    torch.testing.assert_close(labelled(codes, metadata=metadata).logits, prior(codes).logits, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="`prior` must have no labels, got one with 2"):
        add_labels(labelled, [])
