"""Matching and average precision, by hand and against COCO's own evaluation."""

import pytest
import torch
from torch import tensor
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.functional.classification import binary_jaccard_index
from torchvision.ops import box_iou

from src.vision_tasks.shared.average_precision import (
    Matchable,
    average_precision,
    average_precisions,
    mask_iou,
    matched,
)

NOTHING = Matchable(torch.empty(0), torch.empty(0), torch.empty(0), torch.empty(0, 0))


@pytest.mark.parametrize(
    ("scores", "found", "objects", "expected"),
    [
        ([0.9, 0.8], [True, True], 2, 1.0),
        ([0.9], [True], 4, 1 / 4),  # three never found
        ([0.9, 0.8], [False, False], 2, 0.0),
        ([], [], 2, 0.0),
        # precision 1 up to recall 1/2, then 2/3
        ([0.9, 0.8, 0.7], [True, False, True], 2, 1 / 2 + 1 / 2 * 2 / 3),
        ([0.7, 0.9, 0.8], [True, True, False], 2, 1 / 2 + 1 / 2 * 2 / 3),  # not sorted
        # precision 1/2 at recall 1/2, but 2/3 at recall 1: that counts for both
        ([0.9, 0.8, 0.7], [False, True, True], 2, 2 / 3),
        # no order among equals: precision 1/2 at recall 1, whichever comes first
        ([0.5, 0.5], [True, False], 1, 1 / 2),
        ([0.5, 0.5], [False, True], 1, 1 / 2),
        # what comes after the last object found changes nothing
        ([0.9, 0.5, 0.4], [True, False, False], 1, 1.0),
    ],
)
def test_average_precision(scores, found, objects, expected):
    found = tensor(found, dtype=torch.bool)
    result = average_precision(tensor(scores), found, objects)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_of_many_with_ties(seed):
    """The k-th object counts with the best precision at which k are found."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(8, (30,), generator=generator) / 8
    found = torch.rand(30, generator=generator) < 0.6
    objects = int(found.sum()) + 3  # three are never found
    curve = []
    for threshold in scores.unique():
        shown = scores >= threshold
        right = int((found & shown).sum())
        curve.append((right, right / int(shown.sum())))
    best = [
        max((precision for right, precision in curve if right >= k), default=0)
        for k in range(1, objects + 1)
    ]
    result = average_precision(scores, found, objects)
    assert result == pytest.approx(sum(best) / objects, rel=1e-12)


@pytest.mark.parametrize(
    ("overlaps", "labels", "expected"),
    [
        ([[0.8, 0.0], [0.7, 0.0]], [1, 1], [True, False]),  # the same object twice
        ([[0.8, 0.6], [0.7, 0.6]], [1, 1], [True, True]),  # the other one is still free
        ([[0.6, 0.8], [0.7, 0.6]], [1, 1], [True, True]),  # each takes its best
        ([[0.6, 0.8], [0.4, 0.9]], [1, 1], [True, False]),
        ([[0.8, 0.0], [0.0, 0.9]], [1, 2], [True, False]),  # the wrong class
        ([[0.49, 0.0], [0.5, 0.0]], [1, 1], [False, True]),  # the threshold counts
        ([[0.49, 0.4], [0.0, 0.0]], [1, 1], [False, False]),
    ],
)
def test_each_object_is_found_once(overlaps, labels, expected):
    image = Matchable(
        tensor([0.9, 0.8]), tensor(labels), tensor([1, 1]), tensor(overlaps)
    )
    before = image.overlaps.clone()
    assert matched(image).tolist() == expected
    assert torch.equal(image.overlaps, before)


def test_the_surest_takes_first_whatever_the_order():
    image = Matchable(
        tensor([0.2, 0.9, 0.9]),
        tensor([0, 0, 0]),
        tensor([0]),
        tensor([[0.9], [0.6], [0.7]]),
    )
    assert matched(image).tolist() == [False, True, False]  # of equals, the first
    assert matched(image, 0.65).tolist() == [False, False, True]
    assert matched(image, 0.95).tolist() == [False, False, False]


@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("detections", [0, 3])
def test_where_there_is_nothing_nothing_is_found(objects, detections):
    image = Matchable(
        torch.rand(detections),
        torch.zeros(detections),
        torch.ones(objects),
        torch.rand(detections, objects),
    )
    assert matched(image).tolist() == [False] * detections


def test_average_precisions_of_several_images():
    images = [
        Matchable(
            tensor([0.9, 0.8]), tensor([0, 1]), tensor([0]), tensor([[0.9], [0.9]])
        ),
        Matchable(tensor([0.7]), tensor([0]), tensor([0, 1]), tensor([[0.6, 0.0]])),
        NOTHING,
    ]
    each = average_precisions(images, classes=3)
    torch.testing.assert_close(each, tensor([1, 0, torch.nan]), equal_nan=True)
    each = average_precisions(images, 3, threshold=0.75)
    torch.testing.assert_close(each, tensor([1 / 2, 0, torch.nan]), equal_nan=True)
    # without any object there is nothing to find
    assert average_precisions([NOTHING], 2).isnan().all()


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_average_precisions_are_those_of_coco(threshold):
    """COCO takes precision at 101 recalls; between k / G and (k + 1) / G, where G is
    the number of objects, it stays the same, so that at G recalls, one in each, its
    average is the area. Scores without ties: COCO has an order among equals."""
    generator = torch.Generator().manual_seed(1)

    def rand(*shape: int):
        return torch.rand(shape, generator=generator)

    truths, found, images = [], [], []
    for objects in (3, 6, 0, 8, 5, 7):
        corners = 40 * rand(objects, 2)
        boxes = torch.cat([corners, corners + 10 + 20 * rand(objects, 2)], dim=1)
        labels = torch.randint(3, (objects,), generator=generator)
        copies = torch.cat([boxes, boxes, 60 * torch.eye(4)[[2, 3]].cumsum(1)])
        shown = copies + torch.cat([3 * rand(len(copies), 2)] * 2, dim=1)
        classes = torch.cat([labels, labels, tensor([0, 1])])
        scores = rand(len(shown))
        truths.append((boxes, labels))
        found.append((shown, classes, scores))
        images.append(Matchable(scores, classes, labels, box_iou(shown, boxes)))

    expected = []
    for label in range(3):
        objects = sum(int((labels == label).sum()) for _, labels in truths)
        recalls = [(k + 0.5) / objects for k in range(objects)]
        coco = MeanAveragePrecision(
            iou_thresholds=[threshold], rec_thresholds=recalls, backend="pycocotools"
        )
        coco.update(
            [
                {"boxes": b[c == label], "labels": c[c == label], "scores": s}
                for b, c, all_scores in found
                for s in [all_scores[c == label]]
            ],
            [{"boxes": b[c == label], "labels": c[c == label]} for b, c in truths],
        )
        expected.append(coco.compute()["map"])
    result = average_precisions(images, 3, threshold)
    assert result.min() > 0.1 and result.max() < 0.95
    torch.testing.assert_close(result, torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_mask_iou():
    first = torch.zeros(4, 4, dtype=torch.bool)
    first[:2] = True  # 8 pixels
    second = torch.zeros(4, 4, dtype=torch.bool)
    second[1:, :2] = True  # 6 pixels, 2 of them shared
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    masks, truths = torch.stack([first, nothing]), torch.stack([first, second, nothing])
    overlaps = mask_iou(masks, truths)
    torch.testing.assert_close(overlaps, tensor([[1, 2 / 12, 0], [0, 0, 0]]))
    assert mask_iou(masks[:0], truths).shape == (0, 3)
    assert mask_iou(masks, truths[:0]).shape == (2, 0)


def test_mask_iou_of_random_masks():
    generator = torch.Generator().manual_seed(0)
    masks, truths = torch.rand(2, 3, 5, 7, generator=generator) < 0.6
    for mask, row in zip(masks, mask_iou(masks, truths[:2]), strict=True):
        expected = [binary_jaccard_index(mask, truth) for truth in truths[:2]]
        torch.testing.assert_close(row, torch.stack(expected))
