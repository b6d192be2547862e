"""Prototypes and coefficients, masks and their loss, against plain re-computations."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn, tensor
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, interpolate

from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.instance_segmentation import (
    InstanceOutput,
    InstanceSegmentation,
    InstanceSegmenter,
    Segmented,
    in_order_of,
    mask_loss,
    mask_metrics,
    segment,
    true_masks,
    within,
)
from src.vision_tasks.tasks.object_detection import (
    Detections,
    DetectorOutput,
    assign,
    detect,
    detection_loss,
)

TASK = InstanceSegmentation()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/instance_segmentation.md"
NAMES = ("car", "truck", "bus", "pedestrian")
#: One image of 32 x 32 with two cars side by side, that touch, and a row of padding.
BOXES = tensor([[[4.0, 8, 16, 20], [16, 8, 28, 20], [0, 0, 0, 0]]])
LABELS = tensor([[0, 0, -1]])


@pytest.fixture
def instances() -> Tensor:
    """[1, 32, 32]: each car is a triangle in its box."""
    instances = torch.zeros(1, 32, 32, dtype=torch.uint8)
    triangle = torch.ones(12, 12).tril().bool()
    instances[0, 8:20, 4:16][triangle] = 1
    instances[0, 8:20, 16:28][triangle] = 2
    return instances


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


def sure_output(instances: Tensor) -> InstanceOutput:
    """One cell finds each car; prototype k is where instance k is, only there."""
    logits = torch.full((1, 2, 8, 8), -12.0)
    boxes, coefficients = torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 8, 8)
    for which, (row, column) in enumerate([(3, 2), (3, 5)]):
        logits[0, 0, row, column] = 12.0 - which
        boxes[0, :, row, column] = BOXES[0, which]
        coefficients[0, which, row, column] = 1.0
    masks = true_masks(instances[0], LABELS[0]).float()  # [2, 32, 32]
    prototypes = avg_pool2d(masks, 2)[None] * 20 - 10
    return InstanceOutput(logits, boxes, coefficients, prototypes)


class Told(nn.Module):
    """Says for the scene whose number is the first pixel's red what it was told."""

    def __init__(self, output: InstanceOutput) -> None:
        super().__init__()
        self.output = output

    def forward(self, images):
        number = (images[:, 0, 0, 0] * 255).round().long()
        return InstanceOutput(*(each[number] for each in self.output))


# --- the model ---


def convolved(layers: nn.Sequential, x: Tensor) -> Tensor:
    """3x3 convolution, BatchNorm, ReLU, with the weights of these layers."""
    conv, norm, _ = layers
    x = conv2d(x, conv.weight, padding=1)
    mean, var = norm.running_mean, norm.running_var
    return batch_norm(x, mean, var, norm.weight, norm.bias, eps=1e-5).clamp(min=0)


def test_the_model_is_the_detector_with_prototypes_and_coefficients():
    torch.manual_seed(0)
    model = InstanceSegmenter(5, prototypes=6).double().eval()
    nn.init.normal_(model.head.locate[-1].weight, std=0.01)
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    features = model.encoder(images)
    fine = model.top_down(features)
    logits, boxes = model.head(fine)
    hidden, last = convolved(model.coefficients[0], fine), model.coefficients[1]
    enlarged = fine.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    finer = torch.cat([enlarged, features.half], dim=1)
    finer = convolved(model.to_half.convolve, finer)
    end = model.prototypes
    prototypes = conv2d(finer, end.weight, end.bias)
    assert (prototypes < 0).any() and (prototypes > 0).any()
    expected = InstanceOutput(
        class_logits=logits,
        boxes=boxes,
        coefficients=conv2d(hidden, last.weight, last.bias),
        prototypes=prototypes.clamp(min=0),
    )
    output = model(images)
    stem = model.encoder.stem[0].weight
    for name in InstanceOutput._fields:
        one, other = getattr(output, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        assert torch.autograd.grad(one.sum(), stem, retain_graph=True)[0].any()
    assert output.class_logits.shape == (2, 5, 8, 16)
    assert output.coefficients.shape == (2, 6, 8, 16)
    assert output.prototypes.shape == (2, 6, 16, 32)


def test_the_model_has_the_scenes_classes_and_the_asked_start():
    images = TASK.example_inputs()[0]
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)
    start = Encoder(pretrained=True).stem[0].weight
    for build, classes in [(InstanceSegmenter, 10), (TASK.build_model, len(NAMES))]:
        assert torch.equal(build(pretrained=True).encoder.stem[0].weight, start)
        model = build()
        assert not torch.equal(model.encoder.stem[0].weight, start)
        assert model.head.classify[-1].out_channels == classes
        assert model.prototypes.out_channels == 16
        assert model.coefficients[-1].out_channels == 16


