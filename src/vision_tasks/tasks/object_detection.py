"""Object detection: which objects are in an image, and where is each?

Anchor-free and dense, after FCOS (Tian et al., 2019, https://arxiv.org/abs/1904.01355)
and CenterNet (Zhou et al., 2019, https://arxiv.org/abs/1904.07850): every cell of a
grid says which class of object has its middle here, if any, and what its box is.

Boxes are (left, top, right, bottom) in pixels of the image.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torchvision.ops import (
    batched_nms,
    box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from src.vision_tasks.shared.average_precision import Matchable, average_precisions
from src.vision_tasks.shared.drawing import grid, show_boxes, show_image, varied
from src.vision_tasks.shared.encoder import (
    Encoder,
    Features,
    UpsampleBlock,
    convolution,
)
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES

#: Height and width, in pixels of the image, of a cell of the detector's grid.
CELL = 4
#: Channels of the features that the heads see.
WIDTH = 64


# --- the first step: one box an image ---


class SingleBox(NamedTuple):
    class_logits: Tensor  # [B, classes]
    box: Tensor  # [B, 4]


class SingleBoxDetector(nn.Module):
    """One object an image: a classifier with a second head, for the box.

    forward: images [B, 3, H, W] in [0, 1] to `SingleBox`.
    """

    def __init__(self, classes: int = 10, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.class_head = nn.Linear(512, classes)
        self.box_head = nn.Linear(512, 4)

    def forward(self, images: Tensor) -> SingleBox:
        features = self.encoder(images).thirtysecond  # [B, 512, H/32, W/32]
        pooled = features.mean(dim=(2, 3))  # [B, 512]
        # Middle and size as parts of the image's: in it, and never of negative size.
        x, y, width, height = self.box_head(pooled).sigmoid().unbind(1)  # each [B]
        box = torch.stack(
            [x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1
        )  # [B, 4]
        size = box.new_tensor([images.shape[3], images.shape[2]]).repeat(2)
        return SingleBox(self.class_head(pooled), box * size)


# --- the detector: a class and a box at every cell ---


class DetectorOutput(NamedTuple):
    """What every cell says; h = H/4, w = W/4."""

    class_logits: Tensor  # [B, classes, h, w]: for each class a yes or no of its own
    boxes: Tensor  # [B, 4, h, w]


class TopDown(nn.Module):
    """From coarse features to fine ones: half of a feature pyramid network.

    forward: `Features` of images [B, 3, H, W] to [B, WIDTH, H/4, W/4].
    """

    def __init__(self) -> None:
        super().__init__()
        self.sixteenth = UpsampleBlock(512, 256, 128)
        self.eighth = UpsampleBlock(128, 128, 96)
        self.quarter = UpsampleBlock(96, 64, WIDTH)

    def forward(self, features: Features) -> Tensor:
        x = self.sixteenth(features.thirtysecond, features.sixteenth)  # [B, 128, H/16…]
        x = self.eighth(x, features.eighth)  # [B, 96, H/8, W/8]
        return self.quarter(x, features.quarter)  # [B, 64, H/4, W/4]


class DetectionHead(nn.Module):
    """Two small branches, the same at every cell: what is it, and what is its box?

    forward: features [B, WIDTH, h, w] to `DetectorOutput`.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classify = nn.Sequential(
            convolution(WIDTH, WIDTH), nn.Conv2d(WIDTH, classes, 1)
        )
        self.locate = nn.Sequential(convolution(WIDTH, WIDTH), nn.Conv2d(WIDTH, 4, 1))
        # Nearly all cells are background: begin with a probability of 1 % for each
        # class (Lin et al., 2017, https://arxiv.org/abs/1708.02002). Boxes: 16 pixels.
        nn.init.constant_(self.classify[-1].bias, -math.log(99))
        nn.init.zeros_(self.locate[-1].weight)
        self.locate[-1].bias.data = torch.tensor([0.0, 0.0, math.log(4), math.log(4)])

    def forward(self, features: Tensor) -> DetectorOutput:
        class_logits = self.classify(features)  # [B, classes, h, w]
        located = self.locate(features)  # [B, 4, h, w]
        # Middle, from the cell's own, and log size; in cells, so that both are small.
        offset, log_size = located.chunk(2, dim=1)  # each [B, 2, h, w]
        centre = cell_centres(*features.shape[2:]).to(features) + CELL * offset
        size = CELL * log_size.clamp(max=6).exp()
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
        return DetectorOutput(class_logits, boxes)


