"""Lines of the road: positions from logits and back, F1 and loss by hand, targets."""

from dataclasses import replace

import pytest
import torch
from torch import nan, nn, tensor

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import LANE_ROWS
from src.vision_tasks.tasks.lane_detection import (
    CELLS,
    TOLERANCE,
    LaneDetection,
    LaneDetector,
    centres,
    count_points,
    f1_score,
    lines,
    median_lines,
    positions,
    probabilities,
    true_lines,
)

TASK = LaneDetection()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(6, seed=2, size=64)


def logits_of(truth: torch.Tensor) -> torch.Tensor:
    """Logits whose softmax is the target."""
    return probabilities(truth).clamp(min=1e-12).log()


# --- the model ---


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes_do_not_depend_on_the_image(height, width):
    model = LaneDetector().eval()
    assert model(torch.rand(2, 3, height, width)).shape == (2, 3, 24, CELLS + 1)


def test_example_inputs_fit_the_model():
    assert TASK.build_model()(*TASK.example_inputs(2)).shape == (2, 3, 24, 49)


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        LaneDetector()(torch.rand(shape))


def test_the_grid_looks_at_the_rows_and_cells_it_answers_for():
    """Features that hold their own coordinates are sampled where they should be."""
    model = LaneDetector()
    size = 56
    middles = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    sampled = nn.functional.grid_sample(
        torch.stack([x, y])[None],
        model.points,
        padding_mode="border",
        align_corners=False,
    )[0]
    assert torch.allclose(sampled[0], centres().expand(24, -1), atol=1e-3)
    rows = tensor(LANE_ROWS).clamp(max=1 - 0.5 / size)  # the last is the very border
    assert torch.allclose(sampled[1], rows[:, None].expand(-1, CELLS), atol=1e-3)


# --- positions and targets ---


def test_positions_come_back_from_their_distribution():
    truth = tensor([0.1, 0.333, 0.5, 0.9, 0.011, 0.989])
    target = probabilities(truth)
    assert torch.allclose(target.sum(-1), torch.ones(6))
    assert (target > 0).sum(-1).max() == 2
    assert torch.allclose(positions(logits_of(truth)), truth, atol=1e-5)


def test_beyond_the_outer_cells_middles_the_outer_cell_has_it_all():
    target = probabilities(tensor([0.0, 0.999]))
    assert target[0, 0] == 1 and target[1, CELLS - 1] == 1


def test_not_there_has_a_probability_of_its_own():
    target = probabilities(tensor([nan, 0.5]))
    assert target[:, -1].tolist() == [1, 0]
    assert target[0, :-1].sum() == 0
    found = lines(logits_of(tensor([nan, 0.5])))
    assert found[0].isnan() and found[1] == pytest.approx(0.5, abs=1e-5)


def test_a_far_second_peak_does_not_pull():
    logits = torch.full((CELLS + 1,), -20.0)
    logits[10], logits[40] = 2.0, 1.9
    assert positions(logits).item() == pytest.approx(10.5 / CELLS, abs=1e-4)


def test_positions_are_differentiable():
    logits = torch.zeros(CELLS + 1).index_fill(0, tensor([20]), 3.0).requires_grad_()
    positions(logits).backward()
    assert logits.grad[21] > 0 > logits.grad[19]  # more weight right moves it right
    assert logits.grad[30] == 0 and logits.grad[-1] == 0


def test_targets_are_parts_of_the_width(scenes):
    lanes = torch.full((1, 3, 24), nan)
    lanes[0, 1, 5] = 16.0
    (truth,) = TASK.prepare(replace(scenes[:1], lanes=lanes)).targets
    assert truth[0, 1, 5] == 0.25  # of 64 pixels
    assert truth.isfinite().sum() == 1


