"""Masks: their targets, their loss, and that each detected object gets its own."""

from dataclasses import replace

import pytest
import torch
from torch import tensor

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.instance_segmentation import (
    MARGIN,
    InstanceOutput,
    InstanceSegmentation,
    InstanceSegmenter,
    in_order_of,
    mask_loss,
    segment,
    true_masks,
    within,
)

TASK = InstanceSegmentation()
#: One image of 32 x 32 with two cars side by side, that touch, and a row of padding.
BOXES = tensor([[[4.0, 8, 16, 20], [16, 8, 28, 20], [0, 0, 0, 0]]])
LABELS = tensor([[0, 0, -1]])


@pytest.fixture
def instances() -> torch.Tensor:
    """[1, 32, 32]: each car is a triangle in its box."""
    instances = torch.zeros(1, 32, 32, dtype=torch.uint8)
    triangle = torch.ones(12, 12).tril().bool()
    instances[0, 8:20, 4:16][triangle] = 1
    instances[0, 8:20, 16:28][triangle] = 2
    return instances


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


def sure_output(instances: torch.Tensor) -> InstanceOutput:
    """One cell finds each car; prototype k is where instance k is, only there."""
    logits = torch.full((1, 2, 8, 8), -12.0)
    boxes, coefficients = torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 8, 8)
    for which, (row, column) in enumerate([(3, 2), (3, 5)]):
        logits[0, 0, row, column] = 12.0 - which
        boxes[0, :, row, column] = BOXES[0, which]
        coefficients[0, which, row, column] = 1.0
    masks = true_masks(instances[0], LABELS[0]).float()  # [2, 32, 32]
    prototypes = torch.nn.functional.avg_pool2d(masks, 2)[None] * 20 - 10
    return InstanceOutput(logits, boxes, coefficients, prototypes)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes(height, width):
    output = InstanceSegmenter(5, prototypes=6).eval()(torch.rand(2, 3, height, width))
    cells, halves = (height // 4, width // 4), (height // 2, width // 2)
    assert output[0].shape == (2, 5, *cells)
    assert output.boxes.shape == (2, 4, *cells)
    assert output.coefficients.shape == (2, 6, *cells)
    assert output.prototypes.shape == (2, 6, *halves)
    objects, masks = segment(output, threshold=0.0)[0]
    assert len(objects.scores) > 0
    assert masks.shape == (len(objects.scores), height, width)
    assert masks.dtype == torch.bool


@pytest.mark.parametrize("shape", [(2, 3, 100, 96), (2, 1, 64, 64)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=str(shape[-2])):
        InstanceSegmenter()(torch.rand(shape))


def test_within():
    assert within(tensor([[1.0, 0, 3, 2]]), 3, 4).int().tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    ]
    # pixels of 2 x 2, whose middles are at 1, 3, 5, 7
    assert within(tensor([[2.5, 0, 6, 2]]), 1, 4, pixel=2)[0, 0].tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_within_with_a_margin():
    box = tensor([[4.0, 4, 6, 6]])
    assert within(box, 8, 8).sum() == 4
    assert within(box, 8, 8, margin=1).sum() == 16


def test_true_masks(instances):
    masks = true_masks(instances[0], LABELS[0])
    assert masks.shape == (2, 32, 32)
    assert torch.equal(masks[0], instances[0] == 1)
    assert torch.equal(masks[1], instances[0] == 2)


def test_each_of_two_objects_of_one_class_gets_its_own_mask(instances):
    objects, masks = segment(sure_output(instances))[0]
    assert objects.labels.tolist() == [0, 0]
    truth = true_masks(instances[0], LABELS[0])
    intersection = (masks & truth).sum((1, 2))
    assert (intersection / (masks | truth).sum((1, 2)) > 0.85).all()
    assert not (masks[0] & masks[1]).any()


def test_a_mask_hardly_leaves_its_box(instances):
    output = sure_output(instances)
    everywhere = output._replace(prototypes=torch.ones_like(output.prototypes))
    _, masks = segment(everywhere)[0]
    assert torch.equal(masks, within(BOXES[0, :2], 32, 32, margin=MARGIN))


def test_the_mask_loss_falls_towards_the_truth(instances):
    """Every cell that answers must be right: here prototype 0 is where any car is."""
    any_car = (instances > 0).float()[:, None]  # [1, 1, 32, 32]
    any_car = torch.nn.functional.avg_pool2d(any_car, 2)
    output = InstanceOutput(
        torch.zeros(1, 2, 8, 8),
        torch.zeros(1, 4, 8, 8),
        torch.ones(1, 1, 8, 8),
        any_car,
    )

    def loss_with(sureness: float) -> float:
        # logit of the true share of each pixel, where that is 0 or 1 up to `sureness`
        prototypes = (any_car * 2 - 1) * sureness
        return mask_loss(
            output._replace(prototypes=prototypes), BOXES, LABELS, instances
        ).item()

    assert loss_with(0.0) == pytest.approx(torch.tensor(2.0).log().item())
    assert loss_with(3.0) < loss_with(1.0) < loss_with(0.0) < loss_with(-1.0)


def test_only_pixels_near_the_box_count(instances):
    output = sure_output(instances)
    answers = output._replace(coefficients=torch.ones_like(output.coefficients))
    before = mask_loss(answers, BOXES, LABELS, instances)
    outside = ~within(BOXES[0, :2], 16, 16, pixel=2, margin=MARGIN).any(0)
    elsewhere = answers.prototypes.masked_fill(outside, 7.0)
    changed = answers._replace(prototypes=elsewhere)
    assert mask_loss(changed, BOXES, LABELS, instances) == before
    elsewhere = answers.prototypes.masked_fill(~outside, 7.0)
    changed = answers._replace(prototypes=elsewhere)
    assert mask_loss(changed, BOXES, LABELS, instances) != before


def test_a_small_object_counts_as_much_as_a_large_one():
    boxes = tensor([[[0.0, 0, 24, 24], [28, 28, 32, 32]]])
    instances = torch.zeros(1, 32, 32, dtype=torch.uint8)
    instances[0, :24, :24], instances[0, 28:, 28:] = 1, 2
    output = InstanceOutput(
        torch.zeros(1, 2, 8, 8),
        torch.zeros(1, 4, 8, 8),
        torch.ones(1, 1, 8, 8),
        torch.full((1, 1, 16, 16), 5.0),
    )

    def loss_without(number: int) -> float:
        wrong = output.prototypes.clone()
        wrong[0, 0][(instances[0, ::2, ::2] == number)] = -5.0
        # one cell an object, so that both have the same number of them
        label = tensor([[0, 0]])
        label[0, 2 - number] = -1
        return mask_loss(
            output._replace(prototypes=wrong), boxes, label, instances
        ).item()

    assert loss_without(1) == pytest.approx(loss_without(2))


def test_an_image_without_objects_has_a_loss(instances):
    nothing = torch.full_like(LABELS, -1)
    assert TASK.loss(sure_output(instances), (BOXES, nothing, instances)).isfinite()


def test_masks_are_mirrored_with_boxes_and_images(scenes):
    example = TASK.prepare(scenes, torch.Generator().manual_seed(0))
    boxes, labels, instances = example.targets
    mirrored = (instances != scenes.instances).flatten(1).any(1)
    assert mirrored.any() and not mirrored.all()
    for image in range(len(scenes)):
        for which in (labels[image] >= 0).nonzero()[:, 0].tolist():
            row, column = (instances[image] == which + 1).nonzero(as_tuple=True)
            extent = torch.stack(
                [column.min(), row.min(), column.max() + 1, row.max() + 1]
            )
            assert torch.equal(boxes[image, which], extent.float())


def test_masks_are_put_in_the_order_of_the_true_ones(instances):
    truth = true_masks(instances[0], LABELS[0])
    elsewhere = torch.zeros(32, 32, dtype=torch.bool)
    elsewhere[:4] = True
    ordered = in_order_of(truth, torch.stack([elsewhere, truth[1]]))
    assert torch.equal(ordered, torch.stack([0 * truth[0] > 0, truth[1], elsewhere]))
    assert not in_order_of(truth, truth[:0]).any()


def test_the_baseline_fills_frequent_boxes():
    boxes, labels = torch.zeros(2, 8, 4), torch.full((2, 8), -1)
    instances = torch.zeros(2, 64, 64, dtype=torch.uint8)
    boxes[:, 0], labels[:, 0] = tensor([10.0, 10, 20, 20]), 2
    instances[:, 10:20, 10:20] = 1
    train = replace(
        make_scenes(2, seed=0, size=64), boxes=boxes, labels=labels, instances=instances
    )
    assert TASK.baseline(train, train) == 1
    instances = instances.clone()
    instances[1, 10:20, 14:20] = 0  # 40 of the 100 pixels: too few
    # Equal scores: half of the detections are right, and half of the objects found.
    assert TASK.baseline(train, replace(train, instances=instances)) == 1 / 2 * 1 / 2


def test_a_few_steps_lower_the_loss(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=12, learning_rate=2e-3)
    assert losses[-1] < 0.8 * losses[0]
    measured = TASK.measure(model.eval(), scenes)
    assert 0 <= measured[TASK.metric] <= 1
    assert TASK.figure(model, scenes).axes
