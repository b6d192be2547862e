"""Subsets of each class, and trainings that are looked up when done before."""

import json

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from src import data_efficiency
from src.data_efficiency import Point, draw
from src.training import Examples, Recipe

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def test_draw_takes_as_many_of_each_class():
    labels = torch.arange(100) % 10
    drawn = draw(labels, 4, seed=1)
    assert labels[drawn].bincount().tolist() == [4] * 10
    assert len(drawn.unique()) == 40
    assert torch.equal(drawn, draw(labels, 4, seed=1))
    assert not torch.equal(drawn, draw(labels, 4, seed=2))


def test_draw_of_more_than_there_are():
    with pytest.raises(ValueError, match="class 0 has 10 examples, not 11"):
        draw(torch.arange(100) % 10, 11, seed=1)


def test_mean_of_a_point():
    assert Point(10, (0.2, 0.4)).mean == pytest.approx(0.3)


def test_a_training_is_done_once_and_kept(tmp_path, monkeypatch):
    def build(recipe):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    trainings = []
    train = data_efficiency.train_from_scratch
    monkeypatch.setattr(
        data_efficiency,
        "train_from_scratch",
        lambda *args, **kw: trainings.append(1) or train(*args, **kw),
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 32, 32), generator=generator).to(torch.uint8)
    data = Examples(images, torch.arange(8) % 2)
    store = tmp_path / "store.json"

    def accuracy(recipe, train_on=data, **options):
        return data_efficiency.scratch_accuracy(
            build, recipe, train_on, data, TRANSFORM, store, **options
        )

    recipe = Recipe(epochs=1, batch_size=4)
    first = accuracy(recipe)
    assert 0 <= first <= 1
    assert accuracy(recipe) == first
    assert len(trainings) == 1
    accuracy(Recipe(epochs=2, batch_size=4))
    accuracy(recipe, train_on=data[:6])
    assert len(trainings) == 3
    assert accuracy(recipe, retrain=True) == first
    assert len(trainings) == 4
    assert [row["images"] for row in json.loads(store.read_text()).values()] == [
        8,
        8,
        6,
    ]
    store.write_text("{")
    assert accuracy(recipe) == first
