"""Instance segmentation: which pixels belong to each object in an image?

After YOLACT (Bolya et al., 2019, https://arxiv.org/abs/1904.02689): the detector, and
beside it "prototypes", masks that the objects of an image share. Every cell says with
which coefficients they add up to the mask of its own object.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    interpolate,
)

from src.vision_tasks.shared.average_precision import Matchable, mask_iou
from src.vision_tasks.shared.drawing import grid, show_image, show_masks, varied
from src.vision_tasks.shared.encoder import Encoder, UpsampleBlock, convolution
from src.vision_tasks.shared.task import Batch, Task, TaskRecipe, infer
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES
from src.vision_tasks.tasks.object_detection import (
    WIDTH,
    DetectionHead,
    Detections,
    TopDown,
    TypicalObjects,
    ap_metrics,
    assign,
    detect,
    detection_loss,
    mirror_scenes,
    typical_objects,
)

#: Height and width, in pixels of the image, of a pixel of a prototype.
PROTOTYPE_PIXEL = 2
#: By how many pixels of the image a mask may leave its box, as boxes are not exact.
MARGIN = 2


class InstanceOutput(NamedTuple):
    """What every cell says (h = H/4, w = W/4), as of the detector, and prototypes."""

    class_logits: Tensor  # [B, classes, h, w]
    boxes: Tensor  # [B, 4, h, w]
    coefficients: Tensor  # [B, P, h, w]
    prototypes: Tensor  # [B, P, H/2, W/2]


class InstanceSegmenter(nn.Module):
    """The detector with two more branches: prototypes, and coefficients for every cell.

    forward: images [B, 3, H, W] in [0, 1] to `InstanceOutput`. `segment` makes masks.
    """

    def __init__(
        self, classes: int = 10, prototypes: int = 16, *, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.top_down = TopDown()
        self.head = DetectionHead(classes)
        self.coefficients = nn.Sequential(
            convolution(WIDTH, WIDTH), nn.Conv2d(WIDTH, prototypes, 1)
        )
        self.to_half = UpsampleBlock(WIDTH, 64, 32)
        self.prototypes = nn.Conv2d(32, prototypes, 1)

    def forward(self, images: Tensor) -> InstanceOutput:
        features = self.encoder(images)  # [B, 64, H/2, W/2] to [B, 512, H/32, W/32]
        fine = self.top_down(features)  # [B, 64, H/4, W/4]
        class_logits, boxes = self.head(fine)  # [B, classes, H/4…] and [B, 4, H/4…]
        coefficients = self.coefficients(fine)  # [B, P, H/4, W/4]
        finer = self.to_half(fine, features.half)  # [B, 32, H/2, W/2]
        prototypes = self.prototypes(finer).relu()  # [B, P, H/2, W/2]
        return InstanceOutput(class_logits, boxes, coefficients, prototypes)


def within(
    boxes: Tensor, height: int, width: int, pixel: float = 1.0, margin: float = 0.0
) -> Tensor:
    """Which pixels have their middle in each box: [K, 4] to bool [K, height, width].

    pixel: the height and width of one; margin: by how much each side of a box is moved
    outwards; both in the unit of the boxes.
    """
    boxes = boxes + margin * boxes.new_tensor([-1, -1, 1, 1])
    x = pixel * (torch.arange(width, device=boxes.device) + 0.5)
    y = pixel * (torch.arange(height, device=boxes.device) + 0.5)
    left, top, right, bottom = boxes[..., None].unbind(1)  # each [K, 1]
    columns, rows = (left <= x) & (x <= right), (top <= y) & (y <= bottom)
    return rows[:, :, None] & columns[:, None, :]


def mask_loss(
    output: InstanceOutput, boxes: Tensor, labels: Tensor, instances: Tensor
) -> Tensor:
    """Cross-entropy of the pixels in the true box and around it, a mean over each box.

    boxes: [B, M, 4]; labels: [B, M]; instances: [B, H, W], k where object k - 1 is.
    So every object counts alike, small or large.
    """
    number = assign(boxes, labels, *output.class_logits.shape[2:])  # [B, h, w]
    image, row, column = (number >= 0).nonzero(as_tuple=True)  # each [K]
    which = number[image, row, column]  # [K]
    coefficients = output.coefficients[image, :, row, column]  # [K, P]
    prototypes = output.prototypes
    logits = torch.cat(
        [
            torch.einsum("kp,phw->khw", coefficients[image == i], prototypes[i])
            for i in range(len(prototypes))
        ]
    )  # [K, H/2, W/2]
    # A coarse pixel at an object's border is partly inside: the truth is its share.
    truth = instances[image] == (which + 1)[:, None, None]  # [K, H, W]
    truth = avg_pool2d(truth[:, None].float(), PROTOTYPE_PIXEL)[:, 0]  # [K, H/2, W/2]
    inside = within(
        boxes[image, which], *logits.shape[1:], pixel=PROTOTYPE_PIXEL, margin=MARGIN
    )
    losses = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    each = (losses * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    return each.sum() / max(1, len(each))


class Segmented(NamedTuple):
    """The D objects found in one image, the surest first."""

    objects: Detections
    masks: Tensor  # bool [D, H, W]


def segment(output: InstanceOutput, threshold: float = 0.05) -> list[Segmented]:
    """The objects found in each image, each with a mask near its box."""
    found = detect(output.class_logits, output.boxes, threshold)
    segmented = []
    for objects, coefficients, prototypes in zip(
        found, output.coefficients, output.prototypes, strict=True
    ):
        chosen = coefficients.flatten(1)[:, objects.cells]  # [P, D]
        logits = torch.einsum("pd,phw->dhw", chosen, prototypes)
        logits = interpolate(
            logits[:, None],
            scale_factor=PROTOTYPE_PIXEL,
            mode="bilinear",
            align_corners=False,
        )[:, 0]  # [D, H, W]
        inside = within(objects.boxes, *logits.shape[1:], margin=MARGIN)
        masks = (logits > 0) & inside
        segmented.append(Segmented(objects, masks))
    return segmented


def true_masks(instances: Tensor, labels: Tensor) -> Tensor:
    """instances: [H, W]; labels: [M], -1 for padding. Returns bool [G, H, W]."""
    numbers = (labels >= 0).nonzero()[:, 0] + 1  # [G]
    return instances == numbers[:, None, None]


def mask_metrics(
    found: Sequence[tuple[Detections | TypicalObjects, Tensor]], scenes: Scenes
) -> dict[str, float]:
    """Every metric of objects and masks found in, or guessed for, each scene."""
    images = [
        Matchable(
            objects.scores,
            objects.labels,
            labels[labels >= 0],
            mask_iou(masks, true_masks(instances, labels)),
        )
        for (objects, masks), instances, labels in zip(
            found, scenes.instances, scenes.labels, strict=True
        )
    ]
    return ap_metrics(images, "mask ")


class InstanceSegmentation(Task):
    name = "instance_segmentation"
    title = "Instance segmentation"
    hebrew = "סגמנטציית מופעים"
    metric = "mask AP50"
    baseline_name = "the ten most frequent boxes of each class, filled"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=700, batch_size=8)

    def build_model(self, *, pretrained: bool = False) -> InstanceSegmenter:
        return InstanceSegmenter(len(OBJECT_CLASSES), pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images, boxes = scenes.images.float() / 255, scenes.boxes
        instances = scenes.instances
        if generator:
            boxes, images, instances = mirror_scenes(
                generator, boxes, images, instances
            )
        return Batch((images,), (boxes, scenes.labels, instances))

    def loss(self, output: InstanceOutput, targets: tuple[Tensor, ...]) -> Tensor:
        boxes, labels, instances = targets
        detection = detection_loss(output, boxes, labels)
        return detection + mask_loss(output, boxes, labels, instances)

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return mask_metrics(segment(infer(self, model, scenes)), scenes)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        typical = typical_objects(train)
        masks = within(typical.boxes, *test.instances.shape[1:])
        guess = [(typical, masks)] * len(test)
        return {self.baseline_name: mask_metrics(guess, test)}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = varied(scenes, 4)
        found = segment(infer(self, model, shown), threshold=0.4)
        figure, axes = grid(4, ["input", "true instances", "predicted"])
        figure.set_size_inches(6.4, 8.4)
        for row, image, instances, labels, (_, masks) in zip(
            axes, shown.images, shown.instances, shown.labels, found, strict=True
        ):
            truth = true_masks(instances, labels)
            show_image(row[0], image)
            show_masks(row[1], image, truth)
            show_masks(row[2], image, in_order_of(truth, masks))
        return figure


def in_order_of(truth: Tensor, masks: Tensor) -> Tensor:
    """masks [D, H, W] sorted so that number k is of the true object number k.

    truth: [G, H, W]. Returns [G + E, H, W]: an empty mask for each object that none
    overlaps by more than a quarter; after the true objects' the E that are left over.
    """
    taken, ordered = set(), torch.zeros_like(truth)
    overlaps = mask_iou(masks, truth)
    for number in range(len(truth) if len(masks) else 0):
        overlap, best = overlaps[:, number].max(0)
        if overlap > 0.25 and best.item() not in taken:
            ordered[number] = masks[best]
            taken.add(best.item())
    rest = [mask for which, mask in enumerate(masks) if which not in taken]
    return torch.stack([*ordered, *rest])
