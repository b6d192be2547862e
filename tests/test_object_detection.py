"""Average precision by hand, the cells' targets, the loss, and what is detected."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, tensor

from src.vision_tasks.shared.average_precision import (
    Matchable,
    average_precision,
    average_precisions,
    mask_iou,
    right,
)
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.object_detection import (
    Detector,
    DetectorOutput,
    ObjectDetection,
    SingleBoxDetector,
    assign,
    cell_centres,
    detect,
    detection_loss,
    mirror_scenes,
    typical_objects,
)

TASK = ObjectDetection()
#: Two images of 64 x 96 with a bus and a pedestrian, and with a car.
BOXES = tensor([[[8.0, 8, 40, 32], [61, 40, 64, 52]], [[30, 20, 50, 40], [0, 0, 0, 0]]])
LABELS = tensor([[2, 3], [0, -1]])


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


def sure_output(boxes: Tensor, labels: Tensor, height: int, width: int):
    """What the cells say if each says exactly what it should, and is sure of it."""
    number = assign(boxes, labels, height, width)
    logits = torch.full((len(boxes), 4, height, width), -12.0)
    answers = torch.zeros(len(boxes), 4, height, width)
    for image, row, column in (number >= 0).nonzero().tolist():
        which = number[image, row, column]
        logits[image, labels[image, which], row, column] = 12.0
        answers[image, :, row, column] = boxes[image, which]
    return DetectorOutput(logits, answers)


# --- average precision, by hand ---


@pytest.mark.parametrize(
    ("scores", "found", "truths", "expected"),
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
    ],
)
def test_average_precision(scores, found, truths, expected):
    result = average_precision(tensor(scores), tensor(found, dtype=torch.bool), truths)
    assert result == pytest.approx(expected)


@pytest.mark.parametrize(
    ("overlaps", "labels", "expected"),
    [
        ([[0.8, 0.0], [0.7, 0.0]], [1, 1], [True, False]),  # the same object twice
        ([[0.8, 0.6], [0.7, 0.6]], [1, 1], [True, True]),  # the other one is still free
        ([[0.8, 0.0], [0.0, 0.9]], [1, 2], [True, False]),  # the wrong class
        ([[0.49, 0.0], [0.5, 0.0]], [1, 1], [False, True]),  # the threshold counts
    ],
)
def test_each_object_is_found_once(overlaps, labels, expected):
    image = Matchable(
        tensor([0.9, 0.8]), tensor(labels), tensor([1, 1]), tensor(overlaps)
    )
    assert right(image).tolist() == expected


def test_the_surest_takes_first_whatever_the_order():
    image = Matchable(
        tensor([0.2, 0.9]), tensor([0, 0]), tensor([0]), tensor([[0.9], [0.6]])
    )
    assert right(image).tolist() == [False, True]


def test_average_precisions_of_several_images():
    images = [
        Matchable(
            tensor([0.9, 0.8]), tensor([0, 1]), tensor([0]), tensor([[0.9], [0.9]])
        ),
        Matchable(tensor([0.7]), tensor([0]), tensor([0, 1]), tensor([[0.6, 0.0]])),
        Matchable(torch.empty(0), torch.empty(0), torch.empty(0), torch.empty(0, 0)),
    ]
    each = average_precisions(images, classes=3)
    assert each[:2].tolist() == [1, 0]
    assert each[2].isnan()
    assert average_precisions(images, 3, threshold=0.75)[0] == 1 / 2


def test_mask_iou():
    first = torch.zeros(4, 4, dtype=torch.bool)
    first[:2] = True  # 8 pixels
    second = torch.zeros(4, 4, dtype=torch.bool)
    second[1:, :2] = True  # 6 pixels, 2 of them shared
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    overlaps = mask_iou(torch.stack([first, nothing]), torch.stack([first, second]))
    torch.testing.assert_close(overlaps, tensor([[1, 2 / 12], [0, 0]]))


# --- the models ---


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes(height, width):
    images = torch.rand(2, 3, height, width)
    output = Detector().eval()(images)
    assert output[0].shape == (2, 10, height // 4, width // 4)
    assert output.boxes.shape == (2, 4, height // 4, width // 4)
    left, top, right_, bottom = output.boxes.unbind(1)
    assert (left < right_).all() and (top < bottom).all()

    logits, box = SingleBoxDetector(7).eval()(images)
    assert logits.shape == (2, 7)
    assert box.shape == (2, 4)
    middle = (box[:, :2] + box[:, 2:]) / 2
    assert ((middle > 0) & (middle < tensor([width, height]))).all()
    assert (box[:, :2] < box[:, 2:]).all()


def test_a_new_detector_is_unsure_and_begins_with_boxes_around_its_cells():
    output = Detector(4).eval()(torch.rand(1, 3, 64, 64))
    assert output.class_logits.sigmoid().mean() < 0.05
    centres = (output.boxes[0, :2] + output.boxes[0, 2:]) / 2
    torch.testing.assert_close(centres, cell_centres(16, 16))


@pytest.mark.parametrize("shape", [(2, 3, 100, 96), (2, 1, 64, 64), (3, 64, 64)])
def test_images_of_other_shapes_are_refused(shape):
    for model in (Detector(), SingleBoxDetector()):
        with pytest.raises(ValueError, match=str(shape[-2])):
            model(torch.rand(shape))


# --- targets ---


def test_cells_near_an_object_answer_for_it():
    number = assign(BOXES, LABELS, 16, 24)
    # The bus's middle is (24, 20), on the corner of four cells.
    assert (number[0] == 0).nonzero().tolist() == [[4, 5], [4, 6], [5, 5], [5, 6]]
    # The pedestrian is 3 pixels wide: one column of cells, around (62.5, 46).
    assert (number[0] == 1).nonzero().tolist() == [[10, 15], [11, 15], [12, 15]]
    # The car's middle is (40, 30): on a border between columns, inside a row.
    assert (number[1] == 0).nonzero().tolist() == [
        [row, column] for row in (6, 7, 8) for column in (9, 10)
    ]
    assert (number[1] <= 0).all()  # padding is nobody's object


def test_a_tiny_object_between_the_cells_middles_has_a_cell():
    number = assign(tensor([[[11.0, 11, 13, 13]]]), tensor([[3]]), 8, 8)
    assert (number >= 0).sum() > 0


def test_of_two_objects_a_cell_answers_for_the_smaller():
    boxes = tensor([[[0.0, 0, 64, 64], [28, 28, 36, 36]]])
    both = assign(boxes, tensor([[0, 3]]), 16, 16)
    assert both[0, 8, 8] == 1
    assert assign(boxes, tensor([[0, -1]]), 16, 16)[0, 8, 8] == 0


def test_boxes_are_mirrored_with_their_images():
    images = torch.zeros(40, 1, 64, 96)
    boxes = tensor([[[10.0, 20, 30, 40]]]).expand(40, 1, 4)
    images[:, :, 20:40, 10:30] = 1
    boxes, images = mirror_scenes(torch.Generator().manual_seed(0), boxes, images)
    assert set(boxes[:, 0, 0].tolist()) == {10, 66}
    for (left, top, right_, bottom), image in zip(
        boxes[:, 0].int().tolist(), images, strict=True
    ):
        assert image[0, top:bottom, left:right_].sum() == image.sum() == 400


def test_prepare(scenes):
    example = TASK.prepare(scenes)
    (images,), (boxes, labels) = example.inputs, example.targets
    assert images.shape == (8, 3, 64, 64)
    assert images.min() >= 0 and 0.5 < images.max() <= 1
    assert torch.equal(boxes, scenes.boxes) and torch.equal(labels, scenes.labels)


# --- the loss ---


def test_the_loss_is_least_at_the_truth():
    truth = sure_output(BOXES, LABELS, 16, 24)
    assert detection_loss(truth, BOXES, LABELS) < 1e-3

    def loss_with(shift=0.0, doubt=1.0):
        moved = tensor([shift, 0, shift, 0]).view(1, 4, 1, 1)
        output = DetectorOutput(doubt * truth.class_logits, truth.boxes + moved)
        return detection_loss(output, BOXES, LABELS).item()

    assert loss_with() < loss_with(shift=2) < loss_with(shift=4) < loss_with(shift=40)
    assert loss_with() < loss_with(doubt=0.5) < loss_with(doubt=-1)


def test_boxes_that_do_not_touch_the_truth_still_get_a_gradient():
    truth = sure_output(BOXES, LABELS, 16, 24)
    boxes = (truth.boxes + 200).requires_grad_()
    detection_loss(DetectorOutput(truth.class_logits, boxes), BOXES, LABELS).backward()
    assert boxes.grad.abs().sum() > 0


def test_an_image_without_objects_has_a_loss():
    output = sure_output(BOXES, LABELS, 16, 24)
    nothing = torch.full_like(LABELS, -1)
    loss = detection_loss(output, BOXES, nothing)
    assert loss.isfinite()
    silent = output._replace(class_logits=-output.class_logits.abs())
    assert detection_loss(silent, BOXES, nothing) < loss


# --- detections ---


def test_neighbouring_cells_that_agree_become_one_detection():
    found = detect(*sure_output(BOXES, LABELS, 16, 24))
    assert [len(one.scores) for one in found] == [2, 1]
    for one, boxes, labels in zip(found, BOXES, LABELS, strict=True):
        order = one.labels.argsort()
        expected = labels[labels >= 0].sort()
        assert torch.equal(one.labels[order], expected.values)
        assert torch.equal(one.boxes[order], boxes[expected.indices])


def test_boxes_of_different_classes_do_not_suppress_each_other():
    logits = torch.full((1, 4, 16, 24), -12.0)
    logits[0, 0, 3, 3], logits[0, 1, 3, 3], logits[0, 0, 3, 4] = 4.0, 3.0, 2.0
    boxes = tensor([4.0, 4, 24, 24]).view(1, 4, 1, 1).expand(1, 4, 16, 24)
    (found,) = detect(logits, boxes)
    assert found.labels.tolist() == [0, 1]
    assert found.cells.tolist() == [3 * 24 + 3] * 2
    torch.testing.assert_close(found.scores, tensor([4.0, 3.0]).sigmoid())


# --- the task ---


def test_a_perfect_model_has_a_perfect_ap(scenes):
    class Perfect(torch.nn.Module):
        def forward(self, images):
            return sure_output(scenes.boxes, scenes.labels, 16, 16)

    measured = TASK.measure(Perfect(), scenes)
    # Short of 1 only if two objects have one middle.
    assert measured["AP50"] == measured[TASK.metric] > 0.9


def test_the_baseline_answers_with_frequent_boxes():
    base = make_scenes(4, seed=0, size=64)
    boxes, labels = torch.zeros(4, 8, 4), torch.full((4, 8), -1)
    boxes[:3, 0] = tensor([[10.0, 10, 20, 20], [10, 10, 20, 22], [10, 10, 20, 24]])
    boxes[3, 0] = tensor([40.0, 40, 50, 50])
    labels[:, 0] = 2
    train = replace(base, boxes=boxes, labels=labels)

    typical = typical_objects(train)
    # The first box finds three objects; the second what is left.
    assert typical.labels.tolist() == [2, 2]
    assert typical.scores.tolist() == [3 / 4, 1 / 4]
    assert typical.boxes[1].tolist() == [40, 40, 50, 50]
    # In four images: three right of four, then one right of four more.
    assert TASK.baseline(train, train) == pytest.approx(3 / 4 * 3 / 4 + 1 / 4 * 4 / 8)
    assert TASK.baseline(train, replace(train, boxes=boxes + 100)) == 0


def test_a_few_steps_lower_the_loss(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=12, learning_rate=2e-3)
    assert losses[-1] < 0.7 * losses[0]
    assert TASK.figure(model.eval(), scenes).axes
