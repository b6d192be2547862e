"""Figures of a classifier, on cases small enough to compute by hand."""

import math

import pytest
import torch
from torch import nn

from src import analysis


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


def test_wilson_interval_covers_the_truth_95_times_in_100():
    generator = torch.Generator().manual_seed(0)
    truth, trials = 0.9, 400
    draws = torch.rand(4000, trials, generator=generator) < truth
    hits = 0
    for successes in draws.sum(1).tolist():
        low, high = analysis.wilson_interval(successes, trials)
        hits += low <= truth <= high
    assert hits / 4000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_rejects(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes of {trials}"):
        analysis.wilson_interval(successes, trials)


def test_calibration_error_by_hand():
    # two bins: two images at 0.6, one right; two at 0.9, both right
    logits = logits_with([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.9, 0.1]])
    labels = torch.tensor([0, 0, 0, 0])
    result = analysis.calibrate(logits, labels, bins=10)
    assert result.count == (2, 2)
    assert result.confidence == pytest.approx((0.6, 0.9))
    assert result.accuracy == pytest.approx((0.5, 1.0))
    assert result.ece == pytest.approx((0.1 + 0.1) / 2)


def test_calibration_error_of_a_calibrated_classifier_is_small():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    assert analysis.calibrate(logits, labels).ece < 0.01
    overconfident = analysis.calibrate(3 * logits, labels)
    assert overconfident.ece > 0.1


def test_worst_mistakes_are_wrong_and_in_order():
    logits = logits_with(
        [[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.99, 0.01], [0.3, 0.7]]
    )
    labels = torch.tensor([0, 0, 0, 0, 0])
    found = analysis.worst_mistakes(logits, labels, count=2)
    assert [mistake.index for mistake in found] == [2, 1]
    assert found[0].predicted == 1
    assert found[0].true == 0
    assert found[0].probability == pytest.approx(0.95)
    assert found[0].true_probability == pytest.approx(0.05)


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


def test_doubted_labels_name_classes_and_votes():
    from src.cifar10 import CLASSES

    assert len(analysis.DOUBTED_LABELS) == 18
    for index, (name, votes) in analysis.DOUBTED_LABELS.items():
        assert 0 <= index < 10_000
        assert name in CLASSES
        assert 3 <= votes <= 5


def test_a_markdown_table_has_numbers_at_the_right():
    table = analysis.markdown_table(
        ["layer", "kind", "parameters", "change"], [["a", "ReLU", "0", "−1.5 %"]]
    )
    assert table.splitlines() == [
        "| layer | kind | parameters | change |",
        "| :-- | :-- | --: | --: |",
        "| a | ReLU | 0 | −1.5 % |",
    ]