def test_mirroring_swaps_left_and_right(scenes):
    plain, mirrored = TASK.prepare(scenes), None
    for seed in range(20):
        mirrored = TASK.prepare(scenes, torch.Generator().manual_seed(seed))
        if not torch.equal(mirrored.inputs[0][0], plain.inputs[0][0]):
            break
    assert torch.equal(mirrored.inputs[0][0], plain.inputs[0][0].flip(2))
    before, after = plain.targets[0][0], mirrored.targets[0][0]
    for line, other in ((0, 2), (1, 1), (2, 0)):
        assert torch.equal(after[line].isnan(), before[other].isnan())
        assert torch.allclose(after[line], 1 - before[other], equal_nan=True)


# --- the metric and the baseline ---


def test_f1_by_hand():
    truth = tensor([[0.2, 0.4, 0.6, nan, nan]])
    predicted = tensor([[0.2, 0.4 + 0.9 * TOLERANCE, 0.6 + 1.1 * TOLERANCE, 0.5, nan]])
    assert count_points(predicted, truth) == (2, 4, 3)
    assert f1_score(predicted, truth) == pytest.approx(2 * 2 / (4 + 3))
    assert f1_score(truth, truth) == 1
    nothing = torch.full((1, 5), nan)
    assert f1_score(nothing, truth) == 0
    assert f1_score(nothing, nothing) == 1


def test_two_pixels_of_96_are_within_and_three_are_not():
    assert f1_score(tensor([50 / 96]), tensor([48 / 96])) == 1
    assert f1_score(tensor([51 / 96]), tensor([48 / 96])) == 0


def test_baseline_by_hand(scenes):
    lanes = torch.full((5, 3, 24), nan)
    lanes[:3, 0, 0] = tensor([10.0, 20.0, 60.0])
    lanes[:2, 0, 1] = 30.0  # there in fewer than half
    train = replace(scenes[:5], lanes=lanes)
    median = median_lines(train)
    assert median[0, 0] == 20 / 64
    assert median.isfinite().sum() == 1
    truth = torch.full((2, 3, 24), nan)
    truth[:, 0, 0] = tensor([20.5, 40.0])
    test = replace(scenes[:2], lanes=truth)
    assert TASK.baseline(train, test) == pytest.approx(2 * 1 / (2 + 2))


class Knows(nn.Module):
    """Gives the logits that it was made with."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def test_measure(scenes):
    truth = true_lines(scenes)
    right = TASK.measure(Knows(logits_of(truth)), scenes)
    assert right[TASK.metric] == right["precision"] == right["recall"] == 1
    # a cell's half at the image's border can't be told
    assert right["mean error where both are (px)"] < 0.05
    nowhere = TASK.measure(Knows(logits_of(torch.full_like(truth, nan))), scenes)
    assert nowhere[TASK.metric] == 0
    assert nowhere["mean error where both are (px)"] == 0  # and not nan


# --- the loss ---


def test_loss_is_least_at_the_truth(scenes):
    (truth,) = TASK.prepare(scenes).targets
    target = logits_of(truth)
    wrong = 3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
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
    shifts = [0, 1 / CELLS, 2 / CELLS, 5 / CELLS]
    losses = [TASK.loss(logits_of(truth + s), (truth,)).item() for s in shifts]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


def test_loss_without_any_line_is_finite():
    truth = torch.full((2, 3, 24), nan)
    logits = torch.zeros(2, 3, 24, CELLS + 1, requires_grad=True)
    loss = TASK.loss(logits, (truth,))
    loss.backward()
    assert loss.item() == pytest.approx(torch.tensor(CELLS + 1.0).log().item())
    assert logits.grad.isfinite().all()


def test_a_few_steps_on_few_scenes_lower_the_loss(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model().train()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=12, learning_rate=2e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_figure(scenes):
    figure = TASK.figure(LaneDetector().eval(), scenes)
    axes = [axis for axis in figure.axes if axis.images]
    assert len(axes) == len(scenes)
    assert all(len(axis.lines) == 6 for axis in axes)
