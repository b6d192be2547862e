"""CIFAR-10 in memory: pairs of inputs and labels, and how they are divided."""

import pytest
import torch

from src import cifar10
from src.cifar10 import Examples, as_examples, draw, hold_out
from src.common.project import SEED


def test_inputs_and_labels_stay_together():
    data = Examples(torch.arange(12.0).reshape(6, 2), torch.arange(6) * 10)
    assert len(data) == 6
    for part in (data[torch.tensor([4, 1])], data[1:5:3]):
        assert (part.inputs[:, 0] * 5 == part.labels).all()
    assert data[torch.tensor([4, 1])].labels.tolist() == [40, 10]


def test_as_many_labels_as_inputs():
    with pytest.raises(ValueError, match="3 inputs, 2 labels"):
        Examples(torch.zeros(3, 1), torch.zeros(2, dtype=torch.long))


def test_a_dataset_in_memory_has_channels_first_and_every_pixel():
    dataset = cifar10.load(train=False, sample=True)
    data = as_examples(dataset)
    assert data.inputs.shape == (500, 3, 32, 32) and data.inputs.is_contiguous()
    assert data.inputs.dtype == torch.uint8 and data.labels.dtype == torch.int64
    assert data.labels.tolist() == dataset.targets
    for index in (0, 499):
        for channel in range(3):
            pixels = dataset.data[index, :, :, channel]
            assert data.inputs[index, channel].tolist() == pixels.tolist()


def test_hold_out_takes_its_part_of_each_class_and_loses_nothing():
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate((20, 40, 5))])
    labels = labels[torch.randperm(65, generator=torch.Generator().manual_seed(0))]
    data = Examples(torch.arange(65), labels)
    kept, held_out = hold_out(data)
    assert held_out.labels.bincount(minlength=3).tolist() == [
        2,
        4,
        0,
    ]  # round(0.5) is 0
    assert torch.cat([kept.inputs, held_out.inputs]).sort().values.tolist() == [
        *range(65)
    ]
    for part in (kept, held_out):
        assert torch.equal(part.labels, labels[part.inputs])
        assert part.inputs.tolist() == sorted(part.inputs.tolist())
    assert hold_out(data, 0.5)[1].labels.bincount().tolist() == [10, 20, 2]

    # by chance, not the first of each class; the seed decides, and is the project's
    assert not set(held_out.inputs.tolist()) <= set(range(20))
    assert torch.equal(hold_out(data, seed=SEED)[1].inputs, held_out.inputs)
    assert not torch.equal(hold_out(data, seed=1)[1].inputs, held_out.inputs)


def test_hold_out_and_draw_are_the_same_in_every_version():
    """Kept checkpoints and published results rest on these very images."""
    labels = torch.arange(60) % 3
    held_out = hold_out(Examples(torch.arange(60), labels))[1]
    assert held_out.inputs.tolist() == [7, 11, 14, 34, 39, 54]
    assert draw(labels, 2, seed=1).tolist() == [15, 20, 38, 39, 40, 49]


def test_draw_takes_as_many_of_each_class():
    labels = torch.arange(100) % 10
    drawn = draw(labels, 4, seed=1)
    assert labels[drawn].bincount().tolist() == [4] * 10
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert torch.equal(drawn, draw(labels, 4, seed=1))
    assert not torch.equal(drawn, draw(labels, 4, seed=2))
    assert draw(labels, 10, seed=1).tolist() == list(range(100))


def test_draw_of_more_than_there_are():
    with pytest.raises(ValueError, match="class 0 has 10 examples, not 11"):
        draw(torch.arange(100) % 10, 11, seed=1)
