"""Image inpainting: fill in the missing pixels so that the image looks whole."""

from typing import ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import Decoder, Encoder, check_images, convolution
from src.vision_tasks.shared.image_quality import psnr
from src.vision_tasks.shared.real_images import SHOWN, real_images, some_real
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes

#: A mask is made of so many rectangles and one brush stroke through so many points.
RECTANGLES, POINTS = 2, 9
#: Sides of a rectangle and half the width of a stroke, as parts of the image's side.
SIDES, HALF_WIDTHS = (0.08, 0.2), (0.012, 0.03)
#: Random numbers that make one mask.
NUMBERS = 4 * RECTANGLES + 2 * POINTS + 1
#: What is farther inside a hole, in pixels, is measured by itself as well.
INSIDE = 3
#: Weights in the loss, beside the error in the hole with weight 1.
VALID_WEIGHT, GRADIENT_WEIGHT = 0.2, 0.1


class Inpainted(NamedTuple):
    image: Tensor  # [B, 3, H, W]: the known pixels as they were, the others filled in
    painted: Tensor  # [B, 3, H, W]: what the network paints, also over known pixels


class Inpainter(nn.Module):
    """Corrects a smooth filling by what ResNet-18 sees around the hole.

    forward: images [B, 3, H, W] in [0, 1] and masks [B, 1, H, W], 1 where a pixel is
    missing and 0 where it is known, to `Inpainted`. H and W are multiples of 32. What
    the image holds at missing pixels is never looked at.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.decoder = Decoder(16)
        # At full resolution, since holes are thin; dilated, to see across them.
        self.refine = nn.Sequential(
            convolution(16 + 3 + 1, 32),
            convolution(32, 32, dilation=2),
            convolution(32, 32, dilation=4),
            convolution(32, 32),
        )
        self.head = nn.Conv2d(32, 3, 3, padding=1)
        # The last layer begins at zero: an untrained network leaves the smooth filling.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, missing: Tensor) -> Inpainted:
        check_images(images)
        check_masks(images, missing)
        hole = missing != 0
        smooth = diffusion_fill(images, hole, iterations=20)  # [B, 3, H, W]
        x = self.decoder(self.encoder(smooth))  # [B, 16, H, W]
        x = torch.cat([x, smooth - 0.5, hole.to(smooth)], dim=1)  # [B, 20, H, W]
        x = self.head(self.refine(x))  # [B, 3, H, W]: what smoothness lacks
        painted = smooth + x  # [B, 3, H, W]
        return Inpainted(torch.where(hole, painted, images), painted)


def check_masks(images: Tensor, missing: Tensor) -> None:
    """Raise ValueError unless there is a mask of 0 and 1 for every image."""
    expected = (len(images), 1, *images.shape[2:])
    if tuple(missing.shape) != expected:
        raise ValueError(f"expected masks {list(expected)}, got {list(missing.shape)}")
    if not ((missing == 0) | (missing == 1)).all():
        raise ValueError(
            "a mask holds 1 where a pixel is missing and 0 elsewhere; got values from "
            f"{missing.min().item():g} to {missing.max().item():g}"
        )


# --------------------------------------------------------------------------- masks


def draw_masks(numbers: Tensor, height: int, width: int) -> Tensor:
    """Masks of rectangles and a brush stroke: float32 [B, 1, height, width], 0 or 1.

    numbers: [B, NUMBERS], uniform in [0, 1): they decide all.
    """
    y = (torch.arange(height) + 0.5).view(-1, 1) / height  # 0...1 down the image
    x = (torch.arange(width) + 0.5) / width
    # Every number gets the two dimensions of the pixels.
    boxes, points, half_width = numbers[..., None, None].split(
        [4 * RECTANGLES, 2 * POINTS, 1], dim=1
    )
    middle_x, middle_y, wide, high = boxes.chunk(4, dim=1)  # [B, RECTANGLES, 1, 1]
    shortest, longest = SIDES
    wide = shortest + (longest - shortest) * wide
    high = shortest + (longest - shortest) * high
    rectangles = ((x - middle_x).abs() <= wide / 2) & ((y - middle_y).abs() <= high / 2)

    point_x, point_y = points.chunk(2, dim=1)  # [B, POINTS, 1, 1]
    along_x, along_y = point_x.diff(dim=1), point_y.diff(dim=1)  # of each segment
    from_x, from_y = x - point_x[:, :-1], y - point_y[:, :-1]  # [B, POINTS - 1, H, W]
    part = (from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2 + 1e-9)
    part = part.clamp(0, 1)  # of the segment, up to its point next to the pixel
    distance = torch.hypot(from_x - part * along_x, from_y - part * along_y)
    thinnest, thickest = HALF_WIDTHS
    stroke = distance <= thinnest + (thickest - thinnest) * half_width
    return torch.cat([rectangles, stroke], dim=1).any(dim=1, keepdim=True).float()


def masks_of(images: Tensor) -> Tensor:
    """Each image's own mask, always the same for it, whatever else is in the batch.

    images: uint8 [B, 3, H, W]. Returns [B, 1, H, W].
    """
    seeds = images.long().sum(dim=(1, 2, 3)).tolist()
    numbers = [
        torch.rand(NUMBERS, generator=Generator().manual_seed(seed)) for seed in seeds
    ]
    return draw_masks(torch.stack(numbers), *images.shape[2:])


# --------------------------------------------------------------- fillings to beat


def known_mean(images: Tensor, missing: Tensor) -> Tensor:
    """The mean colour of each image's known pixels: [B, 3, 1, 1]."""
    known = missing == 0  # [B, 1, H, W]
    total = images.masked_fill(~known, 0).sum(dim=(2, 3), keepdim=True)
    return total / known.sum(dim=(2, 3), keepdim=True).clamp(min=1)


