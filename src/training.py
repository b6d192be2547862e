"""Training a network from scratch on images in memory: fast, seeded, resumable."""

import dataclasses
import datetime
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.datasets import CIFAR10

from src.checkpoints import read_checkpoint, write_checkpoint
from src.progress import LiveLog
from src.project import SEED

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Examples:
    """Inputs and their labels, int64 [N].

    inputs: images, uint8 [N, 3, 32, 32], or features of them, float32 [N, D].
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs, {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Examples":
        return Examples(self.inputs[index], self.labels[index])


def as_examples(dataset: CIFAR10) -> Examples:
    """All images of a CIFAR-10 dataset at once, as uint8 [N, 3, 32, 32]."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Examples(images, torch.tensor(dataset.targets))


def hold_out(
    data: Examples, fraction: float = 0.1, seed: int = SEED
) -> tuple[Examples, Examples]:
    """Divide at random into training and validation, every class alike."""
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique():
        members = (data.labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held_out[shuffled[: round(fraction * len(members))]] = True
    return data[~held_out], data[held_out]


@dataclass(frozen=True)
class Recipe:
    """All that decides what training from scratch gives, but for the data.

    The learning rate of biases and of BatchNorm's scales is `vector_factor` times that
    of the weights, and their weight decay as many times smaller, so that both shrink
    alike: there are few of them, and they may move faster. Source of that, of the
    images' mirroring in turns (see `augment`), and of the strong decay and smoothing:
    Jordan (2024), "94% on CIFAR-10 in 3.29 Seconds", https://arxiv.org/abs/2404.00498.
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

    def key(self) -> str:
        """Short fingerprint; differs when any field does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


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
    model: nn.Module,
    images: Tensor,
    transform: Transform,
    batch_size: int = 250,
) -> Tensor:
    """Logits [N, classes], float32 on the CPU, of uint8 images [N, 3, 32, 32]."""
    device = next(model.parameters()).device
    model.eval()
    logits = []
    for chunk in images.split(batch_size):
        logits.append(model(to_device(transform(chunk), device)).float().cpu())
    return torch.cat(logits)


def to_device(inputs: Tensor, device: torch.device) -> Tensor:
    """Channels last, the order in which convolutions are fastest on CPUs and GPUs."""
    return inputs.to(device, memory_format=torch.channels_last)


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, in two groups: weights; biases and BatchNorm.

    "factor" is what a group's learning rate is multiplied by.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    factor = recipe.vector_factor
    return torch.optim.SGD(
        [
            {
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
                "factor": 1.0,
            },
            {
                "params": [p for p in trained if p.ndim == 1],
                "weight_decay": recipe.weight_decay / factor,
                "factor": factor,
            },
        ],
        momentum=recipe.momentum,
        nesterov=True,
    )


