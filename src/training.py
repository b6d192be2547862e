"""Training a network from scratch on images in memory: fast, seeded, resumable."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src.cifar10 import Examples, Transform
from src.common.kept import Key, make_key, resume, save_progress
from src.common.progress import LiveLog
from src.common.project import SEED
from src.common.trained import Trained, keep_trained


@dataclass(frozen=True)
class Recipe:
    """All that decides what training from scratch gives, but for the data.

    The learning rate of biases and of BatchNorm's scales is `vector_factor` times that
    of the weights, and their weight decay as many times smaller, so that both shrink
    alike: there are few of them, and they may move faster. Source of that, of the
    images' mirroring in turns, and of the strong decay and smoothing: Jordan (2024),
    "94% on CIFAR-10 in 3.29 Seconds", https://arxiv.org/abs/2404.00498.
    """

    widths: tuple[int, int, int] = (64, 256, 256)
    epochs: int = 14
    batch_size: int = 250
    peak_learning_rate: float = 0.3
    warm_up: float = 0.2  # the part of the steps in which the learning rate rises
    momentum: float = 0.9  # Nesterov's
    weight_decay: float = 1.2e-3
    vector_factor: float = 8.0
    label_smoothing: float = 0.2
    max_shift: int = 3  # pixels by which the images are shifted at most
    seed: int = SEED

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The rate of a step, counted from 0: linearly up, then linearly to zero."""
        steps = self.epochs * steps_per_epoch
        peak = max(1, round(self.warm_up * steps))
        part = min((step + 1) / peak, (steps - step) / max(1, steps - peak))
        return max(0.0, part) * self.peak_learning_rate


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve; accuracies in [0, 1], losses in nats an image."""

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def augment(
    images: Tensor, mirrored: Tensor, max_shift: int, generator: torch.Generator
) -> Tensor:
    """Shift each image by up to `max_shift` pixels, and mirror those to be mirrored.

    images: uint8 [B, C, H, W]; returns the same shape and type. What a shift uncovers
    shows the image's reflection. mirrored: bool [B].
    """
    count, _, height, width = images.shape
    padded = nn.functional.pad(images.float(), [max_shift] * 4, mode="reflect")
    windows = padded.to(images.dtype).unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(2 * max_shift + 1, (2, count), generator=generator)
    shifted = windows[torch.arange(count), :, down, right]
    return torch.where(mirrored[:, None, None, None], shifted.flip(-1), shifted)


@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor, transform: Transform, batch_size: int = 250
) -> Tensor:
    """Outputs, float32 [N, D] on the CPU, for uint8 images; sets evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    batches = (to_device(transform(some), device) for some in images.split(batch_size))
    return torch.cat([model(batch).float().cpu() for batch in batches])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there; images channels last, the order convolutions are fastest in."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device, memory_format=layout)


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, in two groups: weights; biases and BatchNorm.

    "factor" is what a group's learning rate is multiplied by.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim == 1]
    decay, factor = recipe.weight_decay, recipe.vector_factor
    groups = [
        {"params": weights, "weight_decay": decay, "factor": 1.0},
        {"params": vectors, "weight_decay": decay / factor, "factor": factor},
    ]
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True)


