"""Question 3's new network: three residual blocks, average pooling, one linear head.

A residual block (He et al., 2015, https://arxiv.org/abs/1512.03385) adds to its input
what two convolutions make of it:

    y = gelu(F(x) + S(x)),   F = BN ∘ conv3x3 ∘ gelu ∘ BN ∘ pool ∘ conv3x3,

where S, the shortcut, would be the identity, were it not that our blocks change the
shape: each halves height and width, so S averages 2x2 pixels and maps the channels by a
1x1 convolution. GELU (Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415) is
a smooth ReLU. In the first block F begins with one convolution more, whose filters are
computed and not learned (`whiten_first_convolution`).

The input is what the transfer model gets: a CIFAR-10 image of 32x32 pixels enlarged to
64x64 or 224x224. An enlargement holds no new information, so the first block begins by
averaging it back to 32x32. Enlarging bilinearly and averaging back leaves the image but
for a slight blur, of kernel (1, 6, 1)/8 along each axis for 64 pixels and (6, 37, 6)/49
for 224. Hence the cost of the network hardly depends on the enlargement, and weights
trained at one size serve the other.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

#: Side, in pixels, of the images before anything enlarged them.
ORIGINAL_SIZE = 32
#: Channels that the first block whitens the image into: 12 filters, their negatives.
WHITENED = 24


class ResidualBlock(nn.Module):
    """Maps [B, C_in, H, W] to [B, C_out, H/2, W/2].

    in_channels, out_channels: C_in and C_out.
    original_size: given for the block that meets the image. It first averages its input
        to this height and width (so that H and W above are original_size), and its
        residual begins with one more convolution, which whitens the image.
    """

    def __init__(
        self, in_channels: int, out_channels: int, original_size: int | None = None
    ) -> None:
        super().__init__()
        self.shrink = self.whiten = nn.Identity()
        inner = in_channels
        if original_size:
            inner = WHITENED
            self.shrink = nn.AdaptiveAvgPool2d(original_size)
            self.whiten = nn.Sequential(
                nn.Conv2d(in_channels, inner, kernel_size=3, padding=1), nn.GELU()
            )
        # BatchNorm subtracts the mean, so a convolution before it needs no bias.
        self.residual = nn.Sequential(
            nn.Conv2d(inner, out_channels, kernel_size=3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(out_channels),
            nn.GELU(),
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
        return gelu(self.residual(self.whiten(image)) + self.shortcut(image))


class ThreeBlockNet(nn.Module):
    """Three residual blocks, adaptive average pooling, a linear head.

    widths: channels that leave each of the three blocks.
    Input [B, 3, S, S] with S a multiple of 32, output logits [B, classes]. Between
    them, for widths (a, b, c): [B, a, 16, 16], [B, b, 8, 8], [B, c, 4, 4], [B, c].
    Raises ValueError unless there are three widths.
    """

    def __init__(
        self, widths: tuple[int, int, int] = (64, 256, 256), classes: int = 10
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"three blocks take three widths, got {widths}")
        first, second, third = widths
        self.block1 = ResidualBlock(3, first, original_size=ORIGINAL_SIZE)
        self.block2 = ResidualBlock(first, second)
        self.block3 = ResidualBlock(second, third)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(image)))
        return self.fc(self.pool(features).flatten(1))


@torch.no_grad()
def whiten_first_convolution(model: ThreeBlockNet, images: Tensor) -> None:
    """Make the first convolution a whitening of the images' 3x3 patches, for good.

    Neighbouring pixels are nearly equal, so random filters give nearly equal outputs,
    which may slow learning down. Filters along the strongest principal axes of the
    patches, each divided by sqrt(variance along it + 0.01), give uncorrelated outputs
    of a variance near 1, less along the weakest axes; each comes with its negative, of
    which GELU would otherwise keep little. Only the biases go on learning.

    images: normalised images [N, 3, S, S], of the training set only.
    Source: Coates and Ng (2012), "Learning feature representations with k-means"; in a
    network trained as this one is, Page (2019), "How to train your ResNet 8: bag of
    tricks", and Jordan (2024), https://arxiv.org/abs/2404.00498.
    """
    pixels = model.block1.shrink(images)
    patches = pixels.unfold(2, 3, 1).unfold(3, 3, 1)  # [N, 3, 30, 30, 3, 3]
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 27).double()
    variance, axes = torch.linalg.eigh(patches.T.cov())  # ascending
    filters = (axes / (variance + 1e-2).sqrt()).T.flip(0).reshape(27, 3, 3, 3)
    strongest = filters[: WHITENED // 2]
    convolution = model.block1.whiten[0]
    convolution.weight.copy_(torch.cat([strongest, -strongest]))
    convolution.weight.requires_grad_(False)
    convolution.bias.zero_()
