"""Question 3's new network: three residual blocks, average pooling, one linear head.

A residual block (He et al., 2015, https://arxiv.org/abs/1512.03385) adds to its input
what two convolutions make of it:

    y = relu(F(x) + S(x)),   F = BN ∘ conv3x3 ∘ relu ∘ BN ∘ pool ∘ conv3x3,

where S, the shortcut, would be the identity, were it not that our blocks change the
shape: each halves height and width, so S averages 2x2 pixels and maps the channels by a
1x1 convolution.

The input is an image of 32x32 pixels enlarged to 224x224 (or 64x64), which the first
block averages back. That leaves a slight blur, of kernel (6, 37, 6)/49 along each axis
for 224 pixels and (1, 6, 1)/8 for 64: weights trained at one size serve the other.
"""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Maps [B, C_in, H, W] to [B, C_out, H/2, W/2].

    in_channels, out_channels: C_in and C_out.
    start_size: given for the block that meets the image: its input is first averaged
        down to this height and width, which H and W above then are.
    """

    def __init__(
        self, in_channels: int, out_channels: int, start_size: int | None = None
    ) -> None:
        super().__init__()
        self.shrink = nn.AdaptiveAvgPool2d(start_size) if start_size else nn.Identity()
        # BatchNorm subtracts the mean, so a convolution before it needs no bias.
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        image = self.shrink(image)
        return torch.relu(self.residual(image) + self.shortcut(image))


class ThreeBlockNet(nn.Module):
    """Three residual blocks, adaptive average pooling, a linear head.

    widths: channels that leave each of the three blocks.
    Input [B, 3, S, S] with S a multiple of 32, output logits [B, classes]. Between
    them, for widths (a, b, c): [B, a, 16, 16], [B, b, 8, 8], [B, c, 4, 4], [B, c].
    """

    def __init__(
        self, widths: tuple[int, int, int] = (64, 128, 256), classes: int = 10
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.block1 = ResidualBlock(3, first, start_size=32)
        self.block2 = ResidualBlock(first, second)
        self.block3 = ResidualBlock(second, third)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(image)))
        return self.fc(self.pool(features).flatten(1))