@pytest.mark.parametrize("shape", [(2, 3, 100, 96), (2, 1, 64, 64)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=str(shape[-2])):
        InstanceSegmenter()(torch.rand(shape))


# --- masks ---


@pytest.mark.parametrize(
    ("box", "options", "expected"),
    [
        # rows and columns whose middles are in [1, 3] and [0, 2]
        ([1.0, 0, 3, 2], {}, [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        # a middle on a side counts, on any side
        ([0.5, 1.5, 2.5, 2.5], {}, [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]),
        ([0.6, 1.6, 2.4, 2.4], {}, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        # pixels of 2 x 2, whose middles are at 1, 3, 5, 7
        ([2.5, 0, 6, 2], {"pixel": 2}, [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        # each side moved outwards
        ([2.0, 1, 3, 2], {"margin": 1}, [[0, 1, 1, 1]] * 3),
        (
            [3.0, 3, 4, 4],
            {"pixel": 2, "margin": 1.5},
            [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
        ),
    ],
)
def test_the_pixels_within_a_box(box, options, expected):
    boxes = tensor([[0.0, 0, 0, 0], box])
    inside = within(boxes, 3, 4, **options)
    assert inside.dtype == torch.bool
    assert inside[1].int().tolist() == expected


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
    assert torch.equal(masks, within(BOXES[0, :2], 32, 32, margin=2))
    assert masks[0].sum() == 16 * 16
    nowhere = output._replace(prototypes=torch.zeros_like(output.prototypes))
    assert not segment(nowhere)[0].masks.any()  # a sum of exactly 0 is outside


def random_output(count: int = 2) -> InstanceOutput:
    """Of `count` images of 32 x 32, in float64; boxes large enough for masks."""
    torch.manual_seed(0)
    corners = 20 * torch.rand(count, 2, 8, 8, dtype=torch.float64)
    sizes = 8 + 12 * torch.rand(count, 2, 8, 8, dtype=torch.float64)
    return InstanceOutput(
        torch.randn(count, 2, 8, 8, dtype=torch.float64),
        torch.cat([corners, corners + sizes], dim=1),
        torch.randn(count, 3, 8, 8, dtype=torch.float64),
        torch.rand(count, 3, 16, 16, dtype=torch.float64),
    )


@pytest.mark.parametrize("threshold", [None, 0.75])
def test_a_mask_is_where_the_sum_of_its_cells_prototypes_is_positive(threshold):
    output = random_output()
    found = segment(output) if threshold is None else segment(output, threshold)
    expected = detect(output.class_logits, output.boxes, threshold or 0.05)
    assert len(found) == 2
    for number, (objects, masks) in enumerate(found):
        for one, other in zip(objects, expected[number], strict=True):
            assert torch.equal(one, other)
        assert masks.shape == (len(objects.scores), 32, 32)
        assert masks.dtype == torch.bool
        for which, cell in enumerate(objects.cells.tolist()):
            coefficients = output.coefficients[number, :, cell // 8, cell % 8]
            mask = (coefficients.view(3, 1, 1) * output.prototypes[number]).sum(0)
            large = interpolate(mask[None, None], (32, 32), mode="bilinear")[0, 0]
            near = within(objects.boxes[which : which + 1], 32, 32, margin=2)[0]
            assert torch.equal(masks[which], (large > 0) & near)
        assert masks.any(0).any() and not masks.all()


# --- the mask loss ---


def test_the_mask_loss_is_cross_entropy_in_and_around_each_box():
    """Two images; a small and a large object, one that is cut, and padding."""
    output = random_output()
    boxes = tensor(
        [
            [[3.0, 5, 20, 17], [22, 20, 27, 30], [0, 0, 0, 0]],
            [[0, 0, 9, 32], [0, 0, 0, 0], [0, 0, 0, 0]],
        ]
    ).double()
    labels = tensor([[0, 1, -1], [1, -1, -1]])
    instances = torch.zeros(2, 32, 32, dtype=torch.uint8)
    instances[0, 5:17, 3:20] = 1
    instances[0, 20:30, 22:27] = 2
    instances[0, 21:23, 22:27] = 0
    instances[1, :, :9] = 1

    number = assign(boxes, labels, 8, 8)
    losses = []
    for image, row, column in (number >= 0).nonzero().tolist():
        which = number[image, row, column].item()
        left, top, right, bottom = boxes[image, which].tolist()
        coefficients = output.coefficients[image, :, row, column]
        logits = (coefficients.view(3, 1, 1) * output.prototypes[image]).sum(0)
        truth = (instances[image] == which + 1).double()
        pixels = []
        for y in range(16):
            for x in range(16):
                if not (left - 2 <= 2 * x + 1 <= right + 2):
                    continue
                if not (top - 2 <= 2 * y + 1 <= bottom + 2):
                    continue
                share = truth[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
                p = logits[y, x].sigmoid()
                pixels.append(-share * p.log() - (1 - share) * (1 - p).log())
        losses.append(sum(pixels) / len(pixels))
    assert len(losses) > 12
    expected = sum(losses) / len(losses)
    loss = mask_loss(output, boxes, labels, instances)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)

    total = TASK.loss(output, (boxes, labels, instances))
    detection = detection_loss(DetectorOutput(*output[:2]), boxes, labels)
    torch.testing.assert_close(total, detection + loss, rtol=1e-12, atol=0)


def test_images_without_objects_have_no_mask_loss(instances):
    nothing = torch.full_like(LABELS, -1)
    output = sure_output(instances)
    assert mask_loss(output, BOXES, nothing, instances) == 0
    assert TASK.loss(output, (BOXES, nothing, instances)).isfinite()


# --- batches ---


def test_a_batch_holds_images_boxes_labels_and_instances(scenes):
    batch = TASK.prepare(scenes)
    assert len(batch.inputs) == 1
    assert torch.equal(batch.inputs[0], scenes.images / 255)
    wanted = (scenes.boxes, scenes.labels, scenes.instances)
    for target, expected in zip(batch.targets, wanted, strict=True):
        assert torch.equal(target, expected)


def test_masks_are_mirrored_with_boxes_and_images(scenes):
    batch = TASK.prepare(scenes, Generator().manual_seed(0))
    boxes, labels, instances = batch.targets
    assert torch.equal(labels, scenes.labels)
    mirrored = (instances != scenes.instances).flatten(1).any(1)
    assert mirrored.any() and not mirrored.all()
    images = scenes.images / 255
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    assert torch.equal(batch.inputs[0], images)
    for image in range(len(scenes)):
        for which in (labels[image] >= 0).nonzero()[:, 0].tolist():
            row, column = (instances[image] == which + 1).nonzero(as_tuple=True)
            extent = torch.stack(
                [column.min(), row.min(), column.max() + 1, row.max() + 1]
            )
            assert torch.equal(boxes[image, which], extent.float())


# --- metrics ---


@pytest.fixture
def scenes_with(scenes):
    """A function: scenes with these rectangles as objects, each list one scene's."""

    def make(*objects: list[tuple[int, list[int]]]) -> Scenes:
        several = scenes[[0] * len(objects)]
        boxes = torch.zeros(len(objects), 8, 4)
        labels = torch.full((len(objects), 8), -1)
        instances = torch.zeros_like(several.instances)
        for scene, mine in enumerate(objects):
            for number, (label, box) in enumerate(mine):
                left, top, right, bottom = box
                labels[scene, number], boxes[scene, number] = label, tensor(box).float()
                instances[scene, top:bottom, left:right] = number + 1
        images = torch.zeros_like(several.images)
        images[:, 0, 0, 0] = torch.arange(len(objects))  # for `Told`
        return replace(
            several, images=images, boxes=boxes, labels=labels, instances=instances
        )

    return make


BUS, CAR = (2, [8, 8, 40, 32]), (0, [10, 40, 20, 50])


def found_in(*objects: tuple[int, list[int], float]) -> Segmented:
    """Masks alone are judged: the boxes are nowhere."""
    labels, areas, scores = zip(*objects, strict=True) if objects else ([], [], [])
    masks = torch.zeros(len(objects), 64, 64, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, areas, strict=True):
        mask[top:bottom, left:right] = True
    nowhere = torch.zeros(len(objects), 4)
    cells = torch.zeros(len(objects))
    return Segmented(Detections(nowhere, tensor(labels), tensor(scores), cells), masks)


def metrics(ap50: float, ap75: float, car: float, bus: float) -> dict:
    each = zip(NAMES, (car, math.nan, bus, math.nan), strict=True)
    values = {"mask AP50": ap50, "mask AP75": ap75}
    return pytest.approx(
        values | {f"mask AP50 of {name}": ap for name, ap in each}, nan_ok=True
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([(*BUS, 0.9), (*CAR, 0.8)], [(*CAR, 0.7)], (1, 1, 1, 1)),
        ([], [], (0, 0, 0, 0)),
        ([(2, CAR[1], 0.9), (0, BUS[1], 0.8)], [(*CAR, 0.9)], (0.25, 0.25, 0.5, 0)),
        ([(*CAR, 0.9), (*CAR, 0.8)], [(*CAR, 0.7)], (5 / 12, 5 / 12, 5 / 6, 0)),
        # an IoU of 0.6, 0.75 and 0.5
        ([(0, [10, 40, 20, 46], 0.9)], [(*CAR, 0.8)], (0.5, 0.25 / 2, 1, 0)),
        ([(2, [8, 8, 32, 32], 0.9)], [], (1 / 2, 1 / 2, 0, 1)),
        ([(2, [8, 8, 24, 32], 0.9)], [], (1 / 2, 0, 0, 1)),
    ],
)
def test_metrics_by_hand(scenes_with, first, second, expected):
    """Scenes with a bus and a car, and with a car; no trucks and pedestrians."""
    scenes = scenes_with([BUS, CAR], [CAR])
    result = mask_metrics([found_in(*first), found_in(*second)], scenes)
    assert result == metrics(*expected)
    assert next(iter(result)) == TASK.metric


def perfect(scenes: Scenes) -> InstanceOutput:
    """Every cell says what it should, of 64 x 64; a prototype for each object."""
    number = assign(scenes.boxes, scenes.labels, 16, 16)
    logits = torch.full((len(scenes), 4, 16, 16), -12.0)
    boxes = torch.zeros(len(scenes), 4, 16, 16)
    coefficients = torch.zeros(len(scenes), 8, 16, 16)
    for image, row, column in (number >= 0).nonzero().tolist():
        which = number[image, row, column]
        logits[image, scenes.labels[image, which], row, column] = 12.0
        boxes[image, :, row, column] = scenes.boxes[image, which]
        coefficients[image, which, row, column] = 1.0
    masks = scenes.instances[:, None] == torch.arange(1, 9).view(1, 8, 1, 1)
    prototypes = avg_pool2d(masks.float(), 2) * 20 - 10
    return InstanceOutput(logits, boxes, coefficients, prototypes)


def test_a_model_is_measured_on_what_it_segments_in_all_scenes(scenes_with):
    """The 51st scene goes into a second batch."""
    scenes = scenes_with(*[[BUS, CAR]] * 50, [CAR])
    right = perfect(scenes)
    assert TASK.measure(Told(right), scenes) == metrics(1, 1, 1, 1)
    # weak answers count: below 0.4, at which the figure cuts, but above 0.05
    weak = right._replace(class_logits=right.class_logits.clamp(max=-2.0))
    assert TASK.measure(Told(weak), scenes) == metrics(1, 1, 1, 1)
    nothing = right._replace(class_logits=right.class_logits.clamp(max=-4.0))
    assert TASK.measure(Told(nothing), scenes) == metrics(0, 0, 0, 0)
    empty = right._replace(prototypes=-right.prototypes.abs())
    assert TASK.measure(Told(empty), scenes) == metrics(0, 0, 0, 0)


def test_the_baseline_fills_frequent_boxes(scenes_with):
    car = (0, [10, 10, 20, 20])
    train = scenes_with([car], [car])
    name = "the ten most frequent boxes of each class, filled"
    assert TASK.baselines(train, train) == {
        name: pytest.approx(
            {"mask AP50": 1, "mask AP75": 1, "mask AP50 of car": 1}
            | {f"mask AP50 of {name}": math.nan for name in NAMES[1:]},
            nan_ok=True,
        )
    }
    instances = train.instances.clone()
    instances[1, 10:20, 14:20] = 0  # 40 of the 100 pixels: too few
    # Equal scores: half of the detections are right, and half of the objects found.
    assert TASK.baseline(train, replace(train, instances=instances)) == 1 / 2 * 1 / 2
    # the boxes as they are, without a margin, and from the training scenes
    assert TASK.baseline(train, scenes_with([(0, [10, 10, 20, 28])])) == 1
    assert TASK.baseline(train, scenes_with([(0, [10, 10, 20, 31])])) == 0
    places = [(0, [5 * i, 0, 5 * i + 4, 4]) for i in range(12)]
    many = scenes_with(places[:6], places[6:])
    # one found among ten of equal score
    assert TASK.baseline(many, scenes_with(places[:1])) == pytest.approx(1 / 10)


# --- the figure and the task ---


def test_masks_are_put_in_the_order_of_the_true_ones(instances):
    truth = true_masks(instances[0], LABELS[0])
    none = torch.zeros(32, 32, dtype=torch.bool)
    elsewhere = none.clone()
    elsewhere[:4] = True
    ordered = in_order_of(truth, torch.stack([elsewhere, truth[1]]))
    assert torch.equal(ordered, torch.stack([none, truth[1], elsewhere]))
    assert torch.equal(in_order_of(truth, truth.flip(0)), truth)
    assert not in_order_of(truth, truth[:0]).any()
    # the better of two; each once
    half = truth[0].clone()
    half[:16] = False
    ordered = in_order_of(truth, torch.stack([half, truth[0], elsewhere]))
    assert torch.equal(ordered, torch.stack([truth[0], none, half, elsewhere]))
    both = truth.any(0)
    ordered = in_order_of(truth, both[None])
    assert torch.equal(ordered, torch.stack([both, none]))


@pytest.mark.parametrize(("rows", "taken"), [(8, False), (9, True)])
def test_a_mask_belongs_to_what_it_overlaps_by_more_than_a_quarter(rows, taken):
    truth = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask = truth.clone()
    truth[:, :, :], mask[:, :rows] = True, True
    assert len(in_order_of(truth, mask)) == (1 if taken else 2)


def test_a_few_steps_lower_the_loss(overfit):
    torch.manual_seed(0)
    batch = TASK.prepare(make_scenes(2, seed=1, size=32))
    losses = overfit(TASK, TASK.build_model(), batch, steps=3, learning_rate=2e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_the_figure_shows_true_and_surely_found_masks_in_equal_colours(scenes_with):
    scenes = scenes_with([CAR], *[[BUS, CAR]] * 4)
    output = perfect(scenes)
    output.class_logits[1, 0].clamp_(max=-0.5)  # 0.38: this car is not shown
    output.class_logits[2, 2].clamp_(max=-0.3)  # 0.43: this bus after its car
    figure = TASK.figure(Told(output), scenes)
    titles = ["input", "true instances", "predicted"]
    assert [axis.get_title() for axis in figure.axes] == titles + [""] * 9
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    # scenes 1 to 4, which show more classes than scene 0
    assert [picture[0, 0, 0] for picture in pictures[::3]] == [1, 2, 3, 4]
    car = (slice(42, 48), slice(12, 18))
    for row, (truth, predicted) in enumerate(
        zip(pictures[1::3], pictures[2::3], strict=True)
    ):
        assert (truth[20, 20] == predicted[20, 20]).all()
        assert (truth[20, 20] != truth[45, 15]).any()
        assert (truth[car] == predicted[car]).all() == (row > 0)
        assert (truth[60, 60] == predicted[60, 60]).all()


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 4. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page
    assert f"the baseline ({TASK.baseline_name}); higher is better" in page
    assert TASK.higher_is_better and TASK.name == PAGE.stem
    weights = sum(each.numel() for each in TASK.build_model().parameters())
    assert f"; {weights:,} parameters; " in page
    assert TASK.recipe == TaskRecipe(700, 8, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 700 steps of 8, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
