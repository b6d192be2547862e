"""mIoU by hand, the Dice loss, the targets, and the sizes that decoders give."""

from dataclasses import replace

import pytest
import torch
from torch import nn, tensor
from torch.nn.functional import one_hot

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES
from src.vision_tasks.tasks.semantic_segmentation import (
    Segmenter,
    SemanticSegmentation,
    class_iou,
    confusion_matrix,
    dice_loss,
)

TASK = SemanticSegmentation()
CLASSES = len(SEMANTIC_CLASSES)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


class Painted(nn.Module):
    """Knows the class of a pixel from its red: 20 for each class."""

    def forward(self, images):
        classes = (images[:, 0] * 255 / 20).round().long()
        return one_hot(classes, CLASSES).permute(0, 3, 1, 2) * 20.0


def painted(semantic: torch.Tensor) -> Scenes:
    """Scenes with this truth, [N, S, S], and images in which it is plain to see."""
    semantic = semantic.to(torch.uint8)
    count, size = semantic.shape[:2]
    images = (semantic * 20)[:, None].repeat(1, 3, 1, 1)
    return replace(
        make_scenes(count, seed=1, size=size), images=images, semantic=semantic
    )


# --- the model ---


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes(height, width):
    logits = Segmenter().eval()(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 21, height, width)


def test_example_inputs_fit_the_model():
    assert TASK.build_model()(*TASK.example_inputs(2)).shape == (2, CLASSES, 224, 224)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        Segmenter()(torch.rand(shape))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [(16, 8, 4, 56), (64, 32, 16, 224)],  # the sketch's; what it would have needed
)
def test_size_of_a_transposed_convolution(kernel, stride, padding, expected):
    layer = nn.ConvTranspose2d(8, 21, kernel, stride=stride, padding=padding)
    assert layer(torch.zeros(1, 8, 7, 7)).shape == (1, 21, expected, expected)
    assert (7 - 1) * stride - 2 * padding + (kernel - 1) + 1 == expected


def test_five_doublings_give_the_full_size():
    layers = [nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1) for _ in range(5)]
    sizes, x = [7], torch.zeros(1, 1, 7, 7)
    for layer in layers:
        x = layer(x)
        sizes.append(x.shape[-1])
    assert sizes == [7, 14, 28, 56, 112, 224]


# --- the loss ---


def test_dice_loss_by_hand():
    """Four pixels, two of each class; a third class never occurs."""
    truth = tensor([[[0, 0], [1, 1]]])
    # Half and half: for either class, 2 (2 * 1/2) / (4 * 1/2 + 2) = 1/2.
    undecided = tensor([0.0, 0.0, -100.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert dice_loss(undecided, truth).item() == pytest.approx(0.5)
    # All class 0: 2 * 2 / (4 + 2) = 2/3, and 0 for class 1.
    zeros = tensor([100.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert dice_loss(zeros, truth).item() == pytest.approx(1 - (2 / 3 + 0) / 2)


def test_dice_gives_a_rare_class_the_same_weight():
    """One pixel of 64 is missed: a small part of all pixels, but half the classes."""
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    truth[0, 3, 3] = 1
    zeros = tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    assert dice_loss(zeros, truth).item() == pytest.approx(0.5, abs=0.01)


def test_loss_falls_to_zero_at_the_truth(scenes):
    (truth,) = TASK.prepare(scenes).targets
    right = one_hot(truth, CLASSES).permute(0, 3, 1, 2).float()
    losses = [
        TASK.loss(certainty * right, (truth,)).item() for certainty in (0, 2, 5, 40)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-4)
    assert TASK.loss(-5 * right, (truth,)).item() > losses[0]


# --- the metric ---


def test_iou_by_hand():
    truth = tensor([[0, 0, 0, 0, 1, 1]])
    predicted = tensor([[0, 0, 0, 1, 1, 2]])
    confusion = confusion_matrix(predicted, truth, 4)
    assert confusion.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0] * 4, [0] * 4]
    iou = class_iou(confusion)
    # 3 shared of 4; 1 shared of 3; class 2 is never the truth, nor is class 3
    assert iou[:2].tolist() == pytest.approx([3 / 4, 1 / 3])
    assert iou[2:].isnan().all()


@pytest.mark.parametrize("wrong", [-1, 4])
@pytest.mark.parametrize("which", ["predicted", "truth"])
def test_confusion_matrix_refuses_classes_that_there_are_not(wrong, which):
    values = {"predicted": tensor([0]), "truth": tensor([0]), which: tensor([wrong])}
    with pytest.raises(ValueError, match=rf"{which} has values {wrong}.*0 to 3"):
        confusion_matrix(classes=4, **values)


def test_confusion_is_summed_over_the_set():
    """Not the mean of two images' mIoU: pixels of both count in one matrix."""
    semantic = torch.zeros(60, 32, 32)  # more than one batch
    semantic[59] = 1
    semantic[58, :16] = 2
    truth = semantic.clone()
    truth[0] = 1  # seen as road, but it is a lane marking
    scenes = replace(painted(semantic), semantic=truth.to(torch.uint8))
    measured = TASK.measure(Painted(), scenes)
    road, marking = 57.5 / 58.5, 1 / 2
    assert measured["mIoU"] == pytest.approx((road + marking + 1) / 3)
    assert measured["pixel accuracy"] == pytest.approx(59 / 60)
    assert measured["IoU of lane marking"] == pytest.approx(1 / 2)
    assert "IoU of obstacle" not in measured


def test_baseline_by_hand():
    train = torch.zeros(3, 32, 32)
    train[:2, :16] = 4  # two of three are sky above, road below
    test = torch.zeros(1, 32, 32)
    test[0, :8] = 4
    # sky: a quarter of the image is right of a half; road: half of three quarters
    expected = (1 / 2 + 2 / 3) / 2
    assert TASK.baseline(painted(train), painted(test)) == pytest.approx(expected)


# --- the targets ---


def test_targets_are_the_scenes_own(scenes):
    example = TASK.prepare(scenes)
    assert torch.equal(example.targets[0], scenes.semantic.long())
    assert torch.equal((example.inputs[0] * 255).round(), scenes.images.float())


def test_truth_is_mirrored_with_its_image():
    left = torch.zeros(16, 32, 32)
    left[:, :, :10] = 7
    example = TASK.prepare(painted(left), torch.Generator().manual_seed(0))
    (images,), (truth,) = example.inputs, example.targets
    assert torch.equal((images[:, 0] * 255 / 20).round().long(), truth)
    assert {row[0].item() for row in truth[:, 0]} == {0, 7}  # some are mirrored


# --- all of it ---


def test_learns(overfit, scenes):
    torch.manual_seed(0)
    model = Segmenter(CLASSES)
    example = TASK.prepare(scenes[:2])
    losses = overfit(TASK, model, example, steps=6, learning_rate=1e-3)
    assert losses[-1] < 0.7 * losses[0]


def test_figure_has_a_row_for_each_scene(scenes):
    figure = TASK.figure(Segmenter(CLASSES).eval(), scenes)
    assert len(figure.axes) == 16
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == list(SEMANTIC_CLASSES)
