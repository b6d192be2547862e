"""Optical flow: where does every pixel move between two frames?"""

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import grid_sample, interpolate, normalize, pad

from src.vision_tasks.shared.drawing import grid, show_flow, show_image
from src.vision_tasks.shared.encoder import check_images, convolution
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes


class Flow(NamedTuple):
    """The flow in pixels, (right, down), as known after each level of the pyramid."""

    flow: Tensor  # [B, 2, H, W]: the answer, found at 1/2 of the resolution
    quarter: Tensor  # [B, 2, H, W]: as found at 1/4
    eighth: Tensor  # [B, 2, H, W]: as found at 1/8


def correlation(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """How like each place of `first` is to the places around it in `second`.

    first, second: features [B, C, h, w], each place's vector of length 1. Returns their
    scalar products [B, (2 radius + 1)^2, h, w]; channel 0 looks `radius` up and left,
    the last one down and right. Outside the image all is 0.
    """
    height, width = first.shape[2:]
    side = 2 * radius + 1
    rows = first.permute(0, 2, 3, 1)  # [B, h, w, C]
    around = pad(second, [radius] * 4).permute(0, 2, 1, 3)  # [B, h + 2r, C, w + 2r]
    found = []
    for down in range(side):
        # All of a row with all of another at once; matrix products are fast. Of them we
        # need a band: in line i those from column i on.
        products = rows @ around[:, down : down + height]  # [B, h, w, w + 2r]
        found.append(products.flatten(2).unfold(2, side, width + side))
    return torch.cat(found, dim=3).permute(0, 3, 1, 2)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Fetch for each place what lies where its flow leads: output(x) = input(x + flow).

    features: [B, C, h, w]; flow: [B, 2, h, w], (right, down), in pixels of that size.
    Interpolated bilinearly; 0 outside the image. Returns [B, C, h, w].
    """
    height, width = flow.shape[2:]
    down, right = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    place = torch.stack([right, down]) + flow  # [B, 2, h, w]
    # grid_sample counts from -1, the left edge of the first pixel, to 1.
    size = torch.tensor([width, height], device=flow.device).view(2, 1, 1)
    place = (2 * place + 1) / size - 1
    return grid_sample(features, place.permute(0, 2, 3, 1), align_corners=False)


def upsample_flow(flow: Tensor, factor: int) -> Tensor:
    """A flow in the pixels of an image `factor` times as large: its values grow too."""
    larger = interpolate(
        flow, scale_factor=factor, mode="bilinear", align_corners=False
    )
    return larger * factor


class Level(nn.Module):
    """One level of the pyramid: warp by what is known, correlate, correct.

    forward: features of both frames [B, C, h, w] and the flow so far [B, 2, h, w] to a
    better flow [B, 2, h, w].
    """

    def __init__(self, channels: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.match = nn.Conv2d(channels, channels, 1)
        self.correct = nn.Sequential(
            convolution((2 * radius + 1) ** 2 + channels + 2, 2 * channels),
            convolution(2 * channels, channels),
            nn.Conv2d(channels, 2, 3, padding=1),
        )

    def forward(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        here = normalize(self.match(first))  # [B, C, h, w], each place of length 1
        there = normalize(self.match(warp(second, flow)))  # [B, C, h, w]
        alike = correlation(here, there, self.radius)  # [B, (2 radius + 1)^2, h, w]
        return flow + self.correct(torch.cat([alike, first, flow], dim=1))


class FlowNet(nn.Module):
    """Coarse to fine, as PWC-Net (Sun et al., 2017, https://arxiv.org/abs/1709.02371).

    forward: two frames [B, 3, H, W] in [0, 1] to a `Flow`. Both go through the same
    convolutions. At 1/8 of the resolution a correlation within 4 places sees motions
    of up to 32 pixels; 1/4 and 1/2 correct what is left after warping.
    """

    def __init__(self) -> None:
        super().__init__()
        half = nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.ReLU(), convolution(24, 24)
        quarter = nn.MaxPool2d(2), convolution(24, 48)
        eighth = nn.MaxPool2d(2), convolution(48, 64), convolution(64, 64)
        self.encoder = nn.ModuleList(
            nn.Sequential(*stage) for stage in (half, quarter, eighth)
        )
        self.levels = nn.ModuleList([Level(64, 4), Level(48, 3), Level(24, 2)])

    def forward(self, first: Tensor, second: Tensor) -> Flow:
        check_images(first)
        if second.shape != first.shape:
            raise ValueError(
                f"the frames are {list(first.shape)} and {list(second.shape)}: "
                "they must have the same shape"
            )
        pyramid, features = [], torch.cat([first, second]) - 0.5  # [2B, 3, H, W]
        for stage in self.encoder:
            # [2B, 24, H/2, W/2], then [2B, 48, H/4, W/4] and [2B, 64, H/8, W/8]
            features = stage(features)
            pyramid.append(features)

        batch, _, height, width = first.shape
        flow = first.new_zeros(batch, 2, height // 16, width // 16)
        found = []
        for level, features in zip(self.levels, reversed(pyramid), strict=True):
            # [B, 2, H/8, W/8], then [B, 2, H/4, W/4] and [B, 2, H/2, W/2]
            flow = level(*features.chunk(2), upsample_flow(flow, 2))
            found.append(upsample_flow(flow, height // flow.shape[2]))  # [B, 2, H, W]
        return Flow(*reversed(found))


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """The distance in pixels between where each pixel went and where it was predicted.

    flow, truth: [B, 2, H, W]. Returns [B, H, W].
    Raises ValueError for different shapes.
    """
    if flow.shape != truth.shape:
        raise ValueError(
            f"flow is {list(flow.shape)} but truth {list(truth.shape)}: "
            "they must have the same shape"
        )
    return (flow - truth).norm(dim=1)


def flow_metrics(flow: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean end-point error in pixels, and shares of pixels; both [B, 2, H, W]."""
    error = end_point_error(flow, truth)
    # KITTI's outliers: off by more than 3 pixels and more than 5% of the motion.
    outlier = (error > 3) & (error > 0.05 * truth.norm(dim=1))
    return {
        "EPE (px)": error.mean().item(),
        "under 1 px": (error < 1).float().mean().item(),
        "Fl": outlier.float().mean().item(),
    }


class OpticalFlow(Task):
    name = "optical_flow"
    title = "Optical flow"
    hebrew = "זרימה אופטית"
    metric = "EPE (px)"
    baseline_name = "zero flow"
    higher_is_better = False
    recipe: ClassVar[TaskRecipe] = TaskRecipe(
        steps=600, batch_size=16, learning_rate=2e-3, pretrained=False
    )

    def build_model(self, *, pretrained: bool = False) -> FlowNet:
        if pretrained:
            raise ValueError("the optical-flow model has no pre-trained weights")
        return FlowNet()

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return torch.rand(batch, 3, 224, 224), torch.rand(batch, 3, 224, 224)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        first, second = scenes.images.float() / 255, scenes.next_images.float() / 255
        flow = scenes.flow
        if generator:
            # In a mirror, right is left: the sign of the first component changes.
            signs = torch.tensor([1.0, -1.0]).expand(len(flow), 2)
            first, second, flow, signs = mirror_half(
                generator, first, second, flow, signs
            )
            right, down = flow.unbind(1)
            flow = torch.stack([right * signs[:, 0].view(-1, 1, 1), down], dim=1)
        return Batch((first, second), (flow,))

    def loss(self, output: Flow, targets: tuple[Tensor, ...]) -> Tensor:
        """The mean end-point error of each level; a finer one counts twice as much."""
        (truth,) = targets
        weights = (1.0, 0.5, 0.25)
        return sum(
            weight * end_point_error(flow, truth).mean()
            for weight, flow in zip(weights, output, strict=True)
        )

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return flow_metrics(infer(self, model, scenes).flow, scenes.flow)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        mean = train.flow.mean(dim=0)  # [2, S, S]
        return {
            self.baseline_name: flow_metrics(torch.zeros_like(test.flow), test.flow),
            "mean flow at each pixel position": flow_metrics(
                mean.expand_as(test.flow), test.flow
            ),
        }

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = scenes[:4]
        predicted = infer(self, model, shown).flow
        titles = ["first frame", "brightness change", "true flow", "predicted flow"]
        figure, axes = grid(4, titles)
        for row, first, second, truth, flow in zip(
            axes, shown.images, shown.next_images, shown.flow, predicted, strict=True
        ):
            show_image(row[0], first)
            change = (second.float() - first.float()).mean(0)
            row[1].imshow(change.numpy(), cmap="gray", vmin=-128, vmax=128)
            largest = max(3.0, truth.norm(dim=0).quantile(0.98).item())
            for axis, motion in ((row[2], truth), (row[3], flow)):
                show_flow(axis, motion, largest)
                show_arrows(axis, motion)
        return figure


def show_arrows(axis: Axes, flow: Tensor, every: int = 12) -> None:
    """An arrow, as long as the motion, each `every` pixels. flow: [2, H, W]."""
    middle = slice(every // 2, None, every)
    right, down = flow[:, middle, middle].numpy()
    rows, columns = np.mgrid[
        middle.start : flow.shape[1] : every, middle.start : flow.shape[2] : every
    ]
    axis.quiver(
        columns,
        rows,
        right,
        down,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.008,
        color="black",
    )
