"""Lane detection: where do the lines of the road run?

Row-wise classification (Qin et al., 2020, https://arxiv.org/abs/2004.11757): a line of
a road crosses each row of the image at most once, so "which pixels are lane?" becomes
"in which column of this row is the line, if it is there at all?".
"""

from typing import ClassVar

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import grid_sample

from src.plots import BLUE, GREEN, ORANGE
from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import Encoder, UpsampleBlock, convolution
from src.vision_tasks.shared.task import Batch, Task, TaskRecipe, infer
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import LANE_LINES, LANE_ROWS

#: Columns a row is divided into: whatever the image's width, a cell is 1/48 of it.
CELLS = 48
METRIC = "F1 of points within 2% of the width"
#: A point is found if it is at most so far from the true one, in parts of the image's
#: width: 2 px of 96.
TOLERANCE = 2 / 96
#: Cells on each side of the best one over which a position is averaged.
REACH = 2
#: Weight of the distance to the true position, in cells, beside the cross-entropy.
DISTANCE_WEIGHT = 0.5


class LaneDetector(nn.Module):
    """Encoder, a short decoder, then a grid of 24 rows x 48 cells that is classified.

    forward: images [B, 3, H, W] in [0, 1] to logits [B, 3, 24, 48 + 1]: for each of
    LANE_LINES and LANE_ROWS one for each cell, left to right, and a last one for "not
    there". `lines` makes positions of them.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.sixteenth = UpsampleBlock(512, 256, 128)
        self.eighth = UpsampleBlock(128, 128, 64)
        self.quarter = UpsampleBlock(64, 64, 64)
        self.convolve = nn.Sequential(convolution(64, 64), convolution(64, 64))
        self.cell = nn.Conv2d(64, len(LANE_LINES), 1)
        self.absent = nn.Conv1d(64, len(LANE_LINES), 1)
        # Where the grid's points lie in an image whose corners are (-1, -1) and (1, 1).
        y, x = torch.meshgrid(
            2 * torch.tensor(LANE_ROWS) - 1, 2 * centres() - 1, indexing="ij"
        )
        self.register_buffer("points", torch.stack([x, y], dim=-1)[None])

    def forward(self, images: Tensor) -> Tensor:
        seen = self.encoder(images)
        x = self.sixteenth(seen.thirtysecond, seen.sixteenth)  # [B, 128, H/16, W/16]
        x = self.eighth(x, seen.eighth)  # [B, 64, H/8, W/8]
        x = self.quarter(x, seen.quarter)  # [B, 64, H/4, W/4]
        points = self.points.expand(len(x), -1, -1, -1)  # [B, 24, 48, 2]
        x = grid_sample(x, points, padding_mode="border", align_corners=False)
        x = self.convolve(x)  # [B, 64, 24, 48], whatever H and W
        cells = self.cell(x)  # [B, 3, 24, 48]
        absent = self.absent(x.mean(dim=3))  # [B, 3, 24]: a question to the whole row
        return torch.cat([cells, absent.unsqueeze(3)], dim=3)  # [B, 3, 24, 49]


def centres() -> Tensor:
    """[48]: the middle of each cell, in parts of the width."""
    return (torch.arange(CELLS) + 0.5) / CELLS


def positions(logits: Tensor) -> Tensor:
    """Logits [..., 48 + 1] to x in parts of the width [...], there or not.

    The expectation over the best cell and its neighbours: finer than a cell, and
    differentiable, as an argmax is not. Cells far away have no say, lest two likely
    places be answered by their middle, where nothing is.
    """
    cells = logits[..., :-1]
    number = torch.arange(CELLS, device=logits.device)
    far = (number - cells.argmax(-1, keepdim=True)).abs() > REACH
    weights = cells.masked_fill(far, -torch.inf).softmax(-1)
    return weights @ centres().to(logits)


def lines(logits: Tensor) -> Tensor:
    """Logits [B, 3, 24, 49] to x in parts of the width [B, 3, 24]; nan: not there."""
    absent = logits.softmax(-1)[..., -1] > 0.5
    return positions(logits).masked_fill(absent, torch.nan)


def probabilities(truth: Tensor) -> Tensor:
    """The distribution that the logits shall have: x or nan [...] to [..., 48 + 1].

    The two cells whose middles are left and right of x share the probability such that
    its expectation is x.
    """
    x = truth.nan_to_num().unsqueeze(-1) * CELLS - 0.5  # in cells, from a middle
    number = torch.arange(CELLS, device=truth.device)
    cells = (1 - (x.clamp(0, CELLS - 1) - number).abs()).clamp(min=0)
    absent = truth.isnan().unsqueeze(-1)
    return torch.cat([cells * ~absent, absent], dim=-1)


def count_points(predicted: Tensor, truth: Tensor) -> tuple[int, int, int]:
    """How many points are right, are predicted, are true; both [B, 3, 24], x or nan.

    A predicted point is right if the same line is within TOLERANCE in the same row.
    """
    right = (predicted - truth).abs() <= TOLERANCE + 1e-6  # False where one is nan
    return tuple(
        points.sum().item() for points in (right, ~predicted.isnan(), ~truth.isnan())
    )


def f1_score(predicted: Tensor, truth: Tensor) -> float:
    """2 right / (predicted + true): the harmonic mean of precision and recall.

    1.0 if there are no points, neither predicted nor true.
    """
    right, found, true = count_points(predicted, truth)
    return 2 * right / (found + true) if found + true else 1.0


def lane_metrics(predicted: Tensor, scenes: Scenes) -> dict[str, float]:
    """Every metric of lines [B, 3, 24], x in parts of the width or nan."""
    truth = true_lines(scenes)
    right, found, true = count_points(predicted, truth)
    width = scenes.images.shape[-1]
    error = (predicted - truth).abs() * width  # nan where one is absent
    both = error.isfinite().sum().clamp(min=1)
    return {
        METRIC: f1_score(predicted, truth),
        "precision": right / max(found, 1),
        "recall": right / max(true, 1),
        "mean error where both are (px)": (error.nansum() / both).item(),
    }


class LaneDetection(Task):
    name = "lane_detection"
    title = "Lane detection"
    hebrew = "זיהוי נתיבים"
    metric = METRIC
    baseline_name = "the training set's median lines"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=250)

    def build_model(self, *, pretrained: bool = False) -> LaneDetector:
        return LaneDetector(pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images = scenes.images.float() / 255
        truth = true_lines(scenes)
        if generator:  # mirror a half; the left edge then is the right one
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
            truth = torch.where(mirrored.view(-1, 1, 1), 1 - truth.flip(1), truth)
        return Batch((images,), (truth,))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        (truth,) = targets
        entropy = -(probabilities(truth) * output.log_softmax(-1)).sum(-1).mean()
        there = ~truth.isnan()
        if not there.any():
            return entropy
        distance = (positions(output)[there] - truth[there]).abs().mean() * CELLS
        return entropy + DISTANCE_WEIGHT * distance

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return lane_metrics(lines(infer(self, model, scenes)), scenes)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        median = median_lines(train).expand(len(test), -1, -1)
        return {self.baseline_name: lane_metrics(median, test)}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = scenes[:8]
        predicted = lines(infer(self, model, shown))
        figure, axes = grid(2, [""] * 4)
        for axis, image, truth, guess in zip(
            axes.flat, shown.images, true_lines(shown), predicted, strict=False
        ):
            show_image(axis, image)
            show_lines(axis, truth, image.shape[-2:], "white", "-", width=3.5)
            show_lines(axis, guess, image.shape[-2:], None, "-", width=1.5)
        figure.suptitle("white: truth; coloured: predicted", fontsize=10)
        return figure


def true_lines(scenes: Scenes) -> Tensor:
    """[N, 3, 24]: the true x in parts of the width; nan: outside the image."""
    return scenes.lanes / scenes.images.shape[-1]


def median_lines(scenes: Scenes) -> Tensor:
    """[3, 24]: the median x of each line and row; nan where most have no point."""
    truth = true_lines(scenes)
    rare = truth.isnan().float().mean(0) > 0.5
    return truth.nanmedian(dim=0).values.masked_fill(rare, torch.nan)


def show_lines(
    axis: Axes,
    points: Tensor,
    size: tuple[int, int],
    colour: str | None,
    style: str,
    width: float,
) -> None:
    """Draw lines, x in parts of the width [3, 24], on an image of (height, width)."""
    rows = torch.tensor(LANE_ROWS) * size[0] - 0.5
    for x, own in zip(points, (BLUE, ORANGE, GREEN), strict=True):
        axis.plot(x * size[1] - 0.5, rows, style, color=colour or own, linewidth=width)
    axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
