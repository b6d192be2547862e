"""Flow: the pyramid, its parts, loss and metrics against plain re-computations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Generator, Tensor, nn, tensor
from torch.nn.functional import conv2d

from src.vision_tasks.shared.drawing import show_flow
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks import optical_flow
from src.vision_tasks.tasks.optical_flow import (
    Flow,
    FlowNet,
    OpticalFlow,
    correlation,
    end_point_error,
    flow_metrics,
    show_arrows,
    upsample_flow,
    warp,
)

TASK = OpticalFlow()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/optical_flow.md"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(6, seed=1, size=32)


@pytest.fixture
def model() -> FlowNet:
    """In float64, with flows of several pixels and BatchNorms that do something."""
    torch.manual_seed(0)
    model = FlowNet().double().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(values, 0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.1, 0.5)
    for level in model.levels:
        nn.init.normal_(level.correct[2].weight, 0, 0.1)
    return model.requires_grad_(False)


@pytest.fixture
def frames() -> Tensor:
    """[2, 2, 3, 32, 64]: two pairs of frames, the second ones moved."""
    first = torch.rand(2, 3, 32, 64, generator=Generator().manual_seed(0)).double()
    return torch.stack([first, first.roll((2, -3), dims=(2, 3)) ** 2])


def constant_flow(right: float, down: float, *size: int) -> Tensor:
    """[1, 2, *size]: every pixel moves alike."""
    return (
        tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1).repeat(1, 1, *size)
    )


# --- its parts, written out ---


def plain_correlation(first: Tensor, second: Tensor, radius: int) -> Tensor:
    height, width = first.shape[2:]
    side = 2 * radius + 1
    shape = *first.shape[:2], height + 2 * radius, width + 2 * radius
    around = first.new_zeros(shape)
    around[..., radius : radius + height, radius : radius + width] = second
    return torch.stack(
        [
            (first * around[..., down : down + height, right : right + width]).sum(1)
            for down in range(side)
            for right in range(side)
        ],
        dim=1,
    )


def plain_warp(features: Tensor, flow: Tensor) -> Tensor:
    """The four neighbours of x + flow, each weighted by how near it is."""
    batch, channels, height, width = features.shape
    x = torch.arange(width) + flow[:, 0]  # [B, h, w]
    y = torch.arange(height).view(-1, 1) + flow[:, 1]
    result = torch.zeros_like(features)
    for column in (x.floor(), x.floor() + 1):
        for row in (y.floor(), y.floor() + 1):
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            weight *= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            place = place.long().view(batch, 1, -1).expand(-1, channels, -1)
            found = features.flatten(2).gather(2, place).view_as(features)
            result += weight.unsqueeze(1) * found
    return result


def plain_upsample_flow(flow: Tensor, factor: int) -> Tensor:
    """By matrices, whose rows say how much each old row or column counts."""

    def weights(count: int) -> Tensor:  # [factor * count, count]
        middles = (torch.arange(factor * count).double() + 0.5) / factor - 0.5
        away = middles.clamp(0, count - 1).unsqueeze(1) - torch.arange(count)
        return (1 - away.abs()).clamp(min=0)

    height, width = flow.shape[2:]
    return factor * weights(height) @ flow @ weights(width).T


def plain_convolution(x: Tensor, block: nn.Sequential) -> Tensor:
    """3x3 convolution, BatchNorm by its running statistics, ReLU."""
    x = conv2d(x, block[0].weight, padding=1)
    norm = block[1]
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return (x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).clamp(min=0)


def plain_features(model: FlowNet, frame: Tensor) -> list[Tensor]:
    """At 1/8, 1/4 and 1/2 of the resolution."""

    def pool(x: Tensor) -> Tensor:  # the largest of each 2 x 2
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])

    half, quarter, eighth = model.encoder
    x = conv2d(frame - 0.5, half[0].weight, half[0].bias, stride=2, padding=2)
    halves = plain_convolution(x.clamp(min=0), half[2])
    quarters = plain_convolution(pool(halves), quarter[1])
    eighths = plain_convolution(pool(quarters), eighth[1])
    return [plain_convolution(eighths, eighth[2]), quarters, halves]


def plain_level(level: nn.Module, first: Tensor, second: Tensor, flow: Tensor):
    def unit(features: Tensor) -> Tensor:
        features = conv2d(features, level.match.weight, level.match.bias)
        return features / features.square().sum(1, keepdim=True).sqrt()

    radius = {64: 4, 48: 3, 24: 2}[first.shape[1]]
    alike = plain_correlation(unit(first), unit(plain_warp(second, flow)), radius)
    x = torch.cat([alike, first, flow], dim=1)
    x = plain_convolution(plain_convolution(x, level.correct[0]), level.correct[1])
    last = level.correct[2]
    return flow + conv2d(x, last.weight, last.bias, padding=1)


# --- the model ---


def test_forward_is_the_pyramid_written_out(model, frames):
    first, second = (plain_features(model, frame) for frame in frames)
    flow, found = torch.zeros(2, 2, 2, 4).double(), []
    for level, one, other, scale in zip(
        model.levels, first, second, (8, 4, 2), strict=True
    ):
        flow = plain_level(level, one, other, plain_upsample_flow(flow, 2))
        found.append(plain_upsample_flow(flow, scale))
    output = model(*frames)
    assert isinstance(output, Flow)
    for name, expected in zip(("eighth", "quarter", "flow"), found, strict=True):
        assert expected.shape == (2, 2, 32, 64) and expected.abs().mean() > 1
        torch.testing.assert_close(
            getattr(output, name), expected, rtol=1e-9, atol=1e-9, msg=name
        )


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("warp", lambda features, flow: features),
        ("normalize", lambda features: features),
        ("correlation", lambda *args: 0 * correlation(*args)),
        ("upsample_flow", lambda flow, factor: upsample_flow(flow, factor) / factor),
    ],
)
def test_every_part_matters(model, frames, monkeypatch, part, instead):
    whole = model(*frames).flow
    monkeypatch.setattr(optical_flow, part, instead)
    assert (model(*frames).flow - whole).abs().mean() > 0.01


def test_a_level_corrects_what_the_coarser_one_found(model, frames):
    """A correction of 1 px at 1/8, 1/4 and 1/2 is one of 8, 4 and 2 of the image."""
    for level in model.levels:
        nn.init.zeros_(level.correct[2].weight)
        level.correct[2].bias.copy_(tensor([1.0, -0.5]))
    for found, total in zip(reversed(model(*frames)), (8, 12, 14), strict=True):
        expected = (
            constant_flow(total, -total / 2, 32, 64).double().expand(2, -1, -1, -1)
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_frames_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        FlowNet()(torch.rand(shape), torch.rand(shape))


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 3, 64, 64\] and \[1, 3, 64, 96\]"):
        FlowNet()(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 96))


def test_there_are_no_pretrained_weights():
    assert isinstance(TASK.build_model(), FlowNet)
    with pytest.raises(ValueError, match="pre-trained"):
        TASK.build_model(pretrained=True)


def test_example_inputs_are_two_different_frames():
    for batch, inputs in ((2, TASK.example_inputs()), (3, TASK.example_inputs(3))):
        first, second = inputs
        assert first.shape == second.shape == (batch, 3, 224, 224)
        assert not torch.equal(first, second)
        for frame in inputs:
            assert 0 <= frame.min() < 0.1 and 0.9 < frame.max() <= 1


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_correlation_is_that_of_each_pair_of_places(radius):
    generator = Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 3, 4, 5, generator=generator).double()
    result = correlation(first, second, radius)
    expected = plain_correlation(first, second, radius)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    above, right = result[:, : radius * (2 * radius + 1), 0], result[:, 2 * radius]
    assert (above == 0).all()  # above the image there is nothing
    assert (right[..., 4] == 0).all()  # nor to the right of it


def test_correlation_finds_the_motion():
    first = torch.randn(1, 16, 12, 12, generator=Generator().manual_seed(0))
    first /= first.norm(dim=1, keepdim=True)
    second = first.roll((1, -3), dims=(2, 3))  # a row down, three columns left
    best = correlation(first, second, radius=3).argmax(1)[0, 3:-3, 3:-3]
    assert (best // 7 - 3 == 1).all() and (best % 7 - 3 == -3).all()


def test_warp_undoes_the_motion():
    first = torch.rand(1, 3, 10, 12, generator=Generator().manual_seed(0))
    second = first.roll((1, -3), dims=(2, 3))
    back = warp(second, constant_flow(-3, 1, 10, 12))
    assert torch.allclose(back[..., :-1, 3:], first[..., :-1, 3:], atol=1e-5)
    assert (back[..., :3] == 0).all()  # what has left the image is not known
    assert torch.allclose(warp(first, constant_flow(0, 0, 10, 12)), first, atol=1e-5)


def test_warp_interpolates_and_is_0_outside():
    generator = Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, 7, generator=generator).double()
    flow = 4 * torch.randn(2, 2, 5, 7, generator=generator).double()
    expected = plain_warp(features, flow)
    torch.testing.assert_close(warp(features, flow), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [2, 4])
def test_an_upsampled_flow_counts_in_the_larger_images_pixels(factor):
    flow = torch.randn(1, 2, 3, 5, generator=Generator().manual_seed(0)).double()
    expected = plain_upsample_flow(flow, factor)
    assert expected.shape == (1, 2, 3 * factor, 5 * factor)
    torch.testing.assert_close(upsample_flow(flow, factor), expected)


# --- the loss and the metrics ---


def test_end_point_error_by_hand():
    error = end_point_error(constant_flow(4, 3, 2, 2), constant_flow(1, -1, 2, 2))
    assert error.shape == (1, 2, 2)
    assert (error == 5).all()  # 3 to the right, 4 down


def test_end_point_error_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\[1, 2, 4, 4\] but truth \[1, 2, 4, 8\]"):
        end_point_error(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 8))


def test_loss_is_the_mean_distance_of_each_level_the_finest_counting_most():
    generator = Generator().manual_seed(0)
    *levels, truth = torch.randn(4, 3, 2, 4, 5, generator=generator).double()
    flow, quarter, eighth = (
        ((level - truth) ** 2).sum(1).sqrt().sum().item() / (3 * 4 * 5)
        for level in levels
    )
    loss = TASK.loss(Flow(*levels), (truth,)).item()
    assert loss == pytest.approx(flow + quarter / 2 + eighth / 4, rel=1e-12)
    assert TASK.loss(Flow(truth, truth, truth), (truth,)) == 0


@pytest.mark.parametrize(
    ("flow", "truth", "under", "outlier"),
    [
        ((0.99, 0), (0, 0), 1, 0),
        ((0, 1), (0, 0), 0, 0),  # just 1 px is not under 1 px
        ((0, 3), (0, 0), 0, 0),  # just 3 px are not more
        ((0, 3.01), (0, 0), 0, 1),
        ((84, 0), (80, 0), 0, 0),  # just 5%
        ((84.1, 0), (80, 0), 0, 1),
        ((103, 0), (98, 0), 0, 1),  # 5.1% of the true motion, 4.9% of the predicted
        ((11, 0), (8.5, 0), 0, 0),  # 29%, but under 3 px
        ((0, 83.5), (0, 80), 0, 0),  # 4%; down counts as much as right
    ],
)
def test_thresholds_are_strict_and_an_outlier_needs_both(flow, truth, under, outlier):
    measured = flow_metrics(constant_flow(*flow, 1, 1), constant_flow(*truth, 1, 1))
    assert [measured["under 1 px"], measured["Fl"]] == [under, outlier]


class Told(nn.Module):
    """Gives the flow that it was made with; the coarser levels are worthless."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, first, second):
        assert len(first) == len(second) == len(self.flow)
        return Flow(self.flow, self.flow + 99, self.flow - 99)


