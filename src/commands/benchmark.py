"""`python3 -m src benchmark`: what the shortcuts gain, as ratios.

An epoch of question 3's head; question 1's layer against nn.Conv2d.
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
from src.weights import PretrainedWeights, input_transform, load_pretrained


def main(args: list[str]) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(prog="python3 -m src benchmark")
    parser.add_argument("--images", type=int, default=1000, help="how many to time")
    count, pretrained = parser.parse_args(args).images, load_pretrained()
    figures = {
        "provenance": machine.provenance(machine.pick_device()),
        "transfer": head_epochs(pretrained, count),
        "convolution": conv_checks.ratios(conv_checks.benchmark()),
    }
    print(text := json.dumps(figures, indent=2))
    write_text(RESULTS.with_name("benchmark.json"), text + "\n")


def head_epochs(weights: PretrainedWeights, count: int) -> dict[str, float]:
    """Seconds of a head's epoch: the usual way, scaled from `count` images, and ours.

    Ours needs one pass of all images before, which is a part of each usual epoch.
    """
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
    features = cifar10.Examples(torch.randn(len(data), 512), data.labels)
    ours = head.fit_head(model.fc, head.HeadRecipe(epochs=1), features)[0].seconds
    seconds = {"usual_epoch_seconds": usual, "our_epoch_seconds": ours}
    return seconds | {"ratio_per_epoch": usual / ours}
