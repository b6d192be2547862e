"""How good both networks get from a few images of each class.

Training the three-block network many times takes minutes, so what each training gave is
kept in a file under a fingerprint of all it depends on: recipe, training images, test
images. With the file at hand the curve is drawn at once.
"""

import dataclasses
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from src.files import read_json, write_text
from src.head import HeadRecipe, fit_head, search
from src.progress import LiveLog
from src.training import (
    Examples,
    Recipe,
    Transform,
    examples_hash,
    experiment_key,
    loss_and_accuracy,
    predict,
    train_from_scratch,
)


@dataclass(frozen=True)
class Point:
    """Test accuracies, in [0, 1], of one kind of network at one size, by seed."""

    images_per_class: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)


def draw(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Indices of `per_class` random examples of each class; int64, ascending.

    Raises ValueError when a class has fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        if len(members) < per_class:
            raise ValueError(
                f"class {label} has {len(members)} examples, not {per_class}"
            )
        order = torch.randperm(len(members), generator=generator)
        drawn.append(members[order[:per_class]])
    return torch.cat(drawn).sort().values


def scratch_accuracy(
    build: Callable[[Recipe], nn.Module],
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    store: Path,
    *,
    retrain: bool = False,
    device: torch.device | str = "cpu",
    log: LiveLog | None = None,
) -> float:
    """Test accuracy, in [0, 1], of a network trained by `recipe` on `train`.

    store: JSON file in which finished trainings are kept; looked up first unless
        `retrain`, and added to after each training.
    """
    key = f"{experiment_key(recipe, train, None)}-{examples_hash(test)}"
    known = read_json(store) or {}
    if key in known and not retrain:
        return known[key]["accuracy"]
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    curve = train_from_scratch(model, recipe, train, None, transform, log=log)
    _, accuracy = loss_and_accuracy(predict(model, test.inputs, transform), test.labels)
    known[key] = {
        "accuracy": accuracy,
        "images": len(train),
        "seconds": round(sum(epoch.seconds for epoch in curve), 1),
        "date": str(datetime.date.today()),
        "recipe": dataclasses.asdict(recipe),
    }
    write_text(store, json.dumps(known, indent=1) + "\n")
    return accuracy


def head_accuracy(train: Examples, validation: Examples, test: Examples) -> float:
    """Test accuracy, in [0, 1], of a new head on features of a frozen network.

    All three hold features. Learning rate, weight decay and standardisation are chosen
    on `validation`, for each training set anew; at least 300 steps are taken.
    """
    steps_an_epoch = -(-len(train) // HeadRecipe.batch_size)
    epochs = max(30, 300 // steps_an_epoch)
    best = search(train, validation, epochs=epochs)[0].recipe
    head = nn.Linear(train.inputs.shape[1], 10)
    fit_head(head, best, train)
    with torch.no_grad():
        _, accuracy = loss_and_accuracy(head(test.inputs), test.labels)
    return accuracy


def head_point(
    per_class: int, seeds: int, train: Examples, validation: Examples, test: Examples
) -> Point:
    """`head_accuracy` on `per_class` images of each class, drawn `seeds` times."""
    drawn = [draw(train.labels, per_class, seed) for seed in range(1, seeds + 1)]
    accuracies = [head_accuracy(train[index], validation, test) for index in drawn]
    return Point(per_class, tuple(accuracies))


def scratch_point(
    per_class: int,
    seeds: int,
    build: Callable[[Recipe], nn.Module],
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    store: Path,
    **options: object,
) -> Point:
    """`scratch_accuracy` on the same draws; each training with its draw's seed."""
    accuracies = []
    for seed in range(1, seeds + 1):
        few = train[draw(train.labels, per_class, seed)]
        seeded = dataclasses.replace(recipe, seed=seed)
        accuracies.append(
            scratch_accuracy(build, seeded, few, test, transform, store, **options)
        )
    return Point(per_class, tuple(accuracies))
