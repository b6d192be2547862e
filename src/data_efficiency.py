"""How good both networks get from a few images of each class."""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from src.cifar10 import Examples, Transform, draw
from src.common.kept import State, kept, make_key
from src.common.progress import LiveLog
from src.head import HeadRecipe, fit_head, search
from src.training import (
    Build,
    Recipe,
    format_epoch,
    loss_and_accuracy,
    predict,
    train_from_scratch,
    training_key,
)


@dataclass(frozen=True)
class Point:
    """Test accuracies, in [0, 1], of one kind of network at one size, by seed."""

    images_per_class: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)


def scratch_accuracy(
    name: str,
    build: Build,
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    *,
    device: torch.device | str = "cpu",
    log: LiveLog | None = None,
    **where: object,
) -> float:
    """Test accuracy, in [0, 1], of a network trained by `recipe` on `train`.

    name: of what is kept. where: `folder`, `committed` and `anew` of `kept`.
    """
    key = training_key(build, recipe, train, None, transform) | make_key(
        test_images=test, code=[train_and_test], without=(format_epoch,)
    )
    data = train, test, transform
    compute = partial(train_and_test, build, recipe, *data, device, log)
    return kept(name, key, compute, **where)["accuracy"]


def train_and_test(
    build: Build,
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    device: torch.device | str,
    log: LiveLog | None,
) -> State:
    """Train a new network; its test accuracy, and the seconds that training took."""
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    curve = train_from_scratch(model, recipe, train, None, transform, log=log)
    logits = predict(model, test.inputs, transform)
    _, accuracy = loss_and_accuracy(logits, test.labels)
    return {"accuracy": accuracy, "seconds": sum(e.seconds for e in curve)}


def head_accuracy(
    train: Examples, validation: Examples, test: Examples, name: str = "head-search"
) -> float:
    """Test accuracy, in [0, 1], of a new head on features of a frozen network.

    All three hold features. Learning rate, weight decay and standardisation are chosen
    on `validation`, for each training set anew; at least 300 steps are taken.
    """
    steps_an_epoch = math.ceil(len(train) / HeadRecipe.batch_size)
    epochs = max(30, math.ceil(300 / steps_an_epoch))
    best = search(train, validation, epochs=epochs, name=name)[0].recipe
    head = nn.Linear(train.inputs.shape[1], 10)
    fit_head(head, best, train)
    with torch.no_grad():
        _, accuracy = loss_and_accuracy(head(test.inputs), test.labels)
    return accuracy


def head_point(
    per_class: int, seeds: int, train: Examples, validation: Examples, test: Examples
) -> Point:
    """`head_accuracy` on `per_class` images of each class, drawn `seeds` times."""
    accuracies = []
    for seed in range(1, seeds + 1):
        few = train[draw(train.labels, per_class, seed)]
        name = f"head-search-{per_class}-a-class-{seed}"
        accuracies.append(head_accuracy(few, validation, test, name))
    return Point(per_class, tuple(accuracies))


def scratch_point(
    per_class: int,
    seeds: int,
    build: Build,
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    **options: object,
) -> Point:
    """`scratch_accuracy` on the same draws; each training with its draw's seed."""
    accuracies = []
    for seed in range(1, seeds + 1):
        few = train[draw(train.labels, per_class, seed)]
        own = replace(recipe, seed=seed)
        name = f"three_blocks_{per_class}_a_class_{seed}"
        accuracy = scratch_accuracy(name, build, own, few, test, transform, **options)
        accuracies.append(accuracy)
    return Point(per_class, tuple(accuracies))
