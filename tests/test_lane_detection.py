"""Lines of the road: model, positions, loss and metrics against re-computations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from torch import Generator, Tensor, nan, nn, tensor
from torch.nn.functional import conv2d

from src.plots import BLUE, GREEN, ORANGE
from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import LANE_ROWS
from src.vision_tasks.tasks.lane_detection import (
    LaneDetection,
    LaneDetector,
    centres,
    count_points,
    f1_score,
    lane_metrics,
    lines,
    median_lines,
    positions,
    probabilities,
    show_lines,
    true_lines,
)

TASK = LaneDetection()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/lane_detection.md"
F1, ERROR = "F1 of points within 2% of the width", "mean error where both are (px)"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(9, seed=2, size=32)


@pytest.fixture
def model() -> LaneDetector:
    """In float64, with BatchNorms that do something."""
    torch.manual_seed(0)
    model = LaneDetector().double().eval()
    for part in (model.sixteenth, model.eighth, model.quarter, model.convolve):
        for norm in part.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for values in (norm.weight, norm.bias, norm.running_mean):
                    nn.init.normal_(values, 0.3, 0.3)
                nn.init.uniform_(norm.running_var, 0.1, 0.5)
    return model.requires_grad_(False)


def logits_of(truth: Tensor) -> Tensor:
    """Logits whose softmax is the target."""
    return probabilities(truth).clamp(min=1e-12).log()


# --- the model ---


def plain_convolution(x: Tensor, block: nn.Sequential) -> Tensor:
    """3x3 convolution, BatchNorm by its running statistics, ReLU."""
    x = conv2d(x, block[0].weight, padding=1)
    norm = block[1]
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return (x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).clamp(min=0)


def between(count: int, places: Tensor) -> Tensor:
    """[K, count]: how much each of `count` pixels counts at K places in (0, 1)."""
    away = (places * count - 0.5).clamp(0, count - 1).unsqueeze(1) - torch.arange(count)
    return (1 - away.abs()).clamp(min=0)


def test_forward_is_the_decoder_read_on_the_grid(model):
    images = torch.rand(2, 3, 64, 96, generator=Generator().manual_seed(0)).double()
    _, quarter, eighth, sixteenth, x = model.encoder(images)
    for skip, block in (
        (sixteenth, model.sixteenth),
        (eighth, model.eighth),
        (quarter, model.quarter),
    ):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = plain_convolution(torch.cat([x, skip], dim=1), block.convolve)
    rows = between(16, 0.54 + 0.46 * torch.arange(24).double() / 23)
    columns = between(24, (torch.arange(48).double() + 0.5) / 48)
    x = rows @ x @ columns.T  # [2, 64, 24, 48]
    for block in model.convolve:
        x = plain_convolution(x, block)
    cells = torch.einsum("lc,bcrx->blrx", model.cell.weight[..., 0, 0], x)
    cells += model.cell.bias.view(3, 1, 1)
    absent = torch.einsum("lc,bcr->blr", model.absent.weight[..., 0], x.sum(3) / 48)
    absent += model.absent.bias.view(3, 1)
    expected = torch.cat([cells, absent.unsqueeze(3)], dim=3)
    assert expected.shape == (2, 3, 24, 49)
    # the grid's points are kept in float32
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-6)


def test_the_skips_matter_but_the_finest_is_not_used(model, monkeypatch):
    images = torch.rand(1, 3, 32, 32, generator=Generator().manual_seed(0)).double()
    features, whole = model.encoder(images), model(images)
    for name, feature in features._asdict().items():
        without = features._replace(**{name: torch.zeros_like(feature)})
        monkeypatch.setattr(model.encoder, "forward", lambda _, x=without: x)
        assert torch.allclose(model(images), whole, rtol=1e-3) == (name == "half")


def test_the_grid_looks_at_the_rows_and_cells_it_answers_for():
    """Features that hold their own coordinates are sampled where they should be."""
    points = LaneDetector().points
    assert points.shape == (1, 24, 48, 2)
    x, y = (points[0] + 1).unbind(-1)  # from 0 to 2
    assert torch.allclose(x / 2, (torch.arange(48) + 0.5) / 48, atol=1e-6)
    assert torch.allclose(y / 2, tensor(LANE_ROWS)[:, None], atol=1e-6)


def test_the_logits_do_not_depend_on_the_images_size():
    assert LaneDetector().eval()(torch.rand(1, 3, 96, 32)).shape == (1, 3, 24, 49)


def test_the_model_has_the_asked_start():
    start = Encoder(pretrained=True).stem[0].weight
    for pretrained, model in [
        (True, TASK.build_model(pretrained=True)),
        (False, TASK.build_model()),
        (False, LaneDetector()),
    ]:
        assert torch.equal(model.encoder.stem[0].weight, start) == pretrained
    (images,) = TASK.example_inputs()
    assert images.shape == (2, 3, 224, 224)
    assert 0 <= images.min() < 0.1 and 0.9 < images.max() <= 1
    assert TASK.example_inputs(3)[0].shape == (3, 3, 224, 224)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        LaneDetector()(torch.rand(shape))


# --- positions and targets ---


def test_a_position_is_the_expectation_over_the_best_cell_and_two_on_each_side():
    logits = 2 * torch.randn(40, 49, generator=Generator().manual_seed(0)).double()
    logits[0, 0], logits[1, 47], logits[2, 48] = 9, 9, 9  # both borders, "not there"
    expected = []
    for row in logits.tolist():
        best = max(range(48), key=lambda cell: row[cell])
        near = [cell for cell in range(48) if abs(cell - best) <= 2]
        weights = [math.exp(row[cell]) for cell in near]
        places = [
            (cell + 0.5) / 48 * weight
            for cell, weight in zip(near, weights, strict=True)
        ]
        expected.append(sum(places) / sum(weights))
    found = positions(logits.view(4, 10, 49))
    expected = tensor(expected, dtype=torch.float64).view(4, 10)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_positions_come_back_from_their_distribution():
    truth = tensor([0.1, 0.333, 0.5, 0.9, 0.011, 0.989])
    target = probabilities(truth)
    assert torch.allclose(target.sum(-1), torch.ones(6))
    assert (target > 0).sum(-1).max() == 2
    assert torch.allclose(positions(logits_of(truth)), truth, atol=1e-5)
    assert centres().tolist() == pytest.approx(
        [(cell + 0.5) / 48 for cell in range(48)]
    )


def test_targets_by_hand():
    """A quarter of the way from one middle to the next; beyond the outer middles."""
    truth = tensor([[(10.5 + 0.25) / 48, nan], [0.0, 0.999]])
    expected = torch.zeros(2, 2, 49)
    expected[0, 0, 10], expected[0, 0, 11] = 0.75, 0.25
    expected[0, 1, 48] = 1  # not there
    expected[1, 0, 0], expected[1, 1, 47] = 1, 1
    torch.testing.assert_close(probabilities(truth), expected, rtol=0, atol=1e-5)


def test_not_there_is_what_is_more_likely_so_than_not():
    logits = torch.full((4, 49), -1e4)
    logits[0, 20], logits[0, 48] = 0, 0  # exactly one half: there
    logits[1, 20], logits[1, 48] = 0, 0.01
    logits[2, [20, 21]] = math.log(0.3)  # likelier than any cell, but not one half
    logits[2, 48] = math.log(0.4)
    logits[3, 20] = 0
    found = lines(logits)
    assert found.isnan().tolist() == [False, True, False, False]
    assert found[[0, 2, 3]].tolist() == pytest.approx([20.5 / 48, 21 / 48, 20.5 / 48])


def test_a_far_second_peak_does_not_pull():
    logits = torch.full((49,), -20.0)
    logits[10], logits[40] = 2.0, 1.9
    assert positions(logits).item() == pytest.approx(10.5 / 48, abs=1e-4)


def test_positions_are_differentiable():
    logits = torch.zeros(49).index_fill(0, tensor([20]), 3.0).requires_grad_()
    positions(logits).backward()
    assert logits.grad[21] > 0 > logits.grad[19]  # more weight right moves it right
    assert logits.grad[30] == 0 and logits.grad[-1] == 0


# --- the batch ---


def test_a_batch_holds_images_from_0_to_1_and_lines_in_parts_of_the_width(scenes):
    batch = TASK.prepare(scenes)
    assert [len(batch.inputs), len(batch.targets)] == [1, 1]
    assert torch.equal(batch.inputs[0], scenes.images / 255)
    assert torch.equal(batch.targets[0].isnan(), scenes.lanes.isnan())
    expected = scenes.lanes / 32
    torch.testing.assert_close(batch.targets[0], expected, equal_nan=True)
    assert torch.equal(true_lines(scenes).nan_to_num(), expected.nan_to_num())


def test_mirroring_swaps_left_and_right(scenes):
    scenes = scenes[[0, 1, 2, 3] * 4]
    batch = TASK.prepare(scenes, Generator().manual_seed(4))
    flips = torch.rand(16, generator=Generator().manual_seed(4)) < 0.5
    assert 0 < flips.sum() < 16
    for index, flip in enumerate(flips):
        image, truth = scenes.images[index] / 255, scenes.lanes[index] / 32
        if flip:
            left, centre, right = truth
            image, truth = image.flip(2), torch.stack([1 - right, 1 - centre, 1 - left])
        assert torch.equal(batch.inputs[0][index], image)
        torch.testing.assert_close(batch.targets[0][index], truth, equal_nan=True)


# --- the metric and the baseline ---


def test_f1_by_hand():
    truth = tensor([[0.2, 0.4, 0.6, nan, nan]])
    predicted = tensor([[0.2, 0.4 + 0.9 * 2 / 96, 0.6 - 1.1 * 2 / 96, 0.5, nan]])
    assert count_points(predicted, truth) == (2, 4, 3)
    assert f1_score(predicted, truth) == pytest.approx(2 * 2 / (4 + 3))
    assert f1_score(truth, truth) == 1
    nothing = torch.full((1, 5), nan)
    assert f1_score(nothing, truth) == f1_score(truth, nothing) == 0
    assert f1_score(nothing, nothing) == 1


@pytest.mark.parametrize(
    ("column", "right"), [(50, 1), (46, 1), (50.05, 0), (45.95, 0), (51, 0)]
)
def test_two_pixels_of_96_are_within(column, right):
    assert f1_score(tensor([column / 96]), tensor([48 / 96])) == right


class Told(nn.Module):
    """Gives the logits that it was made with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images):
        assert len(images) == len(self.logits)
        return self.logits


