"""Anomaly detection: what is there that has never been seen before?

Trained on normal scenes alone. What an anomaly looks like cannot be known, but it can
be invented: blobs of random shape and texture are painted into normal scenes, and a
network learns to find them (the idea of CutPaste, Li et al., 2021,
https://arxiv.org/abs/2104.04015, and DRAEM, Zavrtanik et al., 2021,
https://arxiv.org/abs/2108.07610). To do so it must learn what normal scenes look like,
and that cars and people of all colours belong to them.
"""

import math
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import (
    affine_grid,
    binary_cross_entropy_with_logits,
    grid_sample,
)

from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import Decoder, Encoder
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes

#: Blobs painted into an image, at most, and the probability of each.
BLOBS, BLOB_CHANCE = 3, 0.4
#: How far away they stand, in metres.
NEAREST, FARTHEST = 4.0, 30.0
#: Part of the image's pixels, the most unusual ones, of which the score is the mean.
SCORED = 0.005


class AnomalyDetector(nn.Module):
    """Encoder, decoder with skip connections, one logit for each pixel.

    forward: images [B, 3, H, W] in [0, 1] to an anomaly map [B, 1, H, W], logits: the
    higher, the less a pixel looks like part of a normal scene.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.decoder = Decoder(1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)  # [B, 64, H/2, W/2] … [B, 512, H/32, W/32]
        return self.decoder(features)  # [B, 1, H, W]


# --- invented anomalies ---


def invent(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Paint up to three blobs into each image.

    images: [B, 3, H, W] in [0, 1]. Returns images of the same shape, and where they
    were painted on, [B, 1, H, W], 0 or 1.
    """
    painted, mask = images, torch.zeros_like(images[:, :1])
    for _ in range(BLOBS):
        shape, across, down = blob(images, generator)
        shape = shape * (uniform(images, 0, 1, generator) < BLOB_CHANCE)
        cover = shape * (1 - 0.5 * uniform(images, 0, 1, generator) ** 3)
        filling = texture(images, across, down, generator)
        painted = painted * (1 - cover) + filling * cover
        mask = torch.maximum(mask, (shape > 0.5).float())
    return painted, mask


