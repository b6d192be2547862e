"""Fitting the classification head on features of the frozen network.

With the features given, the head is a multinomial logistic regression: a convex
problem, solved in seconds. How fast to learn, how strongly to pull the weights to zero,
and whether to standardise the features first is chosen on a validation split.
"""

import dataclasses
import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src.files import write_text
from src.progress import LiveLog
from src.project import CACHE, SEED
from src.training import Epoch


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


@dataclass(frozen=True)
class Labelled:
    """Features float32 [N, D] and labels int64 [N]."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Labelled":
        return Labelled(self.features[index], self.labels[index])


def fit_head(
    head: nn.Linear,
    recipe: HeadRecipe,
    train: Labelled,
    validation: Labelled | None = None,
) -> list[Epoch]:
    """Train `head` in place, from zero weights; return its learning curve.

    The head takes raw features afterwards: where they were standardised for training,
    the shift and scale are folded into its weight and bias. Without a validation split
    the curve's validation columns are nan.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(recipe.seed)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    mean, std = torch.zeros(()), torch.ones(())
    if recipe.standardise:
        mean = train.features.mean(0)
        std = train.features.std(0).clamp_min(1e-6)
    inputs = (train.features - mean) / std

    optimiser = torch.optim.AdamW(
        head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve = []
    for number in range(1, recipe.epochs + 1):
        loss_sum = correct = 0.0
        for index in torch.randperm(len(train), generator=generator).split(
            recipe.batch_size
        ):
            logits, labels = head(inputs[index]), train.labels[index]
            loss = cross_entropy(logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item() * len(index)
            correct += (logits.argmax(1) == labels).sum().item()
        row = [float("nan")] * 2
        if validation is not None:
            row = loss_and_accuracy(head, validation, mean, std)
        seconds = time.perf_counter() - started
        curve.append(
            Epoch(number, loss_sum / len(train), correct / len(train), *row, seconds)
        )
    fold_standardisation(head, mean, std)
    return curve


@torch.no_grad()
def loss_and_accuracy(
    head: nn.Linear, data: Labelled, mean: Tensor, std: Tensor
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] on standardised features."""
    logits = head((data.features - mean) / std)
    accuracy = (logits.argmax(1) == data.labels).float().mean()
    return cross_entropy(logits, data.labels).item(), accuracy.item()


@torch.no_grad()
def fold_standardisation(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make `head(x)` what `head((x - mean) / std)` was.

    W ((x - m) / s) + b = (W / s) x + (b - (W / s) m).
    """
    head.weight.div_(std)
    head.bias.sub_((head.weight * mean).sum(1))


@dataclass(frozen=True)
class Choice:
    """One recipe that was tried, and how it did on the validation split."""

    recipe: HeadRecipe
    validation_accuracy: float
    validation_loss: float


def search(
    train: Labelled,
    validation: Labelled,
    *,
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2),
    weight_decays: tuple[float, ...] = (1e-2, 1e-1, 1.0),
    standardise: tuple[bool, ...] = (False, True),
    epochs: int = 30,
    folder: Path = CACHE,
    log: LiveLog | None = None,
) -> list[Choice]:
    """Try every combination; best validation loss first.

    The outcome is kept in `folder`, under a name made of all it depends on.
    """
    recipes = [
        HeadRecipe(rate, decay, standard, epochs)
        for rate, decay, standard in itertools.product(
            learning_rates, weight_decays, standardise
        )
    ]
    digest = hashlib.sha256(repr(recipes).encode())
    for part in (train.features, train.labels, validation.features, validation.labels):
        digest.update(part.contiguous().numpy())
    cache = folder / f"head-search-{digest.hexdigest()[:16]}.json"
    if cache.is_file():
        rows = json.loads(cache.read_text(encoding="utf-8"))
    else:
        rows = []
        for recipe in (log or LiveLog()).track(recipes, "head recipes"):
            head = nn.Linear(train.features.shape[1], 10)
            last = fit_head(head, recipe, train, validation)[-1]
            rows.append([last.validation_accuracy, last.validation_loss])
        write_text(cache, json.dumps(rows))
    choices = [Choice(recipe, *row) for recipe, row in zip(recipes, rows, strict=True)]
    return sorted(choices, key=lambda choice: choice.validation_loss)


def with_epochs(recipe: HeadRecipe, epochs: int) -> HeadRecipe:
    """The same recipe, but for the number of epochs."""
    return dataclasses.replace(recipe, epochs=epochs)