def test_measure_by_hand(scenes):
    lanes = torch.full((2, 3, 24), nan)
    lanes[0, 0, :4], lanes[1, 2, 23] = 16.25, 8.0
    scenes = replace(scenes[:2], lanes=lanes)
    predicted = torch.full((2, 3, 24), nan)
    predicted[0, 0, :2] = 16.5 / 32  # 0.25 px off: right
    predicted[0, 0, 2] = 13.25 / 32  # 3 px off
    predicted[0, 1, 5] = 0.5  # invented
    predicted[1, 2, 22] = 8 / 32  # the wrong row
    found = TASK.measure(Told(logits_of(predicted)), scenes)
    assert found == {
        F1: pytest.approx(2 * 2 / (5 + 5)),
        "precision": pytest.approx(2 / 5),
        "recall": pytest.approx(2 / 5),
        ERROR: pytest.approx((0.25 + 0.25 + 3) / 3, rel=1e-3),
    }
    assert lane_metrics(
        predicted[:, :, :1], replace(scenes, lanes=lanes[:, :, :1])
    ) == {
        F1: 1,
        "precision": 1,
        "recall": 1,
        ERROR: pytest.approx(0.25),
    }


def test_measure_of_perfect_empty_and_swapped_predictions(scenes):
    truth = true_lines(scenes)
    perfect = {F1: 1, "precision": 1, "recall": 1, ERROR: 0}
    assert lane_metrics(truth, scenes) == perfect
    nowhere, nothing = torch.full_like(truth, nan), {"precision": 0, "recall": 0}
    nothing |= {F1: 0, ERROR: 0}  # and not nan
    assert TASK.measure(Told(logits_of(nowhere)), scenes) == nothing
    no_road = replace(scenes, lanes=nowhere)
    assert lane_metrics(truth, no_road) == nothing
    assert lane_metrics(nowhere, no_road) == nothing | {F1: 1}
    swapped = lane_metrics(truth.flip(1), scenes)
    assert swapped[F1] < 0.5 and swapped[ERROR] > 2