def test_measure_and_baselines_by_hand(scenes):
    flow = torch.zeros(4, 2, 32, 32)
    flow[0], flow[1, 0], flow[2, 1] = 0.5, 6.0, -2.0
    test = replace(scenes[:4], flow=flow)
    still = {
        "EPE (px)": pytest.approx((0.5**0.5 + 6 + 2 + 0) / 4),
        "under 1 px": 2 / 4,
        "Fl": 1 / 4,
    }
    assert TASK.measure(Told(torch.zeros_like(flow)), test) == still
    perfect = {"EPE (px)": 0, "under 1 px": 1, "Fl": 0}
    assert TASK.measure(Told(flow), test) == perfect
    backwards = TASK.measure(Told(-flow), test)
    assert backwards["EPE (px)"] == pytest.approx((2 * 0.5**0.5 + 12 + 4) / 4)

    train = replace(scenes[:2], flow=torch.zeros(2, 2, 32, 32))
    train.flow[0, 0, :16] = 12.0  # on average 6 to the right in the upper half
    upper = (0.5**2 + 5.5**2) ** 0.5, 0, (6**2 + 2**2) ** 0.5, 6
    lower = 0.5**0.5, 6, 2, 0
    assert TASK.baselines(train, test) == {
        "zero flow": still,
        "mean flow at each pixel position": {
            "EPE (px)": pytest.approx((sum(upper) + sum(lower)) / 8),
            "under 1 px": 3 / 8,
            "Fl": 4 / 8,
        },
    }


