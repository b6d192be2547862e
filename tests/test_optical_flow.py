"""End-point error by hand, correlation, warping, mirrored motion, the targets."""

from dataclasses import replace

import pytest
import torch
from torch import nn, tensor
from torch.nn.functional import normalize

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks.optical_flow import (
    Flow,
    FlowNet,
    OpticalFlow,
    correlation,
    end_point_error,
    enlarge,
    warp,
)

TASK = OpticalFlow()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(8, seed=1, size=64)


def constant_flow(right: float, down: float, *size: int) -> torch.Tensor:
    """[1, 2, *size]: every pixel moves alike."""
    return (
        tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1).repeat(1, 1, *size)
    )


# --- the model ---


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes(height, width):
    frames = torch.rand(2, 2, 3, height, width)
    output = FlowNet().eval()(*frames)
    assert isinstance(output, Flow)
    assert [flow.shape for flow in output] == [(2, 2, height, width)] * 3


def test_example_inputs_fit_the_model():
    assert TASK.build_model()(*TASK.example_inputs(2)).flow.shape == (2, 2, 224, 224)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_frames_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        FlowNet()(torch.rand(shape), torch.rand(shape))


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 64\] and \[1, 3, 64, 96\]"):
        FlowNet()(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 96))


def test_there_are_no_pretrained_weights():
    with pytest.raises(ValueError, match="pre-trained"):
        TASK.build_model(pretrained=True)


def test_sizes_of_the_sketch():
    """A 7x7 convolution with stride 2 halves 224; the decoder enlarges eightfold."""
    halved = nn.Conv2d(6, 64, 7, stride=2, padding=3)(torch.zeros(1, 6, 224, 224))
    assert halved.shape == (1, 64, 112, 112)
    for kernel, stride, padding, size in ((16, 8, 4, 896), (4, 2, 1, 224)):
        layer = nn.ConvTranspose2d(64, 2, kernel, stride=stride, padding=padding)
        assert layer(halved).shape == (1, 2, size, size)
        assert (112 - 1) * stride - 2 * padding + (kernel - 1) + 1 == size


# --- its parts ---


def test_correlation_is_that_of_each_pair_of_places():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 3, 4, 5, generator=generator)
    result = correlation(first, second, radius=2)
    assert result.shape == (1, 25, 4, 5)
    for channel, row, column in [(0, 2, 3), (12, 1, 1), (14, 0, 2), (22, 1, 4)]:
        down, right = channel // 5 - 2, channel % 5 - 2
        expected = first[0, :, row, column] @ second[0, :, row + down, column + right]
        assert result[0, channel, row, column].item() == pytest.approx(expected.item())
    assert (result[0, :10, 0] == 0).all()  # above the image there is nothing
    assert (result[0, 4::5, :, 4] == 0).all()  # nor to the right of it


def test_correlation_finds_the_motion():
    first = normalize(
        torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    )
    second = first.roll((1, -3), dims=(2, 3))  # a row down, three columns left
    best = correlation(first, second, radius=3).argmax(1)[0, 3:-3, 3:-3]
    assert (best // 7 - 3 == 1).all() and (best % 7 - 3 == -3).all()


def test_warp_undoes_the_motion():
    first = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    second = first.roll((1, -3), dims=(2, 3))
    back = warp(second, constant_flow(-3, 1, 10, 12))
    assert torch.allclose(back[..., :-1, 3:], first[..., :-1, 3:], atol=1e-5)
    assert (back[..., :3] == 0).all()  # what has left the image is not known
    assert torch.allclose(warp(first, constant_flow(0, 0, 10, 12)), first, atol=1e-5)


def test_warp_interpolates():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    moved = warp(ramp, constant_flow(0.25, 0, 8, 8))
    assert torch.allclose(moved[..., :-1], ramp[..., :-1] + 0.25, atol=1e-5)


def test_enlarged_flow_counts_in_larger_images_pixels():
    larger = enlarge(constant_flow(1.5, -2, 4, 6), 4)
    assert torch.equal(larger, constant_flow(6, -8, 16, 24))


# --- the loss and the metric ---


def test_end_point_error_by_hand():
    error = end_point_error(constant_flow(4, 3, 2, 2), constant_flow(1, -1, 2, 2))
    assert error.shape == (1, 2, 2)
    assert (error == 5).all()  # 3 to the right, 4 down


def test_end_point_error_refuses_other_shapes():
    with pytest.raises(ValueError, match="same shape"):
        end_point_error(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 8))


