"""The detector against plain re-computations: model, targets, loss, detections, AP."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn, tensor
from torch.nn.functional import batch_norm, conv2d

from src.vision_tasks.shared.encoder import CHANNELS, Encoder, Features
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.object_detection import (
    DetectionHead,
    Detections,
    Detector,
    DetectorOutput,
    ObjectDetection,
    SingleBoxDetector,
    TopDown,
    assign,
    box_metrics,
    cell_centres,
    detect,
    detection_loss,
    mirror_scenes,
    typical_objects,
)

TASK = ObjectDetection()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/object_detection.md"
NAMES = ("car", "truck", "bus", "pedestrian")
#: Two images of 64 x 96 with a bus and a pedestrian, and with a car.
BOXES = tensor([[[8.0, 8, 40, 32], [61, 40, 64, 52]], [[30, 20, 50, 40], [0, 0, 0, 0]]])
LABELS = tensor([[2, 3], [0, -1]])


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


@pytest.fixture
def scenes_with(scenes):
    """A function: scenes with these objects only, each list one scene's."""

    def make(*objects: list[tuple[int, list[float]]]) -> Scenes:
        several = scenes[[0] * len(objects)]
        boxes, labels = (
            torch.zeros(len(objects), 8, 4),
            torch.full((len(objects), 8), -1),
        )
        for scene, mine in enumerate(objects):
            for number, (label, box) in enumerate(mine):
                labels[scene, number], boxes[scene, number] = label, tensor(box)
        images = torch.zeros_like(several.images)
        images[:, 0, 0, 0] = torch.arange(len(objects))  # for `Told`
        return replace(several, images=images, boxes=boxes, labels=labels)

    return make


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


class Told(nn.Module):
    """Says for the scene whose number is the first pixel's red what it was told."""

    def __init__(self, output: DetectorOutput) -> None:
        super().__init__()
        self.output = output

    def forward(self, images):
        number = (images[:, 0, 0, 0] * 255).round().long()
        return DetectorOutput(*(each[number] for each in self.output))


# --- the models ---


def convolved(layers: nn.Sequential, x: Tensor) -> Tensor:
    """3x3 convolution, BatchNorm, ReLU, with the weights of these layers."""
    conv, norm, _ = layers
    x = conv2d(x, conv.weight, padding=1)
    mean, var = norm.running_mean, norm.running_var
    return batch_norm(x, mean, var, norm.weight, norm.bias, eps=1e-5).clamp(min=0)


