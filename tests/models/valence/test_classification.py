import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.models.valence.classification import (
    average_precision,
    axis_scores,
    calibration_error,
    classification_metrics,
    confusion,
    roc_auc,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_areas_are_those_of_scikit_learn_ties_included(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    scores = torch.tensor([score / 6 for score, _ in pairs])
    truth = torch.tensor([is_positive for _, is_positive in pairs])
    if truth.any():
        expected = metrics.average_precision_score(truth.numpy(), scores.numpy())
        assert average_precision(scores, truth) == pytest.approx(expected)
    else:
        assert math.isnan(average_precision(scores, truth))
    if truth.any() and not truth.all():
        assert roc_auc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth.numpy(), scores.numpy()))
    else:
        assert math.isnan(roc_auc(scores, truth))


def test_axes_and_confusion_are_those_of_the_quadrants():
    probabilities = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.1, 0.6]])
    scores = axis_scores(probabilities)
    assert scores["pleasantness"].tolist() == pytest.approx([0.6, -0.4])
    assert scores["activation"].tolist() == pytest.approx([0.6, -0.6])
    labels = torch.eye(4)[[0, 1]]
    assert confusion(probabilities, labels).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0] * 4, [0] * 4]


def test_calibration_is_the_gap_between_what_is_said_and_what_is():
    truth = torch.tensor([True, False, False, False])
    assert calibration_error(torch.full((4,), 0.25), truth) == pytest.approx(0.0)
    assert calibration_error(torch.full((4,), 0.95), truth) == pytest.approx(0.7)


def test_activation_alone_reaches_a_high_mean_and_pleasantness_shows_it():
    """The trap of the paper's single number: a classifier that hears only activation."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(4)[torch.randint(4, (400,), generator=generator)]
    activated = labels[:, 0] + labels[:, 2]
    score = (0.2 + 0.6 * activated)[:, None] * torch.tensor([1.0, 0, 1, 0]) + (0.8 - 0.6 * activated)[
        :, None
    ] * torch.tensor([0.0, 1, 0, 1])
    found = classification_metrics(score + 0.01 * torch.rand(400, 4, generator=generator), labels)
    assert found["roc_auc"] > 0.8
    assert found["activation_auc"] == pytest.approx(1.0)
    assert found["pleasantness_auc"] == pytest.approx(0.5, abs=0.06)
    assert found["accuracy"] < 0.6


def test_classes_that_do_not_occur_are_left_out_of_the_mean():
    found = classification_metrics(torch.tensor([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0]]), torch.eye(4)[:2])
    assert found["roc_auc"] == 1.0
    assert math.isnan(found["roc_auc_DU"])
    with pytest.raises(ValueError, match=r"must be \(n, 4\)"):
        classification_metrics(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least one song"):
        classification_metrics(torch.zeros(0, 4), torch.zeros(0, 4))
