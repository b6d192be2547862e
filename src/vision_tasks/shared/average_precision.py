"""Average precision: how good is a ranked list of detections?

As in PASCAL VOC since 2010 (Everingham et al., 2015,
https://doi.org/10.1007/s11263-014-0733-5), matched as in COCO (Lin et al., 2014,
https://arxiv.org/abs/1405.0312): all detections of a class, of all images, are sorted
by score; each is right or wrong; the average precision is the area under the curve of
precision over recall. The mean over classes is the mAP, called AP50 where a detection
needs an IoU of 0.5 to be right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Matchable(NamedTuple):
    """The detections of one image, and how well each fits each true object."""

    scores: Tensor  # [D]: the higher, the surer
    labels: Tensor  # [D]: integers, the classes
    true_labels: Tensor  # [G]
    overlaps: Tensor  # [D, G]: IoU, of boxes or of masks


def matched(image: Matchable, threshold: float = 0.5) -> Tensor:
    """Which detections of an image find an object, bool [D].

    From the surest down, each takes, of the objects of its class that are still free,
    the one that it overlaps most, if by at least `threshold`. So a second detection of
    the same object is wrong.
    """
    same_class = image.labels[:, None] == image.true_labels
    overlaps = torch.where(same_class, image.overlaps, -1.0)
    found = torch.zeros(len(image.scores), dtype=torch.bool)
    if overlaps.numel():
        for detection in image.scores.argsort(descending=True, stable=True).tolist():
            best, truth = overlaps[detection].max(0)
            if best >= threshold:
                found[detection] = True
                overlaps[:, truth] = -1.0
    return found


def average_precision(scores: Tensor, found: Tensor, objects: int) -> float:
    """Area under precision over recall, from all detections of one class.

    scores, found: [D], of all images; objects: how many there are, at least 1.

    At every recall counts the best precision at that recall or a higher one ("all-point
    interpolation"). Detections of equal score have no order among them: they come into
    the curve together.
    """
    scores, order = scores.sort(descending=True)
    true_positives = found[order].double().cumsum(0)
    last_of_equals = torch.ones_like(found)
    last_of_equals[:-1] = scores[1:] < scores[:-1]
    counts = torch.arange(1, len(scores) + 1)
    precision = (true_positives / counts)[last_of_equals]
    recall = true_positives[last_of_equals] / objects
    precision = precision.flip(0).cummax(0).values.flip(0)
    return (precision * recall.diff(prepend=recall.new_zeros(1))).sum().item()


def average_precisions(
    images: Sequence[Matchable], classes: int, threshold: float = 0.5
) -> Tensor:
    """The average precision of each class, [classes]; nan where it has no objects."""
    scores, labels, true_labels = (
        torch.cat(parts) for parts in list(zip(*images, strict=True))[:3]
    )
    found = torch.cat([matched(image, threshold) for image in images])
    result = torch.full((classes,), torch.nan)
    for label in range(classes):
        mine = labels == label
        if objects := (true_labels == label).sum().item():
            result[label] = average_precision(scores[mine], found[mine], objects)
    return result


def mask_iou(masks: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union, [D, G], of each of [D, H, W] with each of [G, H, W].

    Both bool. Two empty masks have an IoU of 0.
    """
    masks, truths = masks.flatten(1).float(), truths.flatten(1).float()
    intersection = masks @ truths.T
    union = masks.sum(1)[:, None] + truths.sum(1) - intersection
    return intersection / union.clamp(min=1)
