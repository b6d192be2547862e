"""Fitting the classification head on features of the frozen network.

With the features given, the head is a multinomial logistic regression: a convex
problem, solved in seconds. How fast to learn, how strongly to pull the weights to zero,
and whether to standardise the features first is chosen on a validation split.
"""

import itertools
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src.cifar10 import Examples
from src.common.kept import State, kept, make_key
from src.common.progress import LiveLog
from src.common.project import CACHE, SEED
from src.common.tables import markdown_table
from src.training import Epoch, loss_and_accuracy


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is fitted: AdamW, its rate falling to zero along half a cosine.

    standardise: shift and scale each feature to mean 0 and variance 1 first.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    standardise: bool = True
    epochs: int = 30
    batch_size: int = 500
    seed: int = SEED


def fit_head(
    head: nn.Linear,
    recipe: HeadRecipe,
    train: Examples,
    validation: Examples | None = None,
) -> list[Epoch]:
    """Train `head` in place, from zero weights; return its learning curve.

    The head takes raw features afterwards: where they were standardised for training,
    the shift and scale are folded into its weight and bias. Without a validation split
    the curve's validation columns are nan.
    """
    device = head.weight.device
    generator = torch.Generator().manual_seed(recipe.seed)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    mean, std = torch.zeros(()), torch.ones(())
    if recipe.standardise:
        mean = train.inputs.mean(0)
        std = train.inputs.std(0).clamp_min(1e-6)
    inputs = ((train.inputs - mean) / std).to(device)
    labels = train.labels.to(device)
    if validation is not None:
        validation_inputs = ((validation.inputs - mean) / std).to(device)

    optimiser = torch.optim.AdamW(
        head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve = []
    for number in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        loss_sum = correct = 0.0
        order = torch.randperm(len(train), generator=generator)
        for index in order.split(recipe.batch_size):
            logits = head(inputs[index])
            loss = cross_entropy(logits, labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item() * len(index)
            correct += (logits.argmax(1) == labels[index]).sum().item()
        measured = [math.nan, math.nan]
        if validation is not None:
            with torch.no_grad():
                logits = head(validation_inputs).cpu()
            measured = loss_and_accuracy(logits, validation.labels)
        learned = loss_sum / len(train), correct / len(train)
        seconds = time.perf_counter() - started
        curve.append(Epoch(number, *learned, *measured, seconds))
    fold_standardisation(head, mean, std)
    return curve


@torch.no_grad()
def fold_standardisation(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make `head(x)` what `head((x - mean) / std)` was.

    W ((x - m) / s) + b = (W / s) x + (b - (W / s) m).
    """
    head.weight.div_(std.to(head.weight))
    head.bias.sub_((head.weight * mean.to(head.weight)).sum(1))


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
    standardise: tuple[bool, ...] = (False, True),
    epochs: int = 30,
    name: str = "head-search",
    folder: Path = CACHE,
    log: LiveLog | None = None,
) -> list[Choice]:
    """Try every combination; best validation loss first.

    The outcome is kept in `folder`, in files that begin with `name`.
    """
    combinations = itertools.product(learning_rates, weight_decays, standardise)
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
        with torch.no_grad():
            logits = head(validation.inputs)
        rows.append(loss_and_accuracy(logits, validation.labels))
    return {"rows": rows}


def choices_table(choices: list[Choice], shown: int = 4) -> str:
    """The best few choices and the worst, as a Markdown table."""
    header = ["place", "learning rate", "weight decay", "standardised"]
    rows = [
        [
            str(rank),
            f"{choice.recipe.learning_rate:g}",
            f"{choice.recipe.weight_decay:g}",
            "yes" if choice.recipe.standardise else "no",
            f"{choice.validation_loss:.4f}",
            f"{choice.validation_accuracy:.2%}",
        ]
        for rank, choice in enumerate(choices, 1)
    ]
    header += ["validation loss", "accuracy"]
    return markdown_table(header, [*rows[:shown], ["…"] * 6, rows[-1]])
