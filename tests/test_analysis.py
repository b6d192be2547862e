"""Figures of a classifier, on cases small enough to compute by hand."""

import math

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassCalibrationError

from src import analysis
from src.cifar10_sources import CLASSES


def logits_with(probabilities: list[list[float]]) -> torch.Tensor:
    """Logits whose softmax is the given rows."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_accuracy_loss_confusion_by_hand():
    logits = logits_with([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    labels = torch.tensor([0, 1, 2])
    result = analysis.evaluate(logits, labels)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-math.log(0.7 * 0.8 * 0.1) / 3, abs=1e-12)
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert result.class_accuracy == (1.0, 1.0, 0.0)
    assert result.interval == analysis.wilson_interval(2, 3)


def test_confusion_counts_every_image_once():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 10, generator=generator)
    labels = torch.randint(10, (500,), generator=generator)
    confusion = analysis.evaluate(logits, labels).confusion
    assert torch.equal(confusion.sum(1), labels.bincount(minlength=10))
    assert torch.equal(confusion.sum(0), logits.argmax(1).bincount(minlength=10))


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # of the closed form, evaluated by hand with z² = 3.8414588
        (5, 10, (0.236593, 0.763407)),
        (0, 10, (0.0, 0.277533)),
        (10, 10, (0.722467, 1.0)),
        (9300, 10000, (0.924831, 0.934837)),
    ],
)
def test_wilson_interval(successes, trials, expected):
    assert analysis.wilson_interval(successes, trials) == pytest.approx(
        expected, abs=2e-6
    )


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_rejects(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes of {trials}"):
        analysis.wilson_interval(successes, trials)


def test_calibration_error_by_hand():
    # two bins: two images at 0.6, one right; two at 0.9, both right
    logits = logits_with([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.9, 0.1]])
    labels = torch.tensor([0, 0, 0, 0])
    found = analysis.calibration_error(logits, labels, bins=10)
    assert found == pytest.approx((0.1 + 0.1) / 2)


@pytest.mark.parametrize(("bins", "scale"), [(15, 1.0), (15, 3.0), (7, 0.3)])
def test_calibration_error_is_torchmetrics(bins, scale):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    metric = MulticlassCalibrationError(4, n_bins=bins, norm="l1")
    expected = metric((scale * logits).softmax(1), labels).item()
    found = analysis.calibration_error(scale * logits, labels, bins)
    assert found == pytest.approx(expected, abs=1e-6)
    if bins == 15:
        assert analysis.calibration_error(scale * logits, labels) == found  # default
        assert analysis.evaluate(scale * logits, labels).ece == found
    if scale == 1:
        assert found < 0.03  # the labels were drawn from these probabilities


def test_a_bin_is_closed_above():
    logits = logits_with([[0.5, 0.25, 0.25], [0.625, 0.25, 0.125], [1.0, 0.0, 0.0]])
    found = analysis.calibration_error(logits, torch.tensor([1, 0, 0]), bins=2)
    # 0.5 belongs to the lower bin: with the others, the gaps would cancel
    assert found == pytest.approx((abs(0 - 0.5) + abs(2 - 1.625)) / 3)


def test_worst_mistakes_are_wrong_and_in_order():
    rows = [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.05, 0, 0.95], [1, 0, 0], [0.4, 0.6, 0]]
    labels = torch.tensor([0, 0, 0, 0, 2])
    first, second = analysis.worst_mistakes(logits_with(rows), labels, count=2)
    assert (first.index, first.predicted, first.true) == (2, 2, 0)
    assert first.probability == pytest.approx(0.95)
    assert first.true_probability == pytest.approx(0.05)
    assert (second.index, second.predicted, second.true) == (1, 1, 0)
    assert len(analysis.worst_mistakes(logits_with(rows), labels)) == 3
    found = analysis.most_confident_mistakes(logits_with(rows), labels)
    assert found.tolist() == [2, 1, 4]
    few = analysis.most_confident_mistakes(logits_with(rows), labels, count=1)
    assert few.tolist() == [2]
    many = analysis.worst_mistakes(torch.eye(2).repeat(10, 1), torch.zeros(20).long())
    assert [mistake.index for mistake in many] == [*range(1, 20, 2)]  # ten by default


def test_worst_mistakes_with_ties_come_in_order_of_index():
    logits = torch.tensor([[0.0, 3.0]] * 6)
    labels = torch.tensor([0, 1, 0, 0, 1, 0])
    found = analysis.worst_mistakes(logits, labels, count=3)
    assert [mistake.index for mistake in found] == [0, 2, 3]


def test_fewer_mistakes_than_asked_for():
    logits = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    assert len(analysis.worst_mistakes(logits, torch.tensor([0, 0]))) == 1
    assert analysis.worst_mistakes(logits, torch.tensor([1, 0])) == []


@pytest.mark.parametrize(
    ("logits", "labels"),
    [((5,), (5,)), ((5, 3), (4,)), ((0, 3), (0,))],
)
def test_shapes_that_do_not_belong_together(logits, labels):
    with pytest.raises(ValueError, match="expected"):
        analysis.evaluate(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))


def test_multiply_adds_of_known_layers():
    convolution = nn.Conv2d(3, 8, kernel_size=3, padding=1)
    assert analysis.multiply_adds(convolution, torch.zeros(4, 3, 6, 5)) == (
        8 * 6 * 5 * 3 * 9
    )
    assert analysis.multiply_adds(nn.Linear(512, 10), torch.zeros(2, 512)) == 5120


def test_parameters_are_counted():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].weight.requires_grad_(False)
    assert analysis.parameter_count(model) == 14
    assert analysis.parameter_count(model, trainable_only=True) == 8


def test_doubted_labels_name_classes_and_votes():
    assert len(analysis.DOUBTED_LABELS) == 18
    assert sum(analysis.DOUBTED_LABELS) == 99_464  # no digit was changed
    assert sum(votes for _, votes in analysis.DOUBTED_LABELS.values()) == 64
    assert analysis.DOUBTED_LABELS[1718] == ("ship", 3)
    for index, (name, votes) in analysis.DOUBTED_LABELS.items():
        assert 0 <= index < 10_000
        assert name in CLASSES
        assert 3 <= votes <= 5
