"""The benchmark, on a few images of the sample and with a clock that we set."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src import cifar10
from src.commands import benchmark
from src.training import Epoch


@pytest.fixture
def ready(monkeypatch, tmp_path):
    """Few images, a small network, and everything that is slow replaced."""
    monkeypatch.setenv("MAMAN13_WEIGHTS", "standin")
    weights = dataclasses.replace(benchmark.load_pretrained(), input_size=32)
    monkeypatch.setattr(benchmark, "load_pretrained", lambda: weights)
    load = cifar10.load
    monkeypatch.setattr(cifar10, "load", lambda **options: load(**options, sample=True))
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path / "results.json")
    layers = SimpleNamespace(time_ratio=1.5, memory_ratio=2.5)
    monkeypatch.setattr(benchmark.conv_checks, "benchmark", lambda: layers)
    clock = iter([10.0, 13.0])  # of the head's epoch the usual way
    monkeypatch.setattr(benchmark, "perf_counter", lambda: next(clock))
    return tmp_path


def epochs(*seconds: float) -> list[Epoch]:
    return [Epoch(1, 0.0, 0.0, 0.0, 0.0, some) for some in seconds]


def test_what_is_measured_is_scaled_to_the_whole_set(ready, monkeypatch, capsys):
    seen = {}

    def fit_head(head, recipe, features):
        seen["head"] = head, recipe.epochs, tuple(features.inputs.shape)
        return epochs(50.0)

    def to_device(images, device):
        seen["usual"] = tuple(images.shape)
        return images.to(device)

    monkeypatch.setattr(benchmark.head, "fit_head", fit_head)
    monkeypatch.setattr(benchmark.training, "to_device", to_device)
    benchmark.main(["--images", "20"])  # of 1,000: a fiftieth
    head, *how = seen["head"]
    assert head.weight.shape == (10, 512) and how == [1, (1000, 512)]
    assert seen["usual"] == (20, 3, 32, 32)
    text = (ready / "benchmark.json").read_text("utf-8")
    assert text in capsys.readouterr().out
    recorded = json.loads(text)
    assert set(recorded.pop("provenance")) >= {"torch", "device", "date"}
    assert recorded == {
        "transfer": {
            "usual_epoch_seconds": 150.0,
            "our_epoch_seconds": 50.0,
            "ratio_per_epoch": 3.0,
        },
        "convolution": {"time_ratio": 1.5, "memory_ratio": 2.5},
    }


def test_the_usual_way_trains_the_head_and_nothing_else(ready, monkeypatch):
    """With each batch through the whole network in evaluation mode."""
    weights = benchmark.load_pretrained()
    model = weights.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(type(weights), "build", lambda self: model)
    monkeypatch.setattr(benchmark.head, "fit_head", lambda *args: epochs(1.0))
    torch.manual_seed(0)
    initial = nn.Linear(512, 10).weight.detach()
    torch.manual_seed(0)
    benchmark.head_epochs(weights, 130)
    moved = (model.fc.weight - initial).abs().max()
    assert 1.01e-3 < moved <= 2.01e-3  # two steps of Adam: batches of 125
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "fc.weight",
        "fc.bias",
    ]
    after = model.state_dict()
    for name, value in before.items():
        assert name.startswith("fc.") or torch.equal(value, after[name]), name