def test_an_outlier_is_judged_by_the_true_motion(scenes):
    """Off by 5 px, 5.1% of the true motion but 4.9% of the predicted."""
    true, other = (constant_flow(right, 0, 32, 32) for right in (98, 103))
    test, train = replace(scenes[:1], flow=true), replace(scenes[:1], flow=other)
    assert TASK.measure(Told(other), test)["Fl"] == 1
    baselines = TASK.baselines(train, test)
    assert baselines["mean flow at each pixel position"]["Fl"] == 1


# --- the batch ---


def test_a_batch_holds_two_frames_from_0_to_1_and_the_flow(scenes):
    batch = TASK.prepare(scenes)
    first, second = batch.inputs
    (flow,) = batch.targets
    assert torch.equal(first, scenes.images / 255)
    assert torch.equal(second, scenes.next_images / 255)
    assert torch.equal(flow, scenes.flow)


def test_mirrored_motion_goes_the_other_way(scenes):
    scenes = scenes[[0, 1, 2, 3] * 4]
    batch = TASK.prepare(scenes, Generator().manual_seed(4))
    flips = torch.rand(16, generator=Generator().manual_seed(4)) < 0.5
    assert 0 < flips.sum() < 16
    for index, flip in enumerate(flips):
        axes, sign = ([2], -1) if flip else ([], 1)
        first, second = (frames[index] for frames in batch.inputs)
        assert torch.equal(first, scenes.images[index].flip(axes) / 255)
        assert torch.equal(second, scenes.next_images[index].flip(axes) / 255)
        right, down = scenes.flow[index].flip(axes)
        assert torch.equal(batch.targets[0][index], torch.stack([sign * right, down]))


