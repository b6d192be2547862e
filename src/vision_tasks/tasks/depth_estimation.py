"""Depth estimation: how far away is every pixel, judged from a single image?"""

from typing import ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from src.vision_tasks.shared.drawing import grid, show_depth, show_image
from src.vision_tasks.shared.encoder import Decoder, Encoder
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes

#: The depths that the model can give, in metres.
NEAREST, FARTHEST = 0.5, 500.0


class DepthNet(nn.Module):
    """A U-shape whose one output, squashed, lies between two depths on a log scale.

    forward: images [B, 3, H, W] in [0, 1] to metres [B, 1, H, W], between NEAREST and
    FARTHEST, so positive and finite whatever the weights are.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.decoder = Decoder(1)

    def forward(self, images: Tensor) -> Tensor:
        # [B, 64, H/2, W/2], [B, 64, H/4, W/4], [B, 128, H/8, W/8], [B, 256, H/16, W/16]
        # and [B, 512, H/32, W/32]
        features = self.encoder(images)
        part = self.decoder(features).sigmoid()  # [B, 1, H, W] in (0, 1)
        return NEAREST * (FARTHEST / NEAREST) ** part  # [B, 1, H, W] in metres


def log_depth_loss(depth: Tensor, truth: Tensor) -> Tensor:
    """The mean |log depth - log truth| of the pixels that have a truth (> 0).

    depth, truth: [B, 1, H, W] in metres, depth > 0. Returns a scalar, 0 if none has.
    """
    known = truth > 0
    # Without truth, compare with 1: the logarithm of 0 would make the sum nan.
    error = (depth.log() - torch.where(known, truth, 1.0).log()).abs()
    return (error * known).sum() / known.sum().clamp(min=1)


def depth_metrics(depth: Tensor, truth: Tensor) -> dict[str, float]:
    """The usual three, each over all pixels that have a truth (> 0).

    AbsRel: the mean of |error| / truth. delta<1.25: the part of the pixels where truth
    and prediction differ by a factor under 1.25. RMSE in metres.
    Raises ValueError for different shapes, or if no pixel has a truth.
    """
    if depth.shape != truth.shape:
        raise ValueError(
            f"depth is {list(depth.shape)} but truth {list(truth.shape)}: "
            "they must have the same shape"
        )
    known = truth > 0
    if not known.any():
        raise ValueError("truth is 0 at every pixel: there is nothing to compare with")
    depth, truth = depth[known], truth[known]
    error = (depth - truth).abs()
    ratio = torch.maximum(depth / truth, truth / depth)
    return {
        "AbsRel": (error / truth).mean().item(),
        "delta<1.25": (ratio < 1.25).float().mean().item(),
        "RMSE (m)": error.square().mean().sqrt().item(),
    }


class DepthEstimation(Task):
    name = "depth_estimation"
    title = "Depth estimation"
    hebrew = "הערכת עומק"
    metric = "AbsRel"
    baseline_name = "the median depth at each pixel position"
    higher_is_better = False
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=450, batch_size=16)

    def build_model(self, *, pretrained: bool = False) -> DepthNet:
        return DepthNet(pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images, depth = scenes.images.float() / 255, scenes.depth
        if generator:
            images, depth = mirror_half(generator, images, depth)
        return Batch((images,), (depth,))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return log_depth_loss(output, targets[0])

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return depth_metrics(infer(self, model, scenes), scenes.depth)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        known = train.depth.where(train.depth > 0, torch.nan)
        median = known.nanmedian(dim=0).values  # [1, S, S]; nan where always sky
        median = median.where(median > 0, known.nanmedian())
        metrics = depth_metrics(median.expand_as(test.depth), test.depth)
        return {self.baseline_name: metrics}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = scenes[:4]
        predicted = infer(self, model, shown)
        titles = ["image", "true depth", "predicted depth", "relative error"]
        figure, axes = grid(4, titles)
        for row, image, truth, depth in zip(
            axes, shown.images, shown.depth[:, 0], predicted[:, 0], strict=True
        ):
            show_image(row[0], image)
            show_depth(row[1], truth)
            show_depth(row[2], depth.where(truth > 0, 0))
            error = ((depth - truth).abs() / truth).numpy()
            error = np.ma.masked_where(truth.numpy() == 0, error)
            row[3].set_facecolor("0.85")
            row[3].imshow(error, cmap="gray_r", vmin=0, vmax=0.5)
        metres = (2, 5, 10, 20, 60)
        bars = (
            (axes[:, 2], [-np.log(m) for m in metres], [f"{m} m" for m in metres]),
            (axes[:, 3], [0, 0.25, 0.5], ["0", "25%", "≥ 50%"]),
        )
        for column, ticks, labels in bars:
            bar = figure.colorbar(
                column[0].images[0],
                ax=column,
                location="bottom",
                ticks=ticks,
                aspect=12,
                pad=0.01,
            )
            bar.ax.set_xticklabels(labels, fontsize=7)
        return figure