def test_baseline_by_hand(scenes):
    lanes = torch.full((4, 3, 24), nan)
    lanes[:3, 0, 0] = tensor([10.0, 16.0, 28.0])
    lanes[:2, 1, 1] = 8.0  # there in just a half
    lanes[0, 2, 2] = 8.0  # there in fewer than half
    train = replace(scenes[:4], lanes=lanes)
    median = median_lines(train)
    assert median.shape == (3, 24)
    assert median[0, 0] == 16 / 32 and median[1, 1] == 8 / 32
    assert median.isfinite().sum() == 2
    truth = torch.full((2, 3, 24), nan)
    truth[:, 0, 0] = tensor([16.5, 28.0])
    test = replace(scenes[:2], lanes=truth)
    assert TASK.baselines(train, test) == {
        "the training set's median lines": {
            F1: pytest.approx(2 * 1 / (4 + 2)),
            "precision": 1 / 4,
            "recall": 1 / 2,
            ERROR: pytest.approx((0.5 + 12) / 2),
        }
    }


# --- the loss ---


def test_loss_is_the_cross_entropy_and_half_the_distance_in_cells():
    generator = Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 24, 49, generator=generator).double()
    truth = torch.rand(2, 3, 24, generator=generator).double()
    truth[torch.rand(2, 3, 24, generator=generator) < 0.4] = nan
    target, there = probabilities(truth), ~truth.isnan()
    likely = logits.exp() / logits.exp().sum(-1, keepdim=True)
    entropy = -(target * likely.log()).sum() / (2 * 3 * 24)  # absent ones too
    away = [
        abs(found - true) * 48
        for found, true in zip(
            positions(logits)[there].tolist(), truth[there].tolist(), strict=True
        )
    ]
    expected = entropy.item() + 0.5 * sum(away) / len(away)
    assert 0 < len(away) < 2 * 3 * 24
    assert TASK.loss(logits, (truth,)).item() == pytest.approx(expected, rel=1e-9)