def random_features(height: int, width: int) -> Features:
    """Of images [2, 3, height, width], in float64."""
    strides = (2, 4, 8, 16, 32)
    return Features(
        *(
            torch.randn(2, channels, height // s, width // s, dtype=torch.float64)
            for channels, s in zip(CHANNELS, strides, strict=True)
        )
    )


def exactly(one, other):
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_top_down_path_joins_each_level_with_the_next_finer_one(drawn_norms):
    torch.manual_seed(0)
    path = drawn_norms(TopDown())
    features = random_features(32, 64)
    x = features.thirtysecond
    for block, skip in [
        (path.sixteenth, features.sixteenth),
        (path.eighth, features.eighth),
        (path.quarter, features.quarter),
    ]:
        enlarged = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = convolved(block.convolve, torch.cat([enlarged, skip], dim=1))
    assert x.shape == (2, 64, 8, 16)
    exactly(path(features), x)


def test_the_head_gives_logits_and_boxes_around_each_cells_middle(drawn_norms):
    torch.manual_seed(0)
    head = drawn_norms(DetectionHead(3))
    nn.init.normal_(head.locate[-1].weight, std=2)  # so large that sizes are clamped
    features = torch.randn(2, 64, 3, 5, dtype=torch.float64, requires_grad=True)
    output = head(features)

    hidden = convolved(head.classify[0], features)
    last = head.classify[1]
    exactly(output.class_logits, conv2d(hidden, last.weight, last.bias))

    located = conv2d(
        convolved(head.locate[0], features), head.locate[1].weight, head.locate[1].bias
    )
    dx, dy, log_width, log_height = located.unbind(1)
    assert (located[:, 2:] > 6).any() and (located[:, 2:] < -6).any()
    x = 4 * (torch.arange(5) + 0.5 + dx)
    y = 4 * (torch.arange(3)[:, None] + 0.5 + dy)
    width, height = 4 * log_width.clamp(max=6).exp(), 4 * log_height.clamp(max=6).exp()
    sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    exactly(output.boxes, torch.stack(sides, dim=1))
    for part in output:  # both branches train what is below them
        (gradient,) = torch.autograd.grad(part.sum(), features, retain_graph=True)
        assert gradient.any()


def test_a_new_head_says_1_percent_and_16_pixels_around_the_cell():
    torch.manual_seed(0)
    head = DetectionHead(4).eval()
    exactly(head.classify[-1].bias, torch.full((4,), -math.log(99)))
    assert head.classify[-1].weight.std() > 0.01  # drawn as usual
    boxes = head(torch.rand(1, 64, 2, 3)).boxes[0]
    middles = tensor([[[2.0, 6, 10], [2, 6, 10]], [[2, 2, 2], [6, 6, 6]]])
    assert torch.equal(cell_centres(2, 3), middles)
    torch.testing.assert_close(boxes, torch.cat([middles - 8, middles + 8]))


def test_the_detector_is_encoder_top_down_path_and_head(drawn_norms):
    torch.manual_seed(0)
    model = drawn_norms(Detector(3))
    nn.init.normal_(model.head.locate[-1].weight, std=0.01)
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    output = model(images)
    assert output.class_logits.shape == (2, 3, 8, 16)
    assert output.boxes.shape == (2, 4, 8, 16)
    expected = model.head(model.top_down(model.encoder(images)))
    stem = model.encoder.stem[0].weight
    assert torch.autograd.grad(output.boxes.sum(), stem, retain_graph=True)[0].any()
    for one, other in zip(output, expected, strict=True):
        exactly(one, other)


def test_the_single_box_is_a_middle_and_a_size_as_parts_of_the_image(drawn_norms):
    torch.manual_seed(0)
    model = drawn_norms(SingleBoxDetector(7))
    images = torch.rand(3, 3, 32, 96, dtype=torch.float64)
    output = model(images)
    pooled = model.encoder(images)[-1].flatten(2).sum(2) / 3
    exactly(
        output.class_logits, pooled @ model.class_head.weight.T + model.class_head.bias
    )
    raw = pooled @ model.box_head.weight.T + model.box_head.bias
    x, y, width, height = (1 / (1 + (-raw).exp())).unbind(1)
    sides = [
        96 * (x - width / 2),
        32 * (y - height / 2),
        96 * (x + width / 2),
        32 * (y + height / 2),
    ]
    exactly(output.box, torch.stack(sides, dim=1))


@pytest.mark.parametrize("shape", [(2, 3, 100, 96), (2, 1, 64, 64), (3, 64, 64)])
def test_images_of_other_shapes_are_refused(shape):
    for model in (Detector(), SingleBoxDetector()):
        with pytest.raises(ValueError, match=str(shape[-2])):
            model(torch.rand(shape))


def test_the_models_have_the_scenes_classes_and_the_asked_start():
    images = TASK.example_inputs()[0]
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)
    start = Encoder(pretrained=True).stem[0].weight
    for build in (TASK.build_model, Detector, SingleBoxDetector):
        model = build(pretrained=True)
        assert torch.equal(model.encoder.stem[0].weight, start)
    mine, single, ours = Detector(), SingleBoxDetector(), TASK.build_model()
    for model in (mine, single, ours):
        assert not torch.equal(model.encoder.stem[0].weight, start)
    assert mine.head.classify[-1].out_channels == single.class_head.out_features == 10
    assert ours.head.classify[-1].out_channels == len(NAMES)


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


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        # hardly a pixel, between the cells' middles: the cells it touches
        ([11.0, 11, 13, 13], [[2, 2], [2, 3], [3, 2], [3, 3]]),
        ([11.0, 11, 12.9, 13], [[2, 2], [3, 2]]),
        # the middle in that of a cell, the neighbours' middles on the sides
        ([6.0, 6, 14, 14], [[r, c] for r in (1, 2, 3) for c in (1, 2, 3)]),
        ([6.1, 6, 13.9, 14], [[1, 2], [2, 2], [3, 2]]),
        # large; exactly 6 pixels, one and a half cells, is too far away
        ([0.0, 0, 24, 24], [[2, 2], [2, 3], [3, 2], [3, 3]]),
        ([0.1, 0, 24.1, 24], [[2, 2], [2, 3], [2, 4], [3, 2], [3, 3], [3, 4]]),
    ],
)
def test_which_cells_answer(box, cells):
    number = assign(tensor([[box]]), tensor([[3]]), 8, 8)
    assert (number[0] == 0).nonzero().tolist() == cells
    assert (number[0] == -1).sum() == 64 - len(cells)