def test_true_flow_fetches_the_first_frame_from_the_next():
    """What the scenes call flow is what `warp` takes; with -flow, it would be worse."""
    scenes = make_scenes(8, seed=1, size=64)
    first, second = TASK.prepare(scenes).inputs
    stays = warp(torch.ones_like(first), scenes.flow) > 0.99  # within the image

    def difference(flow):
        return (warp(second, flow) - first).abs()[stays].mean().item()

    right, still, wrong = map(difference, (scenes.flow, 0 * scenes.flow, -scenes.flow))
    assert right < 0.8 * still < 0.8 * wrong


# --- all of it ---


def test_learns(overfit):
    torch.manual_seed(0)
    batch = TASK.prepare(make_scenes(4, seed=1, size=64))
    losses = overfit(TASK, FlowNet(), batch, steps=10, learning_rate=2e-3)
    assert losses[-1] < 0.7 * losses[0]


def arrows(axis) -> tuple:
    """Where the arrows start, and where they point: four lists."""
    (quiver,) = axis.collections
    assert (quiver.scale, quiver.scale_units, quiver.angles) == (1, "xy", "xy")
    return tuple(
        np.ravel(values).tolist() for values in (quiver.X, quiver.Y, quiver.U, quiver.V)
    )


def test_figure(scenes):
    predicted = -scenes.flow
    flow = scenes.flow.clone()
    flow[0] *= 10
    flow[1] /= 100  # little motion: colours as of 3 px, lest noise be shown large
    figure = TASK.figure(Told(predicted[:4]), replace(scenes, flow=flow))
    axes = np.array(figure.axes).reshape(4, 4)
    assert [axis.get_title() for axis in axes[0]] == [
        "first frame",
        "brightness change",
        "true flow",
        "predicted flow",
    ]
    for index, row in enumerate(axes):
        shown = [axis.images[0].get_array() for axis in row]
        first, second = scenes.images[index], scenes.next_images[index]
        assert np.array_equal(shown[0], first.permute(1, 2, 0))
        change = second.float().mean(0) - first.float().mean(0)
        assert np.allclose(shown[1], change, atol=1e-4)
        assert row[1].images[0].get_clim() == (-128, 128)  # grey where it stays
        assert row[1].images[0].get_cmap().name == "gray"
        lengths = (flow[index] ** 2).sum(0).sqrt()
        largest = max(3.0, np.quantile(lengths.numpy(), 0.98))
        for axis, array, motion in zip(
            row[2:], shown[2:], (flow[index], predicted[index]), strict=True
        ):
            alone = plt.figure().subplots(1, 2)
            show_flow(alone[0], motion, largest)
            show_arrows(alone[1], motion)
            assert np.allclose(array, alone[0].images[0].get_array(), atol=1e-5)
            assert arrows(axis) == arrows(alone[1])
            plt.close(alone[0].figure)
    plt.close(figure)


def test_arrows_start_in_the_middles_of_tiles_of_12_pixels():
    flow = torch.stack(
        torch.meshgrid(torch.arange(20), torch.arange(40), indexing="ij")
    )
    axis = plt.figure().subplots()
    show_arrows(axis, flow.float())
    columns, rows = [6, 18, 30, 6, 18, 30], [6, 6, 6, 18, 18, 18]
    assert arrows(axis) == (
        columns,
        rows,
        rows,
        columns,
    )  # (right, down) = (row, column)
    plt.close(axis.figure)


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 6. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page
    assert f"the baseline ({TASK.baseline_name}); lower is better" in page
    assert not TASK.higher_is_better and TASK.name == PAGE.stem
    assert TASK.recipe == TaskRecipe(600, 16, 2e-3, 0.01, pretrained=False, seed=13)
    assert ": 600 steps of 16, peak learning rate 0.002, random start, seed 13;" in page