def test_loss_is_least_at_the_truth(scenes):
    (truth,) = TASK.prepare(scenes).targets
    target = logits_of(truth)
    wrong = 3 * torch.randn(target.shape, generator=Generator().manual_seed(0))
    losses = [
        TASK.loss(target * part + wrong * (1 - part), (truth,)).item()
        for part in (0, 0.3, 0.6, 1)
    ]
    assert losses == sorted(losses, reverse=True)
    weights = probabilities(truth)
    entropy = torch.special.entr(weights).sum(-1).mean().item()
    assert losses[-1] == pytest.approx(entropy, abs=0.02)  # cannot be less than that


def test_one_cell_off_costs_less_than_many():
    truth = torch.full((1, 3, 24), 0.5)
    losses = [
        TASK.loss(logits_of(truth + cells / 48), (truth,)).item()
        for cells in (0, 1, 2, 5)
    ]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


def test_loss_without_any_line_is_finite():
    truth = torch.full((2, 3, 24), nan)
    logits = torch.zeros(2, 3, 24, 49, requires_grad=True)
    loss = TASK.loss(logits, (truth,))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(49))
    assert logits.grad.isfinite().all()


# --- all of it ---


def test_learns(overfit):
    torch.manual_seed(0)
    model = TASK.build_model().train()
    batch = TASK.prepare(make_scenes(2, seed=2, size=64))
    losses = overfit(TASK, model, batch, steps=8, learning_rate=2e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_figure(scenes):
    predicted = true_lines(scenes[:8]) * 0.75 + 0.1
    figure = TASK.figure(Told(logits_of(predicted)), scenes)
    assert figure.get_suptitle() == "white: truth; coloured: predicted"
    assert len(figure.axes) == 8
    rows = np.array(LANE_ROWS) * 32 - 0.5
    for axis, image, truth, guess in zip(
        figure.axes, scenes.images, scenes.lanes, predicted, strict=False
    ):
        assert np.array_equal(axis.images[0].get_array(), image.permute(1, 2, 0))
        assert [to_hex(line.get_color()) for line in axis.lines] == [
            colour.lower() for colour in ["#ffffff"] * 3 + [BLUE, ORANGE, GREEN]
        ]
        for line, x in zip(axis.lines, [*truth, *(guess * 32)], strict=True):
            assert np.allclose(line.get_xdata(), x - 0.5, atol=0.01, equal_nan=True)
            assert np.allclose(line.get_ydata(), rows)
            assert line.get_linestyle() == "-"
        widths = [line.get_linewidth() for line in axis.lines]
        assert widths == [3.5] * 3 + [1.5] * 3  # so that the truth shows behind it
    plt.close(figure)


def test_lines_are_drawn_where_the_image_is():
    axis = plt.figure().subplots()
    points = torch.full((3, 24), 0.25)
    show_lines(axis, points, (32, 64), None, ":", width=2.5)
    assert axis.get_xlim() == (-0.5, 63.5) and axis.get_ylim() == (31.5, -0.5)
    for line in axis.lines:
        assert (line.get_xdata() == 64 / 4 - 0.5).all()
        assert np.allclose(line.get_ydata(), np.array(LANE_ROWS) * 32 - 0.5)
        assert (line.get_linestyle(), line.get_linewidth()) == (":", 2.5)
    plt.close(axis.figure)


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 7. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page and TASK.metric == F1
    assert f"the baseline ({TASK.baseline_name}); higher is better" in page
    assert TASK.higher_is_better and TASK.name == PAGE.stem
    assert TASK.recipe == TaskRecipe(250, 32, 1e-3, 0.01, pretrained=True, seed=13)
    assert (
        ": 250 steps of 32, peak learning rate 0.001, pre-trained start, seed 13;"
        in page
    )