def test_of_several_objects_a_cell_answers_for_the_smallest():
    boxes = tensor([[[0.0, 0, 64, 64], [28, 28, 36, 36], [24, 30, 40, 34]]])
    for labels, expected in [([0, 3, 0], 1), ([0, -1, 3], 2), ([0, -1, -1], 0)]:
        # of equal area the earlier one, the nearer
        assert assign(boxes, tensor([labels]), 16, 16)[0, 8, 8] == expected
    assert assign(boxes.flip(1), tensor([[0, 0, 1]]), 16, 16)[0, 8, 8] == 0


def test_boxes_are_mirrored_with_their_images():
    images = torch.zeros(40, 1, 64, 96)
    boxes = tensor([[[10.0, 20, 30, 40]]]).expand(40, 1, 4)
    images[:, :, 20:40, 10:30] = 1
    boxes, images, again = mirror_scenes(
        Generator().manual_seed(0), boxes, images, images[:, 0]
    )
    flips = torch.rand(40, generator=Generator().manual_seed(0)) < 0.5
    assert torch.equal(boxes[:, 0, 0] == 66, flips)
    assert set(boxes[:, 0, 0].tolist()) == {10, 66}
    assert torch.equal(again, images[:, 0])
    for (left, top, right, bottom), image in zip(
        boxes[:, 0].int().tolist(), images, strict=True
    ):
        assert image[0, top:bottom, left:right].sum() == image.sum() == 400


def test_a_batch_holds_images_boxes_and_labels(scenes):
    batch = TASK.prepare(scenes)
    (images,), (boxes, labels) = batch.inputs, batch.targets
    assert torch.equal(images, scenes.images / 255)
    assert torch.equal(boxes, scenes.boxes) and torch.equal(labels, scenes.labels)

    batch = TASK.prepare(scenes, Generator().manual_seed(0))
    expected = mirror_scenes(Generator().manual_seed(0), scenes.boxes, images)
    assert torch.equal(batch.targets[0], expected[0])
    assert torch.equal(batch.inputs[0], expected[1])
    assert torch.equal(batch.targets[1], scenes.labels)
    assert not torch.equal(batch.inputs[0], images)


# --- the loss ---


def one_giou(a: list[float], b: list[float]) -> float:
    """IoU, less the part of the smallest box around both that neither fills."""
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    shared = math.prod(
        max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)
    )
    around = math.prod(max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1))
    union = sum(area) - shared
    return shared / union - (around - union) / around


@pytest.mark.parametrize("labels", [LABELS, torch.full_like(LABELS, -1)])
def test_the_loss_is_focal_loss_and_giou_per_answering_cell(labels):
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 4, 16, 24, dtype=torch.float64)
    corners = 40 * torch.rand(2, 2, 16, 24, dtype=torch.float64)
    sizes = 1 + 40 * torch.rand(2, 2, 16, 24, dtype=torch.float64)
    output = DetectorOutput(logits, torch.cat([corners, corners + sizes], dim=1))

    answers = (assign(BOXES, labels, 16, 24) >= 0).nonzero().tolist()
    number = assign(BOXES, labels, 16, 24)
    yes = torch.zeros(2, 4, 16, 24, dtype=torch.bool)
    expected = 0.0
    for image, row, column in answers:
        which = number[image, row, column].item()
        yes[image, labels[image, which].item(), row, column] = True
        box = output.boxes[image, :, row, column].tolist()
        expected += 1 - one_giou(box, BOXES[image, which].tolist())
    p = logits.sigmoid()
    expected += (-0.25 * (1 - p) ** 2 * p.log())[yes].sum().item()
    expected += (-0.75 * p**2 * (1 - p).log())[~yes].sum().item()
    assert len(answers) == (13 if labels is LABELS else 0)
    expected /= max(1, len(answers))

    boxes = BOXES.double()
    assert detection_loss(output, boxes, labels).item() == pytest.approx(expected, 1e-6)
    task_loss = TASK.loss(output, (boxes, labels))
    assert torch.equal(task_loss, detection_loss(output, boxes, labels))


