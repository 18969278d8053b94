"""Probes: ridge in closed form, its leave-one-out, and chance beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.probing import PENALTIES, LinearClassifier, probe


def naive_ridge(data, targets, penalty):
    """Coefficients and intercepts of ridge with a free intercept, by the normal equations."""
    centre, middle = data.mean(dim=0), targets.mean(dim=0)
    data, targets = data - centre, targets - middle
    coefficients = torch.linalg.solve(data.T @ data + penalty * torch.eye(data.shape[1]).double(), data.T @ targets)
    return coefficients, middle - centre @ coefficients


@settings(deadline=None, max_examples=20)
@given(st.integers(6, 20), st.integers(1, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_it_is_ridge_with_the_penalty_that_leave_one_out_likes_best(songs, width, kinds, seed):
    torch.manual_seed(seed)
    features = torch.randn(songs, width) * 3 + 1
    labels = [f"kind {index % kinds}" for index in range(songs)]
    fitted = LinearClassifier.fit_ridge(features, labels)
    data = (features.double() - features.double().mean(dim=0)) / features.double().std(dim=0)
    targets = torch.stack([torch.tensor([label == name for label in labels]) for name in fitted.labels], 1).double()
    errors, right = {}, {}
    for penalty in PENALTIES:
        predicted = torch.zeros_like(targets)
        for out in range(songs):
            kept = [index for index in range(songs) if index != out]
            coefficients, intercepts = naive_ridge(data[kept], targets[kept], penalty)
            predicted[out] = data[out] @ coefficients + intercepts
        errors[penalty] = float((targets - predicted).square().mean())
        right[penalty] = float((predicted.argmax(1) == targets.argmax(1)).double().mean())
    assert errors[fitted.penalty] == pytest.approx(min(errors.values()), rel=1e-6)
    assert fitted.left_out_accuracy == pytest.approx(right[fitted.penalty])
    coefficients, intercepts = naive_ridge(data, targets, fitted.penalty)
    mean, scale = features.double().mean(dim=0), features.double().std(dim=0)
    torch.testing.assert_close(fitted.coefficients * scale[:, None], coefficients, atol=1e-6, rtol=1e-5)
    new = torch.randn(5, width)
    scores = (new.double() - mean) / scale @ coefficients + intercepts
    assert fitted.predict(new) == [fitted.labels[index] for index in scores.argmax(dim=1).tolist()]


def test_a_discriminant_learns_what_labels_are_like():
    generator = torch.Generator().manual_seed(0)
    means = {"a": torch.tensor([0.0, 0, 0]), "b": torch.tensor([3.0, 0, 0]), "c": torch.tensor([0.0, 3, 100])}
    labels = [name for name in means for _ in range(50)]
    data = torch.stack(
        [means[name] + torch.randn(3, generator=generator) * torch.tensor([1, 1, 50]) for name in labels]
    )
    classifier = LinearClassifier.fit_discriminant(data, labels)
    assert classifier.labels == ("a", "b", "c")
    hits = sum(own == label for own, label in zip(classifier.predict(data), labels, strict=True))
    assert hits > 0.85 * len(labels)
    scaled = LinearClassifier.fit_discriminant(data * torch.tensor([1000.0, 1, 0.001]), labels)
    assert scaled.predict(data * torch.tensor([1000.0, 1, 0.001])) == classifier.predict(data)
    # The nearest mean by the shrunk covariance, written out.
    wanted = torch.tensor(["abc".index(label) for label in labels])
    centres = torch.stack([data[wanted == number].double().mean(dim=0) for number in range(3)])
    rest = data.double() - centres[wanted]
    covariance = rest.T @ rest / (len(data) - 3)
    precision = torch.linalg.inv(0.7 * covariance + 0.3 * torch.diag(covariance.diagonal()) + 1e-8 * torch.eye(3))
    new = torch.randn(40, 3, generator=generator) * torch.tensor([2, 2, 100]) + 1
    apart = new.double()[:, None] - centres
    nearest = torch.einsum("slf,fg,slg->sl", apart, precision, apart).argmin(dim=1)
    assert classifier.predict(new) == ["abc"[number] for number in nearest.tolist()]


def test_a_discriminant_needs_two_songs_of_each_label():
    data = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"`labels` must each have two songs or more, got one of b"):
        LinearClassifier.fit_discriminant(data, ["a", "a", "a", "b"])
    with pytest.raises(ValueError, match="`labels` must be one for each"):
        LinearClassifier.fit_discriminant(data, ["a"])


def songs_of(count, signal, seed):
    """Features of which the first says the kind, as clearly as `signal`."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 40, generator=generator)
    labels = ["major" if index % 2 else "minor" for index in range(count)]
    features[:, 0] += signal * torch.tensor([1.0 if label == "major" else -1.0 for label in labels])
    return features, labels


def test_what_is_there_is_found_and_what_is_not_is_chance():
    known, labels = songs_of(200, 5.0, 0)
    others, other_labels = songs_of(100, 5.0, 1)
    found = probe(known, labels, others, other_labels)
    assert found.accuracy == found.low == found.high == 1.0 and found.left_out_accuracy == 1.0
    assert (found.most_frequent, found.labels, found.songs) == (0.5, 2, 100)
    assert abs(found.shuffled - 0.5) < 0.1
    nothing = probe(*songs_of(200, 0.0, 0), *songs_of(100, 0.0, 1))
    assert nothing.low < 0.5 < nothing.high and nothing.low < nothing.accuracy < nothing.high
    assert probe(*songs_of(200, 0.0, 0), *songs_of(100, 0.0, 1)) == nothing


def test_kinds_that_were_never_heard_are_wrong_and_constant_features_harmless():
    features, labels = songs_of(40, 5.0, 0)
    features[:, 3] = 7.0
    found = probe(features, labels, features[:4], ["major", "dorian", "dorian", "dorian"])
    assert found.accuracy <= 0.25


@pytest.mark.parametrize(
    ("features", "labels", "match"),
    [
        (torch.zeros(3, 2), ["a", "b"], r"got 2 of 2 kinds for features \(3, 2\)"),
        (torch.zeros(2, 2), ["a", "a"], "two kinds at least, got 2 of 1 kinds"),
        (torch.zeros(2), ["a", "b"], r"\(2,\)"),
    ],
)
def test_songs_that_do_not_fit(features, labels, match):
    with pytest.raises(ValueError, match=match):
        LinearClassifier.fit_ridge(features, labels)


def test_there_must_be_held_out_songs():
    features, labels = songs_of(10, 1.0, 0)
    with pytest.raises(ValueError, match="at least one, got 0 for 0"):
        probe(features, labels, features[:0], [])
