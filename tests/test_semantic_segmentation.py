"""The segmenter against plain re-computations: model, losses, confusion, mIoU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn, tensor
from torch.nn.functional import batch_norm, conv2d, interpolate, one_hot

from src.vision_tasks.shared.drawing import SEMANTIC_COLOURS
from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES
from src.vision_tasks.tasks.semantic_segmentation import (
    Segmenter,
    SemanticSegmentation,
    class_iou,
    confusion_matrix,
    dice_loss,
    segmentation_metrics,
)

TASK = SemanticSegmentation()
CLASSES = len(SEMANTIC_CLASSES)
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/semantic_segmentation.md"


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


def convolved(layers: nn.Sequential, x: Tensor) -> Tensor:
    """3x3 convolution, BatchNorm, ReLU, with the weights of these layers."""
    conv, norm, _ = layers
    x = conv2d(x, conv.weight, padding=1)
    mean, var = norm.running_mean, norm.running_var
    return batch_norm(x, mean, var, norm.weight, norm.bias, eps=1e-5).clamp(min=0)


def test_the_segmenter_goes_down_the_encoder_and_up_the_decoder():
    torch.manual_seed(0)
    model = Segmenter(5).double().eval()
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    half, quarter, eighth, sixteenth, x = model.encoder(images)
    decoder = model.decoder
    for block, skip in [
        (decoder.to_sixteenth, sixteenth),
        (decoder.to_eighth, eighth),
        (decoder.to_quarter, quarter),
        (decoder.to_half, half),
    ]:
        enlarged = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = convolved(block.convolve, torch.cat([enlarged, skip], dim=1))
    x = conv2d(x, decoder.head.weight, decoder.head.bias, padding=1)
    expected = interpolate(x, (32, 64), mode="bilinear")
    assert expected.shape == (2, 5, 32, 64)
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


def test_the_model_has_the_scenes_classes_and_the_asked_start():
    images = TASK.example_inputs()[0]
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)
    start = Encoder(pretrained=True).stem[0].weight
    for build, classes in [(Segmenter, 21), (TASK.build_model, CLASSES)]:
        assert torch.equal(build(pretrained=True).encoder.stem[0].weight, start)
        model = build()
        assert not torch.equal(model.encoder.stem[0].weight, start)
        assert model.decoder.head.out_channels == classes


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        Segmenter()(torch.rand(shape))


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


def test_the_loss_is_cross_entropy_and_dice_of_the_whole_batch():
    """Class 3 never occurs; class 2 in one of the images only."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 4, 3, 5, dtype=torch.float64)
    truth = torch.randint(0, 2, (2, 3, 5))
    truth[1, 0, :2] = 2
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    overlaps = []
    for label in range(3):
        shared = p[:, label][truth == label].sum()
        overlaps.append(2 * shared / (p[:, label].sum() + (truth == label).sum()))
    dice = 1 - sum(overlaps) / 3
    likelihoods = p.permute(0, 2, 3, 1)[one_hot(truth, 4).bool()]
    torch.testing.assert_close(dice_loss(logits, truth), dice)
    expected = dice - likelihoods.log().sum() / 30
    torch.testing.assert_close(TASK.loss(logits, (truth,)), expected)


def test_loss_is_zero_at_the_truth(scenes):
    (truth,) = TASK.prepare(scenes).targets
    right = one_hot(truth, CLASSES).permute(0, 3, 1, 2).float()
    assert TASK.loss(40 * right, (truth,)).item() == pytest.approx(0, abs=1e-4)


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