def test_boxes_that_do_not_touch_the_truth_still_get_a_gradient():
    truth = sure_output(BOXES, LABELS, 16, 24)
    assert detection_loss(truth, BOXES, LABELS) < 1e-3
    boxes = (truth.boxes + 200).requires_grad_()
    detection_loss(DetectorOutput(truth.class_logits, boxes), BOXES, LABELS).backward()
    assert boxes.grad.abs().sum() > 0


# --- detections ---


def cells_saying(*answers: tuple[int, int, float, list[float]]) -> DetectorOutput:
    """One image of 4 x 5 cells that say (class, cell, logit, box), else nothing."""
    logits, boxes = torch.full((1, 3, 20), -12.0), torch.zeros(1, 4, 20)
    for label, cell, logit, box in answers:
        logits[0, label, cell], boxes[0, :, cell] = logit, tensor(box)
    return DetectorOutput(logits.view(1, 3, 4, 5), boxes.view(1, 4, 4, 5))


def test_neighbouring_cells_that_agree_become_one_detection():
    found = detect(*sure_output(BOXES, LABELS, 16, 24))
    assert [len(one.scores) for one in found] == [2, 1]
    for one, boxes, labels in zip(found, BOXES, LABELS, strict=True):
        order = one.labels.argsort()
        expected = labels[labels >= 0].sort()
        assert torch.equal(one.labels[order], expected.values)
        assert torch.equal(one.boxes[order], boxes[expected.indices])


def test_detections_come_with_class_cell_and_box_from_the_surest_down():
    (found,) = detect(
        *cells_saying(
            (2, 7, 1.0, [0, 0, 8, 8]),
            (0, 13, 3.0, [20, 0, 28, 8]),
            (1, 19, 2.0, [40, 0, 48, 8]),
        )
    )
    assert found.labels.tolist() == [0, 1, 2]
    assert found.cells.tolist() == [13, 19, 7]
    assert found.boxes[:, 0].tolist() == [20, 40, 0]
    torch.testing.assert_close(found.scores, tensor([3.0, 2.0, 1.0]).sigmoid())


@pytest.mark.parametrize(
    ("other", "label", "kept"),
    [
        ([0, 0, 8, 4], 1, [1, 2]),  # an IoU of 1/2: not more than half
        ([0, 0, 8, 4.1], 1, [1]),
        ([0, 0, 8, 8], 2, [1, 2]),  # another class
    ],
)
def test_boxes_of_one_class_that_overlap_by_more_than_half_are_one(other, label, kept):
    output = cells_saying((1, 1, 3.0, [0, 0, 8, 8]), (label, 2, 2.0, other))
    assert detect(*output)[0].cells.tolist() == kept


def test_one_cell_may_find_two_classes():
    box = [4, 4, 24, 24]
    (found,) = detect(*cells_saying((0, 3, 4.0, box), (1, 3, 3.0, box)))
    assert found.labels.tolist() == [0, 1]
    assert found.cells.tolist() == [3, 3]


def test_only_scores_above_the_threshold_and_the_highest_count():
    boxes = [[10.0 * i, 0, 10 * i + 8, 8] for i in range(4)]
    logits = (0.0, -2.9, -3.0, 1.0)  # scores 0.5, 0.052, 0.047 and 0.73
    output = cells_saying(*((0, i, logits[i], boxes[i]) for i in range(4)))
    assert detect(*output)[0].cells.tolist() == [3, 0, 1]
    assert detect(*output, threshold=0.5)[0].cells.tolist() == [3]
    assert detect(*output, threshold=0.0, most=3)[0].cells.tolist() == [3, 0, 1]
    assert len(detect(*output, threshold=0.9)[0].scores) == 0


