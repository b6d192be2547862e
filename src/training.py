"""Training a network on examples in memory: seeded, and from scratch resumable."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial as bound
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from src.cifar10 import Examples, Transform
from src.common.kept import Key, make_key, resume, save_progress
from src.common.machine import has_bfloat16
from src.common.progress import LiveLog
from src.common.project import CHECKPOINTS, FAST, RETRAIN, SEED
from src.common.trained import Trained, keep_trained


@dataclass(frozen=True)
class Recipe:
    """All that decides what training from scratch gives, but for the data.

    The learning rate's rise and fall: Smith and Topin (2017), "Super-convergence",
    https://arxiv.org/abs/1708.07120.
    """

    widths: tuple[int, int, int] = (8, 16, 16) if FAST else (64, 128, 256)
    epochs: int = 1 if FAST else 24
    batch_size: int = 125
    peak_learning_rate: float = 0.2
    warm_up: float = 0.2  # the part of the steps in which the learning rate rises
    momentum: float = 0.9
    weight_decay: float = 1e-3
    label_smoothing: float = 0.1
    max_shift: int = 3  # pixels by which the images are shifted at most
    mirrored: float = 0.5  # the probability that an image is mirrored
    seed: int = SEED


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve; nan where nothing was held out for validation."""

    number: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift each of the images [B, C, H, W] and mirror some, at random.

    What a shift uncovers shows the image's reflection.
    """
    size, shift = images.shape[-1], recipe.max_shift
    framed = pad(images, [shift] * 4, mode="reflect")
    corners = torch.randint(2 * shift + 1, (len(images), 2), generator=generator)
    shifted = torch.stack(
        [
            image[:, top : top + size, left : left + size]
            for image, (top, left) in zip(framed, corners.tolist(), strict=True)
        ]
    )
    mirror = torch.rand(len(images), generator=generator) < recipe.mirrored
    return torch.where(mirror[:, None, None, None], shifted.flip(-1), shifted)


def shuffled(
    data: Examples,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The data once, in random order, as batches of inputs and labels on the device.

    change: what is done to a batch's inputs first.
    """
    for index in torch.randperm(len(data), generator=generator).split(batch_size):
        inputs = data.inputs[index]
        if change:
            inputs = change(inputs)
        yield to_device(inputs, device), data.labels[index].to(device)


def train_epoch(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimiser: Optimizer,
    schedule: LRScheduler,
    label_smoothing: float = 0.0,
    bfloat16: bool = False,
    report: Callable[[str], None] | None = None,
) -> tuple[float, float]:
    """One step for each batch; returns mean loss in nats and accuracy in [0, 1] so far.

    bfloat16: compute with numbers of 16 bits (torch.autocast). report: told, in words.
    """
    network.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for inputs, labels in batches:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(inputs).float()
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        seen += len(labels)
        loss_sum += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        if report:
            report(f"loss {loss_sum / seen:.3f}, accuracy {correct / seen:.1%}")
    return loss_sum / seen, correct / seen


@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor, transform: Transform, batch_size: int = 250
) -> Tensor:
    """What the model makes of uint8 images [N, C, H, W]; float32, on the CPU."""
    device = next(model.parameters(), torch.empty(0)).device  # a pooling has none
    model.eval()
    batches = (to_device(transform(some), device) for some in images.split(batch_size))
    return torch.cat([model(batch).float().cpu() for batch in batches])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there; images channels last, the order convolutions are fastest in."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device, memory_format=layout)


