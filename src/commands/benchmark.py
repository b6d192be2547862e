"""`python3 -m src benchmark`: what question 3's shortcuts gain, and what they cost.

Everything compared is measured in the same run on the same machine, and reported as a
ratio. Writes `data/benchmark.json`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from src import cifar10, conv_checks
from src.cifar10 import Examples, as_examples
from src.common.files import write_text
from src.common.machine import peak_memory_gib, pick_device, provenance
from src.common.progress import LiveLog
from src.common.project import DATA, FAST
from src.frozen import without_head
from src.residual_net import ThreeBlockNet
from src.training import Recipe, to_device, train_from_scratch
from src.weights import load_pretrained

FILE = DATA / "benchmark.json"
BATCH = 125


def main(args: list[str]) -> int:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(
        prog="python3 -m src benchmark",
        description="Measure question 3's shortcuts and question 1's layer, as ratios.",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=1000,
        help="images on which a pass through the whole network is timed",
    )
    parser.add_argument("--memory-of", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.memory_of:  # a child process of `peak_memories`
        STAGES[options.memory_of]()
        print(peak_memory_gib())
        return 0

    device = pick_device()
    figures = {
        "provenance": provenance(device),
        "transfer": measure_transfer(options.images, device),
        "pipeline": measure_pipeline(options.images),
        "training": measure_training(device),
        "convolution": measure_convolution(),
        "peak_memory_gib": peak_memories(),
    }
    for section, values in figures.items():
        print(f"\n{section}")
        for name, value in values.items():
            text = f"{value:,.3g}" if isinstance(value, float) else value
            print(f"  {name.replace('_', ' '):44} {text}")
    if not FAST:
        write_text(FILE, json.dumps(figures, indent=2) + "\n")
        print(f"\nwritten to data/{FILE.name}")
    return 0


def make_transform(size: int, mean: tuple, std: tuple) -> v2.Compose:
    """The transformations of question 3; for one PIL image or a uint8 batch."""
    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize([size, size], antialias=True),
            v2.Normalize(mean, std),
        ]
    )


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


# ------------------------------------------------------------------------ question 3


def measure_transfer(count: int, device: torch.device) -> dict[str, float]:
    """An epoch of training the head: through the whole network, and on kept features.

    The usual way is timed on `count` images and scaled to the training set; an epoch on
    kept features is timed as a whole.
    """
    pretrained = load_pretrained()
    transform = make_transform(pretrained.input_size, pretrained.mean, pretrained.std)
    dataset = cifar10.load(train=True, transform=transform)
    data = as_examples(dataset)
    count = min(count, len(data))
    scale = len(data) / count
    model = pretrained.build().to(device, memory_format=torch.channels_last)
    model.requires_grad_(False)
    model.fc = nn.Linear(512, 10).to(device)
    body = without_head(model).eval()
    images = data.inputs[:count]

    usual = scale * seconds(lambda: _usual_epoch(model, dataset, count, device))
    one_pass = scale * seconds(lambda: _pass(body, images, transform, device))
    half = scale * seconds(
        lambda: _pass(body, images, transform, device, torch.bfloat16)
    )
    features = Examples(torch.randn(len(data), 512), data.labels)
    kept = seconds(lambda: _kept_epoch(features, device))
    return {
        "usual_epoch_seconds": usual,
        "our_epoch_seconds": kept,
        "ratio_per_epoch": usual / kept,
        "our_one_pass_seconds": one_pass,
        "ahead_from_epoch": _break_even(usual, one_pass, kept),
        "bfloat16_pass_over_float32_pass": half / one_pass,
    }


def _break_even(usual: float, one_pass: float, kept: float) -> int:
    """The first epoch after which one pass and n kept epochs cost less than n usual."""
    epoch = 1
    while one_pass + epoch * kept >= epoch * usual and epoch < 1000:
        epoch += 1
    return epoch


def _usual_epoch(
    model: nn.Module, dataset: Dataset, count: int, device: torch.device
) -> None:
    """Transforms an image at a time in the loader, then the whole network."""
    model.eval()
    loader = DataLoader(Subset(dataset, range(count)), BATCH, shuffle=True)
    optimiser = torch.optim.Adam(model.fc.parameters())
    for images, labels in loader:
        logits = model(to_device(images, device))
        _step(logits, labels.to(device), optimiser)


def _kept_epoch(features: Examples, device: torch.device) -> None:
    head = nn.Linear(512, 10).to(device)
    optimiser = torch.optim.Adam(head.parameters())
    inputs, labels = features.inputs.to(device), features.labels.to(device)
    for index in torch.randperm(len(features)).split(500):
        _step(head(inputs[index]), labels[index], optimiser)


def _step(logits: Tensor, labels: Tensor, optimiser: torch.optim.Optimizer) -> None:
    loss = nn.functional.cross_entropy(logits, labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@torch.no_grad()
def _pass(
    body: nn.Module,
    images: Tensor,
    transform: Callable,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> None:
    lower = dtype != torch.float32
    with torch.autocast(device.type, dtype, enabled=lower):
        for batch in images.split(BATCH):
            body(to_device(transform(batch), device)).float().cpu()


def measure_pipeline(count: int) -> dict[str, float]:
    """Images a second: decode, resize, normalise, into a batch.

    torchvision's way transforms PIL images one at a time in a DataLoader, without
    workers and with as many as there are threads; ours transforms whole batches.
    """
    transform = make_transform(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset = cifar10.load(train=True, transform=transform)
    images = as_examples(dataset).inputs[:count]
    subset = Subset(dataset, range(len(images)))
    workers = torch.get_num_threads()

    def ours() -> None:
        for batch in images.split(BATCH):
            transform(batch)

    ours()
    our_rate = len(images) / seconds(ours)
    plain = len(images) / seconds(lambda: list(DataLoader(subset, BATCH)))
    parallel = len(images) / seconds(
        lambda: list(DataLoader(subset, BATCH, num_workers=workers))
    )
    return {
        "loader_images_per_second": plain,
        f"loader_with_{workers}_workers_images_per_second": parallel,
        "our_images_per_second": our_rate,
        "ratio_to_loader": our_rate / plain,
        f"ratio_to_loader_with_{workers}_workers": our_rate / parallel,
    }


def measure_training(device: torch.device) -> dict[str, float]:
    """An epoch of the three-block network on the training split, from four steps."""
    transform = make_transform(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = as_examples(cifar10.load(train=True))
    recipe = Recipe(epochs=2)
    few = data[: 4 * recipe.batch_size]
    network = ThreeBlockNet(recipe.widths).to(device, memory_format=torch.channels_last)
    _, second = train_from_scratch(
        network, recipe, few, None, transform, log=LiveLog(keep=False)
    )
    return {
        "epoch_seconds": second.seconds * 0.9 * len(data) / len(few),
        "epochs": Recipe().epochs,
    }


# ------------------------------------------------------------------------ question 1


def measure_convolution() -> dict[str, float]:
    """Question 1's layer over nn.Conv2d on ResNet-18's layers, forward and backward."""
    result = conv_checks.benchmark()
    return {
        "time_ratio_geometric_mean": result.time_ratio,
        "memory_ratio_geometric_mean": result.memory_ratio,
    }


# ---------------------------------------------------------------------------- memory


def _stage_features() -> None:
    """One chunk of features, with the whole set in memory."""
    pretrained = load_pretrained()
    transform = make_transform(pretrained.input_size, pretrained.mean, pretrained.std)
    data = as_examples(cifar10.load(train=True))
    body = without_head(pretrained.build()).eval()
    _pass(body, data.inputs[: 4 * BATCH], transform, torch.device("cpu"))


def _stage_training() -> None:
    """Some steps of training the three-block network, with the whole set in memory."""
    transform = make_transform(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = as_examples(cifar10.load(train=True))
    recipe = Recipe(epochs=1)
    few, some = data[: 4 * recipe.batch_size], data[:500]
    network, log = ThreeBlockNet(recipe.widths), LiveLog(keep=False)
    train_from_scratch(network, recipe, few, some, transform, log=log)


STAGES = {"features": _stage_features, "training": _stage_training}


def peak_memories() -> dict[str, float]:
    """Peak memory in GiB of each costly stage of question 3, in a process of its own.

    The notebook's own peak, without them, is in results.json.
    """
    peaks = {}
    for stage in STAGES:
        command = [sys.executable, "-m", "src", "benchmark", "--memory-of", stage]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[stage] = float(done.stdout.split()[-1])
    return peaks
