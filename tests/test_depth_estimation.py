"""AbsRel by hand, the loss, pixels without truth, the targets."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn, tensor

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.depth_estimation import (
    FARTHEST,
    NEAREST,
    DepthEstimation,
    DepthNet,
    depth_metrics,
    log_depth_loss,
)

TASK = DepthEstimation()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


def of_pixels(*metres: float) -> torch.Tensor:
    """[1, 1, 1, K]: one image with these depths."""
    return tensor(metres, dtype=torch.float32).view(1, 1, 1, -1)


def with_depth(depth: torch.Tensor) -> Scenes:
    """Scenes with this true depth, [N, 1, S, S]."""
    return replace(make_scenes(len(depth), seed=1, size=depth.shape[-1]), depth=depth)


# --- the model ---


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes_and_range(height, width):
    depth = DepthNet().eval()(torch.rand(2, 3, height, width))
    assert depth.shape == (2, 1, height, width)
    assert (depth >= NEAREST).all() and (depth <= FARTHEST).all()


def test_depth_stays_positive_and_finite_with_huge_weights():
    model = DepthNet().eval()
    with torch.no_grad():
        model.decoder.head.weight.mul_(1e6)
    depth = model(torch.rand(1, 3, 64, 64))
    assert depth.isfinite().all() and (depth > 0).all()
    assert depth.max() > 100 * depth.min()  # both ends are reached


def test_example_inputs_fit_the_model():
    assert TASK.build_model()(*TASK.example_inputs(2)).shape == (2, 1, 224, 224)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        DepthNet()(torch.rand(shape))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [(16, 8, 4, 56), (64, 32, 16, 224), (32, 32, 0, 224)],  # the first: the sketch's
)
def test_size_of_a_transposed_convolution(kernel, stride, padding, expected):
    layer = nn.ConvTranspose2d(8, 1, kernel, stride=stride, padding=padding)
    assert layer(torch.zeros(1, 8, 7, 7)).shape == (1, 1, expected, expected)
    assert (7 - 1) * stride - 2 * padding + (kernel - 1) + 1 == expected


# --- the loss ---


def test_loss_by_hand():
    truth = of_pixels(1, 2)
    depth = of_pixels(math.exp(3), 2 * math.exp(-1))  # log depth is off by 3 and by 1
    assert log_depth_loss(depth, truth).item() == pytest.approx(2)


def test_an_error_by_a_factor_costs_the_same_at_any_distance():
    truth = of_pixels(2, 10, 90)
    for factor in (0.5, 2):
        each = [log_depth_loss(factor * t, t).item() for t in truth.flatten()]
        assert each == pytest.approx([math.log(2)] * 3)


def test_loss_falls_to_zero_at_the_truth(scenes):
    truth = scenes.depth
    wrong = truth.clamp(min=1) * torch.rand(truth.shape).add(0.5)
    right = truth.clamp(min=1e-3)
    losses = [
        TASK.loss(right**part * wrong ** (1 - part), (truth,)).item()
        for part in (0, 0.5, 0.9, 1)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.01
    assert losses[-1] == pytest.approx(0, abs=1e-6)


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


# --- the metric ---


def test_metrics_by_hand():
    measured = depth_metrics(of_pixels(11, 30, 3, 99), of_pixels(10, 20, 4, 0))
    assert measured["AbsRel"] == pytest.approx((0.1 + 0.5 + 0.25) / 3)
    # Factors 1.1, 1.5 and 4/3: only the first is under 1.25.
    assert measured["delta<1.25"] == pytest.approx(1 / 3)
    assert measured["RMSE (m)"] == pytest.approx(math.sqrt((1 + 100 + 1) / 3))


def test_metrics_refuse_what_can_not_be_compared():
    with pytest.raises(ValueError, match="same shape"):
        depth_metrics(of_pixels(1, 2), of_pixels(1))
    with pytest.raises(ValueError, match="nothing to compare"):
        depth_metrics(of_pixels(1, 2), of_pixels(0, 0))


def test_baseline_by_hand():
    train = tensor([10.0, 20.0, 80.0]).view(3, 1, 1, 1).repeat(1, 1, 32, 32)
    train[:2, :, 0] = 0  # in the first row only one image has a truth, 80
    train[:, :, 1] = 0  # in the second none has: the median of all, 20
    test = torch.full((1, 1, 32, 32), 16.0)
    test[:, :, 2:] = 25.0
    rows = [(80 - 16) / 16, (20 - 16) / 16] + [(25 - 20) / 25] * 30
    result = TASK.baseline(with_depth(train), with_depth(test))
    assert result == pytest.approx(sum(rows) / 32)


class Constant(nn.Module):
    def forward(self, images):
        return torch.full_like(images[:, :1], 12.0)


def test_measure():
    depth = torch.full((3, 1, 32, 32), 10.0)
    depth[0] = 0
    assert TASK.measure(Constant(), with_depth(depth))["AbsRel"] == pytest.approx(0.2)


# --- the targets ---


def test_targets_are_the_scenes_own(scenes):
    example = TASK.prepare(scenes)
    assert torch.equal(example.targets[0], scenes.depth)
    assert torch.equal((example.inputs[0] * 255).round(), scenes.images.float())


def test_truth_is_mirrored_with_its_image():
    scenes = make_scenes(16, seed=1, size=32)
    scenes = replace(scenes, depth=scenes.images[:, :1].float() / 255)
    example = TASK.prepare(scenes, torch.Generator().manual_seed(0))
    assert torch.equal(example.inputs[0][:, :1], example.targets[0])
    assert not torch.equal(example.targets[0], scenes.depth)  # some are mirrored


# --- all of it ---


def test_learns(overfit, scenes):
    torch.manual_seed(0)
    model = DepthNet()
    example = TASK.prepare(scenes[:2])
    losses = overfit(TASK, model, example, steps=8, learning_rate=1e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_figure_has_a_row_for_each_scene(scenes):
    figure = TASK.figure(DepthNet().eval(), scenes)
    assert len(figure.axes) == 16 + 2  # and two colour bars
