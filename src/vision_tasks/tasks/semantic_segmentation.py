"""Semantic segmentation: which class is every pixel?"""

import math
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from src.vision_tasks.shared.drawing import (
    SEMANTIC_COLOURS,
    grid,
    show_classes,
    show_image,
)
from src.vision_tasks.shared.encoder import Decoder, Encoder
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES


class Segmenter(nn.Module):
    """A U-shape: ResNet-18 down, the decoder with skip connections up.

    forward: images [B, 3, H, W] in [0, 1] to logits [B, classes, H, W].
    """

    def __init__(self, classes: int = 21, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.decoder = Decoder(classes)

    def forward(self, images: Tensor) -> Tensor:
        # [B, 64, H/2, W/2], [B, 64, H/4, W/4], [B, 128, H/8, W/8], [B, 256, H/16, W/16]
        # and [B, 512, H/32, W/32]
        features = self.encoder(images)
        return self.decoder(features)  # [B, classes, H, W]


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - the soft Dice coefficient, averaged over the classes seen in the batch.

    Dice, 2 |A and B| / (|A| + |B|), with probabilities in the place of the predicted
    set (V-Net: Milletari et al., 2016, https://arxiv.org/abs/1606.04797; its
    denominator has squares). A class counts the same however few its pixels are.

    logits: [B, C, H, W]; truth: int64 [B, H, W]. Returns a scalar in [0, 1].
    """
    probabilities = logits.softmax(1)  # [B, C, H, W]
    target = one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2)  # [B, C, H, W]
    shared = (probabilities * target).sum(dim=(0, 2, 3))  # [C]
    sizes = (probabilities + target).sum(dim=(0, 2, 3))  # [C]
    seen = target.any(dim=(0, 2, 3))  # [C]
    return 1 - (2 * shared / sizes)[seen].mean()


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How many pixels of each true class (row) were given each class (column).

    predicted, truth: integers of one shape. Returns int64 [classes, classes].
    Raises ValueError for a class outside 0 ... classes - 1.
    """
    for name, values in (("predicted", predicted), ("truth", truth)):
        if values.numel() and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"{name} has values {values.min().item()} to {values.max().item()}, "
                f"expected 0 to {classes - 1}: check the number of classes"
            )
    # Each pair (truth, predicted) is one number, so counting numbers counts pairs.
    pairs = truth.long() * classes + predicted.long()
    counts = torch.bincount(pairs.flatten(), minlength=classes**2)
    return counts.view(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class; nan for a class that is never the truth.

    confusion: [C, C] as of `confusion_matrix`, summed over all images. Returns [C].
    """
    correct = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - correct
    return torch.where(confusion.sum(1) > 0, correct / union.clamp(min=1), torch.nan)


def segmentation_metrics(confusion: Tensor) -> dict[str, float]:
    """Mean IoU, pixel accuracy and each class's IoU; of classes that occur."""
    iou = class_iou(confusion)
    return {
        "mIoU": iou.nanmean().item(),
        "pixel accuracy": (confusion.trace() / confusion.sum()).item(),
    } | {
        f"IoU of {name}": value
        for name, value in zip(SEMANTIC_CLASSES, iou.tolist(), strict=True)
        if not math.isnan(value)
    }


class SemanticSegmentation(Task):
    name = "semantic_segmentation"
    title = "Semantic segmentation"
    hebrew = "סגמנטציה סמנטית"
    metric = "mIoU"
    baseline_name = "the most frequent class at each pixel position"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=450, batch_size=16)

    def build_model(self, *, pretrained: bool = False) -> Segmenter:
        return Segmenter(len(SEMANTIC_CLASSES), pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images, semantic = scenes.images.float() / 255, scenes.semantic
        if generator:
            images, semantic = mirror_half(generator, images, semantic)
        return Batch((images,), (semantic.long(),))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        (semantic,) = targets
        return cross_entropy(output, semantic) + dice_loss(output, semantic)

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        classes = len(SEMANTIC_CLASSES)
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        for start in range(0, len(scenes), 50):
            part = scenes[start : start + 50]
            predicted = infer(self, model, part).argmax(1)
            confusion += confusion_matrix(predicted, part.semantic, classes)
        return segmentation_metrics(confusion)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        classes = len(SEMANTIC_CLASSES)
        votes = torch.stack([(train.semantic == c).sum(0) for c in range(classes)])
        predicted = votes.argmax(0).expand(test.semantic.shape)  # [N, S, S]
        confusion = confusion_matrix(predicted, test.semantic, classes)
        return {self.baseline_name: segmentation_metrics(confusion)}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        shown = scenes[:4]
        predicted = infer(self, model, shown).argmax(1)
        figure, axes = grid(4, ["image", "truth", "prediction", "mistakes"])
        for row, image, truth, guess in zip(
            axes, shown.images, shown.semantic, predicted, strict=True
        ):
            show_image(row[0], image)
            show_classes(row[1], truth)
            show_classes(row[2], guess)
            row[3].imshow((guess != truth).numpy(), cmap="gray_r", vmin=0, vmax=1)
        figure.legend(
            handles=[
                Patch(facecolor=colour / 255, edgecolor="0.3", label=name)
                for name, colour in zip(SEMANTIC_CLASSES, SEMANTIC_COLOURS, strict=True)
            ],
            loc="outside lower center",
            ncols=6,
            fontsize=8,
        )
        return figure
