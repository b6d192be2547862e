"""The classifier, its loss and its accuracy against plain re-computations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, nn, tensor
from torch.nn.functional import one_hot

from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.classification import Classification, Classifier

TASK = Classification()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/classification.md"


@pytest.fixture(scope="module")
def drawn() -> Scenes:
    return make_scenes(2, seed=1, size=32)


@pytest.fixture
def scenes_of(drawn):
    """A function: scenes with these main objects, of which the images show `seen`."""

    def make(main: list[int], seen: list[int] | None = None) -> Scenes:
        several = drawn[[0] * len(main)]
        images = torch.zeros_like(several.images)
        images[:, 0, 0, 0] = tensor(seen or main) * 20
        return replace(several, images=images, main=tensor(main))

    return make


class Told(nn.Module):
    """Reads the class off the first pixel's red, 20 for each; fairly sure of it."""

    def forward(self, images):
        seen = (images[:, 0, 0, 0] * 255 / 20).round().long()
        return 2.0 * one_hot(seen, 4)


def test_the_forward_pass_is_the_mean_of_the_features_and_one_linear_layer():
    torch.manual_seed(0)
    model = Classifier(5).double().eval()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    features = model.encoder(images)[-1]  # [2, 512, 2, 3]
    pooled = features.flatten(2).sum(2) / 6
    expected = pooled @ model.fc.weight.T + model.fc.bias
    assert expected.shape == (2, 5)
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)


def test_the_model_has_the_scenes_classes_and_the_asked_start():
    images = TASK.example_inputs()[0]
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)
    assert Classifier().fc.weight.shape == (10, 512)
    start = Encoder(pretrained=True).stem[0].weight
    for pretrained, model in [
        (True, TASK.build_model(pretrained=True)),
        (False, TASK.build_model()),
        (True, Classifier(pretrained=True)),
        (False, Classifier()),
    ]:
        assert torch.equal(model.encoder.stem[0].weight, start) == pretrained
    assert TASK.build_model().fc.weight.shape == (4, 512)


def test_a_batch_holds_images_from_0_to_1_and_the_main_classes(scenes_of):
    scenes = replace(scenes_of([2, 3]), images=torch.full((2, 3, 32, 32), 51).byte())
    batch = TASK.prepare(scenes)
    assert torch.equal(batch.inputs[0], torch.full((2, 3, 32, 32), 51 / 255))
    assert [each.tolist() for each in batch.targets] == [[2, 3]]
    assert len(batch.inputs) == 1


def test_half_of_a_batch_is_mirrored_if_there_is_a_generator(drawn):
    scenes = drawn[[0, 1] * 8]
    images = scenes.images / 255
    assert torch.equal(TASK.prepare(scenes).inputs[0], images)
    batch = TASK.prepare(scenes, Generator().manual_seed(4))
    flips = torch.rand(16, generator=Generator().manual_seed(4)) < 0.5
    assert 0 < flips.sum() < 16
    expected = [
        image.flip(2) if flip else image
        for image, flip in zip(images, flips, strict=True)
    ]
    assert torch.equal(batch.inputs[0], torch.stack(expected))
    assert torch.equal(batch.targets[0], scenes.main)


def test_the_loss_is_the_mean_negative_log_likelihood():
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, 4, dtype=torch.float64)
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    likelihoods = probabilities[0, 2] * probabilities[1, 0] * probabilities[2, 2]
    loss = TASK.loss(logits, (tensor([2, 0, 2]),))
    torch.testing.assert_close(loss, -likelihoods.log() / 3, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("seen", "accuracy"), [([0, 1, 2, 3], 1), ([0, 1, 3, 3], 3 / 4), ([3, 2, 1, 0], 0)]
)
def test_accuracy_is_the_share_of_main_classes_that_are_right(
    scenes_of, seen, accuracy
):
    assert TASK.measure(Told(), scenes_of([0, 1, 2, 3], seen)) == {"accuracy": accuracy}


def test_the_baseline_is_the_most_frequent_class_of_the_training_scenes(scenes_of):
    train, test = scenes_of([2, 0, 2, 1]), scenes_of([0, 0, 0, 2, 3])
    name = "always the most frequent class"
    assert TASK.baselines(train, test) == {name: {"accuracy": pytest.approx(1 / 5)}}


def test_the_figure_shows_two_scenes_of_each_class(scenes_of):
    """Sorted by class; the third car is left out."""
    scenes = scenes_of([3, 0, 1, 0, 2, 0, 1], [3, 0, 1, 2, 2, 1, 1])
    figure = TASK.figure(Told(), scenes)
    titles = [axis.get_title() for axis in figure.axes]
    sure = "71%"  # e^2 / (e^2 + 3)
    assert titles == [
        f"truth: {truth}\npredicted: {predicted}, {sure}"
        for truth, predicted in [
            ("car", "car"),
            ("car", "bus"),
            ("truck", "truck"),
            ("truck", "truck"),
            ("bus", "bus"),
            ("pedestrian", "pedestrian"),
        ]
    ] + ["", ""]
    shown = [axis.images[0].get_array()[0, 0, 0] for axis in figure.axes[:6]]
    assert shown == [0, 40, 20, 20, 40, 60]


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 1. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page
    assert f"the baseline ({TASK.baseline_name}); higher is better" in page
    assert TASK.higher_is_better and TASK.name == PAGE.stem
    weights = sum(each.numel() for each in TASK.build_model().parameters())
    assert f"; {weights:,} parameters; " in page
    assert TASK.recipe == TaskRecipe(200, 32, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 200 steps of 32, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