def train_from_scratch(
    model: nn.Module,
    recipe: Recipe,
    train: Examples,
    validation: Examples | None,
    transform: Transform,
    *,
    checkpoint: Path | None = None,
    log: LiveLog | None = None,
) -> list[Epoch]:
    """Train `model` in place for `recipe.epochs` epochs; return its learning curve.

    transform: uint8 [B, 3, 32, 32] to the network's input.
    checkpoint: where the state is kept after each epoch. If a checkpoint of the same
        recipe and data is there, training goes on from it, and ends up with exactly
        what an uninterrupted training gives.
    validation: measured after each epoch; nan in the curve without one.
    Training accuracy and loss are those of the epoch's augmented batches, as they were
    seen during training; the loss includes label smoothing.
    """
    log = log or LiveLog()
    device = next(model.parameters()).device
    steps_per_epoch = -(-len(train) // recipe.batch_size)
    optimiser = make_optimiser(model, recipe)
    stateful = {"model": model, "optimiser": optimiser}
    key = experiment_key(recipe, train, validation)
    history = _resume(checkpoint, key, stateful)
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
        for index in log.track(
            order.split(recipe.batch_size), f"epoch {number}/{recipe.epochs}"
        ):
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
        seconds = time.perf_counter() - started
        epoch = Epoch(
            number, loss_sum / len(train), correct / len(train), *measured, seconds
        )
        history.append(epoch)
        log.line(format_epoch(epoch))
        if checkpoint:
            _save(checkpoint, key, stateful, history)
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


@dataclass(frozen=True)
class Trained:
    """A network trained from scratch, and the record of how that went."""

    model: nn.Module
    curve: list[Epoch]
    seconds: float
    made_with: str  # "2026-11-22, torch 2.15.0, cpu with 2 threads"
    loaded: bool  # from a finished checkpoint, rather than trained just now


def train_or_load(
    build: Callable[[], nn.Module],
    recipe: Recipe,
    train: Examples,
    validation: Examples,
    transform: Transform,
    finished: Path,
    *,
    retrain: bool = False,
    device: torch.device | str = "cpu",
    log: LiveLog | None = None,
) -> Trained:
    """Load the finished checkpoint if it fits recipe and data; else train and save it.

    build: returns the network as it is before training; called after seeding.
    finished: the checkpoint, weights in half precision. What is returned after training
        was rounded the same way, so that both ways give the same network.
    retrain: train even if a fitting checkpoint is there.
    """
    torch.manual_seed(recipe.seed)
    model = build().to(device, memory_format=torch.channels_last)
    key = experiment_key(recipe, train, validation)
    state = None if retrain else _read_finished(finished, key)
    loaded = state is not None
    if not loaded:
        partial = finished.with_suffix(".partial.pt")
        curve = train_from_scratch(
            model, recipe, train, validation, transform, checkpoint=partial, log=log
        )
        state = {
            "key": key,
            "recipe": dataclasses.asdict(recipe),
            "model": {
                name: value.half() if value.is_floating_point() else value
                for name, value in model.state_dict().items()
            },
            "curve": [dataclasses.asdict(epoch) for epoch in curve],
            "made_with": (
                f"{datetime.date.today()}, torch {torch.__version__}, "
                f"{torch.device(device).type} with {torch.get_num_threads()} threads"
            ),
        }
        write_checkpoint(finished, state)
        partial.unlink(missing_ok=True)
    model.load_state_dict(state["model"])
    curve = [Epoch(**row) for row in state["curve"]]
    seconds = sum(epoch.seconds for epoch in curve)
    return Trained(model.eval(), curve, seconds, state["made_with"], loaded)


def _read_finished(path: Path, key: str) -> dict | None:
    """What `train_or_load` saved, if it was with this key."""
    state = read_checkpoint(path)
    return state if state.get("key") == key else None


def experiment_key(recipe: Recipe, train: Examples, validation: Examples | None) -> str:
    """Fingerprint of all that a training depends on."""
    splits = [train] if validation is None else [train, validation]
    return "-".join([recipe.key(), *map(examples_hash, splits)])


def examples_hash(examples: Examples) -> str:
    """Short fingerprint of inputs and labels."""
    digest = hashlib.sha256(examples.inputs.contiguous().numpy())
    digest.update(examples.labels.contiguous().numpy())
    return digest.hexdigest()[:12]


def _save(path: Path, key: str, stateful: dict, history: list[Epoch]) -> None:
    state = {name: part.state_dict() for name, part in stateful.items()}
    state |= {"key": key, "history": [dataclasses.asdict(epoch) for epoch in history]}
    write_checkpoint(path, state)


def _resume(path: Path | None, key: str, stateful: dict) -> list[Epoch]:
    """Load what `_save` saved into `stateful`; an empty history if there is none."""
    state = read_checkpoint(path) if path is not None else {}
    if not state:
        return []
    if state.get("key") != key:
        print(f"{path.name} belongs to another recipe or data; training starts anew")
        return []
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    return [Epoch(**row) for row in state["history"]]