def mean_fill(images: Tensor, missing: Tensor) -> Tensor:
    """[B, 3, H, W] with the known pixels' mean colour at the missing ones."""
    return torch.where(missing != 0, known_mean(images, missing), images)


def diffusion_fill(images: Tensor, missing: Tensor, iterations: int = 60) -> Tensor:
    """[B, 3, H, W] with the known colours spread into the holes like heat.

    The limit solves Laplace's equation in the hole with the known pixels as its
    boundary: every missing pixel is the mean of its four neighbours (the image's edge
    counts as its own neighbour). Jacobi's iteration approaches it; starting from the
    solution at half the resolution, it needs few steps.
    """
    hole = missing != 0
    height, width = images.shape[2:]
    if hole.any() and height % 2 == width % 2 == 0 and min(height, width) > 4:
        known = avg_pool2d((~hole).to(images), 2)  # [B, 1, H/2, W/2]
        coarse = avg_pool2d(images.masked_fill(hole, 0), 2) / known.clamp(min=0.25)
        coarse = diffusion_fill(coarse, known == 0, iterations)
        start = interpolate(coarse, scale_factor=2, mode="bilinear")
    else:
        start = known_mean(images, hole)
    filled = torch.where(hole, start, images)
    for _ in range(iterations):
        padded = pad(filled, (1, 1, 1, 1), mode="replicate")
        beside = padded[:, :, 1:-1, :-2] + padded[:, :, 1:-1, 2:]
        above_below = padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1]
        filled = torch.where(hole, (beside + above_below) / 4, images)
    return filled


# ---------------------------------------------------------------------------- task


