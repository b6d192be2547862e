"""`python3 -m src benchmark`: what README and notebooks quote from data/benchmark.json.

An epoch of question 3's head the usual way and on kept features, an epoch of its three
blocks, and question 1's layer against nn.Conv2d, all measured in one run.
"""

import argparse
import json
from time import perf_counter

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from src import cifar10, conv_checks, head, training
from src.common import machine
from src.common.files import write_text
from src.common.project import RESULTS
from src.frozen import without_head
from src.residual_net import ThreeBlockNet
from src.weights import PretrainedWeights, input_transform, load_pretrained


def main(args: list[str]) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(prog="python3 -m src benchmark")
    parser.add_argument("--images", type=int, default=1000, help="how many to time")
    count, pretrained = parser.parse_args(args).images, load_pretrained()
    layers = conv_checks.benchmark()
    figures = {
        "provenance": machine.provenance(machine.pick_device()),
        "transfer": head_epochs(pretrained, count),
        "training": block_epoch(pretrained, count),
        "convolution": {
            "time_ratio_geometric_mean": layers.time_ratio,
            "memory_ratio_geometric_mean": layers.memory_ratio,
        },
    }
    print(text := json.dumps(figures, indent=2))
    write_text(RESULTS.with_name("benchmark.json"), text + "\n")


def head_epochs(weights: PretrainedWeights, count: int) -> dict[str, float]:
    """Seconds of training a head; passes are timed on `count` images and scaled."""
    transform = input_transform(weights.input_size, weights.mean, weights.std)
    dataset = cifar10.load(train=True, transform=transform)
    data, model = cifar10.as_examples(dataset), weights.build().requires_grad_(False)
    model.fc = nn.Linear(512, 10)
    model.to(device := machine.pick_device(), memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.fc.parameters())
    started = perf_counter()
    for images, labels in DataLoader(Subset(dataset, range(count)), 125, shuffle=True):
        logits = model(training.to_device(images, device))
        loss = nn.functional.cross_entropy(logits, labels.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    usual = (perf_counter() - started) * len(data) / count
    started = perf_counter()
    training.predict(without_head(model), data.inputs[:count], transform)
    one_pass = (perf_counter() - started) * len(data) / count
    features = cifar10.Examples(torch.randn(len(data), 512), data.labels)
    kept = head.fit_head(model.fc, head.HeadRecipe(epochs=1), features)[0].seconds
    return {
        "usual_epoch_seconds": usual,
        "our_epoch_seconds": kept,
        "ratio_per_epoch": usual / kept,
        "our_one_pass_seconds": one_pass,
        "ahead_from_epoch": int(one_pass / (usual - kept)) + 1,
    }


def block_epoch(weights: PretrainedWeights, count: int) -> dict[str, float]:
    """Seconds of an epoch of the three blocks: the second on `count` images, scaled."""
    data = cifar10.as_examples(cifar10.load(train=True))
    network = ThreeBlockNet(training.Recipe.widths)
    network.to(machine.pick_device(), memory_format=torch.channels_last)
    transform = input_transform(64, weights.mean, weights.std)
    recipe, few = training.Recipe(epochs=2), data[:count]
    curve = training.train_from_scratch(network, recipe, few, None, transform)
    seconds = curve[1].seconds * 0.9 * len(data) / count  # a tenth is held out
    return {"epoch_seconds": seconds, "epochs": training.Recipe.epochs}
