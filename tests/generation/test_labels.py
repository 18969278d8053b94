import pytest
import torch

from fast_jukebox.generation.labels import check_labels, level_metadata, window_metadata
from fast_jukebox.generation.windows import Layout, Window


def test_metadata_reaches_the_priors_that_take_it(stub_model, stub_labelled_model):
    labels = torch.arange(5).unsqueeze(0)
    assert level_metadata(None, stub_model.priors) == [None] * 3
    assert all(torch.equal(own, labels) for own in level_metadata(labels, stub_labelled_model.priors))
    mixed = [stub_model.priors[0], stub_labelled_model.priors[1], stub_labelled_model.priors[2]]
    assert level_metadata([None, labels, labels], mixed)[0] is None
    with pytest.raises(ValueError, match="metadata"):
        level_metadata(labels, stub_model.priors)
    with pytest.raises(ValueError, match=r"metadata\[0\]"):
        level_metadata([labels] * 3, mixed)
    with pytest.raises(ValueError, match="metadata.*bottom"):
        level_metadata(None, stub_labelled_model.priors)
    with pytest.raises(ValueError, match=r"metadata\[1\]"):
        level_metadata([None, None, labels], mixed)
    with pytest.raises(ValueError, match="metadata"):
        level_metadata(labels[:, :4], stub_labelled_model.priors)


def test_a_window_has_its_own_offset_and_length():
    labels = torch.tensor([[0, 0, 2, 8, 9], [5000, 0, 2, 8, 9], [5000, 7, 2, 8, 9], [0, 7, 2, 8, 9]])
    made = window_metadata(labels, Window(1, 12, 4, 20), n_ctx=32, hop_length=4, samples=999)
    assert made[:2].tolist() == [[999, 48, 128, 8, 9], [5000, 48, 128, 8, 9]]
    # What is made may begin within a song.
    assert made[2:].tolist() == [[5000, 55, 128, 8, 9], [1006, 55, 128, 8, 9]]
    assert labels[0].tolist() == [0, 0, 2, 8, 9]
    assert window_metadata(None, Window(1, 12, 4, 20), 32, 4, 999) is None


def test_a_song_without_end_stands_still_at_its_total_length():
    labels = torch.tensor([[400, 0, 0, 8, 9], [100, 0, 0, 8, 9]])
    made = [window_metadata(labels, Window(0, start, 0, 20), 32, 4, None)[:, :3].tolist() for start in (0, 40, 100)]
    assert made[0] == [[400, 0, 128], [100, 0, 128]]
    assert made[1] == [[400, 160, 128], [100, 0, 128]]
    assert made[2] == [[400, 272, 128], [100, 0, 128]]


def test_first_and_last_window_are_checked(stub_labelled_model):
    labels = [torch.tensor([[0, 0, 0, 1, 2]])] * 3
    layouts = [Layout(0, 44, 24, 12), None, Layout(2, 11, 16, 8)]
    check_labels(stub_labelled_model.priors, labels, layouts, [2, 4, 8], 88)
    seen = [[call.metadata[0, :2].tolist() for call in prior.calls] for prior in stub_labelled_model.priors]
    assert seen == [[[88, 0], [88, 40]], [], [[88, 0]]]
    stub_labelled_model.priors[0].config.use_timing = True
    with pytest.raises(ValueError, match="metadata.*total length"):
        check_labels(stub_labelled_model.priors, labels, [Layout(0, None, 24, 12), None, None], [2, 4, 8], None)
