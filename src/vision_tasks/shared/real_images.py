"""Real photographs beside the drawn scenes: the sample of CIFAR-10 in `data/sample`."""

import functools

import torch
from torch import Generator, Tensor

from src import cifar10

#: Part of the training batches that are of real images.
REAL_BATCHES = 0.25
#: The one of the test images that figures show.
SHOWN = 22


@functools.cache
def real_images(train: bool) -> Tensor:
    """The sample's 1,000 training or 500 test images: uint8 [N, 3, 32, 32].

    Always the sample, even where all of CIFAR-10 is at hand: results are the same on
    every machine, and no network is needed.
    """
    return cifar10.as_examples(cifar10.load(train, sample=True)).inputs


def some_real(images: Tensor, generator: Generator) -> Tensor:
    """In one batch of four, real training images instead of the given ones.

    images: uint8 [B, 3, H, W]. Returns them, or about as many pixels of real images:
    uint8 [B', 3, 32, 32]. One batch is all of one kind because the sizes differ.
    """
    if torch.rand((), generator=generator) >= REAL_BATCHES:
        return images
    real = real_images(train=True)
    count = max(1, images[:, 0].numel() // real[0, 0].numel())
    return real[torch.randint(len(real), (count,), generator=generator)]
