"""ResNet-18 as an encoder, and the decoder that goes back to the image's resolution.

Tasks with an answer for every pixel share this U-shape (Ronneberger et al., 2015,
https://arxiv.org/abs/1505.04597): the encoder trades resolution for meaning, the
decoder enlarges step by step and at each step looks again at what the encoder saw at
that resolution, through a skip connection.

Why not one transposed convolution from H/32 back to H? Its output size is

    (n - 1) * stride - 2 * padding + kernel,

so kernel 16, stride 8, padding 4 enlarge 7 to 6 * 8 - 8 + 16 = 56, eightfold, not to
224. We enlarge by interpolation and convolve afterwards, which also avoids the
chequerboard that overlapping kernels leave (Odena et al., 2016,
https://doi.org/10.23915/distill.00003).
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import resnet18

from src.weights import PretrainedWeights, load_pretrained

#: Height and width of an image must be multiples of this, the encoder's total stride.
STRIDE = 32
#: Channels of the encoder's features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution.
CHANNELS = (64, 64, 128, 256, 512)


def check_images(images: Tensor, channels: int = 3, multiple: int = STRIDE) -> None:
    """Raise ValueError unless `images` is [B, channels, H, W], H and W multiples."""
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != channels or 0 in shape:
        raise ValueError(f"expected images [B, {channels}, H, W], got {list(shape)}")
    if shape[2] % multiple or shape[3] % multiple:
        raise ValueError(
            f"height and width must be multiples of {multiple}, got {shape[2]} x "
            f"{shape[3]}: resize or pad the image"
        )


@cache
def start_weights() -> PretrainedWeights:
    """What pre-trained encoders start from, on any machine; read, and said, once."""
    return load_pretrained("standin")


class Features(NamedTuple):
    """The encoder's features of images [B, 3, H, W], from fine to coarse."""

    half: Tensor  # [B, 64, H/2, W/2]
    quarter: Tensor  # [B, 64, H/4, W/4]
    eighth: Tensor  # [B, 128, H/8, W/8]
    sixteenth: Tensor  # [B, 256, H/16, W/16]
    thirtysecond: Tensor  # [B, 512, H/32, W/32]


class Encoder(nn.Module):
    """torchvision's ResNet-18 without average pooling and head.

    forward: images [B, 3, H, W] with values in [0, 1] to `Features`. They are
    normalised inside, with the mean and standard deviation of the pre-trained weights'
    own training images.
    Raises ValueError for other shapes, or H or W that are no multiples of 32.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if pretrained:
            weights = start_weights()
            network, mean, std = weights.build(), weights.mean, weights.std
        else:
            network = resnet18(weights=None)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu)
        self.pool = network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.train()

    def forward(self, images: Tensor) -> Features:
        check_images(images)
        half = self.stem((images - self.mean) / self.std)  # [B, 64, H/2, W/2]
        quarter = self.layer1(self.pool(half))  # [B, 64, H/4, W/4]
        eighth = self.layer2(quarter)  # [B, 128, H/8, W/8]
        sixteenth = self.layer3(eighth)  # [B, 256, H/16, W/16]
        thirtysecond = self.layer4(sixteenth)  # [B, 512, H/32, W/32]
        return Features(half, quarter, eighth, sixteenth, thirtysecond)


def convolution(
    in_channels: int, out_channels: int, dilation: int = 1
) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU; height and width stay."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class UpsampleBlock(nn.Module):
    """Double the resolution, look at the skip connection, convolve.

    forward: [B, C_in, h, w] and [B, C_skip, 2h, 2w] to [B, C_out, 2h, 2w].
    """

    def __init__(self, in_channels: int, skip: int, out_channels: int) -> None:
        super().__init__()
        self.convolve = convolution(in_channels + skip, out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        enlarged = interpolate(features, scale_factor=2, mode="nearest")
        return self.convolve(torch.cat([enlarged, skip], dim=1))


class Decoder(nn.Module):
    """From the encoder's features back to `out_channels` values for every pixel.

    forward: `Features` of images [B, 3, H, W] to [B, out_channels, H, W].
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.to_sixteenth = UpsampleBlock(512, 256, 128)
        self.to_eighth = UpsampleBlock(128, 128, 64)
        self.to_quarter = UpsampleBlock(64, 64, 48)
        self.to_half = UpsampleBlock(48, 64, 32)
        self.head = nn.Conv2d(32, out_channels, 3, padding=1)

    def forward(self, features: Features) -> Tensor:
        x = self.to_sixteenth(features.thirtysecond, features.sixteenth)
        # [B, 128, H/16, W/16]
        x = self.to_eighth(x, features.eighth)  # [B, 64, H/8, W/8]
        x = self.to_quarter(x, features.quarter)  # [B, 48, H/4, W/4]
        x = self.to_half(x, features.half)  # [B, 32, H/2, W/2]
        x = self.head(x)  # [B, out_channels, H/2, W/2]
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
