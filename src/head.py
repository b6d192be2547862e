"""Fitting the classification head on features of the frozen network.

With the features given, the head is a multinomial logistic regression: a convex
problem, solved in seconds. How fast to learn, and how strongly to pull the weights to
zero, is chosen on a validation split.
"""

import itertools
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from src.cifar10 import Examples
from src.common.kept import State, kept, make_key
from src.common.progress import LiveLog
from src.common.project import CACHE, FAST, SEED
from src.common.tables import markdown_table
from src.training import Epoch, loss_and_accuracy, shuffled, train_epoch


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is fitted: AdamW, its rate falling to zero along half a cosine."""

    learning_rate: float = 1e-2
    weight_decay: float = 1e-1
    epochs: int = 3 if FAST else 30
    batch_size: int = 500
    seed: int = SEED


def fit_head(
    head: nn.Linear,
    recipe: HeadRecipe,
    train: Examples,
    validation: Examples | None = None,
) -> list[Epoch]:
    """Train `head` in place, from zero weights; return its learning curve.

    train, validation: features [N, D] and labels. Without a validation split the
    curve's validation columns are nan.
    """
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = AdamW(
        head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    schedule = CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    curve = []
    for number in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        batches = shuffled(train, recipe.batch_size, generator, head.weight.device)
        learned = train_epoch(head, batches, optimiser, schedule)
        measured = math.nan, math.nan
        if validation is not None:
            measured = measure(head, validation)
        curve.append(Epoch(number, *learned, *measured, time.perf_counter() - started))
    return curve


@torch.no_grad()
def measure(head: nn.Linear, features: Examples) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy in [0, 1], of a head on features."""
    logits = head(features.inputs.to(head.weight.device))
    return loss_and_accuracy(logits.cpu(), features.labels)


@dataclass(frozen=True)
class Choice:
    """One recipe that was tried, and how it did on the validation split."""

    recipe: HeadRecipe
    validation_accuracy: float
    validation_loss: float


def search(
    train: Examples,
    validation: Examples,
    *,
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2),
    weight_decays: tuple[float, ...] = (1e-2, 1e-1, 1.0),
    epochs: int = HeadRecipe.epochs,
    name: str = "head-search",
    folder: Path = CACHE,
    log: LiveLog | None = None,
) -> list[Choice]:
    """Try every combination; best validation loss first.

    The outcome is kept in `folder`, in files that begin with `name`.
    """
    combinations = itertools.product(learning_rates, weight_decays)
    recipes = [HeadRecipe(*combination, epochs) for combination in combinations]

    key = make_key(
        recipes=recipes,
        training_features=train,
        validation_features=validation,
        code=[try_all],
    )
    compute = partial(try_all, recipes, train, validation, log or LiveLog())
    rows = kept(name, key, compute, folder=folder)["rows"]
    choices = [
        Choice(recipe, accuracy, loss)
        for recipe, (loss, accuracy) in zip(recipes, rows, strict=True)
    ]
    return sorted(choices, key=lambda choice: choice.validation_loss)


def try_all(
    recipes: list[HeadRecipe], train: Examples, validation: Examples, log: LiveLog
) -> State:
    """Validation loss and accuracy of a head fitted by each recipe."""
    rows = []
    for recipe in log.track(recipes, "head recipes"):
        head = nn.Linear(train.inputs.shape[1], 10)
        fit_head(head, recipe, train)
        rows.append(measure(head, validation))
    return {"rows": rows}


def choices_table(choices: list[Choice], shown: int = 4) -> str:
    """The best few choices and the worst, as a Markdown table."""
    header = ["place", "learning rate", "weight decay"]
    rows = [
        [
            str(rank),
            f"{choice.recipe.learning_rate:g}",
            f"{choice.recipe.weight_decay:g}",
            f"{choice.validation_loss:.4f}",
            f"{choice.validation_accuracy:.2%}",
        ]
        for rank, choice in enumerate(choices, 1)
    ]
    header += ["validation loss", "accuracy"]
    return markdown_table(header, [*rows[:shown], ["…"] * 5, rows[-1]])