def test_no_pixels_have_a_confusion_matrix_of_zeros():
    nothing = torch.empty(0, 8, 8, dtype=torch.int64)
    assert confusion_matrix(nothing, nothing, 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("wrong", [-1, 4])
@pytest.mark.parametrize("which", ["predicted", "truth"])
def test_confusion_matrix_refuses_classes_that_there_are_not(wrong, which):
    values = {"predicted": tensor([0]), "truth": tensor([0]), which: tensor([wrong])}
    with pytest.raises(ValueError, match=rf"{which} has values {wrong}.*0 to 3"):
        confusion_matrix(classes=4, **values)


def test_metrics_are_of_the_classes_that_occur():
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    confusion[0, 0], confusion[0, 4], confusion[4, 4] = 6, 2, 1
    confusion[2, 0] = 1  # pavement, never found
    assert segmentation_metrics(confusion) == pytest.approx(
        {
            "mIoU": (6 / 9 + 0 + 1 / 3) / 3,
            "pixel accuracy": 7 / 10,
            "IoU of road": 6 / 9,
            "IoU of pavement": 0,
            "IoU of sky": 1 / 3,
        }
    )


def test_confusion_is_summed_over_the_set():
    """Not the mean of two images' mIoU: pixels of both count in one matrix."""
    semantic = torch.zeros(60, 32, 32)  # more than one batch
    semantic[59] = 1
    semantic[58, :16] = 2
    truth = semantic.clone()
    truth[0] = 1  # seen as road, but it is a lane marking
    truth[50] = 3  # the first of the second batch, seen as road: it is grass
    scenes = replace(painted(semantic), semantic=truth.to(torch.uint8))
    road = 56.5 / 58.5
    assert TASK.measure(Painted(), scenes) == pytest.approx(
        {
            "mIoU": (road + 1 / 2 + 1 + 0) / 4,
            "pixel accuracy": 58 / 60,
            "IoU of road": road,
            "IoU of lane marking": 1 / 2,
            "IoU of pavement": 1,
            "IoU of grass": 0,
        }
    )


def test_baseline_by_hand():
    train = torch.zeros(3, 32, 32)
    train[:2, :16] = 4  # two of three are sky above, road below
    test = torch.zeros(2, 32, 32)
    test[:, :8] = 4
    # sky: a quarter of the image is right of a half; road: half of three quarters
    expected = {
        "mIoU": (1 / 2 + 2 / 3) / 2,
        "pixel accuracy": 3 / 4,
        "IoU of road": 2 / 3,
        "IoU of sky": 1 / 2,
    }
    result = TASK.baselines(painted(train), painted(test))
    name = "the most frequent class at each pixel position"
    assert result == {name: pytest.approx(expected)}
    last = torch.full((1, 32, 32), CLASSES - 1.0)  # every class has a vote
    assert TASK.baseline(painted(last), painted(last)) == 1


# --- the targets ---


def test_a_batch_holds_images_and_the_scenes_classes(scenes):
    batch = TASK.prepare(scenes)
    assert torch.equal(batch.inputs[0], scenes.images / 255)
    assert torch.equal(batch.targets[0], scenes.semantic.long())
    assert len(batch.inputs) == len(batch.targets) == 1


def test_truth_is_mirrored_with_its_image():
    left = torch.zeros(16, 32, 32)
    left[:, :, :10] = 7
    batch = TASK.prepare(painted(left), Generator().manual_seed(0))
    (images,), (truth,) = batch.inputs, batch.targets
    assert torch.equal((images[:, 0] * 255 / 20).round().long(), truth)
    flips = torch.rand(16, generator=Generator().manual_seed(0)) < 0.5
    assert torch.equal(truth[:, 0, 0] == 0, flips)
    assert 0 < flips.sum() < 16


# --- all of it ---


def test_a_few_steps_lower_the_loss(overfit):
    torch.manual_seed(0)
    batch = TASK.prepare(make_scenes(2, seed=1, size=32))
    losses = overfit(TASK, Segmenter(CLASSES), batch, steps=3, learning_rate=1e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_the_figure_shows_image_truth_prediction_and_mistakes():
    semantic = torch.zeros(5, 32, 32)
    semantic[0, :4], semantic[3, 5:] = 4, 7
    truth = semantic.clone()
    truth[1, 9] = 2  # seen as road
    scenes = replace(painted(semantic), semantic=truth.to(torch.uint8))
    figure = TASK.figure(Painted(), scenes)
    axes = figure.axes
    titles = ["image", "truth", "prediction", "mistakes"]
    assert [axis.get_title() for axis in axes] == titles + [""] * 12
    pictures = [tensor(axis.images[0].get_array().data) for axis in axes]
    colours = tensor(SEMANTIC_COLOURS, dtype=torch.uint8)
    for row in range(4):
        image, true, predicted, mistakes = pictures[4 * row : 4 * row + 4]
        assert torch.equal(image.permute(2, 0, 1), scenes.images[row])
        assert torch.equal(true, colours[truth[row].long()])
        assert torch.equal(predicted, colours[semantic[row].long()])
        assert torch.equal(mistakes, truth[row] != semantic[row])
    assert axes[3].images[0].get_clim() == (0, 1)
    legend = figure.legends[0]
    assert tuple(text.get_text() for text in legend.get_texts()) == SEMANTIC_CLASSES
    faces = [patch.get_facecolor()[:3] for patch in legend.get_patches()]
    assert faces == [tuple(colour / 255) for colour in SEMANTIC_COLOURS]


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 3. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page
    assert f"the baseline ({TASK.baseline_name}); higher is better" in page
    assert TASK.higher_is_better and TASK.name == PAGE.stem
    weights = sum(each.numel() for each in TASK.build_model().parameters())
    assert f"; {weights:,} parameters; " in page
    assert TASK.recipe == TaskRecipe(450, 16, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 450 steps of 16, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