def test_of_all_candidates_the_100_surest_go_into_suppression():
    logits = torch.zeros(2, 1, 11, 10)
    x = 10.0 * torch.arange(110).view(11, 10)
    boxes = torch.stack([x, 0 * x, x + 8, 0 * x + 8]).expand(2, 4, 11, 10)
    assert [len(one.scores) for one in detect(logits, boxes)] == [100, 100]
    everywhere = torch.zeros_like(boxes) + tensor([0, 0, 8, 8]).view(4, 1, 1)
    assert len(detect(logits, everywhere)[1].scores) == 1


# --- metrics ---


BUS, CAR = (2, [8.0, 8, 40, 32]), (0, [10.0, 40, 20, 50])


def found_in(*objects: tuple[int, list[float], float]) -> Detections:
    labels, boxes, scores = zip(*objects, strict=True) if objects else ([], [], [])
    return Detections(
        tensor(boxes).view(-1, 4), tensor(labels), tensor(scores), torch.empty(0)
    )


def metrics(ap50: float, ap75: float, car: float, bus: float) -> dict:
    each = zip(NAMES, (car, math.nan, bus, math.nan), strict=True)
    values = {"AP50": ap50, "AP75": ap75} | {f"AP50 of {n}": ap for n, ap in each}
    return pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([(*BUS, 0.9), (*CAR, 0.8)], [(*CAR, 0.7)], (1, 1, 1, 1)),
        ([], [], (0, 0, 0, 0)),
        ([(*CAR, 0.8)], [(*BUS, 0.9)], (1 / 4, 1 / 4, 1 / 2, 0)),  # bus: no such object
        # the wrong class; an object found twice
        ([(2, CAR[1], 0.9), (0, BUS[1], 0.8)], [(*CAR, 0.9)], (0.25, 0.25, 0.5, 0)),
        ([(*CAR, 0.9), (*CAR, 0.8)], [(*CAR, 0.7)], (5 / 12, 5 / 12, 5 / 6, 0)),
        # an IoU of 0.6 (and 0.75) is enough for AP50 (and AP75)
        ([(0, [10.0, 40, 20, 46], 0.9)], [(*CAR, 0.8)], (0.5, 0.25 / 2, 1, 0)),
        ([(2, [8.0, 8, 32, 32], 0.9)], [], (1 / 2, 1 / 2, 0, 1)),
        ([(2, [8.0, 8, 24, 32], 0.9)], [], (1 / 2, 0, 0, 1)),
    ],
)
def test_metrics_by_hand(scenes_with, first, second, expected):
    """Scenes with a bus and a car, and with a car; no trucks and pedestrians."""
    scenes = scenes_with([BUS, CAR], [CAR])
    result = box_metrics([found_in(*first), found_in(*second)], scenes)
    assert result == metrics(*expected)
    assert next(iter(result)) == TASK.metric


def test_a_model_is_measured_on_what_it_detects_in_all_scenes(scenes_with):
    """The 51st scene goes into a second batch."""
    scenes = scenes_with(*[[BUS, CAR]] * 50, [CAR])
    right = sure_output(scenes.boxes, scenes.labels, 16, 16)
    assert TASK.measure(Told(right), scenes) == metrics(1, 1, 1, 1)
    # weak answers count: below 0.4, at which the figure cuts, but above 0.05
    weak = right._replace(class_logits=right.class_logits.clamp(max=-2.0))
    assert TASK.measure(Told(weak), scenes) == metrics(1, 1, 1, 1)
    nothing = right._replace(class_logits=right.class_logits.clamp(max=-4.0))
    assert TASK.measure(Told(nothing), scenes) == metrics(0, 0, 0, 0)
    shifted = DetectorOutput(*(each.roll(1, 0) for each in right))
    measured = TASK.measure(Told(shifted), scenes)
    # 50 buses, 49 of them found; equal scores: one point of the curve
    assert measured["AP50 of bus"] == pytest.approx(49 / 50 * 49 / 50)