def test_loss_falls_to_zero_at_the_truth(scenes):
    truth = scenes.flow
    losses = [
        TASK.loss(Flow(*[truth + off] * 3), (truth,)).item()
        for off in (4.0, 1.0, 0.1, 0.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0
    finest = TASK.loss(Flow(truth + 1, truth, truth), (truth,))
    coarsest = TASK.loss(Flow(truth, truth, truth + 1), (truth,))
    assert finest > coarsest > 0


class Still(nn.Module):
    def forward(self, first, second):
        nothing = torch.zeros_like(first[:, :2])
        return Flow(*[nothing] * 3)


def test_zero_flow_measures_as_the_baseline():
    flow = torch.zeros(4, 2, 32, 32)
    flow[0], flow[1, 0], flow[2, 1] = 0.5, 6.0, -2.0
    scenes = replace(make_scenes(4, seed=1, size=32), flow=flow)
    measured = TASK.measure(Still(), scenes)
    assert measured["EPE (px)"] == pytest.approx((0.5**0.5 + 6 + 2 + 0) / 4)
    baselines = TASK.baselines(scenes, scenes)
    assert baselines["zero flow"] == pytest.approx(measured)
    mean = scenes.flow.mean(0)
    expected = (scenes.flow - mean).norm(dim=1).mean().item()
    mean_flow = baselines["mean flow at each pixel position"]
    assert mean_flow["EPE (px)"] == pytest.approx(expected)
    assert measured["under 1 px"] == pytest.approx(2 / 4)
    assert measured["Fl"] == pytest.approx(1 / 4)


# --- the targets ---


def test_targets_are_the_scenes_own(scenes):
    example = TASK.prepare(scenes)
    first, second = example.inputs
    assert torch.equal((first * 255).round(), scenes.images.float())
    assert torch.equal((second * 255).round(), scenes.next_images.float())
    assert torch.equal(example.targets[0], scenes.flow)


def test_mirrored_motion_goes_the_other_way():
    scenes = make_scenes(16, seed=1, size=32)
    scenes = replace(scenes, flow=constant_flow(3, 1, 32, 32).repeat(16, 1, 1, 1))
    example = TASK.prepare(scenes, torch.Generator().manual_seed(0))
    first, second = example.inputs
    seen = set()
    for index in range(16):
        original = scenes.images[index].float() / 255
        mirrored = torch.equal(first[index], original.flip(-1))
        assert mirrored or torch.equal(first[index], original)
        later = scenes.next_images[index].float() / 255
        assert torch.equal(second[index], later.flip(-1) if mirrored else later)
        right, down = example.targets[0][index]
        assert (right == (-3 if mirrored else 3)).all() and (down == 1).all()
        seen.add(mirrored)
    assert seen == {False, True}


def test_true_flow_fetches_the_first_frame_from_the_next(scenes):
    """What the scenes call flow is what `warp` takes; with -flow, it would be worse."""
    first, second = TASK.prepare(scenes).inputs
    stays = warp(torch.ones_like(first), scenes.flow) > 0.99  # within the image

    def difference(flow):
        return (warp(second, flow) - first).abs()[stays].mean().item()

    right, still, wrong = map(difference, (scenes.flow, 0 * scenes.flow, -scenes.flow))
    assert right < 0.8 * still < 0.8 * wrong


# --- all of it ---


def test_learns(overfit, scenes):
    torch.manual_seed(0)
    model = FlowNet()
    example = TASK.prepare(scenes[:4])
    losses = overfit(TASK, model, example, steps=10, learning_rate=2e-3)
    assert losses[-1] < 0.7 * losses[0]


def test_figure_has_a_row_for_each_scene(scenes):
    assert len(TASK.figure(FlowNet().eval(), scenes).axes) == 16