def optimiser_and_schedule(
    network: nn.Module, recipe: Recipe, steps_per_epoch: int
) -> tuple[SGD, OneCycleLR]:
    """Stochastic gradient descent, and the learning rate's course over all steps."""
    optimiser = SGD(
        network.parameters(),
        lr=recipe.peak_learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = OneCycleLR(
        optimiser,
        max_lr=recipe.peak_learning_rate,
        total_steps=recipe.epochs * steps_per_epoch,
        pct_start=recipe.warm_up,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    return optimiser, schedule


def train_from_scratch(
    network: nn.Module,
    recipe: Recipe,
    train: Examples,
    validation: Examples | None,
    transform: Transform,
    *,
    partial: Path | None = None,
    log: LiveLog | None = None,
) -> list[Epoch]:
    """Train `network` in place; return its learning curve, of the augmented images.

    train, validation: uint8 images [N, 3, 32, 32] and their labels.
    transform: makes the network's input of them, for each image once: the random
        changes come after it.
    partial: where the state is kept after each epoch. If one is there, training goes on
        from it, and ends up with exactly what an uninterrupted training gives.
    """
    log = log or LiveLog()
    device = next(network.parameters()).device
    inputs = torch.cat([transform(images) for images in train.inputs.split(1000)])
    data = Examples(inputs, train.labels)
    steps_per_epoch = math.ceil(len(data) / recipe.batch_size)
    optimiser, schedule = optimiser_and_schedule(network, recipe, steps_per_epoch)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    state = resume(partial, parts) if partial else {}
    history = [Epoch(**row) for row in state.get("history", [])]
    if history:
        log.line(f"(epochs 1 to {len(history)} resumed from a checkpoint)")

    for number in range(len(history) + 1, recipe.epochs + 1):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + number)
        change = bound(augment, recipe=recipe, generator=generator)
        batches = shuffled(data, recipe.batch_size, generator, device, change)
        steps = log.track(batches, f"epoch {number}/{recipe.epochs}", steps_per_epoch)
        learned = train_epoch(
            network,
            steps,
            optimiser,
            schedule,
            recipe.label_smoothing,
            has_bfloat16(device),
            log.status,
        )
        measured = math.nan, math.nan
        if validation is not None:
            logits = predict(network, validation.inputs, transform)
            measured = loss_and_accuracy(logits, validation.labels)
        seconds = time.perf_counter() - started
        history.append(Epoch(number, *learned, *measured, seconds))
        log.line(format_epoch(history[-1]))
        if partial:
            save_progress(partial, parts, history=list(map(asdict, history)))
    return history


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy in [0, 1]."""
    accuracy = (logits.argmax(1) == labels).float().mean()
    return cross_entropy(logits, labels).item(), accuracy.item()


EPOCH_HEADER = "epoch   train loss  accuracy   validation loss  accuracy   seconds"


def format_epoch(epoch: Epoch) -> str:
    """One fixed-width line under `EPOCH_HEADER`; dashes where nothing was held out."""
    loss, accuracy = f"{epoch.validation_loss:.3f}", f"{epoch.validation_accuracy:.2%}"
    if math.isnan(epoch.validation_loss):
        loss = accuracy = "–"
    return (
        f"{epoch.number:5d}   {epoch.train_loss:10.3f}  {epoch.train_accuracy:8.2%}"
        f"   {loss:>15}  {accuracy:>8}   {epoch.seconds:7.1f}"
    )


Build = Callable[[Recipe], nn.Module]
#: Where finished trainings are looked up, and whether they are to be replaced.
FINISHED = {"committed": CHECKPOINTS, "anew": RETRAIN}


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
    validation: Examples | None,
    transform: Transform,
    *,
    device: torch.device | str = "cpu",
    log: LiveLog | None = None,
    **where: object,
) -> Trained:
    """`train_from_scratch`, or what it gave earlier; the history is of `Epoch`s.

    build: returns the network as it is before training; called after seeding.
    where: `folder`, `committed` and `anew` of `kept`, if others than `FINISHED`.
    """
    torch.manual_seed(recipe.seed)
    model = build(recipe).to(device, memory_format=torch.channels_last)
    key = training_key(build, recipe, train, validation, transform)

    def fit(partial: Path) -> tuple[list, float]:
        curve = train_from_scratch(
            model, recipe, train, validation, transform, partial=partial, log=log
        )
        return list(map(asdict, curve)), sum(epoch.seconds for epoch in curve)

    trained = keep_trained(name, key, model, fit, half=True, **FINISHED | where)
    return replace(trained, history=[Epoch(**row) for row in trained.history])