def uniform(images: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """[B, 1, 1, 1]: a random number for each image."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator)


def blob(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random shape for each image, of a size that a thing on the road could have.

    Returns [B, 1, H, W], 1 inside, 0 outside, and its own coordinates (across, down),
    [B, 1, H, W] each, from -1 to 1 within it.
    """

    def draw(low: float, high: float) -> Tensor:
        return uniform(images, low, high, generator)

    # Seen from 1.5 m above the ground, a foot so many metres away is at this row.
    distance = NEAREST * (FARTHEST / NEAREST) ** draw(0, 1)
    foot = 0.5 + 1.5 / distance
    half_width = (draw(0.3, 2) / distance).clamp(0.02, 0.2)
    half_height = (draw(0.2, 1.2) / distance).clamp(0.02, 0.2)
    height, width = images.shape[2:]
    y = (torch.arange(height) + 0.5).view(-1, 1) / height - foot
    y = y + half_height * draw(0, 1)
    x = (torch.arange(width) + 0.5) / width - draw(0.1, 0.9)
    tilt = draw(-0.3, 0.3)
    across = (x * tilt.cos() + y * tilt.sin()) / half_width
    down = (y * tilt.cos() - x * tilt.sin()) / half_height
    # A superellipse, from a diamond (1) to nearly a box (8), with a wavy outline.
    power = 2 ** draw(0, 3)
    radius = (across.abs() ** power + down.abs() ** power + 1e-6) ** (1 / power)
    angle = torch.atan2(down, across)
    outline = 1 + sum(
        draw(-0.25, 0.25) * torch.cos(waves * angle + draw(0, 2 * math.pi))
        for waves in (2, 3, 5)
    )
    pixels = torch.minimum(half_width, half_height) * width  # so the edge is 1 px wide
    return ((outline - radius) * pixels + 0.5).clamp(0, 1), across, down


def texture(
    images: Tensor, across: Tensor, down: Tensor, generator: Generator
) -> Tensor:
    """[B, 3, H, W]: what the blobs are filled with.

    A piece of another scene, turned and scaled; or paint, plain or in two colours, in
    the light of the scene and darker towards the ground; or a mixture.
    """
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return uniform(images, low, high, generator)

    def colour() -> Tensor:
        grey = torch.rand(count, 1, 1, 1, generator=generator)
        bright = torch.rand(count, 3, 1, 1, generator=generator)
        return torch.where(draw(0, 1) < 0.4, grey, bright)

    angle = draw(0, 2 * math.pi).view(-1)
    scale = 2 ** draw(-1.5, 0.5).view(-1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
    shift = 2 * torch.rand(count, 2, 1, generator=generator) - 1
    pose = torch.cat([turn.view(-1, 2, 2) * scale.view(-1, 1, 1), shift], dim=2)
    other = grid_sample(
        images[torch.randperm(count, generator=generator)],
        affine_grid(pose, list(images.shape), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    waves = torch.sin(draw(0, 6) * across + draw(0, 6) * down + draw(0, 6)) * torch.sin(
        draw(0, 6) * across - draw(0, 6) * down + draw(0, 6)
    )
    first = colour()
    second = torch.where(draw(0, 1) < 0.5, first, colour())
    light = (images.mean(dim=(1, 2, 3), keepdim=True) / 0.45) ** draw(0, 1)
    shade = 1 - draw(0, 0.4) * down.clamp(-1, 1)
    paint = torch.where(waves > 0, first, second) * light * shade
    share = draw(-0.5, 1.5).clamp(0, 1)
    mixed = share * paint + (1 - share) * other
    noise = 0.02 * torch.randn(images.shape, generator=generator)
    return (mixed + noise).clamp(0, 1)


# --- metric and baseline ---


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The probability that a positive has a higher score than a negative; ties half.

    scores: real numbers [N]; positive: bool [N]. Exact, from ranks (the Mann-Whitney
    U statistic), equal scores sharing their mean rank.
    Raises ValueError unless there is at least one of each kind.
    """
    positives = int(positive.sum())
    negatives = positive.numel() - positives
    if not positives or not negatives:
        raise ValueError(
            f"{positives} positives and {negatives} negatives: need some of both"
        )
    _, number, counts = scores.flatten().unique(return_inverse=True, return_counts=True)
    # Of each distinct score, counted from 1; double, since pixels are many millions.
    mean_rank = counts.cumsum(0).double() - (counts - 1).double() / 2
    ranks = mean_rank[number[positive.flatten()]].sum().item()
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def image_scores(maps: Tensor) -> Tensor:
    """[B, 1, H, W] to [B]: the mean of the highest half per cent of each map.

    An anomaly is small, so a mean over all would drown it; a maximum would listen to
    a single noisy pixel.
    """
    pixels = maps.flatten(1)
    return pixels.topk(max(1, round(SCORED * pixels.shape[1]))).values.mean(1)


def evaluate(maps: Tensor, scenes: Scenes) -> dict[str, float]:
    """AUROC of images and of pixels for anomaly maps [N, 1, H, W] of some scenes."""
    truth = scenes.anomaly
    return {
        "image AUROC": auroc(image_scores(maps), truth.flatten(1).any(1)),
        "pixel AUROC": auroc(maps.flatten(), truth.flatten()),
    }


def z_scores(train: Scenes, test: Scenes) -> Tensor:
    """[N, 1, H, W]: by how many standard deviations, as the mean over the three
    colours, each test pixel is away from the training images' mean there."""
    total, squares = 0.0, 0.0
    for start in range(0, len(train), 500):
        images = train.images[start : start + 500].double() / 255
        total, squares = total + images.sum(0), squares + images.square().sum(0)
    mean = total / len(train)
    deviation = (squares / len(train) - mean.square()).clamp(min=1e-6).sqrt()
    distance = (test.images / 255 - mean.float()) / deviation.float()
    return distance.abs().mean(dim=1, keepdim=True)


class AnomalyDetection(Task):
    name = "anomaly_detection"
    title = "Anomaly detection"
    hebrew = "זיהוי חריגות"
    metric = "image AUROC"
    baseline_name = "pixel-wise z-score"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=450, batch_size=16)
    test_split = "anomalies"

    def build_model(self, *, pretrained: bool = False) -> AnomalyDetector:
        return AnomalyDetector(pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        """With a generator, for training: anomalies invented. Without: as they are."""
        images = scenes.images.float() / 255
        mask = scenes.anomaly.unsqueeze(1).float()
        if generator:
            (images,) = mirror_half(generator, images)
            images, mask = invent(images, generator)
        return Batch((images,), (mask,))

    def training_scenes(self, scenes: Scenes) -> Scenes:
        """The normal ones; a training split has no others."""
        normal = ~scenes.anomaly.flatten(1).any(1)
        return scenes if normal.all() else scenes[normal]

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return binary_cross_entropy_with_logits(output, targets[0])

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return evaluate(infer(self, model, scenes), scenes)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        return {self.baseline_name: evaluate(z_scores(train, test), test)}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        """A large, a medium and a small anomaly, and a scene without."""
        sizes = scenes.anomaly.flatten(1).sum(1)
        order = sizes.argsort(descending=True)[: int((sizes > 0).sum())]
        places = [int(part * (len(order) - 1)) for part in (0.15, 0.45, 0.75)]
        normal = (sizes == 0).nonzero()[:1, 0]
        shown = scenes[torch.cat([order[places], normal])]
        maps = infer(self, model, shown)
        scores = image_scores(maps).sigmoid()
        figure, axes = grid(len(shown), ["image", "truth", "anomaly map"])
        for row, image, truth, found, score in zip(
            axes, shown.images, shown.anomaly, maps.sigmoid(), scores, strict=True
        ):
            show_image(row[0], image)
            row[1].imshow(truth.numpy(), cmap="gray", vmin=0, vmax=1)
            row[2].imshow(found[0].numpy(), cmap="gray", vmin=0, vmax=1)
            row[2].set_xlabel(f"score {score:.2f}", fontsize=9)
        return figure