class ImageInpainting(Task):
    name = "image_inpainting"
    title = "Image inpainting"
    hebrew = "השלמת תמונה"
    metric = "PSNR in the hole (dB)"
    baseline_name = "diffusion fill"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=700, batch_size=8)

    def build_model(self, *, pretrained: bool = False) -> Inpainter:
        return Inpainter(pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Images and masks, 224 x 224."""
        masks = draw_masks(torch.rand(batch, NUMBERS), 224, 224)
        return torch.rand(batch, 3, 224, 224), masks

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images = scenes.images
        if generator:
            images = some_real(images, generator)
            (images,) = mirror_half(generator, images)
            numbers = torch.rand(len(images), NUMBERS, generator=generator)
            missing = draw_masks(numbers, *images.shape[2:])
        else:
            missing = masks_of(images)
        images = images.float() / 255
        return Batch((images, missing), (images, missing))

    def loss(self, output: Inpainted, targets: tuple[Tensor, ...]) -> Tensor:
        truth, missing = targets
        holes = 3 * missing.sum()  # missing values, of three colours
        error = output.image - truth  # 0 where known
        hole = error.abs().sum() / holes
        valid = ((output.painted - truth).abs() * (1 - missing)).mean()
        gradient = (error.diff(dim=2).abs().sum() + error.diff(dim=3).abs().sum()) / (
            2 * holes
        )
        return hole + VALID_WEIGHT * valid + GRADIENT_WEIGHT * gradient

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        truth, missing = self.prepare(scenes).targets
        output = infer(self, model, scenes).image.clamp(0, 1)
        real = real_images(train=False)
        photos, holes = real.float() / 255, masks_of(real)
        with torch.no_grad():
            completed = model(photos, holes).image.clamp(0, 1)
        return hole_metrics(output, truth, missing) | {
            f"{self.metric}, CIFAR-10": mean_psnr(completed, photos, holes)
        }

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        truth, missing = self.prepare(test).targets
        real = real_images(train=False)
        photos, holes = real.float() / 255, masks_of(real)
        return {
            name: hole_metrics(fill(truth, missing), truth, missing)
            | {
                f"{self.metric}, CIFAR-10": mean_psnr(
                    fill(photos, holes), photos, holes
                )
            }
            for name, fill in {
                "diffusion fill": diffusion_fill,
                "mean fill": mean_fill,
            }.items()
        }

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        images = [*scenes[:3].images, real_images(train=False)[SHOWN]]
        columns = ["input", "diffusion", "prediction", "truth"]
        figure, axes = grid(len(images), columns)
        for row, image in zip(axes, images, strict=True):
            truth, missing = image[None].float() / 255, masks_of(image[None])
            diffused = diffusion_fill(truth, missing)
            with torch.no_grad():
                output = model(truth, missing).image.clamp(0, 1)
            magenta = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)
            holed = torch.where(missing != 0, magenta, truth)
            for axis, picture in zip(
                row, [holed, diffused, output, truth], strict=True
            ):
                show_image(axis, picture[0])
            for axis, picture in zip(row[1:3], [diffused, output], strict=True):
                quality = psnr(picture, truth, missing).item()
                axis.set_xlabel(f"{quality:.1f} dB in the hole", fontsize=9)
        axes[-1, 0].set_ylabel("CIFAR-10", fontsize=9)
        return figure


def inside(missing: Tensor, pixels: int) -> Tensor:
    """Of masks [B, 1, H, W] what is so far inside: no known pixel within `pixels`.

    Counted in rows and columns, as a king moves.
    """
    return 1 - max_pool2d(1 - missing, 2 * pixels + 1, stride=1, padding=pixels)


def mean_psnr(images: Tensor, truth: Tensor, missing: Tensor) -> float:
    """The mean PSNR, in dB, in the holes of those images that have one."""
    some = missing.flatten(1).any(1)
    return psnr(images[some], truth[some], missing[some]).mean().item()


def hole_metrics(images: Tensor, truth: Tensor, missing: Tensor) -> dict[str, float]:
    """PSNR in the holes, and far inside them, where less is determined."""
    return {
        "PSNR in the hole (dB)": mean_psnr(images, truth, missing),
        f"the same, over {INSIDE} px inside": mean_psnr(
            images, truth, inside(missing, INSIDE)
        ),
    }