def test_the_typical_boxes_are_chosen_greedily(scenes_with):
    a, b, c = [10.0, 10, 20, 20], [10.0, 10, 20, 22], [10.0, 10, 20, 24]
    # The first box finds three objects (two of them b and c); then one is left.
    train = scenes_with([(2, a)], [(2, b)], [(2, c)], [(2, [40.0, 40, 50, 50])])
    typical = typical_objects(train)
    assert typical.labels.tolist() == [2, 2]
    assert typical.scores.tolist() == [3 / 4, 1 / 4]
    assert typical.boxes.tolist() == [a, [40, 40, 50, 50]]
    assert len(typical_objects(train, per_class=1).boxes) == 1
    # In four images: three right of four, then one right of four more.
    assert TASK.baseline(train, train) == pytest.approx(3 / 4 * 3 / 4 + 1 / 4 * 4 / 8)
    assert TASK.baseline(train, replace(train, boxes=train.boxes + 100)) == 0


def test_a_typical_box_finds_what_it_overlaps_by_half(scenes_with):
    """An IoU of exactly 1/2 is found, of 5/11 not; each class is for itself."""
    box, half, less = [0.0, 0, 10, 10], [0.0, 0, 10, 5], [0.0, 0, 10, 22]
    train = scenes_with([(0, half), (0, box), (0, less)], [(3, box), (1, box)])
    typical = typical_objects(train)
    assert typical.labels.tolist() == [0, 0, 1, 3]
    assert typical.boxes.tolist() == [half, less, box, box]
    assert typical.scores.tolist() == [2 / 2, 1 / 2, 1 / 2, 1 / 2]


def test_at_most_ten_boxes_a_class_are_typical(scenes_with):
    places = [(0, [5.0 * i, 0, 5 * i + 4, 4]) for i in range(12)]
    train = scenes_with(places[:6], places[6:])
    assert typical_objects(train).labels.tolist() == [0] * 10
    test = scenes_with(places[:1], places[:1], places[1:2])
    guess = TASK.baselines(train, test)
    (name,) = guess
    assert name == "the ten most frequent boxes of each class, in every image"
    # three found among 30 of equal score
    assert guess[name]["AP50 of car"] == pytest.approx(3 / 30)


def test_without_any_object_there_is_nothing_typical(scenes_with):
    with pytest.raises(ValueError, match="none of the 2 scenes holds an object"):
        typical_objects(scenes_with([], []))


# --- the task ---


def test_a_few_steps_lower_the_loss(overfit):
    torch.manual_seed(0)
    batch = TASK.prepare(make_scenes(2, seed=1, size=32))
    losses = overfit(TASK, TASK.build_model(), batch, steps=3, learning_rate=2e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_the_figure_shows_truth_scores_and_what_is_surely_found(scenes_with):
    scenes = scenes_with([CAR], [BUS, CAR], [BUS, CAR], [BUS, CAR])
    output = sure_output(scenes.boxes, scenes.labels, 16, 16)
    output.class_logits[1].clamp_(max=-0.3)  # 0.43: shown
    output.class_logits[2].clamp_(max=-0.5)  # 0.38: not shown
    figure = TASK.figure(Told(output), scenes)
    axes = figure.axes
    titles = ["truth", "highest class score of each cell", "predicted"]
    assert [axis.get_title() for axis in axes] == titles + [""] * 6
    # scenes 1 to 3, which show more classes than scene 0
    assert [axis.images[0].get_array()[0, 0, 0] for axis in axes[::3]] == [1, 2, 3]
    assert [axis.images[0].get_array()[0, 0, 0] for axis in axes[2::3]] == [1, 2, 3]
    assert [[len(axis.patches) for axis in axes[i::3]] for i in range(3)] == [
        [2, 2, 2],
        [0, 0, 0],
        [2, 0, 2],
    ]
    assert [text.get_text() for text in axes[0].texts] == ["bus", "car"]
    assert sorted(text.get_text() for text in axes[2].texts) == ["bus 43%", "car 43%"]
    for axis, logits in zip(axes[1::3], output.class_logits[1:], strict=True):
        shown = tensor(axis.images[0].get_array().data)
        torch.testing.assert_close(shown, logits.sigmoid().amax(0))
        assert axis.images[0].get_clim() == (0, 1)


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 2. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page
    assert f"the baseline ({TASK.baseline_name}); higher is better" in page
    assert TASK.higher_is_better and TASK.name == PAGE.stem
    weights = sum(each.numel() for each in TASK.build_model().parameters())
    assert f"; {weights:,} parameters; " in page
    assert TASK.recipe == TaskRecipe(800, 8, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 800 steps of 8, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