def train_from_scratch(
    model: nn.Module,
    recipe: Recipe,
    train: Examples,
    validation: Examples | None,
    transform: Transform,
    *,
    partial: Path | None = None,
    log: LiveLog | None = None,
) -> list[Epoch]:
    """Train `model` in place for `recipe.epochs` epochs; return its learning curve.

    transform: uint8 [B, 3, 32, 32] to the network's input.
    partial: where the state is kept after each epoch. If one is there, training goes on
        from it, and ends up with exactly what an uninterrupted training gives. Its
        name must tell the data and recipe, as that of `kept.place` does.
    validation: measured after each epoch; nan in the curve without one.
    Training accuracy and loss are those of the epoch's augmented batches, as they were
    seen during training; the loss includes label smoothing.
    """
    log = log or LiveLog()
    device = next(model.parameters()).device
    steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
    optimiser = make_optimiser(model, recipe)
    parts = {"model": model, "optimiser": optimiser}
    state = resume(partial, parts) if partial else {}
    history = [Epoch(**row) for row in state.get("history", [])]
    if history:
        log.line(f"(epochs 1 to {len(history)} resumed from a checkpoint)")

    mirrored_first = torch.rand(len(train), generator=seeded(recipe, 0)) < 0.5
    for number in range(len(history) + 1, recipe.epochs + 1):
        started = time.perf_counter()
        generator = seeded(recipe, number)
        order = torch.randperm(len(train), generator=generator)
        # Each image is mirrored in every other epoch; in which, is up to chance.
        mirrored = mirrored_first ^ (number % 2 == 0)
        step = (number - 1) * steps_per_epoch
        loss_sum = correct = 0.0
        model.train()
        batches = order.split(recipe.batch_size)
        for index in log.track(batches, f"epoch {number}/{recipe.epochs}"):
            rate = recipe.learning_rate(step, steps_per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            batch = train[index]
            images = augment(batch.inputs, mirrored[index], recipe.max_shift, generator)
            labels = batch.labels.to(device)
            logits = model(to_device(transform(images), device))
            loss = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == labels).sum().item()

        measured = [math.nan, math.nan]
        if validation is not None:
            logits = predict(model, validation.inputs, transform)
            measured = loss_and_accuracy(logits, validation.labels)
        learned = loss_sum / len(train), correct / len(train)
        seconds = time.perf_counter() - started
        history.append(Epoch(number, *learned, *measured, seconds))
        log.line(format_epoch(history[-1]))
        if partial:
            save_progress(partial, parts, history=list(map(asdict, history)))
    return history


def seeded(recipe: Recipe, number: int) -> torch.Generator:
    """The source of randomness of an epoch; 0: of what holds for all epochs."""
    return torch.Generator().manual_seed(recipe.seed * 1000 + number)


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy in [0, 1]."""
    accuracy = (logits.argmax(1) == labels).float().mean()
    return cross_entropy(logits, labels).item(), accuracy.item()


EPOCH_HEADER = "epoch   train loss  accuracy   validation loss  accuracy   seconds"


def format_epoch(epoch: Epoch) -> str:
    """One fixed-width line under `EPOCH_HEADER`."""
    return (
        f"{epoch.number:5d}   {epoch.train_loss:10.3f}  {epoch.train_accuracy:8.2%}"
        f"   {epoch.validation_loss:15.3f}  {epoch.validation_accuracy:8.2%}"
        f"   {epoch.seconds:7.1f}"
    )


Build = Callable[[Recipe], nn.Module]


def training_key(
    build: Build,
    recipe: Recipe,
    train: Examples,
    validation: Examples | None,
    transform: Transform,
) -> Key:
    """All that a training from scratch depends on."""
    return make_key(
        recipe=recipe,
        training_images=train,
        validation_images=validation,
        transform=transform,
        code=[build, train_from_scratch],
        without=(format_epoch,),
    )


def train_or_load(
    name: str,
    build: Build,
    recipe: Recipe,
    train: Examples,
    validation: Examples,
    transform: Transform,
    *,
    device: torch.device | str = "cpu",
    log: LiveLog | None = None,
    **where: object,
) -> Trained:
    """`train_from_scratch`, or what it gave earlier; the history is of `Epoch`s.

    build: returns the network as it is before training; called after seeding.
    where: `folder`, `committed` and `anew` of `kept`.
    """
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    key = training_key(build, recipe, train, validation, transform)

    def fit(partial: Path) -> tuple[list, float]:
        curve = train_from_scratch(
            model, recipe, train, validation, transform, partial=partial, log=log
        )
        return list(map(asdict, curve)), sum(epoch.seconds for epoch in curve)

    trained = keep_trained(name, key, model, fit, half=True, **where)
    return replace(trained, history=[Epoch(**row) for row in trained.history])
