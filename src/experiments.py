"""Short trainings, each with several seeds: on few images, or without an ingredient."""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from src.cifar10 import Examples, Transform, draw
from src.common.kept import State, kept, make_key
from src.common.progress import LiveLog
from src.common.project import FAST
from src.head import HeadRecipe, fit_head, measure, search
from src.training import (
    FINISHED,
    Build,
    Recipe,
    format_epoch,
    loss_and_accuracy,
    predict,
    train_from_scratch,
    training_key,
)

SEEDS = (1, 2)
#: Images of each class: epochs of the three blocks, more where images are few.
SIZES = {5: 2, 20: 2} if FAST else {10: 80, 50: 50, 200: 30, 1000: 12}
#: Images of each class in a training of the ablation, its epochs and network's widths.
ABLATION_IMAGES = 5 if FAST else 500
ABLATION_EPOCHS = 1 if FAST else 12
ABLATION_WIDTHS = (8, 8, 8) if FAST else (32, 64, 128)
#: What each training of the ablation does in another way than the recipe.
ABLATION = {
    "the recipe as it is": {},
    "images not shifted": {"max_shift": 0},
    "images not mirrored": {"mirrored": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "half the learning rate": {"peak_learning_rate": Recipe.peak_learning_rate / 2},
    "twice the learning rate": {"peak_learning_rate": Recipe.peak_learning_rate * 2},
}


@dataclass(frozen=True)
class Point:
    """Accuracies, in [0, 1], of one kind of network at one size, a value a seed."""

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
    """Accuracy on `test`, in [0, 1], of a network trained by `recipe` on `train`.

    name: of what is kept. where: as in `train_or_load`.
    """
    key = training_key(build, recipe, train, None, transform) | make_key(
        test_images=test, code=[train_and_test], without=(format_epoch,)
    )
    data = train, test, transform
    compute = partial(train_and_test, build, recipe, *data, device, log)
    return kept(name, key, compute, **FINISHED | where)["accuracy"]


def train_and_test(
    build: Build,
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    device: torch.device | str,
    log: LiveLog | None,
) -> State:
    """Train a new network; its accuracy on `test`, and the seconds that training took.

    transform: of `train_from_scratch`, for both.
    """
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    curve = train_from_scratch(model, recipe, train, None, transform, log=log)
    logits = predict(model, test.inputs, transform)
    _, accuracy = loss_and_accuracy(logits, test.labels)
    return {"accuracy": accuracy, "seconds": sum(e.seconds for e in curve)}


def scratch_point(
    per_class: int,
    build: Build,
    recipe: Recipe,
    train: Examples,
    test: Examples,
    transform: Transform,
    **options: object,
) -> Point:
    """`scratch_accuracy` on `per_class` images of each class, drawn for each seed."""
    batch_size = min(recipe.batch_size, 5 * per_class)
    recipe = replace(recipe, epochs=SIZES[per_class], batch_size=batch_size)
    accuracies = []
    for seed in SEEDS:
        few = train[draw(train.labels, per_class, seed)]
        own = replace(recipe, seed=seed)
        name = f"three_blocks_{per_class}_a_class_{seed}"
        accuracy = scratch_accuracy(name, build, own, few, test, transform, **options)
        accuracies.append(accuracy)
    return Point(per_class, tuple(accuracies))


def ablation(
    build: Build,
    recipe: Recipe,
    train: Examples,
    validation: Examples,
    transform: Transform,
    **options: object,
) -> dict[str, tuple[float, ...]]:
    """Validation accuracies of short trainings, one a seed, by what is otherwise."""
    accuracies = {}
    for number, (what, changes) in enumerate(ABLATION.items()):
        own = replace(recipe, widths=ABLATION_WIDTHS, epochs=ABLATION_EPOCHS, **changes)
        accuracies[what] = tuple(
            scratch_accuracy(
                f"ablation_{number}_{seed}",
                build,
                replace(own, seed=seed),
                train[draw(train.labels, ABLATION_IMAGES, seed)],
                validation,
                transform,
                **options,
            )
            for seed in SEEDS
        )
    return accuracies


def head_accuracy(
    train: Examples, validation: Examples, test: Examples, name: str = "head-search"
) -> float:
    """Test accuracy, in [0, 1], of a new head on features, chosen on `validation`."""
    steps_an_epoch = math.ceil(len(train) / HeadRecipe.batch_size)
    epochs = max(HeadRecipe.epochs, math.ceil(300 / steps_an_epoch))
    best = search(train, validation, epochs=epochs, name=name)[0].recipe
    head = nn.Linear(train.inputs.shape[1], 10)
    fit_head(head, best, train)
    return measure(head, test)[1]


def head_point(
    per_class: int, train: Examples, validation: Examples, test: Examples
) -> Point:
    """`head_accuracy` on the same draws as those of `scratch_point`."""
    accuracies = []
    for seed in SEEDS:
        few = train[draw(train.labels, per_class, seed)]
        name = f"head-search-{per_class}-a-class-{seed}"
        accuracies.append(head_accuracy(few, validation, test, name))
    return Point(per_class, tuple(accuracies))
