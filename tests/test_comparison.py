"""What is recorded of a network, and how two of them stand side by side."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src import analysis, comparison


@pytest.fixture
def record(monkeypatch):
    """Of a small network of which a part is frozen, timed by a clock that we set."""

    ticks = itertools.count()  # half a second from one look at the clock to the next
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 2)
    monkeypatch.setattr(comparison, "time", clock)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].weight.requires_grad_(False)
    logits = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]], dtype=torch.float64)
    evaluation = analysis.evaluate(logits.log(), torch.tensor([0, 0, 1]))
    inputs = torch.zeros(250, 3, 1, 1)
    return comparison.describe(model, evaluation, 12.5, inputs, ["a", "b"])


def test_what_is_recorded(record):
    assert record == {
        "test_accuracy": 2 / 3,
        "interval": analysis.wilson_interval(2, 3),
        "test_loss": pytest.approx(-math.log(0.7 * 0.4 * 0.8) / 3, abs=1e-12),
        "ece": pytest.approx((0.3 + 0.6 + 0.2) / 3, abs=1e-12),
        "class_accuracy": {"a": 0.5, "b": 1.0},
        "seconds": 12.5,
        "seconds_per_1000": 2.0,
        "parameters": 14,
        "parameters_trained": 8,
        "multiply_adds": 6 + 4,
    }


def test_the_clock_is_torchs():
    evaluation = analysis.evaluate(torch.eye(2), torch.tensor([0, 1]))
    model, inputs = nn.Linear(3, 2), torch.zeros(250, 3)
    timed = comparison.describe(model, evaluation, 1.0, inputs, ["a", "b"])
    assert 0 < timed["seconds_per_1000"] < 1


def test_every_class_has_a_name():
    evaluation = analysis.evaluate(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="zip"):
        comparison.describe(nn.Linear(3, 2), evaluation, 1.0, torch.zeros(2, 3), ["a"])


def test_two_networks_side_by_side():
    first = {
        "test_accuracy": 0.93456,
        "interval": (0.9295, 0.9393),
        "test_loss": 0.24649,
        "ece": 0.01234,
        "seconds": 1530.0,
        "seconds_per_1000": 2.04,
        "parameters": 1_234_567,
        "parameters_trained": 1_234_567,
        "multiply_adds": 81_400_000,
    }
    second = first | {
        "test_accuracy": 0.86,
        "parameters_trained": 5130,
        "multiply_adds": 1_814_073_344,
        "seconds": 66.0,
    }
    assert comparison.comparison_table({"blocks": first, "head": second}) == (
        "|  | blocks | head |\n"
        "| :-- | --: | --: |\n"
        "| test accuracy, 95 % interval | 93.46% ± 0.49% | 86.00% ± 0.49% |\n"
        "| test loss | 0.246 | 0.246 |\n"
        "| calibration error (ECE) | 1.2% | 1.2% |\n"
        "| parameters trained | 1,234,567 | 5,130 |\n"
        "| parameters in all | 1,234,567 | 1,234,567 |\n"
        "| multiply-adds an image | 81 M | 1,814 M |\n"
        "| training | 25.5 min | 1.1 min |\n"
        "| inference, 1,000 images | 2.0 s | 2.0 s |"
    )
