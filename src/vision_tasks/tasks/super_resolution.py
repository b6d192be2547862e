"""Super-resolution: an image with four times the height and width of a small one."""

from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import check_images
from src.vision_tasks.shared.image_quality import psnr, ssim
from src.vision_tasks.shared.real_images import SHOWN, real_images, some_real
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes

#: How many times height and width grow.
SCALE = 4
#: The width, in units of the values in [0, 1], of the round bottom of the loss.
EPSILON = 1e-3


def shrink(images: Tensor) -> Tensor:
    """The low-resolution version: [B, 3, 4h, 4w] to [B, 3, h, w], values in [0, 1].

    A bicubic filter as wide as the reduction asks for (antialias), so that fine
    patterns become grey and not false coarse ones; rounded to 8 bits, as in a file.
    """
    check_images(images, multiple=SCALE)
    small = interpolate(images, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return (small * 255).round().clamp(0, 255) / 255


def upsample(low: Tensor) -> Tensor:
    """Bicubic interpolation, the baseline: [B, 3, h, w] to [B, 3, 4h, 4w]."""
    return interpolate(low, scale_factor=SCALE, mode="bicubic", align_corners=False)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, added to the input. No BatchNorm.

    forward: [B, C, h, w] to [B, C, h, w].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class SuperResolver(nn.Module):
    """A small EDSR (Lim et al., 2017, https://arxiv.org/abs/1707.02921).

    forward: images [B, 3, h, w] in [0, 1], of any size, to [B, 3, 4h, 4w]. Values may
    lie a little outside [0, 1]; clamp them to look at or measure.
    """

    def __init__(self, channels: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])
        self.tail = nn.Conv2d(channels, 3 * SCALE**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(SCALE)
        # The last layer begins at zero: an untrained network is bicubic interpolation.
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, low: Tensor) -> Tensor:
        check_images(low, multiple=1)
        x = self.head(low - 0.5)  # [B, 64, h, w]
        x = x + self.body(x)  # [B, 64, h, w]: all the work is at low resolution
        x = self.tail(x)  # [B, 3 * 16, h, w]: the 4 x 4 pixels of each pixel
        x = self.shuffle(x)  # [B, 3, 4h, 4w]
        return upsample(low) + x  # [B, 3, 4h, 4w]: only the missing detail is learned


def charbonnier(images: Tensor, truth: Tensor) -> Tensor:
    """The mean of sqrt(error² + ε²): |error| with a round bottom. EPSILON at least."""
    return ((images - truth).square() + EPSILON**2).sqrt().mean()


def quality(images: Tensor, truth: Tensor, suffix: str = "") -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of images; both [B, 3, H, W] in [0, 1].

    suffix: added to the names of both, to tell one set of images from another.
    """
    return {
        f"PSNR (dB){suffix}": psnr(images, truth).mean().item(),
        f"SSIM{suffix}": ssim(images, truth).mean().item(),
    }


class SuperResolution(Task):
    name = "super_resolution"
    title = "Super-resolution"
    hebrew = "סופר-רזולוציה"
    metric = "PSNR (dB)"
    baseline_name = "bicubic interpolation"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(
        steps=1000, batch_size=16, pretrained=False
    )

    def build_model(self, *, pretrained: bool = False) -> SuperResolver:
        """Always random weights: this network has no part that was pre-trained."""
        return SuperResolver()

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Images of 56 x 56 pixels, which the model makes 224 x 224."""
        return (torch.rand(batch, 3, 56, 56),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images = scenes.images
        if generator:
            images = some_real(images, generator)
            (images,) = mirror_half(generator, images)
        images = images.float() / 255
        return Batch((shrink(images),), (images,))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return charbonnier(output, targets[0])

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        truth = scenes.images.float() / 255
        real = real_images(train=False).float() / 255
        with torch.no_grad():
            real_output = model(shrink(real)).clamp(0, 1)
        output = infer(self, model, scenes).clamp(0, 1)
        return quality(output, truth) | quality(real_output, real, ", CIFAR-10")

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        truth = test.images.float() / 255
        real = real_images(train=False).float() / 255
        return {
            self.baseline_name: quality(bicubic_of(truth), truth)
            | quality(bicubic_of(real), real, ", CIFAR-10")
        }

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        images = [*scenes[:3].images, real_images(train=False)[SHOWN]]
        columns = ["low resolution", "bicubic", "prediction", "truth"]
        figure, axes = grid(len(images), columns)
        for row, image in zip(axes, images, strict=True):
            truth = image[None].float() / 255
            low = shrink(truth)
            with torch.no_grad():
                output = model(low).clamp(0, 1)
            pictures = [low, bicubic_of(truth), output, truth]
            for axis, picture in zip(row, pictures, strict=True):
                show_image(axis, picture[0])
                text = f"{picture.shape[3]} × {picture.shape[2]} pixels"
                if picture is pictures[1] or picture is output:
                    text = f"{psnr(picture, truth).item():.1f} dB"
                axis.set_xlabel(text, fontsize=9)
        axes[-1, 0].set_ylabel("CIFAR-10", fontsize=9)
        return figure


def bicubic_of(truth: Tensor) -> Tensor:
    """What bicubic interpolation makes of the shrunk images; like `truth`."""
    return upsample(shrink(truth)).clamp(0, 1)