class Detector(nn.Module):
    """Several objects an image: ResNet-18, a top-down path, and a head for every cell.

    forward: images [B, 3, H, W] in [0, 1] to `DetectorOutput`.
    """

    def __init__(self, classes: int = 10, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.top_down = TopDown()
        self.head = DetectionHead(classes)

    def forward(self, images: Tensor) -> DetectorOutput:
        features = self.encoder(images)  # [B, 64, H/2, W/2] to [B, 512, H/32, W/32]
        fine = self.top_down(features)  # [B, 64, H/4, W/4]
        return self.head(fine)  # [B, classes, H/4, W/4] and [B, 4, H/4, W/4]


def cell_centres(height: int, width: int) -> Tensor:
    """(x, y) in pixels of the middle of each of height x width cells, [2, h, w]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return CELL * (torch.stack([x, y]) + 0.5)


# --- what each cell should say, and the loss ---


def assign(boxes: Tensor, labels: Tensor, height: int, width: int) -> Tensor:
    """Which object each cell answers for: [B, height, width], its number, or -1.

    boxes: [B, M, 4]; labels: [B, M], -1 for padding.

    A cell answers for an object if the middle of its box lies in it; and also if that
    lies less than one and a half cells away, down and across, and the cell's own middle
    lies in the box (FCOS's "centre sampling"). Of several objects, for the smallest.
    """
    cells = cell_centres(height, width).to(boxes)  # [2, h, w]
    boxes = boxes[..., None, None]  # [B, M, 4, 1, 1]
    low, high = boxes[:, :, :2], boxes[:, :, 2:]
    away = (cells - (low + high) / 2).abs().amax(2)  # [B, M, h, w]
    inside = ((low <= cells) & (cells <= high)).all(2)
    answers = (away <= CELL / 2) | ((away < 1.5 * CELL) & inside)
    answers &= (labels >= 0)[..., None, None]
    area = (high - low).prod(2).expand_as(away).masked_fill(~answers, torch.inf)
    smallest, number = area.min(1)  # [B, h, w]
    return number.masked_fill(smallest.isinf(), -1)


def detection_loss(output: DetectorOutput, boxes: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of all cells, plus 1 - GIoU of those that answer for an object.

    boxes: [B, M, 4]; labels: [B, M], -1 for padding. Both are sums divided by the
    number of cells that answer.
    """
    number = assign(boxes, labels, *output.class_logits.shape[2:])  # [B, h, w]
    image, row, column = (number >= 0).nonzero(as_tuple=True)  # each [P]
    which = number[image, row, column]  # [P]
    truth = torch.zeros_like(output.class_logits)
    truth[image, labels[image, which], row, column] = 1
    focal = sigmoid_focal_loss(output.class_logits, truth, reduction="sum")
    giou = generalized_box_iou_loss(
        output.boxes[image, :, row, column], boxes[image, which], reduction="sum"
    )
    return (focal + giou) / max(1, len(image))


# --- from what the cells say to a list of objects ---


class Detections(NamedTuple):
    """The D objects found in one image, the surest first."""

    boxes: Tensor  # [D, 4]
    labels: Tensor  # [D]
    scores: Tensor  # [D], from 0 to 1
    cells: Tensor  # [D]: the number of the cell that said so, row by row


def detect(
    class_logits: Tensor, boxes: Tensor, threshold: float = 0.05, most: int = 100
) -> list[Detections]:
    """The objects found in each image, from what `DetectorOutput` holds.

    Candidates are the `most` highest of the scores that are above `threshold`.
    Neighbouring cells find the same object: non-maximum suppression keeps, of boxes of
    one class that overlap by more than half, the surest.
    """
    found = []
    for logits, corners in zip(class_logits, boxes, strict=True):
        scores = logits.sigmoid().flatten()  # [classes * h * w]
        scores, index = scores.topk(min(most, len(scores)))
        scores, index = scores[scores > threshold], index[scores > threshold]
        labels, cells = index // logits[0].numel(), index % logits[0].numel()
        at_cells = corners.flatten(1).T[cells]  # [D, 4]
        kept = batched_nms(at_cells, scores, labels, iou_threshold=0.5)
        found.append(
            Detections(at_cells[kept], labels[kept], scores[kept], cells[kept])
        )
    return found


# --- the task ---


def mirror_scenes(
    generator: Generator, boxes: Tensor, *images: Tensor
) -> tuple[Tensor, ...]:
    """Mirror a random half of a batch: boxes [B, M, 4] and all images [B, ..., W]."""
    width = images[0].shape[-1]
    sides = torch.tensor([0, 1]).expand(len(boxes), 2)  # swapped where mirrored
    *images, sides = mirror_half(generator, *images, sides)
    left, top, right, bottom = boxes.unbind(-1)
    mirrored = torch.stack([width - right, top, width - left, bottom], dim=-1)
    return torch.where(sides[:, :1, None] == 1, mirrored, boxes), *images


class TypicalObjects(NamedTuple):
    """The baseline's answer to every image: K boxes."""

    boxes: Tensor  # [K, 4]
    labels: Tensor  # [K]
    scores: Tensor  # [K]: objects found that those before miss, per image


def typical_objects(scenes: Scenes, per_class: int = 10) -> TypicalObjects:
    """For each class the boxes that would find the most objects, one after the other.

    Each is the one that finds the most of what those before it miss; at most
    `per_class`, fewer once all are found. About the best that can be done without
    looking at the image.
    Raises ValueError if the scenes hold no object at all.
    """
    if not (scenes.labels >= 0).any():
        raise ValueError(f"none of the {len(scenes)} scenes holds an object")
    typical = []
    for label in range(len(OBJECT_CLASSES)):
        boxes = scenes.boxes[scenes.labels == label]  # [n, 4]
        finds = (box_iou(boxes, boxes) >= 0.5).float()  # [n, n]
        left = torch.ones(len(boxes))  # 1 for each that is still to be found
        for _ in range(min(per_class, len(boxes))):
            count, best = (finds @ left).max(0)
            if count:
                typical.append((boxes[best], torch.tensor(label), count / len(scenes)))
            left *= 1 - finds[best]
    return TypicalObjects(*map(torch.stack, zip(*typical, strict=True)))


def ap_metrics(images: Sequence[Matchable], prefix: str = "") -> dict[str, float]:
    """AP50 and AP75, means over the classes that occur, and AP50 of each class.

    prefix: what the names of the metrics begin with.
    """
    ap50 = average_precisions(images, len(OBJECT_CLASSES))
    ap75 = average_precisions(images, len(OBJECT_CLASSES), threshold=0.75)
    return {
        f"{prefix}AP50": ap50.nanmean().item(),
        f"{prefix}AP75": ap75.nanmean().item(),
        **{
            f"{prefix}AP50 of {name}": value
            for name, value in zip(OBJECT_CLASSES, ap50.tolist(), strict=True)
        },
    }


def box_metrics(
    found: Sequence[Detections | TypicalObjects], scenes: Scenes
) -> dict[str, float]:
    """Every metric of what was found in, or guessed for, each of the scenes."""
    images = [
        Matchable(
            one.scores,
            one.labels,
            labels[labels >= 0],
            box_iou(one.boxes, boxes[labels >= 0]),
        )
        for one, boxes, labels in zip(found, scenes.boxes, scenes.labels, strict=True)
    ]
    return ap_metrics(images)


class ObjectDetection(Task):
    name = "object_detection"
    title = "Object detection"
    hebrew = "זיהוי אובייקטים"
    metric = "AP50"
    baseline_name = "the ten most frequent boxes of each class, in every image"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=800, batch_size=8)

    def build_model(self, *, pretrained: bool = False) -> Detector:
        return Detector(len(OBJECT_CLASSES), pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images, boxes = scenes.images.float() / 255, scenes.boxes
        if generator:
            boxes, images = mirror_scenes(generator, boxes, images)
        return Batch((images,), (boxes, scenes.labels))

    def loss(self, output: DetectorOutput, targets: tuple[Tensor, ...]) -> Tensor:
        return detection_loss(output, *targets)

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return box_metrics(detect(*infer(self, model, scenes)), scenes)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        guess = [typical_objects(train)] * len(test)
        return {self.baseline_name: box_metrics(guess, test)}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = varied(scenes, 3)
        output = infer(self, model, shown)
        figure, axes = grid(
            3, ["truth", "highest class score of each cell", "predicted"]
        )
        figure.set_size_inches(8.4, 8.2)
        for row, image, boxes, labels, logits, found in zip(
            axes,
            shown.images,
            shown.boxes,
            shown.labels,
            output.class_logits,
            detect(*output, threshold=0.4),
            strict=True,
        ):
            show_image(row[0], image)
            show_boxes(row[0], boxes[labels >= 0], labels[labels >= 0])
            row[1].imshow(logits.sigmoid().amax(0).numpy(), vmin=0, vmax=1)
            show_image(row[2], image)
            show_boxes(row[2], found.boxes, found.labels, found.scores)
        return figure
