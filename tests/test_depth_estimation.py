"""Depth: model, loss, metrics and baseline against plain re-computations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, nn, tensor

from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.depth_estimation import (
    DepthEstimation,
    DepthNet,
    depth_metrics,
    log_depth_loss,
)

TASK = DepthEstimation()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/depth_estimation.md"
MEDIAN = "the median depth at each pixel position"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(6, seed=1, size=32)


@pytest.fixture
def with_depth(scenes):
    """A function: scenes whose true depth is [N, 1, S, S], S a multiple of 32."""

    def make(depth: torch.Tensor) -> Scenes:
        several = scenes[[0] * len(depth)]
        size = depth.shape[-1]
        images = several.images[:, :, :1, :1].repeat(1, 1, size, size)
        return replace(several, images=images, depth=depth)

    return make


def of_pixels(*metres: float) -> torch.Tensor:
    """[1, 1, 1, K]: one image with these depths."""
    return tensor(metres, dtype=torch.float32).view(1, 1, 1, -1)


class Told(nn.Module):
    """Gives the depths that it was made with, [N, 1, S, S]."""

    def __init__(self, depth: torch.Tensor) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, images):
        assert len(images) == len(self.depth)
        return self.depth


# --- the model ---


def test_forward_is_the_u_shape_squashed_onto_a_log_scale():
    torch.manual_seed(0)
    model = DepthNet().double().eval()
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        model.decoder.head.weight.mul_(30)  # so that the sigmoid is used
        logits = model.decoder(model.encoder(images))
        depth = model(images)
    part = 1 / (1 + (-logits).exp())
    assert part.min() < 0.4 < 0.6 < part.max()
    expected = (math.log(0.5) + part * (math.log(500) - math.log(0.5))).exp()
    assert depth.shape == (2, 1, 32, 64)
    torch.testing.assert_close(depth, expected, rtol=1e-12, atol=0)


def test_every_resolution_of_the_encoder_has_a_say(monkeypatch):
    torch.manual_seed(0)
    model = DepthNet().eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        model.decoder.head.weight.mul_(30)
        features, whole = model.encoder(images), model(images)
        for name, feature in features._asdict().items():
            without = features._replace(**{name: torch.zeros_like(feature)})
            monkeypatch.setattr(model.encoder, "forward", lambda _, x=without: x)
            assert not torch.allclose(model(images), whole, rtol=1e-4), name


@pytest.mark.parametrize(("bias", "limit"), [(-1e3, 0.5), (1e3, 500.0)])
def test_depth_stays_between_half_a_metre_and_500_whatever_the_weights(bias, limit):
    model = DepthNet().eval()
    with torch.no_grad():
        model.decoder.head.bias.fill_(bias)
        depth = model(torch.rand(1, 3, 32, 32))
    assert torch.allclose(depth, tensor(limit), rtol=1e-5)


def test_the_model_has_the_asked_start():
    start = Encoder(pretrained=True).stem[0].weight
    for pretrained, model in [
        (True, TASK.build_model(pretrained=True)),
        (False, TASK.build_model()),
        (False, DepthNet()),
    ]:
        assert torch.equal(model.encoder.stem[0].weight, start) == pretrained
    (images,) = TASK.example_inputs()
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        DepthNet()(torch.rand(shape))


# --- the loss ---


def test_loss_by_hand():
    truth = of_pixels(1, 2)
    depth = of_pixels(math.exp(3), 2 * math.exp(-1))  # log depth is off by 3 and by 1
    assert log_depth_loss(depth, truth).item() == pytest.approx(2)


def test_loss_is_the_mean_over_the_known_pixels_of_all_images():
    generator = Generator().manual_seed(0)
    depth, truth = torch.rand(2, 3, 1, 4, 5, generator=generator).double() * 50 + 0.5
    truth[0], truth[1, 0, 2] = 0, 0  # one image without any truth, one with some
    errors = [
        abs(math.log(d / t))
        for d, t in zip(depth.flatten().tolist(), truth.flatten().tolist(), strict=True)
        if t > 0
    ]
    assert len(errors) == 35
    expected = pytest.approx(sum(errors) / 35, rel=1e-12)
    assert log_depth_loss(depth, truth).item() == expected
    assert TASK.loss(depth, (truth,)).item() == expected


def test_an_error_by_a_factor_costs_the_same_at_any_distance():
    truth = of_pixels(0.5, 2, 10, 90)
    for factor in (0.5, 2):
        each = [log_depth_loss(factor * t, t).item() for t in truth.flatten()]
        assert each == pytest.approx([math.log(2)] * 4)


def test_pixels_without_truth_teach_nothing():
    truth = of_pixels(5, 0, 7)
    depth = of_pixels(4, 100, 9).requires_grad_()
    loss = log_depth_loss(depth, truth)
    loss.backward()
    assert depth.grad[..., 1].item() == 0
    assert (depth.grad[..., [0, 2]] != 0).all()
    without = log_depth_loss(of_pixels(4, 9), of_pixels(5, 7))
    assert loss.item() == pytest.approx(without.item())


def test_an_image_of_nothing_but_sky_costs_nothing():
    depth = torch.full((1, 1, 4, 4), 3.0, requires_grad=True)
    loss = log_depth_loss(depth, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert (depth.grad == 0).all()


# --- metrics and baseline ---


def test_metrics_by_hand():
    depth, truth = of_pixels(11, 30, 3, 99, 0.5), of_pixels(10, 20, 4, 0, 0.5)
    assert depth_metrics(depth, truth) == {
        "AbsRel": pytest.approx((0.1 + 0.5 + 0.25 + 0) / 4),
        # Factors 1.1, 1.5, 4/3 and 1: two are under 1.25.
        "delta<1.25": pytest.approx(2 / 4),
        "RMSE (m)": pytest.approx(math.sqrt((1 + 100 + 1 + 0) / 4)),
    }


@pytest.mark.parametrize(
    ("depth", "truth", "under"),
    [(5, 4, 0), (4, 5, 0), (4.99, 4, 1), (4.01, 5, 1), (5.01, 4, 0), (3.99, 5, 0)],
)
def test_a_factor_of_just_1_25_is_not_under_it_either_way(depth, truth, under):
    assert depth_metrics(of_pixels(depth), of_pixels(truth))["delta<1.25"] == under


def test_metrics_refuse_what_can_not_be_compared():
    with pytest.raises(ValueError, match=r"\[1, 1, 1, 2\] but truth \[1, 1, 1, 1\]"):
        depth_metrics(of_pixels(1, 2), of_pixels(1))
    with pytest.raises(ValueError, match="nothing to compare"):
        depth_metrics(of_pixels(1, 2), of_pixels(0, 0))


def test_measure_compares_with_the_scenes_depth(with_depth):
    truth = torch.full((3, 1, 32, 32), 10.0)
    truth[0] = 0  # sky everywhere: does not count
    truth[1] = 6.0
    depth = torch.full((3, 1, 32, 32), 12.0)
    scenes = with_depth(truth)
    assert TASK.measure(Told(depth), scenes) == {
        "AbsRel": pytest.approx((1 + 0.2) / 2),
        "delta<1.25": pytest.approx(1 / 2),
        "RMSE (m)": pytest.approx(math.sqrt((36 + 4) / 2)),
    }
    perfect = {"AbsRel": 0, "delta<1.25": 1, "RMSE (m)": 0}
    assert TASK.measure(Told(truth.clamp(min=1)), scenes) == perfect
    backwards = TASK.measure(Told(100 / depth), with_depth(depth))
    assert backwards["delta<1.25"] == 0


def test_baseline_by_hand(with_depth):
    train = tensor([10.0, 20.0, 80.0]).view(3, 1, 1, 1).repeat(1, 1, 32, 32)
    train[:2, :, 0] = 0  # in the first row only one image has a truth, 80
    train[:, :, 1] = 0  # in the second none has: the median of all, 20
    test = torch.full((2, 1, 32, 32), 16.0)
    test[:, :, 2:] = 25.0
    relative = [(80 - 16) / 16, (20 - 16) / 16] + [(25 - 20) / 25] * 30
    squared = [64**2, 4**2] + [5**2] * 30
    assert TASK.baselines(with_depth(train), with_depth(test)) == {
        MEDIAN: {
            "AbsRel": pytest.approx(sum(relative) / 32),
            "delta<1.25": 0,  # 5 / 4 and 25 / 20 are not under it
            "RMSE (m)": pytest.approx(math.sqrt(sum(squared) / 32)),
        }
    }


# --- the batch ---


def test_a_batch_holds_images_from_0_to_1_and_the_depth(scenes):
    batch = TASK.prepare(scenes)
    assert [len(batch.inputs), len(batch.targets)] == [1, 1]
    assert torch.equal(batch.inputs[0], scenes.images / 255)
    assert torch.equal(batch.targets[0], scenes.depth)


def test_with_a_generator_half_is_mirrored_and_its_depth_with_it(scenes):
    scenes = scenes[[0, 1, 2, 3] * 4]
    batch = TASK.prepare(scenes, Generator().manual_seed(4))
    flips = torch.rand(16, generator=Generator().manual_seed(4)) < 0.5
    assert 0 < flips.sum() < 16
    for index, flip in enumerate(flips):
        axes = [2] if flip else []
        assert torch.equal(
            batch.inputs[0][index], scenes.images[index].flip(axes) / 255
        )
        assert torch.equal(batch.targets[0][index], scenes.depth[index].flip(axes))


# --- all of it ---


def test_learns(overfit):
    torch.manual_seed(0)
    batch = TASK.prepare(make_scenes(2, seed=1, size=64))
    losses = overfit(TASK, DepthNet(), batch, steps=8, learning_rate=1e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_figure(scenes):
    truth = scenes.depth.clone()
    truth[:, :, :4] = 0
    predicted = scenes.depth.clamp(min=1) * 1.5
    figure = TASK.figure(Told(predicted[:4]), replace(scenes, depth=truth))
    axes, bars = np.array(figure.axes[:16]).reshape(4, 4), figure.axes[16:]
    assert [axis.get_title() for axis in axes[0]] == [
        "image",
        "true depth",
        "predicted depth",
        "relative error",
    ]
    for row, image, true, guess in zip(
        axes, scenes.images[:4], truth[:4, 0], predicted[:4, 0], strict=True
    ):
        shown = [axis.images[0].get_array() for axis in row]
        assert np.array_equal(shown[0], image.permute(1, 2, 0))
        for array in shown[1:]:  # no truth, no colour
            assert np.array_equal(np.ma.getmaskarray(array), true == 0)
        known = (true > 0).numpy()
        for array, metres in ((shown[1], true), (shown[2], guess)):
            assert np.allclose(array[known], -metres[known].log())
        assert np.allclose(shown[3][known], (guess - true).abs()[known] / true[known])
        assert row[3].images[0].get_clim() == (0, 0.5)
        assert row[3].images[0].get_cmap().name == "gray_r"  # the worse, the darker
        assert len({tuple(axis.get_facecolor()) for axis in row[1:]}) == 1
    assert len(bars) == 2
    depths, errors = bars
    metres = [2, 5, 10, 20, 60]
    assert np.allclose(depths.get_xlim(), (-np.log(60), -np.log(2)))
    assert np.allclose(depths.get_xticks(), -np.log(metres))
    assert [t.get_text() for t in depths.get_xticklabels()] == [
        f"{m} m" for m in metres
    ]
    assert np.allclose(errors.get_xticks(), [0, 0.25, 0.5])
    assert [t.get_text() for t in errors.get_xticklabels()] == ["0", "25%", "≥ 50%"]


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 5. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page and TASK.baseline_name == MEDIAN
    assert f"the baseline ({MEDIAN}); lower is better" in page
    assert not TASK.higher_is_better and TASK.name == PAGE.stem
    assert TASK.recipe == TaskRecipe(450, 16, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 450 steps of 16, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
    assert "(here from 0.5 m to 500 m)" in page
