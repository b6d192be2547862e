"""Question 1: a two-dimensional convolution layer, written by hand.

For every output channel o and every output position (y, x),

    output[o, y, x] = bias[o] + Σ_c Σ_i Σ_j weight[o, c, i, j]
                                · padded[c, stride·y + i, stride·x + j]

where `padded` is the image inside a frame of zeros. As everywhere in deep learning
this is, strictly speaking, cross-correlation: the kernel is not flipped
(https://d2l.ai/chapter_convolutional-neural-networks/conv-layer.html).

The sum over (c, i, j) is a scalar product of the kernel with one window of the image.
So the layer lays all windows side by side as the columns of one matrix, and a single
matrix product gives the whole output (K. Chellapilla, S. Puri and P. Simard, "High
Performance Convolutional Neural Networks for Document Processing", 2006). Autograd
follows each of the steps, so nothing has to be said about the backward pass.

Of torch.nn only Module and Parameter are used.
"""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Conv2d(nn.Module):
    """Convolution with `out_channels` kernels over images [B, C, H, W] or [C, H, W].

    kernel_size: (height, width), or one number for a square kernel.
    stride: how many pixels the window moves, down as well as across.
    padding: how many rows and columns of zeros are added on each of the four sides.

    The output is [B, O, H', W'], or [O, H', W'] for a single image, with
    H' = ⌊(H + 2·padding - kernel height) / stride⌋ + 1, and W' likewise. Weight, then
    bias, are drawn from U(-b, b), b = 1/√(inputs of one output), as nn.Conv2d does it.
    """

    def __init__(
        self, in_channels=1, out_channels=1, kernel_size=(1, 1), stride=1, padding=0
    ):
        super().__init__()
        self.in_channels = whole_number("in_channels", in_channels, least=1)
        self.out_channels = whole_number("out_channels", out_channels, least=1)
        self.kernel_size = height_and_width(kernel_size)
        self.stride = whole_number("stride", stride, least=1)
        self.padding = whole_number("padding", padding, least=0)
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(shape[0]).uniform_(-bound, bound))

    def forward(self, image: Tensor) -> Tensor:
        check_image(image, self)
        if image.dim() == 3:  # a single image is a batch of one
            return self.forward(image[None])[0]
        padded = zero_pad(image, self.padding)
        windows = all_windows(padded, self.kernel_size, self.stride)
        # One column a window: [C · kernel height · kernel width, B · H' · W']
        columns = windows.permute(1, 2, 3, 0, 4, 5).flatten(0, 2).flatten(1)
        # One row a kernel; row times column is one output value: [O, B · H' · W']
        output = torch.addmm(self.bias[:, None], self.weight.flatten(1), columns)
        output = output.unflatten(1, (len(image), *windows.shape[4:]))
        return output.transpose(0, 1).contiguous()


def zero_pad(image: Tensor, padding: int) -> Tensor:
    """`image` [B, C, H, W] with that many rows and columns of zeros on each side."""
    if padding == 0:
        return image
    batch, channels, height, width = image.shape
    padded = image.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding:-padding, padding:-padding] = image
    return padded


def all_windows(image: Tensor, kernel_size: tuple[int, int], stride: int) -> Tensor:
    """Windows of `image` [B, C, H, W]: [B, C, kernel height, kernel width, H', W'].

    `unfold` puts the pixels of a window last. Moved before the positions H' and W' they
    make one step of the backward pass, the adding up of overlaps, run along rows.
    """
    height, width = kernel_size
    rows = image.unfold(2, height, stride).movedim(4, 2)
    return rows.unfold(4, width, stride).movedim(5, 3)


def whole_number(name: str, value: int, least: int) -> int:
    """`value` as an int of at least `least`.

    Raises TypeError where it is no single whole number, ValueError where it is less.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be one whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def height_and_width(kernel_size: int | Sequence[int]) -> tuple[int, int]:
    """`kernel_size` as (height, width); one number stands for both.

    Raises TypeError or ValueError where it is neither a number nor a pair, or below 1.
    """
    if not isinstance(kernel_size, Sequence):
        kernel_size = (kernel_size, kernel_size)
    if len(kernel_size) != 2:
        raise ValueError(
            f"kernel_size must be (height, width) or one number, got {kernel_size!r}"
        )
    height, width = (whole_number("kernel_size", side, least=1) for side in kernel_size)
    return height, width


def check_image(image: Tensor, layer: Conv2d) -> None:
    """Raise TypeError or ValueError, saying what to do, where `layer` can't take it."""
    if not isinstance(image, Tensor):
        raise TypeError(
            f"the input must be a torch.Tensor, got {type(image).__name__}; "
            "torch.as_tensor makes one"
        )
    shape = tuple(image.shape)
    if len(shape) not in (3, 4):
        raise ValueError(
            f"the input must be [batch, channels, height, width] or "
            f"[channels, height, width], got {len(shape)} dimensions: {shape}"
        )
    channels, height, width = shape[-3:]
    if channels != layer.in_channels:
        raise ValueError(
            f"the input {shape} has {channels} channels, but the layer was built "
            f"with in_channels={layer.in_channels}"
        )
    if height < 1 or width < 1:
        raise ValueError(
            f"the input {shape} has no pixels: height and width must be 1+"
        )
    padded = (height + 2 * layer.padding, width + 2 * layer.padding)
    if padded[0] < layer.kernel_size[0] or padded[1] < layer.kernel_size[1]:
        raise ValueError(
            f"the kernel {layer.kernel_size} does not fit into the padded image "
            f"{padded} (image {(height, width)}, padding {layer.padding} on each "
            "side): use a larger image, more padding or a smaller kernel"
        )
